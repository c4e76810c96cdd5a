"""Random starts, as published."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def uniform_bound(width: int, patch: tuple[int, int]) -> float:
    """v = sqrt(6 / (3 * ph * pw + width)): Xavier's bound for the patch embedding, 0.0625 for ViT-B/16."""
    return math.sqrt(6 / (3 * patch[0] * patch[1] + width))


def uniform_prompts(
    rows: int, count: int, width: int, patch: tuple[int, int], generator: torch.Generator | None = None
) -> Tensor:
    """(rows, count, width) from U(-v, v) with v = `uniform_bound` (Jia et al., ECCV 2022)."""
    bound = uniform_bound(width, patch)
    return torch.empty(rows, count, width).uniform_(-bound, bound, generator=generator)


def low_rank_bound(rank: int, width: int, patch: tuple[int, int]) -> float:
    """a = (3 v^2 / rank)^(1/4), so that A B^T of `rank` columns from U(-a, a) has the variance of U(-v, v), v^2 / 3.

    An element is a sum of `rank` products, each of variance (a^2 / 3)^2.
    """
    return math.pow(3 * uniform_bound(width, patch) ** 2 / rank, 0.25)


def projection(narrow: int, width: int) -> nn.Linear:
    """Linear narrow -> width with Kaiming (fan-out) weights and no bias at the start."""
    linear = nn.Linear(narrow, width)
    nn.init.kaiming_normal_(linear.weight, a=0, mode="fan_out")
    nn.init.zeros_(linear.bias)
    return linear
