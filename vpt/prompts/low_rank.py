"""Low-rank deep prompts (BPT: Wang, Duan, Kong, ICCV 2025, arXiv:2506.22908): each block's prompts are a product."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vpt.backbones.base import BackboneSpec, Tokens
from vpt.errors import VptError
from vpt.prompts.base import Blocks, Prompts, choose_blocks
from vpt.prompts.random import low_rank_bound


class LowRankPrompts(Prompts):
    """P_i = A_i B_i^T for every chosen block i, attended to as keys and values, as in VPT-deep.

    A_i: (count, rank), B_i: (C, rank), P_i: (count, C). Parameters: blocks * (count + C) * rank, fewer than VPT-deep's
    while rank < count * C / (count + C). Both factors start from the same uniform distribution, such that the elements
    of P_i have the variance of the published start of VPT; neither is zero, so gradients reach both.

    The paper's other form, prompts multiplied by a fixed matrix that whitens the encoder's keys, is left out.

    Args:
        spec: of the encoder; count: prompts per block; rank: columns of A and B; blocks: see `DeepPrompts`.
    """

    fixed = True

    def __init__(self, spec: BackboneSpec, *, count: int = 50, rank: int = 8, blocks: Blocks = "all"):
        super().__init__()
        for name, value in (("count", count), ("rank", rank)):
            if value < 1:
                raise VptError(f"prompts: {name} is {value}; at least 1 is needed, or choose `none` for no prompts")
        self.rows = {block: row for row, block in enumerate(choose_blocks(blocks, spec.depth, spec.windowed))}
        bound = low_rank_bound(rank, spec.width, spec.patch)
        self.left = nn.Parameter(torch.empty(len(self.rows), count, rank).uniform_(-bound, bound))
        self.right = nn.Parameter(torch.empty(len(self.rows), spec.width, rank).uniform_(-bound, bound))

    def first(self, depth: int) -> int:
        return min(self.rows)

    def enter(self, i: int, tokens: Tokens) -> tuple[Tokens, Tensor | None]:
        if i not in self.rows:
            return tokens, None
        row = self.rows[i]
        return tokens, self.left[row] @ self.right[row].T
