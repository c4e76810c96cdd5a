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


def left_factor(rows: int, count: int, rank: int) -> Tensor:
    """A of prompts A B^T: (rows, count, rank) from N(0, 0.02^2), as in the code of BPT (Wang et al., ICCV 2025)."""
    return torch.empty(rows, count, rank).normal_(std=0.02)


def right_factor(rows: int, width: int, rank: int) -> Tensor:
    """B of prompts A B^T: (rows, width, rank) from U(-b, b), b = sqrt(6 / (width + rank)), Xavier's, as there."""
    bound = math.sqrt(6 / (width + rank))
    return torch.empty(rows, width, rank).uniform_(-bound, bound)


def projection(narrow: int, width: int) -> nn.Linear:
    """Linear narrow -> width with Kaiming (fan-out) weights and no bias at the start."""
    linear = nn.Linear(narrow, width)
    nn.init.kaiming_normal_(linear.weight, a=0, mode="fan_out")
    nn.init.zeros_(linear.bias)
    return linear
