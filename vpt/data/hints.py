"""Hints: a box and points that say where to look in one scan.

Segment Anything calls them prompts; here prompts are what is learned. As an array hints are (N, 3) float32: x and y in
pixels (column and row of a pixel's centre) and a kind, as `vpt.heads.Head.forward` takes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vpt.errors import VptError
from vpt.readers import Grid

NOTHING, BACKGROUND, FOREGROUND, FIRST_CORNER, LAST_CORNER = -1, 0, 1, 2, 3
DRAWN = 3  # hints of a training sample
JITTER, MOST_JITTER = 0.1, 20.0  # of a box's side; pixels

Frame = Literal["voxel", "ras"]


def draw_hints(classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Classes (S, S) -> hints (3, 3) for training: none, a jittered box of the foreground, or up to three points.

    Each in a third of the samples, so that the model works with and without them; a slice without foreground has none.
    Corners move by 10 % of the box's side, 20 pixels at most (Kirillov et al., ICCV 2023, appendix A). The first point
    lies on the foreground, a further one does so with probability 3/4.
    """
    drawn = np.full((DRAWN, 3), (0, 0, NOTHING), np.float32)
    choice = rng.integers(3)
    inside = np.argwhere(classes > 0)[:, ::-1]  # x, y
    if not len(inside) or choice == 0:
        return drawn
    if choice == 1:
        first, last = inside.min(0), inside.max(0)
        sigma = np.minimum(JITTER * (last - first + 1), MOST_JITTER)
        noise = rng.normal(0, sigma, (2, 2)).clip(-MOST_JITTER, MOST_JITTER)
        moved = np.sort(np.stack([first, last]) + noise, axis=0).clip(0, np.array(classes.shape[::-1]) - 1)
        drawn[:2] = [(*moved[0], FIRST_CORNER), (*moved[1], LAST_CORNER)]
        return drawn
    outside = np.argwhere(classes == 0)[:, ::-1]
    for k in range(rng.integers(1, DRAWN + 1)):
        foreground = k == 0 or not len(outside) or rng.random() < 0.75
        among, kind = (inside, FOREGROUND) if foreground else (outside, BACKGROUND)
        drawn[k] = (*among[rng.integers(len(among))], kind)
    return drawn


@dataclass(frozen=True)
class Hints:
    """Where to look in a scan, in its voxel indices (a voxel's centre is whole).

    box: (2, 3), its first and last voxel, or None; points: (N, 3); kinds: (N,), 1 foreground, 0 background.
    """

    box: np.ndarray | None
    points: np.ndarray
    kinds: np.ndarray

    def moved(self, source: Grid, target: Grid) -> Hints:
        """The same places in the voxels of another grid; a box becomes the smallest one that holds its corners."""
        onto = np.linalg.inv(target.affine) @ source.affine
        box = None
        if self.box is not None:
            corners = _transform(onto, _corners(self.box))
            box = np.stack([corners.min(0), corners.max(0)])
        return Hints(box, _transform(onto, self.points), self.kinds)

    def on_slices(self, shape: Sequence[int], size: tuple[int, int]) -> np.ndarray:
        """Hints for every slice, (slices, N, 3), in pixels of slices resized to `size` (rows, columns).

        `shape` is (slices, rows, columns), the grid that these hints are in. A box is a hint for the slices that it
        crosses, a point for the slice that it lies on.
        """
        scale = np.array(size) / np.array(shape[1:])
        count = len(self.points) + (0 if self.box is None else 2)
        hints = np.full((shape[0], max(count, 1), 3), (0, 0, NOTHING), np.float32)
        if self.box is not None:
            crossed = self.crossed(shape[0])
            for k, kind in enumerate((FIRST_CORNER, LAST_CORNER)):
                row, column = (self.box[k, 1:] + 0.5) * scale - 0.5
                hints[crossed, len(self.points) + k] = (column, row, kind)
        for k, (point, kind) in enumerate(zip(self.points, self.kinds, strict=True)):
            row, column = (point[1:] + 0.5) * scale - 0.5
            hints[int(np.clip(round(point[0]), 0, shape[0] - 1)), k] = (column, row, kind)
        return hints

    def lie_in(self, grid: Grid) -> bool:
        """Whether every point, and a part of the box, lies in a grid, that which these hints are in."""
        last = np.array(grid.shape) - 0.5
        met = self.box is None or bool((self.box[1] >= -0.5).all() and (self.box[0] <= last).all())
        return met and bool(((self.points >= -0.5) & (self.points <= last)).all())

    def crossed(self, slices: int) -> np.ndarray:
        """Which slices the box crosses, (slices,) bool; all where there is no box."""
        if self.box is None:
            return np.ones(slices, bool)
        numbers = np.arange(slices)
        return (numbers + 0.5 >= self.box[0, 0]) & (numbers - 0.5 <= self.box[1, 0])


