"""Slices in the encoder's square: as the model's channels, resized to the plan's pixel, cropped, padded, and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from vpt.data.plan import Plan
from vpt.errors import VptError
from vpt.readers.grid import Grid
from vpt.vocabulary import COLOURS, Interpolation, Padding

SLAB = 32  # slices that are made at once, or those of a batch where it has more
ABSURD = 32  # times the plan's pixel, or a 32nd of it: metres or microns that were written as mm, digits that are lost
MEASURABLE = 1e6  # mm
GROWN, LARGE = 64, 2**27  # times the pixels, and numbers in all: above both a slice is not resized


def resize_image(image: np.ndarray, size: tuple[int, int], interpolation: Interpolation = "bilinear") -> np.ndarray:
    """(h, w) in [0, 1] -> size, pixel centres half a pixel in; along an axis that shrinks areas are averaged.

    Bicubic values that overshoot are clipped.
    """
    smaller = min(image.shape[0], size[0]), min(image.shape[1], size[1])
    if image.shape != smaller:  # by itself, since INTER_AREA repeats pixels along an axis that grows
        image = cv2.resize(image, smaller[::-1], interpolation=cv2.INTER_AREA)
    if smaller == size:
        return image
    if interpolation == "bilinear":
        return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    enlarged = cv2.resize(image, size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(enlarged, 0, 1, out=enlarged)


def prepared_size(shape: Sequence[int], spacing: Sequence[float], plan: Plan) -> tuple[int, int]:
    """Rows and columns of a slice at the plan's pixel, or with its longer side at the plan's size; at least 1."""
    sides = [n * mm for n, mm in zip(shape, spacing, strict=True)]
    pixel_mm = max(sides) / plan.image_size if plan.pixel_mm is None else plan.pixel_mm
    rows, columns = (max(1, round(side / pixel_mm)) for side in sides)
    return rows, columns


def require_usable(name: str, shape: Sequence[int], spacing: Sequence[float], plan: Plan) -> None:
    """Refuse slices (rows, columns) whose spacing (mm) no scan of the training's kind can have.

    That is a pixel ABSURD times as large or as small as the plan's, or none that can be measured.
    """
    pixel = (spacing[0] * spacing[1]) ** 0.5
    if plan.pixel_mm is None and 0 < pixel < MEASURABLE:
        return
    if plan.pixel_mm is not None and plan.pixel_mm / ABSURD < pixel < plan.pixel_mm * ABSURD:
        return
    rows, columns = (n * mm for n, mm in zip(shape, spacing, strict=True))
    trained = "" if plan.pixel_mm is None else f"; the model was trained at {plan.pixel_mm:.4g} mm"
    raise VptError(
        f"{name}: slices of {shape[0]}x{shape[1]} pixels of {spacing[0]:.4g}x{spacing[1]:.4g} mm would be "
        f"{rows:.4g}x{columns:.4g} mm large{trained}; correct the spacing, or its unit, in its header"
    )


def require_bounded(name: str, shape: Sequence[int], size: tuple[int, int], spacing: Sequence[float]) -> None:
    """Refuse slices (slices, rows, columns) that grow to a size for which only a wrong spacing can be the reason."""
    depth, rows, columns = shape
    grown = size[0] * size[1]
    if grown > GROWN * rows * columns and depth * grown > LARGE:
        raise VptError(
            f"{name}: slices of {rows}x{columns} pixels of {spacing[0]:.4g}x{spacing[1]:.4g} mm would become "
            f"{size[0]}x{size[1]} at the plan's pixel; correct the spacing in its header, or set plan.pixel_mm"
        )


def size_of_slices(name: str, grid: Grid, plan: Plan) -> tuple[int, int]:
    """`prepared_size` of the slices of a grid (slices, rows, columns) that is turned to the plan's plane.

    Raises:
        VptError: see `require_usable` and `require_bounded`.
    """
    shape, spacing = grid.shape[1:], grid.spacing[1:]
    require_usable(name, shape, spacing, plan)
    size = prepared_size(shape, spacing, plan)
    require_bounded(name, grid.shape, size, spacing)
    return size


def as_channels(slices: np.ndarray, k: int, neighbours: bool) -> np.ndarray:
    """Slice `k` of (slices, C, h, w) -> (3, h, w): it and its neighbours, or its channels and, of two, their mean.

    More than three channels stay as they are, (C, h, w).
    """
    if neighbours:
        return np.concatenate([slices[max(k - 1, 0)], slices[k], slices[min(k + 1, len(slices) - 1)]])
    image = slices[k]
    if len(image) == 1:
        return np.repeat(image, COLOURS, axis=0)
    return image if len(image) >= COLOURS else np.concatenate([image, image.mean(0, keepdims=True)])


def crop_or_pad(
    array: np.ndarray, size: int | tuple[int, int], top: int, left: int, fill: Sequence[float] | float = 0
) -> np.ndarray:
    """Window of (..., size, size) or (..., *size) whose corner is at (top, left), which may be negative.

    Outside is `fill`, one value or one per channel of (C, rows, columns).
    """
    height, width = (size, size) if isinstance(size, int) else size
    rows, columns = array.shape[-2:]
    out = np.empty((*array.shape[:-2], height, width), array.dtype)
    out[...] = fill if isinstance(fill, int | float) else np.reshape(fill, (-1, 1, 1))
    y0, x0, y1, x1 = max(top, 0), max(left, 0), min(top + height, rows), min(left + width, columns)
    out[..., y0 - top : y1 - top, x0 - left : x1 - left] = array[..., y0:y1, x0:x1]
    return out


def offset(length: int, size: int, padding: Padding) -> int:
    """How many pixels of padding lie before a side of `length` in a square of side `size`; 0 where it does not fit."""
    return max(size - length, 0) // 2 if padding == "centre" else 0


@dataclass(frozen=True)
class Placement:
    """Where slices (rows, columns) lie in the square, or in the larger rectangle, that the encoder is given."""

    size: tuple[int, int]
    top: int
    left: int
    rows: int
    columns: int

    def pad(self, images: np.ndarray, fill: Sequence[float]) -> np.ndarray:
        """(..., C, rows, columns) -> (..., C, *size), the values `fill` of each channel around them."""
        return crop_or_pad(images, self.size, -self.top, -self.left, fill)

    def move(self, hints: np.ndarray) -> np.ndarray:
        """Hints (..., 3) in pixels of the slice -> of the padded one."""
        return hints + np.array([self.left, self.top, 0], np.float32)

    def crop(self, logits: Tensor) -> Tensor:
        """(..., *size) -> (..., rows, columns)."""
        return logits[..., self.top : self.top + self.rows, self.left : self.left + self.columns]


def placement_of(shape: tuple[int, int], plan: Plan) -> Placement:
    """The placement of prepared slices (rows, columns): at least the plan's square, as `SliceDataset` pads to it."""
    side, (rows, columns) = plan.image_size, shape
    top, left = (offset(length, side, plan.padding) for length in shape)
    return Placement((max(rows, side), max(columns, side)), top, left, rows, columns)


class Slices(Protocol):
    """Prepared slices (slices, C, h, w): an array, or what makes a part of one when it is cut, `slices[a:b]`."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, places: slice, /) -> np.ndarray: ...


def batches_of_slices(slices: Slices, plan: Plan, batch: int) -> Iterator[Tensor]:
    """(slices, C, h, w) -> batches (b, 3, h, w) float32 in order; cut a slab at a time, with its neighbours.

    Of many channels (b, C, h, w), see `as_channels`.
    """
    depth, slab = len(slices), batch * -(-SLAB // batch)
    for first in range(0, depth, slab):
        below = max(first - 1, 0)
        part = slices[below : first + slab + 1]
        for start in range(first, min(first + slab, depth), batch):
            rows = range(start - below, min(start + batch, depth) - below)
            yield as_float32(np.stack([as_channels(part, k, plan.neighbours) for k in rows]))


def as_float32(array: np.ndarray) -> Tensor:
    """float16 or float32 -> float32, several times as fast as NumPy; of what may not be written to, a copy."""
    contiguous = np.ascontiguousarray(array)
    return torch.from_numpy(contiguous if contiguous.flags.writeable else contiguous.copy()).float()
