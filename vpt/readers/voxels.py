"""The numbers of a scan as its file stores them: turned as views, made into float32 a slice at a time.

So a scan is never held in float32, and only the slice that is worked on is copied, into the processor's cache.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from vpt.readers.grid import Grid

BLOCK = 32  # slices
SMALL = 2**20  # numbers, 4 MiB in float32: of a picture the rows would be too many pieces


@dataclass(frozen=True, eq=False)
class Channel:
    """Numbers (X, Y, Z) as they are stored, of any plain type; the header's `slope` and `inter` make values of them."""

    stored: np.ndarray
    slope: float = 1.0
    inter: float = 0.0

    def fill(self, out: np.ndarray, part: np.ndarray) -> None:
        """Put the values of a part of `stored` into float32 `out`: nibabel's arithmetic, in float64 with a scale."""
        from nibabel.volumeutils import apply_read_scaling

        with np.errstate(over="ignore", invalid="ignore"):
            np.copyto(out, apply_read_scaling(part, self.slope, self.inter), casting="unsafe")

    def values(self, part: np.ndarray) -> np.ndarray:
        """The values of a part of `stored`, a new float32 array laid out as it is."""
        out = np.empty_like(part, np.float32)
        self.fill(out, part)
        return out

    def scaled(self) -> np.ndarray:
        """All values in the type that holds them exactly: what is stored, float64 where there is a scale."""
        from nibabel.volumeutils import apply_read_scaling

        return apply_read_scaling(self.stored, self.slope, self.inter)

    def slabs(self) -> Iterator[tuple[tuple[Any, ...], np.ndarray]]:
        """Places in `stored` and the values there (float32)."""
        for place in places(self.stored):
            yield place, self.values(self.stored[place])

    def not_finite(self) -> tuple[int, int]:
        """How many values are NaN, and how many infinite; whole numbers are not looked at where none can be."""
        if self.stored.dtype.kind in "iu":
            limits = np.iinfo(self.stored.dtype)
            if np.isfinite(self.values(np.array([limits.min, limits.max], limits.dtype))).all():
                return 0, 0
        nan = infinite = 0
        for _, values in self.slabs():
            if bad := values.size - int(np.isfinite(values).sum()):
                nan += (here := int(np.isnan(values).sum()))
                infinite += bad - here
        return nan, infinite


@dataclass(frozen=True, eq=False)
class Voxels:
    """A scan's channels of one shape (X, Y, Z), where they lie, and the name to call it by."""

    channels: tuple[Channel, ...]
    grid: Grid
    name: str

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(C, X, Y, Z)."""
        return (len(self.channels), *self.grid.shape)

    def oriented(self, axcodes: str) -> Voxels:
        """The same voxels with axes nearest to `axcodes`, as views."""
        from nibabel.orientations import apply_orientation

        turn, grid = self.grid.turned(axcodes)
        channels = tuple(
            Channel(apply_orientation(channel.stored, turn), channel.slope, channel.inter) for channel in self.channels
        )
        return Voxels(channels, grid, self.name)

    def cropped(self, box: tuple[slice, slice, slice]) -> Voxels:
        """The voxels in a box, as views."""
        channels = tuple(Channel(channel.stored[box], channel.slope, channel.inter) for channel in self.channels)
        return Voxels(channels, self.grid.cropped(box), self.name)

    def slices(self, channel: int, only: Collection[int] | None = None) -> Iterator[np.ndarray]:
        """The slices along the first axis, or `only` these, float32 (rows, columns); each is gone with the next one.

        One buffer serves all, to be changed at will: new memory for each would take longer than the arithmetic.
        """
        found = self.channels[channel]
        depth, *size = found.stored.shape
        # NumPy reads backwards one number at a time; OpenCV turns what was read forwards several times as fast.
        down, across = (stride < 0 for stride in found.stored.strides[1:])
        forwards = found.stored[:, :: -1 if down else 1, :: -1 if across else 1]
        out, turned = np.empty(size, np.float32), np.empty(size, np.float32)
        if down or across:
            import cv2
        block, start = forwards[:0], 0
        for k in range(depth) if only is None else sorted(only):
            if k >= start + len(block):
                block, start = _compact(forwards[k : k + BLOCK]), k
            found.fill(out, block[k - start])
            if down or across:
                cv2.flip(out, -1 if down and across else 0 if down else 1, dst=turned)
            yield turned if down or across else out

    def values(self) -> np.ndarray:
        """All of them, float32 (C, X, Y, Z), X varying fastest in memory, as in the file."""
        channels, x, y, z = self.shape
        out = np.empty((channels, z, y, x), np.float32).transpose(0, 3, 2, 1)
        for into, channel in zip(out, self.channels, strict=True):
            for place in places(channel.stored):
                channel.fill(into[place], channel.stored[place])
        return out


def _compact(block: np.ndarray) -> np.ndarray:
    """Slices of a volume, copied if their numbers lie scattered between those of others: once, not for every slice."""
    scattered = abs(block.strides[0]) < max(abs(stride) for stride in block.strides[1:])
    return np.array(block, order="K") if scattered else block


def distinct(array: np.ndarray) -> np.ndarray:
    """`np.unique` of an array with long runs of equal numbers, as label maps have: only where one begins is sorted."""
    found = []
    for place in places(array):
        flat = array[place].ravel(order="K")
        starts = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        found.append(np.unique(flat[np.append(0, starts)]))
    return np.unique(np.concatenate(found))


def counted(array: np.ndarray) -> dict[int, int]:
    """Whole numbers and how often each is in an array, sorted."""
    if array.dtype == np.uint8:
        counts = np.bincount(array.ravel(order="K"))
        return {int(id): int(counts[id]) for id in np.flatnonzero(counts)}
    ids, counts = np.unique(array, return_counts=True)
    return dict(zip(ids.tolist(), counts.tolist(), strict=True))


def places(array: np.ndarray) -> Iterator[tuple[Any, ...]]:
    """Parts of an array, cut along the axis whose neighbours lie farthest apart; what is small is one part."""
    if array.size <= SMALL:
        yield (...,)
        return
    axis = _slowest(array)
    yield from ((slice(None),) * axis + (k,) for k in range(array.shape[axis]))


def _slowest(array: np.ndarray) -> int:
    """The axis along which neighbours lie farthest apart in memory."""
    return int(np.argmax(np.abs(array.strides)))
