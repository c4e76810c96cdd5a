"""Connected components of all labels of a volume at once, by runs: what a line has of one label without a gap.

Components are of 26 neighbours of a voxel, 8 of a pixel. Two runs touch where their lines are neighbours and their ends
are at most a step apart, so that a component is found among runs, whose number goes with the surfaces of the labels:
time and memory do not go with the boxes around them, which one stray voxel makes as large as the volume.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from vpt.scores.surfaces import SLAB


@dataclass(frozen=True)
class Components:
    """The components of one label, in the order of their first voxels.

    starts, ends (n,): the runs, sorted, as places in a line that holds all lines of the volume, each with a gap behind;
    owner (n,): of each run its component; sizes (components,): in voxels.
    """

    starts: np.ndarray
    ends: np.ndarray
    owner: np.ndarray
    sizes: np.ndarray


def components_of(volume: np.ndarray, labels: Iterable[int]) -> dict[int, Components]:
    """A label map (integers or bool) -> the components of each label, above 0."""
    axes = _as_it_lies(volume)
    turned = volume.transpose(axes)
    starts, lengths, ids = _runs(turned)
    known = np.array(list(labels), np.int64)
    by_label = np.argsort(ids, kind="stable")
    low, high = (np.searchsorted(ids[by_label], known, side) for side in ("left", "right"))
    return {
        int(label): _joined(starts[by_label[a:b]], lengths[by_label[a:b]], turned.shape, axes)
        for label, a, b in zip(known, low, high, strict=True)
    }


def overlaps(first: Components, second: Components) -> tuple[np.ndarray, np.ndarray]:
    """Components of two volumes that lie alike -> the pairs that share voxels (2, K), and how many they share (K,)."""
    low = np.searchsorted(second.ends, first.starts, "right")
    high = np.searchsorted(second.starts, first.ends, "left")
    mine, theirs = _ranges(low, high)
    shared = np.minimum(first.ends[mine], second.ends[theirs]) - np.maximum(first.starts[mine], second.starts[theirs])
    found = first.owner[mine].astype(np.int64) * max(1, len(second.sizes)) + second.owner[theirs]
    pairs, place = np.unique(found, return_inverse=True)
    counts = np.bincount(place.ravel(), shared, minlength=len(pairs)).astype(int)
    return np.stack(np.divmod(pairs, max(1, len(second.sizes)))), counts


def alike(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The second volume as the first lies in memory, copied where it lies otherwise: runs go along the same axis."""
    axes = _as_it_lies(first)
    if axes == _as_it_lies(second):
        return second
    return np.ascontiguousarray(second.transpose(axes)).transpose(np.argsort(axes))


def _as_it_lies(volume: np.ndarray) -> tuple[int, ...]:
    """The axes, the one whose steps in memory are largest first."""
    return tuple(np.argsort([-abs(step) for step in volume.strides], kind="stable").tolist())


def _runs(volume: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs along the last axis, of what is not 0: first voxels as flat indices, lengths and values, each (n,)."""
    step = max(1, SLAB // max(1, math.prod(volume.shape[1:])))
    kept: list[tuple[np.ndarray, ...]] = [(np.zeros(0, np.int64),) * 2 + (np.zeros(0, volume.dtype),)]
    for at in range(0, len(volume), step):
        slab = volume[at : at + step]
        if not slab.any():
            continue
        flat, width = slab.ravel(), slab.shape[-1]
        new = np.empty(flat.size, bool)
        np.not_equal(flat[1:], flat[:-1], out=new[1:])
        new[::width] = True
        starts = np.flatnonzero(new)
        lengths, values = np.diff(starts, append=flat.size), flat[starts]
        some = values != 0
        kept.append((starts[some] + at * (slab.size // len(slab)), lengths[some], values[some]))
    starts, lengths, values = (np.concatenate(column) for column in zip(*kept, strict=True))
    return starts, lengths, values.astype(np.int64)


def _joined(first: np.ndarray, lengths: np.ndarray, shape: Sequence[int], axes: Sequence[int]) -> Components:
    """Runs of one label as flat indices in a volume of this shape, whose axes are these of the original."""
    places = np.unravel_index(first, tuple(shape))
    gapped = [size + 1 for size in shape]  # what is a step beyond a line's, a plane's end is nowhere
    starts = np.ravel_multi_index(places, gapped)
    ends = starts + lengths
    owner = np.arange(len(starts), dtype=np.int32)
    strides = [math.prod(gapped[axis + 1 :]) for axis in range(len(shape) - 1)]
    for steps in product((-1, 0, 1), repeat=len(strides)):
        if steps > (0,) * len(strides):  # each pair of lines once
            owner = _merged(owner, starts, ends, sum(a * b for a, b in zip(steps, strides, strict=True)))
    return _in_order(owner, starts, ends, _first_voxels(places, shape, axes))


def _merged(owner: np.ndarray, starts: np.ndarray, ends: np.ndarray, away: int) -> np.ndarray:
    """Of each run its component, after those were joined whose lines lie so far apart and that touch."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    low, high = np.searchsorted(ends, starts + away, "left"), np.searchsorted(starts, ends + away, "right")
    mine, theirs = (owner[runs] for runs in _ranges(low, high))
    count = int(owner.max(initial=-1)) + 1
    joined = coo_array((np.ones(len(mine), bool), (mine, theirs)), shape=(count, count))
    return connected_components(joined, directed=False)[1][owner] if len(mine) else owner


def _ranges(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranges (n,) -> every (place of the range, number within it), each (total,)."""
    counts = np.maximum(high - low, 0)
    own = np.repeat(np.arange(len(counts)), counts)
    return own, np.arange(len(own)) + np.repeat(low - (np.cumsum(counts) - counts), counts)


def _first_voxels(places: Sequence[np.ndarray], shape: Sequence[int], axes: Sequence[int]) -> np.ndarray:
    """Of runs their first voxels as flat indices of the volume with its axes as they were given."""
    back = np.argsort(axes)
    return np.ravel_multi_index([places[axis] for axis in back], [shape[axis] for axis in back])


def _in_order(owner: np.ndarray, starts: np.ndarray, ends: np.ndarray, voxels: np.ndarray) -> Components:
    count = int(owner.max(initial=-1)) + 1
    first = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(first, owner, voxels)
    rank = np.empty(count, np.int32)
    rank[np.argsort(first)] = np.arange(count, dtype=np.int32)
    owner = rank[owner]
    sizes = np.bincount(owner, ends - starts, minlength=count).astype(np.int64)
    return Components(starts, ends, owner, sizes)
