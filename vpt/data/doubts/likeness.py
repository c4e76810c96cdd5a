"""Cases that are nearly the same: a scan or picture saved again, in another format, brightness or size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b

import numpy as np

CELLS = {"volumes": (9, 8, 8), "images": (17, 16, 1)}
ALIKE = 0.985  # cosine of two cases' steps: of a copy above 0.99, of frames and slices that follow each other below
AT_ONCE = 512  # cases that are compared with all others


def digest_of(image: np.ndarray) -> str:
    """A name for the voxels and the shape of a case (C, X, Y, Z), whatever type holds them: only equal ones have the
    same.
    """
    turned = _packed(np.ascontiguousarray(image.transpose(0, 3, 2, 1)))  # as scans lie in memory, so no copy is made
    digest = blake2b(f"{image.shape} {turned.dtype}".encode())
    digest.update(turned.data)  # not `tobytes`, which copies it
    return digest.hexdigest()


def _packed(values: np.ndarray) -> np.ndarray:
    """The same numbers in the smallest type that holds them all, of bytes, two bytes, and what they have."""
    low, high = values.min(), values.max()
    for kind in (np.uint8, np.int16):
        limits = np.iinfo(kind)
        if limits.min <= low and high <= limits.max:
            packed = values.astype(kind)
            return packed if np.array_equal(packed, values) else values
    return values


def steps_of(image: np.ndarray, kind: str) -> np.ndarray:
    """A case (C, X, Y, Z) -> how much brighter each of its cells is than the one before it, as a vector of length 1.

    Whatever its unit and size: 512 numbers of a volume, 256 of a picture; all are 0 where it is the same everywhere.
    """
    means = image.mean(axis=0, dtype=np.float32) if len(image) > 1 else image[0]
    for axis, cells in enumerate(CELLS[kind]):
        means = _averaged(means, axis, cells)
    steps = np.diff(means, axis=0).ravel()
    length = float(np.linalg.norm(steps))
    return (steps / length if length else steps).astype(np.float32)


def _averaged(array: np.ndarray, axis: int, cells: int) -> np.ndarray:
    """So many cells along an axis; where it is shorter, an element may be several of them."""
    size = array.shape[axis]
    starts = np.arange(cells) * size // cells
    counts = np.maximum(np.diff(np.append(starts, size)), 1)
    sums = np.add.reduceat(array, starts, axis=axis, dtype=np.float64)
    return sums / np.expand_dims(counts, [k for k in range(array.ndim) if k != axis])


def alike(steps: Sequence[np.ndarray]) -> Iterator[tuple[int, int]]:
    """Pairs of cases by number, (earlier, later), with nearly the same steps."""
    table = np.array(steps)
    for start in range(0, len(table), AT_ONCE):
        found = np.argwhere(table[start : start + AT_ONCE] @ table.T >= ALIKE)
        yield from ((int(earlier), int(k) + start) for k, earlier in found if earlier < k + start)
