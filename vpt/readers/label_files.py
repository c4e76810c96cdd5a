"""Labels in a file each (`liver.nii.gz`, `spleen.nii.gz`): one label map of them all."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vpt.errors import VptError
from vpt.readers.base import Mask, Reader, Source, Unit
from vpt.readers.formats import format_of
from vpt.readers.grid import Grid
from vpt.readers.labels import LabelMap
from vpt.readers.nifti import NiftiReader
from vpt.readers.voxels import Voxels
from vpt.words import listed


@dataclass(frozen=True)
class LabelFiles(os.PathLike[str]):
    """A case's masks, one per label, and the id that each stands for; it is called by the first one's name."""

    masks: tuple[tuple[Path, int], ...]

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(path for path, _ in self.masks)

    def __str__(self) -> str:
        return str(self.files[0])

    def __fspath__(self) -> str:
        return str(self)


class LabelFilesReader(Reader):
    """What is not 0 in a mask has its label. Masks that overlap are refused: a voxel has one label."""

    kind = "volumes"
    unit: ClassVar[Unit] = "mm"
    mask_endings = NiftiReader.mask_endings

    def __init__(self, sources: tuple[Source, ...], name: str = ""):
        super().__init__(sources, name)
        self.masks: LabelFiles = sources[0]
        self.first = _reader(self.masks.files[0])
        self.unit = self.first.unit  # type: ignore[misc]  # all masks are of one format

    @classmethod
    def claims(cls, sources: tuple[Source, ...]) -> bool:
        return len(sources) == 1 and isinstance(sources[0], LabelFiles)

    def labels(self) -> LabelMap:
        grid = self.grid()
        array = np.zeros(grid.shape, np.min_scalar_type(max(id for _, id in self.masks.masks)))
        files = {id: path for path, id in self.masks.masks}
        for path, id in self.masks.masks:
            inside = _inside(path, grid, self.name)
            if both := int(np.count_nonzero(array[inside])):
                other = files[int(array[inside].max())]
                called = other if other.name == path.name else other.name  # of label folders all are called as the scan
                raise VptError(
                    f"{path}: {both} of its voxels are in {called} too; take them out of one of the two, or where "
                    "both are one thing, drawn by two readers, take one of the files out"
                )
            array[inside] = id
        return LabelMap(array, tuple(np.unique(array).tolist()), grid, self.name)

    def grid(self) -> Grid:
        return self.first.label_grid()

    def files(self) -> tuple[Path, ...]:
        return self.masks.files

    def orientation(self) -> int:
        return self.first.orientation()

    def count_channels(self, exact: bool = True) -> int:
        return 1

    def is_deep(self) -> bool:
        return False

    def voxels(self, channels: int) -> Voxels:
        raise VptError(f"{self.name}: the mask of a label, expected a scan")

    def mask(self, labels: np.ndarray) -> Mask:
        return self.first.mask(labels)

    @staticmethod
    def write_mask(path: Path, mask: Any) -> None:
        raise VptError(f"{path}: masks are written like their scan, not as a file for each label")


def _reader(path: Path) -> Reader:
    return (format_of(path) or NiftiReader)((path,))


def _inside(path: Path, grid: Grid, first: str) -> np.ndarray:
    """Where a mask is not 0, checked to be of one label and to lie on the grid of the `first`."""
    found = _reader(path).labels_on(grid)
    if not found.grid.matches(grid):
        raise VptError(f"{path}: not on the grid of {first}: {found.grid.difference(grid)}; export all masks alike")
    if len(ids := set(found.ids) - {0}) > 1:
        raise VptError(
            f"{path}: {len(ids)} values besides 0 ({listed(sorted(ids), 5)}) in the mask of one label, expected one; "
            "if they are shades, as interpolation leaves them at edges, threshold the mask, else keep one value"
        )
    inside: np.ndarray = found.array != 0
    return inside
