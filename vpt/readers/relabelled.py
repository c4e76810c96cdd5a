"""A mask whose values stand for other labels than they are: merged, dropped or ignored ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vpt.errors import VptError
from vpt.readers.base import Mask, Reader, Source
from vpt.readers.grid import Grid
from vpt.readers.labels import LabelMap
from vpt.readers.voxels import Voxels

LARGE = 2**16  # ids of atlases reach 2^32 - 1


@dataclass(frozen=True)
class Relabelled(os.PathLike[str]):
    """A mask as `reader_of` takes it, every value in it with the id that it becomes, and the id that does not count."""

    mask: Source
    ids: tuple[tuple[int, int], ...]
    ignored: int | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.mask,) if isinstance(self.mask, Path) else tuple(self.mask.files)

    def __str__(self) -> str:
        return str(self.mask)

    def __fspath__(self) -> str:
        return str(self)


class RelabelledReader(Reader):
    """The mask's own reader, which knows its format, and new ids for what it reads."""

    def __init__(self, source: Relabelled, inner: Reader):
        super().__init__((source,), inner.name)
        self.source, self.inner = source, inner
        self.kind, self.unit = inner.kind, inner.unit  # type: ignore[misc]  # of the mask's format

    @classmethod
    def claims(cls, sources: tuple[Source, ...]) -> bool:
        return len(sources) == 1 and isinstance(sources[0], Relabelled)

    def labels(self) -> LabelMap:
        return self._relabelled(self.inner.labels())

    def labels_on(self, grid: Grid) -> LabelMap:
        return self._relabelled(self.inner.labels_on(grid))

    def _relabelled(self, found: LabelMap) -> LabelMap:
        of = dict(self.source.ids)
        array = replaced(found.array, [of.get(id, id) for id in found.ids], found.ids)
        ids = tuple(sorted({of.get(id, id) for id in found.ids}))
        return LabelMap(array, ids, found.grid, found.name, self.source.ignored, found.ids)

    def grid(self) -> Grid:
        return self.inner.grid()

    def label_grid(self) -> Grid:
        return self.inner.label_grid()

    @property
    def leaves_slices_out(self) -> bool:
        return self.inner.leaves_slices_out

    def label_grid_beside(self, other: Grid) -> Grid:
        return self.inner.label_grid_beside(other)

    def files(self) -> tuple[Path, ...]:
        return self.inner.files()

    def orientation(self) -> int:
        return self.inner.orientation()

    def label_doubts(self) -> list[str]:
        return self.inner.label_doubts()

    @property
    def is_lossy(self) -> bool:
        return self.inner.is_lossy

    def count_channels(self, exact: bool = True) -> int:
        return self.inner.count_channels(exact)

    def is_deep(self) -> bool:
        return self.inner.is_deep()

    def voxels(self, channels: int) -> Voxels:
        raise VptError(f"{self.name}: a mask, expected a scan")

    def mask(self, labels: np.ndarray) -> Mask:
        return self.inner.mask(labels)

    @staticmethod
    def write_mask(path: Path, mask: Any) -> None:
        raise VptError(f"{path}: masks are written like their scan")


def replaced(array: np.ndarray, by: Sequence[int], ids: Sequence[int]) -> np.ndarray:
    """Ids, all of them among the sorted `ids` -> what stands in the same place of `by`, in the smallest type for it."""
    kind = np.promote_types(np.min_scalar_type(min(by)), np.min_scalar_type(max(by)))
    if ids[0] < 0 or ids[-1] >= LARGE:  # a table would be as long as the largest id
        values = np.array(by, kind)
        return np.stack([values[np.searchsorted(np.array(ids, np.int64), part)] for part in array])
    table = np.zeros(ids[-1] + 1, kind)
    table[list(ids)] = by
    return table[array]
