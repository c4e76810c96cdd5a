"""VPT-shallow (Jia et al., ECCV 2022, section 3.2): prompts enter once and travel through all blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from vpt.backbones.base import BackboneSpec
from vpt.backbones.tokens import Tokens
from vpt.prompts.base import MOST, FromTokens, Prompts, PromptTable, compared, one_width, shared_over_batch
from vpt.sections import LARGEST_WIDTH


class ShallowConfig(FromTokens):
    method: Literal["shallow"] = "shallow"
    """Tokens beside the patches of the first block, which travel on through all of them (VPT-shallow)."""
    count: int = Field(50, ge=1, le=MOST)
    """Prompts."""
    project: int | None = Field(None, ge=1, le=LARGEST_WIDTH)
    """Width in which prompts are learned, mapped to the encoder's by one shared linear layer; null: the encoder's own.
    """
    dropout: float = Field(0.0, ge=0, lt=1)
    """Probability that a number of a prompt is dropped in training."""

    compared = (compared("shallow", "VPT-shallow, 50", count=50),)

    def build(self, spec: BackboneSpec) -> ShallowPrompts:
        return ShallowPrompts(spec, **self.arguments())


class ShallowPrompts(Prompts):
    """`count` learned tokens beside the patches of the first block: [CLS; prompts; patches]. Parameters: count * C.

    Of an encoder that `carries_prompts` through stages of several widths (Swin) C is the width of the first.

    Args:
        spec: of the encoder; count: number of prompts; project, dropout: see `PromptTable`.

    Raises:
        VptError: an encoder whose blocks change their width and that does not carry prompts along.
    """

    def __init__(self, spec: BackboneSpec, *, count: int = 50, project: int | None = None, dropout: float = 0.0):
        super().__init__()
        if not spec.carries_prompts:
            one_width(spec, range(spec.depth), "a prompt that travels through all blocks (shallow)")
        self.table = PromptTable(spec, blocks=(0,), count=count, project=project, dropout=dropout)
        self.count = count
        self.starts = (0,) if project is None else ()

    def enter(self, i: int, tokens: Tokens, state: Any) -> tuple[Tokens, Tensor | None]:
        if i > 0:
            return tokens, None
        batch = tokens.grid.shape[0]
        return replace(tokens, prompts=shared_over_batch(self.table.row(0, batch), batch)), None

    def start_from(self, tokens: Sequence[Tensor]) -> None:
        """Set the prompts to tokens (1, count, C)."""
        self.table.start_from(tokens)
