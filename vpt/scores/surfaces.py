"""Distances between the surfaces of two masks: HD95, ASSD and NSD, in mm on the masks' own grid.

A surface is the voxels of a mask that touch its outside with a face; beyond the volume's border is outside. Every voxel
of one surface has its distance, from centre to centre, to the nearest of the other. Of these two lists:

====  ============================================================================================================
HD95  the larger of the two 95th percentiles, as MONAI and Metrics Reloaded; MedPy's `hd95` is that of both in one
ASSD  the mean of both lists in one, as MONAI, Metrics Reloaded, MedPy 0.5; before, MedPy took the mean of two means
NSD   the share of both lists within a tolerance, as MONAI; by surface voxels and not by the area of surface elements
====  ============================================================================================================

The distances come from a search tree of the surfaces' voxels, so that time and memory go with the surfaces and not with
the box around them: distance transforms of a box of 256x256x256 voxels take 20 to 100 times as long.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Headers hold float32: a spacing of 1 mm reads as 1.00000006 mm, which must not push a surface out of a 1 mm tolerance.
HEADER_ROUNDING_MM = 1e-4


@dataclass(frozen=True)
class SurfaceScores:
    """HD95 and ASSD in mm (of images: pixels), NSD in [0, 1]; NaN is undefined."""

    hd95: float = math.nan
    assd: float = math.nan
    nsd: float = math.nan


def surface_scores(
    predicted: np.ndarray, true: np.ndarray, spacing: Sequence[float], tolerance: float = 1.0, absent: float = math.nan
) -> SurfaceScores:
    """Two masks (bool) of one shape, spacing and tolerance in mm -> their distances.

    One mask empty: no distance, and an NSD of 0; both: no distance, and an NSD of `absent`.
    """
    if not (predicted.any() and true.any()):
        return SurfaceScores(nsd=0.0 if predicted.any() or true.any() else absent)
    there, back = surface_distances(predicted, true, spacing)
    both = np.concatenate([there, back])
    return SurfaceScores(
        hd95=float(max(np.percentile(there, 95), np.percentile(back, 95))),
        assd=float(both.mean()),
        nsd=float(np.mean(both <= tolerance + HEADER_ROUNDING_MM)),
    )


def surface_distances(first: np.ndarray, second: np.ndarray, spacing: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Two masks (bool), neither empty -> distance of every surface voxel of each to the other's surface, mm."""
    from scipy.spatial import cKDTree

    surfaces = [surface_of(mask) for mask in (first, second)]
    shared = surfaces[0] & surfaces[1]
    trees = [
        cKDTree(np.argwhere(surface) * np.asarray(spacing, float), balanced_tree=False, compact_nodes=False)
        for surface in surfaces
    ]

    def to_other(own: int) -> np.ndarray:
        distances = np.zeros(trees[own].n)
        apart = ~shared[surfaces[own]]
        distances[apart] = trees[1 - own].query(trees[own].data[apart])[0]
        return distances

    return to_other(0), to_other(1)


def surface_of(mask: np.ndarray) -> np.ndarray:
    """The voxels of a mask (bool) that have a face in common with its outside, or with the volume's border."""
    inner = mask.copy()
    for axis in range(mask.ndim):
        here, there = np.moveaxis(inner, axis, 0), np.moveaxis(mask, axis, 0)
        here[1:] &= there[:-1]
        here[:-1] &= there[1:]
        here[[0, -1]] = False
    return mask & ~inner
