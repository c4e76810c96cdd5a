"""What the headers of the training cases say, which a plan follows from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vpt.data.plan import ORIENTATIONS
from vpt.data.sizes import TrainingForeground, TrainingSizes
from vpt.readers import Grid, reader_of
from vpt.vocabulary import Plane

SPARED = 20  # one in so many training cases at each end may be a mistake
_AXES: dict[Plane, str] = {"axial": "SI", "coronal": "AP", "sagittal": "LR"}


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """What the headers of the training cases say: where the voxels of each lie."""

    grids: tuple[Grid, ...]

    def slice_distances(self) -> dict[Plane, float]:
        """Of every plane the median distance of its slices, in mm."""
        return {
            plane: float(np.median([_spacing_along(grid, axes) for grid in self.grids]))
            for plane, axes in _AXES.items()
        }

    def longer_sides(self, planes: Sequence[Plane]) -> tuple[np.ndarray, np.ndarray]:
        """Of the slices of every case in these planes, the longest: (N,) voxels and (N,) mm."""
        extents = np.array([[side for plane in planes for side in _in_plane(grid, plane)] for grid in self.grids])
        return extents[:, :, 0].max(1), extents[:, :, 1].max(1)  # (N, rows and columns of each plane, (voxels, mm))

    def sizes(self, plane: Plane) -> TrainingSizes:
        """Of the slices of nearly all cases: a twentieth at each end, which may be mistakes, is not looked at."""
        pixels, sides = zip(*(slice_size(grid, ORIENTATIONS[plane]) for grid in self.grids), strict=True)
        return TrainingSizes(pixel=_most(pixels), side=_most(sides))

    def foreground(self, plane: Plane, shares: Sequence[float]) -> TrainingForeground:
        """Of grids that are the boxes around the foreground, and hold these shares of the scans."""
        side = max(slice_size(grid, ORIENTATIONS[plane])[1] for grid in self.grids)
        return TrainingForeground(share=float(f"{max(shares):.6g}"), side=float(f"{side:.6g}"))


def slice_size(grid: Grid, axcodes: str) -> tuple[float, float]:
    """Of the slices of a grid turned so: the side of a square of a pixel's area, and the longer side, in mm."""
    _, turned = grid.turned(axcodes)
    (rows, columns), (height, width) = turned.shape[1:], turned.spacing[1:]
    return float(np.sqrt(height * width)), float(max(rows * height, columns * width))


def _most(sizes: Sequence[float]) -> tuple[float, float]:
    ordered, spared = sorted(sizes), (len(sizes) - 1) // SPARED
    return float(f"{ordered[spared]:.6g}"), float(f"{ordered[-1 - spared]:.6g}")


def fingerprint_of(cases: Sequence[Any]) -> Fingerprint:
    """Read every case's header."""
    return Fingerprint(tuple(reader_of(case.images[0]).grid() for case in cases))


def _spacing_along(grid: Grid, axes: str) -> float:
    return next(mm for code, mm in zip(grid.axcodes, grid.spacing, strict=True) if code in axes)


def _in_plane(grid: Grid, plane: Plane) -> list[tuple[float, float]]:
    """[(voxels, mm), (voxels, mm)] of the two axes of the plane."""
    sizes = zip(grid.axcodes, grid.shape, grid.spacing, strict=True)
    return [(count, count * mm) for code, count, mm in sizes if code not in _AXES[plane]]
