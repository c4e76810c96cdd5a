"""What an optimiser remembers, as tensors by name."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def moments_of(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """`NUMBER.NAME` of the parameter and of what is kept of it -> tensor, not copied; empty before the first step."""
    return {
        f"{number}.{name}": tensor.detach()
        for number, moments in optimizer.state_dict()["state"].items()
        for name, tensor in moments.items()
        if tensor is not None  # SGD has None without momentum
    }


def restore_moments(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Bring an optimiser of the same parameters to where `moments_of` found it; its rates stay."""
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, _, key = name.partition(".")
        moments.setdefault(int(number), {})[key] = tensor
    state: dict[str, Any] = optimizer.state_dict()
    optimizer.load_state_dict({"state": moments, "param_groups": state["param_groups"]})
