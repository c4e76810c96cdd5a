"""Predicted and reference label volumes or masks of images, paired by name before anything of them is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vpt.data.cases import case_name, scan_files
from vpt.data.label_values import LabelValues
from vpt.errors import VptError
from vpt.readers import ColourMask, Grid, LabelFiles, LabelMap, Relabelled, Source, Unit, is_volume, reader_of
from vpt.words import listed

Volume = Any  # str | Path | nibabel image; whose reader knows which


@dataclass(frozen=True)
class Mask:
    """A label volume that is not read yet: its case's name, and what to call it in messages."""

    name: str
    shown: str
    source: Source

    @property
    def unit(self) -> Unit:
        """Of distances in it: images have pixels, and no millimetres."""
        return reader_of(self.source).unit

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


@dataclass(frozen=True)
class Pair:
    prediction: Mask
    reference: Mask

    def read_as(self, values: LabelValues) -> Pair:
        """The same files, whose values stand for these labels."""
        return Pair(self.prediction.read_as(values), self.reference.read_as(values))

    def grids(self) -> tuple[Grid, Grid]:
        """Of the prediction and of the reference; a DICOM SEG is put on that of the other."""
        mine = self.prediction.grid_beside(self.reference.grid())
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


def pair_masks(
    predictions: Volume | Sequence[Volume], references: Volume | Sequence[Volume]
) -> tuple[list[Pair], tuple[str, ...]]:
    """The pairs in two folders (by case name), two files or images, or two sequences of them in the same order.

    Also the names of the references (of two folders) that have no prediction. Raises VptError for predictions without
    a reference and for anything that is no label volume by its name or type; files are not opened.
    """
    if _is_folder(predictions) or _is_folder(references):
        return _pair_folders(predictions, references)
    first, second = _masks(predictions), _masks(references)
    if len(first) != len(second):
        raise VptError(f"{len(first)} predictions but {len(second)} references; give one of each, in one order")
    if not first:
        raise VptError("no predictions and no references were given; give at least one pair of label volumes")
    return [Pair(*pair) for pair in zip(first, second, strict=True)], ()


def _pair_folders(predictions: Any, references: Any) -> tuple[list[Pair], tuple[str, ...]]:
    for one, other in ((predictions, references), (references, predictions)):
        if not _is_folder(one):
            shown = one if isinstance(one, str | Path) else f"a {type(one).__name__}"
            raise VptError(f"{shown}: not a folder, but {other} is one; give two folders or two files")
    found, expected = _masks_in(Path(predictions)), _masks_in(Path(references))
    if unpaired := sorted(found.keys() - expected.keys()):
        raise VptError(
            f"{references}: no reference for {listed(unpaired)} in {predictions}; files are paired by name, as "
            f"{listed(expected, 2)}: rename the predictions, take them out, or add their references"
        )
    pairs = [Pair(mask, expected[name]) for name, mask in found.items()]
    return pairs, tuple(name for name in expected if name not in found)


def _masks_in(folder: Path) -> dict[str, Mask]:
    """Case name -> mask, sorted by name."""
    found: dict[str, Mask] = {}
    volumes, images = scan_files(folder, "volumes"), scan_files(folder, "images")
    if volumes and images:
        raise VptError(f"{folder}: holds NIfTI files and images; keep masks of one kind in a folder")
    for path in volumes or images:
        if twin := found.get(name := case_name(path)):
            raise VptError(f"{path}: {Path(twin.shown).name} has the same case name {name}; keep one of the two")
        found[name] = _mask(path)
    if not found:
        below = [each.name for each in sorted(folder.iterdir()) if each.is_dir() and scan_files(each)]
        hint = f"did you mean its folder {' or '.join(below)}?" if below else "give the folder that holds the masks"
        raise VptError(f"{folder}: no volumes (.nii.gz, .nrrd, .mha, ...) or images in this folder; {hint}")
    return dict(sorted(found.items()))


def _masks(given: Any) -> list[Mask]:
    if isinstance(given, str | Path) or is_volume(given):
        return [_mask(given)]
    return [_mask(one, f"image {number}") for number, one in enumerate(given, start=1)]


def _mask(given: Volume, unnamed: str = "image") -> Mask:
    """Of a path, or of an image in memory, called by its file's name where it has one."""
    if isinstance(given, str | Path):
        return Mask(case_name(given), str(given), Path(given))
    if isinstance(given, ColourMask | LabelFiles | Relabelled):
        return Mask(case_name(given), str(given), given)
    if not is_volume(given):
        found = type(given).__name__
        raise VptError(f"{unnamed}: a {found}, expected a path or a nibabel image; arrays go to score_case")
    file = given.get_filename() if hasattr(given, "get_filename") else None
    return Mask(case_name(file) if file else unnamed, str(file or unnamed), given)


def _pixels(grid: Grid) -> str:
    return f"{grid.shape[0]}x{grid.shape[1]}"


def _is_folder(given: Any) -> bool:
    return isinstance(given, str | Path) and Path(given).is_dir()
