"""Low-rank deep prompts (BPT: Wang, Duan, Kong, ICCV 2025, arXiv:2506.22908): each block's prompts are a product."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from vpt.backbones.base import BackboneSpec
from vpt.prompts.base import (
    MOST,
    Blocks,
    BlocksSetting,
    Prompts,
    PromptSettings,
    by_width,
    choose_blocks,
    compared,
    require_positive,
    row_of,
)
from vpt.prompts.starts.random import left_factor, right_factor
from vpt.sections import LARGEST_WIDTH


class LowRankConfig(PromptSettings):
    method: Literal["low_rank"] = "low_rank"
    """Prompts for every block as a product of two narrow factors (BPT)."""
    count: int = Field(50, ge=1, le=MOST)
    """Prompts per block."""
    rank: int = Field(8, ge=1, le=LARGEST_WIDTH)
    """Columns of both factors."""
    blocks: BlocksSetting = "all"
    """Which blocks have prompts: "all", "global" (those that attend to the whole image), "last:K", or their numbers."""

    compared = (compared("low_rank", "low rank (BPT), 50 of rank 8", count=50, rank=8),)

    def build(self, spec: BackboneSpec) -> LowRankPrompts:
        return LowRankPrompts(spec, **self.arguments())


class LowRankPrompts(Prompts):
    """P_i = A_i B_i^T for every chosen block i, attended to as keys and values, as in VPT-deep.

    A_i: (count, rank), B_i: (C, rank), P_i: (count, C). Parameters: blocks * (count + C) * rank, fewer than VPT-deep's
    while rank < count * C / (count + C).

    The start is that of the authors' BPT-bilinear: A from N(0, 0.02^2), B from U(-b, b) with b = sqrt(6 / (C + rank))
    (Xavier's), so that an element of P_i has the deviation 0.02 sqrt(2 rank / (C + rank)), 0.0029 for C = 768 and rank
    8, where VPT's has 0.036. Neither factor is zero, so gradients reach both.

    The paper's other form, in which B starts as (or is) a matrix that whitens the encoder's keys, is left out. In their
    code it is the only one for prompts in every block; BPT-bilinear is written there for the first block alone.

    Args:
        spec: of the encoder; count: prompts per block; rank: columns of A and B; blocks: see `DeepPrompts`.
    """

    constant = True

    def __init__(self, spec: BackboneSpec, *, count: int = 50, rank: int = 8, blocks: Blocks = "all"):
        super().__init__()
        require_positive(count=count, rank=rank)
        chosen = choose_blocks(blocks, spec)
        self.rows = {block: row for row, block in enumerate(chosen)}
        self.widths = [spec.blocks[i].width for i in chosen]
        self.left = by_width(self.widths, lambda rows, _: left_factor(rows, count, rank))
        self.right = by_width(self.widths, lambda rows, width: right_factor(rows, width, rank))

    def first(self, depth: int) -> int:
        return min(self.rows)

    def context(self, i: int, batch: int) -> Tensor | None:
        if i not in self.rows:
            return None
        left, right = (row_of(factor, self.widths, self.rows[i]) for factor in (self.left, self.right))
        return left @ right.T
