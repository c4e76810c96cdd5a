"""What readers of volumes share: channels that belong together, label ids, and the checks of both."""

from __future__ import annotations

from abc import abstractmethod
from math import isfinite

import numpy as np

from vpt.errors import VptError
from vpt.readers.base import Reader
from vpt.readers.grid import Grid, by, some
from vpt.readers.labels import LabelMap
from vpt.readers.voxels import Channel, Voxels, distinct
from vpt.vocabulary import LARGEST_ID
from vpt.words import counted

SMALLEST, LARGEST, FARTHEST = 1e-6, 1e5, 1e9  # mm: of a voxel's sides, and of its place
ROUNDING = 1e-3  # a label this near to a whole number is one


class VolumeReader(Reader):
    """One volume, with its channels last if there are several, or a file for every channel.

    A format says its `shape`, its `grid` and how the voxels of one of its sources are read.
    """

    kind = "volumes"
    unit = "mm"

    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """(X, Y), (X, Y, Z) or (X, Y, Z, channels) of the first source, by its header alone."""

    @abstractmethod
    def read(self, k: int) -> tuple[Channel, Grid]:
        """The voxels (X, Y, Z) or (X, Y, Z, channels) of source `k` as they are stored, and where they lie."""

    def label_grid(self) -> Grid:
        grid = self.grid()
        require_3d(self.shape(), self.name)
        return grid

    def voxels(self, channels: int) -> Voxels:
        if len(self.sources) not in (1, channels):
            found = f"{counted(len(self.sources), 'channel file')}, expected {channels}"
            raise VptError(f"{self.name}: {found}; give one file per channel")
        first, found_channels = self.grid(), []
        for k, source in enumerate(self.sources):
            name = self.name if k == 0 else self.name_of(source)
            stored, grid = self.read(k)
            found_channels += channels_of(stored, name, channels if len(self.sources) == 1 else 1)
            if not grid.matches(first):
                raise VptError(
                    f"{name}: not on the grid of {self.name}: {grid.difference(first)}; "
                    "resample the channels of a case onto one grid"
                )
        return Voxels(tuple(found_channels), first, self.name)

    def labels(self) -> LabelMap:
        """The ids are whole numbers, up to the rounding that a scale factor in the header leaves."""
        read, grid = self.read(0)
        array = read.scaled()
        require_3d(array.shape, self.name)
        ids = ids_in(array, self.name)
        return LabelMap(array if array.dtype.kind in "iu" else np.rint(array).astype(np.int64), ids, grid, self.name)

    def count_channels(self, exact: bool = True) -> int:
        shape = self.shape()
        return int(shape[3]) if len(shape) == 4 else len(self.sources)


def channels_of(read: Channel, name: str, channels: int) -> list[Channel]:
    """(X, Y, Z) or (X, Y, Z, C) -> its channels (X, Y, Z), with the count and the values checked."""
    array = read.stored
    if array.ndim == 4 and array.shape[-1] != channels:
        raise VptError(
            f"{name}: shape {array.shape} is 4-D with {counted(array.shape[-1], 'channel')}, expected {channels}"
            f"{' and so a 3-D volume' if channels == 1 else ''}; split it into 3-D files, or where dataset.json says "
            "how many there are, list them under `channel_names` (MSD: `modality`)"
        )
    if array.ndim == 3 and channels > 1:
        raise VptError(
            f"{name}: one 3-D volume, expected {channels} channels; "
            "add CASE_0000, CASE_0001, ... or give a 4-D file with the channels last"
        )
    nan, infinite = read.not_finite()
    if bad := nan + infinite:
        raise VptError(
            f"{name}: {bad} of {array.size} voxels are not finite ({nan} NaN, {infinite} infinite); "
            "replace them, for instance by the background's value, and save the scan again"
        )
    parts = [array] if array.ndim == 3 else list(np.moveaxis(array, -1, 0))
    return [Channel(part, read.slope, read.inter) for part in parts]


def require_3d(shape: tuple[int, ...], name: str) -> None:
    if len(shape) == 4 and shape[-1] > 1:
        raise VptError(
            f"{name}: shape {shape} is 4-D, expected a 3-D label map; save each time as a case of its own, or where "
            "the fourth axis is one of labels, merge them into ids"
        )


def ids_in(array: np.ndarray, name: str) -> tuple[int, ...]:
    """The whole numbers in an array, sorted, up to the rounding that a scale factor in the header leaves.

    Raises VptError for others, and for ids that no label can have.
    """
    values = distinct(array)
    if between := [
        value for value in values.tolist() if not (isfinite(value) and abs(value - round(value)) <= ROUNDING)
    ]:
        raise VptError(
            f"{name}: label values {some(between)} are not whole numbers; label maps hold ids, "
            "resample with nearest neighbour and save as integers"
        )
    ids = tuple(sorted({round(value) for value in values.tolist()}))
    exact = 2 ** (np.finfo(values.dtype).nmant + 1) - 1 if values.dtype.kind == "f" else LARGEST_ID
    if inexact := [id for id in ids if exact < abs(id) <= LARGEST_ID]:
        raise VptError(
            f"{name}: label {inexact[-1]} in {values.dtype}, which skips whole numbers above {exact}, so that it may "
            "stand for others; save the label map with its ids as integers (int32, uint32)"
        )
    if beyond := [id for id in ids if abs(id) > LARGEST_ID]:
        raise VptError(
            f"{name}: label {beyond[-1]} is beyond {LARGEST_ID}, the largest id there can be; renumber the labels"
        )
    return ids


def placed(shape: tuple[int, ...], affine: np.ndarray, name: str) -> Grid:
    """The grid of a volume of that shape, refused if its voxels have no place in space."""
    if not 2 <= len(shape) <= 4 or 0 in shape:
        raise VptError(f"{name}: shape {shape}, expected a volume (X, Y, Z) or (X, Y, Z, channels); save it as such")
    affine = np.asarray(affine, dtype=np.float64)
    axes = affine[:3, :3]
    # A determinant relative to the axes' lengths: 1 when perpendicular, 0 when they do not span the space.
    span = 0.0
    with np.errstate(all="ignore"):
        sizes = np.linalg.norm(axes, axis=0)
        if np.isfinite(affine).all():
            span = float(abs(np.linalg.det(axes)) / max(float(np.prod(sizes)), 1e-300))
    if span < 1e-3:
        rows = "; ".join(" ".join(f"{value:.4g}" for value in row) for row in affine[:3])
        raise VptError(
            f"{name}: its affine [{rows}] is singular, so voxels have no place in space; write valid directions and "
            "sizes into its header (of NIfTI an sform or qform)"
        )
    if np.isnan(span) or sizes.min() < SMALLEST or sizes.max() > LARGEST or np.abs(affine[:3, 3]).max() > FARTHEST:
        raise VptError(
            f"{name}: voxels of {by(sizes.tolist())} mm at {by(affine[:3, 3].tolist())} mm by its header, expected "
            f"{SMALLEST:g} to {LARGEST:g} mm within {FARTHEST:g} mm; write the true size and place into it"
        )
    x, y, z = (*shape[:3], 1)[:3]
    return Grid((int(x), int(y), int(z)), affine)
