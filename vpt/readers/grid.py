"""Where voxels lie: a volume's shape and affine, their comparison, and both in words."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SHEAR = float(np.sin(np.radians(0.01)))  # more than headers with few decimals are off by


@dataclass(frozen=True, eq=False)
class Grid:
    """Where a volume's voxels lie: shape (X, Y, Z) and affine (4, 4), voxel index -> RAS mm. Compare with `matches`.

    frame: DICOM's name for the world that the affine leads to; "" where none is known.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    frame: str = ""

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between neighbours along each axis, in mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return x, y, z

    @property
    def leaning(self) -> float:
        """How far the axes are from right angles: the largest |cosine| between two of them."""
        axes = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(np.abs(axes.T @ axes - np.eye(3)).max())

    @property
    def steps(self) -> Sequence[float] | Sequence[Sequence[float]]:
        """`spacing` (3,), or of a sheared grid the step along each axis in mm, as columns (3, 3)."""
        sheared: list[list[float]] = self.affine[:3, :3].tolist()
        return sheared if self.leaning > SHEAR else self.spacing

    @property
    def axcodes(self) -> str:
        """The direction that each axis runs to, as far as oblique axes have one: "RAS", "LPS", ..."""
        from nibabel.orientations import aff2axcodes

        return "".join(aff2axcodes(self.affine))

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres (also right for sheared grids)."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000

    def turned(self, axcodes: str) -> tuple[np.ndarray, Grid]:
        """How to permute and flip axes (3, 2), as nibabel says it, to be nearest to `axcodes`; and the grid then."""
        from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

        turn = ornt_transform(io_orientation(self.affine), axcodes2ornt(axcodes))
        x, y, z = (self.shape[int(axis)] for axis in np.argsort(turn[:, 0]))
        return turn, Grid((x, y, z), self.affine @ inv_ornt_aff(turn, self.shape), self.frame)

    def cropped(self, box: Sequence[slice]) -> Grid:
        """The grid of the voxels in a box, the start and stop of every axis."""
        affine = self.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ [part.start for part in box]
        x, y, z = (part.stop - part.start for part in box)
        return Grid((x, y, z), affine, self.frame)

    def corners(self) -> np.ndarray:
        """World positions (8, 3) in mm of the outermost voxels' centres."""
        index = np.array(list(itertools.product(*((0, size - 1) for size in self.shape))))
        return index @ self.affine[:3, :3].T + self.affine[:3, 3]

    def apart(self, other: Grid) -> float:
        """The largest distance between corresponding corners, in mm."""
        return float(np.linalg.norm(self.corners() - other.corners(), axis=1).max())

    def matches(self, other: Grid, tolerance: float = 1e-2) -> bool:
        """Equal shapes, and corners nearer than `tolerance` times the smallest spacing."""
        return self.shape == other.shape and self.apart(other) <= tolerance * min(*self.spacing, *other.spacing)

    def turn_to(self, other: Grid) -> np.ndarray | None:
        """How to permute and flip axes (3, 2), as nibabel says it, so that each voxel comes where it is in `other`.

        None where the two do not have the same voxels.
        """
        from nibabel.orientations import inv_ornt_aff, io_orientation

        turn = io_orientation(np.linalg.inv(other.affine) @ self.affine)
        if np.isnan(turn).any():
            return None
        x, y, z = (self.shape[int(axis)] for axis in np.argsort(turn[:, 0]))
        turned = Grid((x, y, z), self.affine @ inv_ornt_aff(turn, self.shape))
        return turn if turned.matches(other) else None

    def difference(self, other: Grid) -> str:
        """In words what is not the same, "mine against theirs": shape, spacing, axes, origin, rotation."""
        parts = []
        if self.shape != other.shape:
            parts.append(f"shape {by(self.shape)} against {by(other.shape)}")
        if not np.allclose(self.spacing, other.spacing, rtol=1e-3):
            parts.append(f"spacing {by(self.spacing)} against {by(other.spacing)} mm")
        if self.axcodes != other.axcodes:
            parts.append(f"axes {self.axcodes} against {other.axcodes}")
        if not np.allclose(self.affine[:3, 3], other.affine[:3, 3], atol=1e-2 * min(self.spacing)):
            mine, theirs = (" ".join(f"{value:.6g}" for value in grid.affine[:3, 3]) for grid in (self, other))
            parts.append(f"origin ({mine}) against ({theirs}) mm")
        if self.shape == other.shape and not self.matches(other):
            parts.append(f"voxels up to {self.apart(other):.3g} mm apart")
        return ", ".join(parts)

    def __str__(self) -> str:
        return f"{by(self.shape)} voxels of {by(self.spacing)} mm, {self.axcodes}"


def picture_grid(rows: int, columns: int) -> Grid:
    """An image as a volume of one slice, pixels of 1 mm: columns run to the left, rows to the back, as it is seen."""
    return Grid((columns, rows, 1), np.diag([-1.0, -1.0, 1.0, 1.0]))


Box = tuple[slice, slice, slice]


def in_place(inside: np.ndarray, box: Box, shape: tuple[int, int, int]) -> np.ndarray:
    """What lies in a box of a volume of that shape -> the whole, 0 around it; itself where that is all."""
    if inside.shape == shape:
        return inside
    whole = np.zeros(shape, inside.dtype)
    whole[box] = inside
    return whole


def restore(volume: np.ndarray, axcodes: str, grid: Grid, box: Box | None = None) -> np.ndarray:
    """(X', Y', Z') as `oriented` laid it out -> (X, Y, Z) on the scan's own grid, exactly: the inverse of `oriented`.

    box: where `volume` lies in the turned scan, if it is a part of it; around it is 0.

    Raises ValueError when the shapes do not fit, for instance because the volume is still resampled.
    """
    from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

    if box is not None:
        volume = in_place(np.asarray(volume), box, grid.turned(axcodes)[1].shape)
    back = ornt_transform(axcodes2ornt(axcodes), io_orientation(grid.affine))
    restored = np.ascontiguousarray(apply_orientation(np.asarray(volume), back))
    if restored.shape != grid.shape:
        raise ValueError(f"a volume {volume.shape} in {axcodes} is {restored.shape} on a grid of {grid.shape}")
    return restored


def turned_view(volume: np.ndarray, grid: Grid, axcodes: str) -> np.ndarray:
    """(X, Y, Z, ...) on a grid -> a view of it with axes nearest to `axcodes`, as `Grid.turned` lays them out."""
    from nibabel.orientations import apply_orientation

    return apply_orientation(volume, grid.turned(axcodes)[0])


def by(values: Sequence[float]) -> str:
    """Numbers as "4x5x6"."""
    return "x".join(map(_short, values))


def some(values: Sequence[float], most: int = 8) -> str:
    """Numbers as "0, 1, 2", of many the first and the last."""
    shown = ", ".join(map(_short, values[:most]))
    return shown if len(values) <= most else f"{shown} ... {_short(values[-1])} ({len(values)} values)"


def _short(value: float) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
