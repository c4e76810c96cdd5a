"""Cross-attention prompts (CVPT: Huang et al., ICCV 2025, arXiv:2408.14961): attended to after self-attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor

from vpt.backbones.base import BackboneSpec
from vpt.backbones.tokens import SeparateContext
from vpt.prompts.base import MOST, Blocks, BlocksSetting, FromTokens, Prompts, PromptTable, choose_blocks, compared


class CrossConfig(FromTokens):
    method: Literal["cross"] = "cross"
    """Tokens that every block attends to after its self-attention (CVPT)."""
    count: int = Field(20, ge=1, le=MOST)
    """Prompts per block."""
    blocks: BlocksSetting = "all"
    """Which blocks have prompts: "all", "global" (those that attend to the whole image), "last:K", or their numbers."""
    normed: bool = False
    """Tokens and prompts go through the block's first norm before they meet."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Probability that a number of a prompt is dropped in training."""

    compared = (compared("cross", "cross-attention (CVPT), 20", count=20),)

    def build(self, spec: BackboneSpec) -> CrossPrompts:
        return CrossPrompts(spec, **self.arguments())


class CrossPrompts(Prompts):
    """`count` learned tokens for each chosen block, attended to after its self-attention: x <- x + CA(x, P).

    CA takes queries from x, keys and values from the prompts, with a softmax over the prompts alone, so however many
    they are they take nothing from the attention between the patches. Its weights are the block's own, frozen, as in
    the paper's weight sharing; they are not copied. For the whole block see `Backbone.block`.

    As in the paper's formula x + CA(x, P), and in the authors' code, neither x nor P is normed: the query is x as
    self-attention left it. With `normed` both go through the block's first norm, for normed tokens are what those
    projections were trained on; that is a form of this package, and was its only one before version 0.2.0. Every token
    asks: patches, CLS and registers. The block's own layer scale, where it has one, applies to CA too.

    Prompts start as VPT's. Even then CA adds something to x, so training does not start at the frozen encoder.
    Parameters: blocks * count * C.

    Args:
        spec: of the encoder; count: prompts per block; blocks: see `DeepPrompts`; normed: see above; dropout: see
        `PromptTable`.
    """

    def __init__(
        self,
        spec: BackboneSpec,
        *,
        count: int = 20,
        blocks: Blocks = "all",
        normed: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.count = count
        self.normed = normed
        self.starts = choose_blocks(blocks, spec)
        self.rows = {block: row for row, block in enumerate(self.starts)}
        self.table = PromptTable(spec, blocks=self.starts, count=count, project=None, dropout=dropout)

    def first(self, depth: int) -> int:
        return min(self.rows)

    def context(self, i: int, batch: int) -> SeparateContext | None:
        return SeparateContext(self.table.row(self.rows[i], batch), self.normed) if i in self.rows else None

    def start_from(self, tokens: Sequence[Tensor]) -> None:
        """Set the prompts to tokens (count, C), one tensor for each of the blocks."""
        self.table.start_from(tokens)
