"""Distances between the surfaces of two masks: HD95, ASSD and NSD, in mm on the masks' own grid.

A surface is the voxels of a mask that touch its outside with a face; beyond the volume's border is outside. Every voxel
of one surface has its distance, from centre to centre, to the nearest of the other. Of these two lists:

====  ============================================================================================================
HD95  the larger of the two 95th percentiles, as MONAI and Metrics Reloaded; MedPy's `hd95` is that of both in one
ASSD  the mean of both lists in one, as MONAI, Metrics Reloaded, MedPy 0.5; before, MedPy took the mean of two means
NSD   the share of both lists within a tolerance, as MONAI; by surface voxels and not by the area of surface elements
====  ============================================================================================================

The surfaces of all labels are found in one pass over the volume, a slab at a time; distances come from a search tree of
their voxels, so that time and memory go with the surfaces and not with the boxes around the labels: one stray voxel
makes such a box as large as the volume. Distance transforms of 256x256x256 voxels take 20 to 100 times as long.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

# Headers hold float32: a spacing of 1 mm reads as 1.00000006 mm, which must not push a surface out of a 1 mm tolerance.
HEADER_ROUNDING_MM = 1e-4
SLAB = 4_000_000  # voxels that are looked at at once

Spacing = Sequence[float] | Sequence[Sequence[float]] | np.ndarray
"""Lengths in mm, one per axis; or of a sheared grid the steps along its axes, as columns (3, axes)."""


@dataclass(frozen=True)
class SurfaceScores:
    """HD95 and ASSD in mm (of images: pixels), NSD in [0, 1]; NaN is undefined."""

    hd95: float = math.nan
    assd: float = math.nan
    nsd: float = math.nan


def score_places(
    predicted: np.ndarray,
    true: np.ndarray,
    spacing: Spacing,
    tolerance: float = 1.0,
    absent: float = math.nan,
) -> SurfaceScores:
    """Surface voxels (n, axes) of two masks, spacing (or steps, see `in_mm`) and tolerance in mm -> their distances.

    One mask empty: no distance, and an NSD of 0; both: no distance, and an NSD of `absent`.
    """
    if not (len(predicted) and len(true)):
        return SurfaceScores(nsd=0.0 if len(predicted) or len(true) else absent)
    there, back = place_distances(predicted, true, spacing)
    both = np.concatenate([there, back])
    return SurfaceScores(
        hd95=float(max(np.percentile(there, 95), np.percentile(back, 95))),
        assd=float(both.mean()),
        nsd=float(np.mean(both <= tolerance + HEADER_ROUNDING_MM)),
    )


def in_mm(places: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Voxels (n, axes) -> their places in mm; spacing: a length per axis, or of a sheared grid its steps (3, axes)."""
    steps = np.asarray(spacing, float)
    return places * steps if steps.ndim == 1 else places @ steps.T


def place_distances(first: np.ndarray, second: np.ndarray, spacing: Spacing) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (n, axes) of two surfaces, neither empty -> distance of each voxel to the other surface, mm."""
    from scipy.spatial import cKDTree

    shape = tuple((np.maximum(first.max(0), second.max(0)) + 1).tolist())
    indices = [np.ravel_multi_index(tuple(places.T), shape) for places in (first, second)]
    trees = [cKDTree(in_mm(places, spacing), balanced_tree=False, compact_nodes=False) for places in (first, second)]

    def to_other(own: int) -> np.ndarray:
        distances = np.zeros(trees[own].n)
        apart = np.isin(indices[own], indices[1 - own], assume_unique=True, invert=True)
        distances[apart] = trees[1 - own].query(trees[own].data[apart])[0]
        return distances

    return to_other(0), to_other(1)


def surfaces_of(volume: np.ndarray, labels: Iterable[int]) -> dict[int, np.ndarray]:
    """A label map (integers or bool) -> of each label, above 0, the voxels (n, axes) of its surface.

    Whatever lies beyond a face counts as outside: other labels, those that are not asked for too, and the border.
    """
    order = np.argsort([-abs(step) for step in volume.strides], kind="stable")  # as it lies in memory
    turned, back = volume.transpose(order), np.argsort(order)
    step = max(1, SLAB // max(1, math.prod(turned.shape[1:])))
    places, held = [np.zeros((0, volume.ndim), np.int64)], [np.zeros(0, volume.dtype)]
    for start in range(0, len(turned), step):
        low, stop = max(0, start - 1), min(len(turned), start + step)
        part, inner = turned[low : stop + 1], slice(start - low, stop - low)
        if not (own := part[inner]).any():
            continue
        found = edges_of(part)[inner] & (own != 0)
        at = np.stack(np.unravel_index(np.flatnonzero(found), found.shape), 1)
        at[:, 0] += start
        places.append(at[:, back])
        held.append(own[found])
    ids = np.concatenate(held).astype(np.int64)
    by_label = np.argsort(ids, kind="stable")
    ids, all_places = ids[by_label], np.concatenate(places)[by_label]
    known = np.array(list(labels), np.int64)
    starts, ends = (np.searchsorted(ids, known, side) for side in ("left", "right"))
    return {int(label): all_places[a:b] for label, a, b in zip(known, starts, ends, strict=True)}


def edges_of(volume: np.ndarray) -> np.ndarray:
    """The voxels that have a face in common with one of another value, or with the volume's border; bool."""
    edge = np.zeros_like(volume, bool)
    for axis in range(volume.ndim):
        here, values = np.moveaxis(edge, axis, 0), np.moveaxis(volume, axis, 0)
        apart = values[1:] != values[:-1]
        here[1:] |= apart
        here[:-1] |= apart
        here[[0, -1]] = True
    return edge
