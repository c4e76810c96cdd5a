"""VPT-deep (Jia et al., ECCV 2022, section 3.2): fresh prompts for every block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor

from vpt.backbones.base import BackboneSpec
from vpt.prompts.base import (
    MOST,
    Blocks,
    BlocksSetting,
    FromTokens,
    Prompts,
    PromptTable,
    choose_blocks,
    compared,
    one_width,
)
from vpt.sections import LARGEST_WIDTH


class DeepConfig(FromTokens):
    method: Literal["deep"] = "deep"
    """Tokens of its own for every block, attended to as keys and values (VPT-deep)."""
    count: int = Field(10, ge=1, le=MOST)
    """Prompts per block."""
    blocks: BlocksSetting = "all"
    """Which blocks have prompts: "all", "global" (those that attend to the whole image), "last:K", or their numbers."""
    shared: bool = False
    """The same prompts in all of these blocks."""
    project: int | None = Field(None, ge=1, le=LARGEST_WIDTH)
    """Width in which prompts are learned, mapped to the encoder's by one shared linear layer; null: the encoder's own.
    """
    dropout: float = Field(0.0, ge=0, lt=1)
    """Probability that a number of a prompt is dropped in training."""

    compared = (
        compared("deep", "VPT-deep, 10", count=10),
        compared("deep_tokens", "VPT-deep, 10, from tokens (SPT)", count=10, init="tokens"),
        compared("deep_kmeans", "VPT-deep, 10, from k-means of tokens (SPT)", count=10, init="kmeans"),
        compared("deep_vipamin", "VPT-deep, 10, VIPAMIN", count=10, init="vipamin"),
        compared("deep_shared", "deep, 10, the same in all blocks", count=10, shared=True),
    )

    def build(self, spec: BackboneSpec) -> DeepPrompts:
        return DeepPrompts(spec, **self.arguments())


class DeepPrompts(Prompts):
    """`count` learned tokens for each chosen block, attended to as keys and values. Parameters: blocks * count * C.

    Where they are `shared`, all chosen blocks have the same tokens. Parameters: count * C.

    The published form concatenates them to the sequence and throws their outputs away after the block; the patches and
    the CLS token come out the same. A block that is not chosen runs without prompts.

    Args:
        spec: of the encoder; count: prompts per block; project, dropout: see `PromptTable`;
        blocks: "all", "global" (those that attend to the whole image), "last:K" or block numbers;
        shared: one set of prompts for all of them.
    """

    constant = True

    def __init__(
        self,
        spec: BackboneSpec,
        *,
        count: int = 10,
        blocks: Blocks = "all",
        shared: bool = False,
        project: int | None = None,
        dropout: float = 0.0,
    ):
        super().__init__()
        chosen = choose_blocks(blocks, spec)
        if shared:
            one_width(spec, chosen, "one set of prompts for all blocks (shared)")
        self.rows = {block: 0 if shared else row for row, block in enumerate(chosen)}
        kept = chosen[:1] if shared else chosen
        self.table = PromptTable(spec, blocks=kept, count=count, project=project, dropout=dropout)
        self.count = count
        self.starts = chosen if project is None and not shared else ()

    def first(self, depth: int) -> int:
        return min(self.rows)

    def context(self, i: int, batch: int) -> Tensor | None:
        return self.table.row(self.rows[i], batch) if i in self.rows else None

    def start_from(self, tokens: Sequence[Tensor]) -> None:
        """Set the prompts to tokens (count, C), one tensor for each of the blocks, or one where they are shared."""
        self.table.start_from(tokens)
