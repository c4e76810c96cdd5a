"""Low-rank deep prompts (BPT: Wang, Duan, Kong, ICCV 2025, arXiv:2506.22908): each block's prompts are a product."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from vpt.backbones.base import BackboneSpec
from vpt.prompts.base import (
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
from vpt.prompts.starts.random import low_rank_bound


class LowRankConfig(PromptSettings):
    method: Literal["low_rank"] = "low_rank"
    count: int = Field(50, ge=1)
    rank: int = Field(8, ge=1)
    blocks: BlocksSetting = "all"

    compared = (compared("low_rank", "low rank (BPT), 50 of rank 8", count=50, rank=8),)

    def build(self, spec: BackboneSpec) -> LowRankPrompts:
        return LowRankPrompts(spec, **self.arguments())


class LowRankPrompts(Prompts):
    """P_i = A_i B_i^T for every chosen block i, attended to as keys and values, as in VPT-deep.

    A_i: (count, rank), B_i: (C, rank), P_i: (count, C). Parameters: blocks * (count + C) * rank, fewer than VPT-deep's
    while rank < count * C / (count + C). Both factors start from the same uniform distribution, such that the elements
    of P_i have the variance of the published start of VPT; neither is zero, so gradients reach both.

    The paper's other form, prompts multiplied by a fixed matrix that whitens the encoder's keys, is left out.

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

        def factor(rows: int, length: int, width: int) -> Tensor:
            bound = low_rank_bound(rank, width, spec.patch)
            return torch.empty(rows, length, rank).uniform_(-bound, bound)

        self.left = by_width(self.widths, lambda rows, width: factor(rows, count, width))
        self.right = by_width(self.widths, lambda rows, width: factor(rows, width, width))

    def first(self, depth: int) -> int:
        return min(self.rows)

    def context(self, i: int, batch: int) -> Tensor | None:
        if i not in self.rows:
            return None
        left, right = (row_of(factor, self.widths, self.rows[i]) for factor in (self.left, self.right))
        return left @ right.T
