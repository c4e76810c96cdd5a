"""Names of weights, from one layout to another."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from vpt.errors import VptError

Renames = tuple[tuple[str, str], ...]
"""Pattern -> replacement, applied to a key one after the other."""


def renamed(key: str, renames: Renames) -> str:
    for pattern, replacement in renames:
        key = re.sub(pattern, replacement, key)
    return key


def under_names(
    tensors: Iterable[tuple[str, Tensor]], name: Callable[[str], str], path: str | Path
) -> dict[str, Tensor]:
    """The tensors of a file under the names that `name` makes of their keys.

    Raises:
        VptError: two different tensors of one name, of which one would be lost.
    """
    found: dict[str, Tensor] = {}
    for key, value in tensors:
        own = name(key)
        if own in found and not (found[own].dtype == value.dtype and torch.equal(found[own], value)):
            raise VptError(f"{path}: holds two different tensors for {own}; give a checkpoint with one of them")
        found[own] = value
    return found
