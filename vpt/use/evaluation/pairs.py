"""Predicted and reference label volumes or masks of images, before anything of them is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vpt.data.cases import case_name
from vpt.data.label_values import LabelValues
from vpt.errors import VptError
from vpt.readers import ColourMask, Grid, LabelFiles, LabelMap, Relabelled, Source, Unit, is_volume, reader_of
from vpt.words import with_article

Volume = Any  # str | Path | nibabel image; whose reader knows which


@dataclass(frozen=True)
class Mask:
    """A label volume that is not read yet: its case's name, and what to call it in messages."""

    name: str
    shown: str
    source: Source

    @property
    def unit(self) -> Unit:
        """The unit of distances in it: images have pixels, and no millimetres."""
        return reader_of(self.source).unit

    @property
    def leaves_slices_out(self) -> bool:
        return reader_of(self.source, self.shown).leaves_slices_out

    def grid(self) -> Grid:
        return reader_of(self.source, self.shown).label_grid()

    def grid_beside(self, other: Grid) -> Grid:
        return reader_of(self.source, self.shown).label_grid_beside(other)

    def read(self, grid: Grid | None = None) -> LabelMap:
        """On that grid, if its slices have to be put on one."""
        reader = reader_of(self.source, self.shown)
        return reader.labels() if grid is None else reader.labels_on(grid)

    def read_as(self, values: LabelValues) -> Mask:
        return replace(self, source=Relabelled(self.source, values.ids, values.ignored))


def mask_of(given: Volume, unnamed: str = "image") -> Mask:
    """The mask at a path, or an image in memory, which is called by its file's name where it has one."""
    if isinstance(given, str | Path):
        return Mask(case_name(given), str(given), Path(given))
    if isinstance(given, ColourMask | LabelFiles | Relabelled):
        return Mask(case_name(given), str(given), given)
    if not is_volume(given):
        found = type(given).__name__
        raise VptError(f"{unnamed}: {with_article(found)}, expected a path or a nibabel image; arrays go to score_case")
    file = given.get_filename() if hasattr(given, "get_filename") else None
    return Mask(case_name(file) if file else unnamed, str(file or unnamed), given)


@dataclass(frozen=True)
class Pair:
    """A case's masks; case: what it is called; folder: that of all references, where one was given."""

    prediction: Mask
    reference: Mask
    case: str
    folder: Path | None = None

    def read_as(self, values: LabelValues) -> Pair:
        """The same files, whose values stand for these labels."""
        return replace(self, prediction=self.prediction.read_as(values), reference=self.reference.read_as(values))

    def grids(self) -> tuple[Grid, Grid]:
        """Of the prediction and of the reference; a DICOM SEG is put on that of the other."""
        alone = self.reference.leaves_slices_out and not self.prediction.leaves_slices_out
        mine = self.prediction.grid() if alone else self.prediction.grid_beside(self.reference.grid())
        return mine, self.reference.grid_beside(mine)

    def check_grids(self) -> None:
        if self.prediction.unit != self.reference.unit:
            raise VptError(
                f"{self.prediction.shown}: its reference {self.reference.shown} is of another kind; "
                "give two images or two NIfTI files"
            )
        mine, theirs = self.grids()
        if self.reference.unit == "px" and mine.shape != theirs.shape:
            raise VptError(
                f"{self.prediction.shown}: {_pixels(mine)} pixels, but {self.reference.shown} has {_pixels(theirs)} "
                "(columns x rows); bring the prediction to the reference's size with nearest neighbour"
            )
        if not mine.matches(theirs):
            raise VptError(
                f"{self.prediction.shown}: not on the grid of {self.reference.shown}: {mine.difference(theirs)}; "
                "resample the prediction to the reference with nearest neighbour, "
                "or predict on the scan that the reference was drawn on"
            )


def _pixels(grid: Grid) -> str:
    return f"{grid.shape[0]}x{grid.shape[1]}"


@dataclass(frozen=True)
class Matched:
    """Pairs, the names of references without a prediction, how they were paired, if not by equal names, and the files
    of these references; labels: id -> name, where references are a file for each.
    """

    pairs: list[Pair]
    missing: tuple[str, ...] = ()
    said: str = ""
    missing_files: tuple[Path, ...] = ()
    labels: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, pairs: list[Pair], missing: Mapping[str, Path], *said: str) -> Matched:
        return cls(pairs, (*missing,), "; ".join(filter(None, said)), (*missing.values(),))
