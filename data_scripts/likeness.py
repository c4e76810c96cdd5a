"""Pictures that look alike: frames of one video, or one scan saved twice, which must not lie on two sides of a split.

A picture is told by 256 bits: whether it gets brighter from one to the next of 17 x 16 squares (a difference hash).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse.csgraph import connected_components

from vpt.errors import VptError

SIDE = 16  # squares
ALIKE = 44  # bits of 256 in which two pictures that look alike may differ; chance gives about 128
SAME = 10  # bits that saving again, in another format or size, changes


@dataclass(frozen=True)
class Likeness:
    """Pictures by name, sorted, and in how many bits each differs from each other (N, N)."""

    names: tuple[str, ...]
    distance: NDArray[np.int64]

    def groups(self) -> dict[str, str]:
        """Picture -> the first of those that it looks like, directly or by way of others."""
        _, number = connected_components(self.distance <= ALIKE, directed=False)
        first: dict[int, str] = {}
        return {name: first.setdefault(int(k), name) for name, k in zip(self.names, number, strict=True)}

    def in_two_classes(self, classes: Mapping[str, str]) -> list[str]:
        """Pictures of which another class has the same."""
        kinds = np.array([classes[name] for name in self.names])
        conflict = (self.distance <= SAME) & (kinds[:, None] != kinds[None])
        return [name for name, found in zip(self.names, conflict.any(1), strict=True) if found]


def likeness(pictures: Mapping[str, Path]) -> Likeness:
    names = tuple(sorted(pictures))
    bits = np.stack([_bits(pictures[name]) for name in names]).astype(np.int64)
    signs = 2 * bits - 1
    return Likeness(names, (signs.shape[1] - signs @ signs.T) // 2)


def _bits(path: Path) -> NDArray[np.bool_]:
    """(256,) of a picture in grey."""
    small = np.asarray(read_grey(path).resize((SIDE + 1, SIDE), Image.Resampling.LANCZOS), np.int64)
    return (small[:, 1:] > small[:, :-1]).ravel()


def read_grey(path: Path) -> Image.Image:
    """A picture in 8 bits of grey. Raises VptError for a file that is none."""
    try:
        with Image.open(path) as picture:
            return picture.convert("L")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise VptError(f"{path}: no picture, or damaged ({error}); copy or download it again") from error
