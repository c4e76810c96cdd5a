"""A scan's slices at the plan's pixel, made a slab at a time when they are asked for: never all of them at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
import torch

from vpt.data.framing import resize_image, size_of_slices
from vpt.data.plan import Plan, scale
from vpt.readers import Voxels
from vpt.vocabulary import Interpolation


@dataclass(frozen=True, eq=False)
class PreparedSlices:
    """Oriented voxels (C, slices, rows, columns) as an array (slices, C, h, w) float32 in [0, 1], cut as `slices[a:b]`.

    limits: what becomes 0 and 1, of every channel; size: rows and columns at the plan's pixel. What is cut is made
    then, slice by slice, so that what is worked on stays in the processor's cache.
    """

    voxels: Voxels
    limits: tuple[tuple[float, float], ...]
    size: tuple[int, int]
    interpolation: Interpolation = "bilinear"

    @classmethod
    def of(cls, voxels: Voxels, plan: Plan) -> Self:
        """Raises VptError for slices that would grow without bound, see `size_of_slices`."""
        size = size_of_slices(voxels.name, voxels.grid, plan)
        channels = enumerate(plan.intensity)
        limits = tuple(intensity.limits(partial(voxels.slices, channel)) for channel, intensity in channels)
        return cls(voxels, limits, size, plan.interpolation)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        channels, depth, _, _ = self.voxels.shape
        return (depth, channels, *self.size)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, places: slice) -> np.ndarray:
        chosen = range(*places.indices(len(self)))
        out = torch.empty((len(chosen), *self.shape[1:]))
        self.fill(out, chosen, range(len(chosen)))
        return out.numpy()

    def fill(self, out: torch.Tensor, chosen: Sequence[int], rows: Iterable[int]) -> None:
        """Put the `chosen` slices, in rising order, into these rows of (N, C, h, w), in whose type they are kept."""
        for channel, (low, high) in enumerate(self.limits):
            for row, image in zip(rows, self.voxels.slices(channel, chosen), strict=True):
                # torch's half is ten times as fast as NumPy's
                out[row, channel] = torch.from_numpy(self._resized(scale(image, low, high)))

    def _resized(self, image: np.ndarray) -> np.ndarray:
        return resize_image(image, self.size, self.interpolation)