def make_hints(box: Any, points: Any, kinds: Any, frame: Frame, grid: Grid) -> Hints | None:
    """What a user gave, checked -> hints in voxels of the scan on `grid`; None when nothing was given.

    Args:
        box: the first and the last place inside, ((x, y, z), (x, y, z)) or flat; points: [(x, y, z), ...]; where the
            scan is an image, (x, y) is enough;
        kinds: 1 (foreground) or 0 (background) for every point, None for all foreground;
        frame: "voxel", indices of the scan's array, or "ras", millimetres in its world.

    Raises:
        VptError: another shape, a box or point outside the scan, an unknown frame or kind.
    """
    if frame not in ("voxel", "ras"):
        raise VptError(f"frame {frame!r}: expected 'voxel' (indices of the scan's array) or 'ras' (mm)")
    if points is None and kinds is not None:
        raise VptError(f"point_labels {kinds}: given without points; give points, or leave them out")
    if box is None and points is None:
        return None
    corners = None if box is None else _places(box, "box", grid)
    if corners is not None and len(corners) != 2:
        raise VptError(f"box: {len(corners)} corners, expected 2: ((x, y, z), (x, y, z))")
    spots = np.empty((0, 3)) if points is None else _places(points, "points", grid)
    signs = np.ones(len(spots), int) if kinds is None else _numbers(kinds)
    if signs.shape != (len(spots),) or not np.isin(signs, (BACKGROUND, FOREGROUND)).all():
        raise VptError(f"point_labels {kinds}: expected {len(spots)} of them, each 1 (foreground) or 0 (background)")
    hints = Hints(None if corners is None else np.stack([corners.min(0), corners.max(0)]), spots, signs)
    if frame == "ras":
        hints = hints.moved(Grid(grid.shape, np.eye(4)), grid)
    _require_inside(hints, grid)
    return hints


def in_window(hints: np.ndarray, top: int, left: int, size: int) -> np.ndarray:
    """Hints (..., N, 3) of an image -> those of its square window of side `size` at (top, left).

    A box is cut to the window. A point outside it, and a box that misses it, become nothing.
    """
    moved = hints - np.array([left, top, 0], np.float32)
    x, y, kinds = moved[..., 0], moved[..., 1], hints[..., 2]
    last = size - 1
    point = (kinds == FOREGROUND) | (kinds == BACKGROUND)
    before, behind = (x < -0.5) | (y < -0.5), (x > last + 0.5) | (y > last + 0.5)
    missed = ((kinds == FIRST_CORNER) & behind) | ((kinds == LAST_CORNER) & before)
    gone = (point & (before | behind)) | (~point & missed.any(-1, keepdims=True))
    moved[..., :2] = moved[..., :2].clip(0, last)
    moved[gone] = (0, 0, NOTHING)
    return moved


def _places(given: Any, what: str, grid: Grid) -> np.ndarray:
    """(N, 3) from coordinates of two (an image) or three numbers each; a flat box is two corners."""
    places, flat = _numbers(given), grid.shape[2] == 1
    if what == "box" and places.shape in ((4,), (6,)):
        places = places.reshape(2, -1)
    if places.ndim == 2 and places.shape[1] == 2 and flat:
        places = np.concatenate([places, np.zeros((len(places), 1))], axis=1)
    if places.ndim != 2 or places.shape[1] != 3 or not len(places) or not np.isfinite(places).all():
        each = "(x, y)" if flat else "(x, y, z)"
        raise VptError(
            f"{what} {' '.join(repr(given).split())}: expected finite coordinates {each}, {each}, ... of the scan"
        )
    return places


def _numbers(given: Any) -> np.ndarray:
    """What was given as an array of numbers; empty where it is none."""
    try:
        array = np.asarray(given)
    except ValueError:  # rows of different lengths
        return np.empty(0)
    return array.astype(np.float64) if array.dtype.kind in "iuf" else np.empty(0)


def _require_inside(hints: Hints, grid: Grid) -> None:
    last = np.array(grid.shape) - 0.5
    for point in hints.points:
        if (point < -0.5).any() or (point > last).any():
            raise VptError(f"points: {_said(point)} lies outside the scan, whose voxels are {grid.shape}; mind `frame`")
    if hints.box is not None and ((hints.box[1] < -0.5).any() or (hints.box[0] > last).any()):
        first, second = map(_said, hints.box)
        raise VptError(f"box: {first} to {second} lies outside the scan, whose voxels are {grid.shape}; mind `frame`")


def _said(place: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in place) + ")"


def _corners(box: np.ndarray) -> np.ndarray:
    """The eight corners (8, 3) of a box (2, 3)."""
    return np.array([[box[i, 0], box[j, 1], box[k, 2]] for i in (0, 1) for j in (0, 1) for k in (0, 1)])


def _transform(affine: np.ndarray, places: np.ndarray) -> np.ndarray:
    return places @ affine[:3, :3].T + affine[:3, 3]
