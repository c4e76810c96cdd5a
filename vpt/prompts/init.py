"""How prompts start."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def uniform_prompts(rows: int, count: int, width: int, patch: tuple[int, int]) -> Tensor:
    """(rows, count, width) from U(-v, v), v = sqrt(6 / (3 * ph * pw + width)): Xavier's bound for the patch embedding.

    Jia et al., ECCV 2022; 0.0625 for ViT-B/16.
    """
    bound = math.sqrt(6 / (3 * patch[0] * patch[1] + width))
    return torch.empty(rows, count, width).uniform_(-bound, bound)


def projection(narrow: int, width: int) -> nn.Linear:
    """Linear narrow -> width with Kaiming (fan-out) weights and no bias at the start."""
    linear = nn.Linear(narrow, width)
    nn.init.kaiming_normal_(linear.weight, a=0, mode="fan_out")
    nn.init.zeros_(linear.bias)
    return linear
