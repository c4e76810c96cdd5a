"""Predicted and reference label volumes or masks of images, paired by name before anything of them is read."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vpt.data.cases import case_name, kind_of, scan_files
from vpt.data.label_values import LabelValues
from vpt.data.layouts.naming import IMAGE, MASK, PLAIN
from vpt.data.walking import Walk
from vpt.errors import VptError
from vpt.readers import ColourMask, Grid, LabelFiles, LabelMap, Relabelled, Source, Unit, is_volume, reader_of
from vpt.words import counted, listed, with_article

PREDICTED = {"pred", "preds", "prediction", "predictions", "predicted", "out", "output", "result"}
SEQUENCES = {"t1", "t1w", "t1c", "t1ce", "t1gd", "t1n", "t2", "t2w", "t2f", "flair", "dwi", "adc", "ct", "mr", "pet"}

PROBABILITIES, PREVIEWS = "probabilities", "previews"  # folders of what is written beside masks
BESIDE_MASKS = {PROBABILITIES, PREVIEWS}

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
    """A case's masks; case: what it is called."""

    prediction: Mask
    reference: Mask
    case: str

    def read_as(self, values: LabelValues) -> Pair:
        """The same files, whose values stand for these labels."""
        return Pair(self.prediction.read_as(values), self.reference.read_as(values), self.case)

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


@dataclass(frozen=True)
class Matched:
    """Pairs, the names of references without a prediction, and how they were paired, if not by equal names."""

    pairs: list[Pair]
    missing: tuple[str, ...] = ()
    said: str = ""


def pair_masks(predictions: Volume | Sequence[Volume], references: Volume | Sequence[Volume]) -> Matched:
    """The pairs in two folders (by case name), two files or images, or two sequences of them in the same order.

    Where folders in both hold masks that are called alike, as of an archive with subfolders, these are paired as well.
    Files in folders that are not called alike are paired by what is left of their names without the words that say
    mask, scan or sequence (`pat01_T1` and `pat01_seg`). Raises VptError for predictions without a reference, names that
    fit several, and for anything that is no label volume by its name or type; files are not opened.
    """
    if _is_folder(predictions) or _is_folder(references):
        return _pair_folders(predictions, references)
    first, second = _masks(predictions), _masks(references)
    if len(first) != len(second):
        raise VptError(
            f"{counted(len(first), 'prediction')} but {counted(len(second), 'reference')}; give one of each, in one "
            "order"
        )
    if not first:
        raise VptError("no predictions and no references were given; give at least one pair of label volumes")
    return Matched([Pair(*both) for both in zip(first, second, _case_names(first, second), strict=True)])


def _case_names(predictions: Sequence[Mask], references: Sequence[Mask]) -> list[str]:
    """The references' names; where they share one (`P0/segmentation.nii.gz`), the predictions', with their folders, or
    with their places in the order.
    """
    for names in (
        [mask.name for mask in references],
        [mask.name for mask in predictions],
        [f"{Path(mask.shown).parent.name}_{mask.name}" for mask in references],
    ):
        if len({*names}) == len(names):
            return names
    return [f"{mask.name} {number}" for number, mask in enumerate(references, start=1)]


def _pair_folders(predictions: Any, references: Any) -> Matched:
    for one, other in ((predictions, references), (references, predictions)):
        if not _is_folder(one):
            shown = one if isinstance(one, str | Path) else with_article(type(one).__name__)
            raise VptError(f"{shown}: not a folder, but {other} is one; give two folders or two files")
    mine, theirs = Path(predictions), Path(references)
    alike = [below for below in _below(theirs) if _called_alike(mine / below, theirs / below)]
    lone = [below for below in _below(mine) if below not in alike] if _below(theirs) else []
    if not alike:
        matched = _pair_folder(mine, theirs)
        return replace(matched, said="; ".join(filter(None, (matched.said, _not_scored(lone)))))
    if scan_files(mine):
        alike.insert(0, Path())
    parts = {below: _pair_folder(mine / below, theirs / below) for below in alike}
    pairs = [replace(pair, case=_inside(below, pair.case)) for below, part in parts.items() for pair in part.pairs]
    missing = [_inside(below, name) for below, part in parts.items() for name in part.missing]
    others = [below for below in (Path(), *_below(theirs)) if below not in parts]
    missing += [_inside(below, case_name(path)) for below in others for path in scan_files(theirs / below)]
    said = dict.fromkeys((*(part.said for part in parts.values()), _not_scored(lone)))
    return Matched(pairs, tuple(missing), "; ".join(filter(None, said)))


def _not_scored(folders: Sequence[Path]) -> str:
    """That no reference lies in folders of predictions, in words; "" for none."""
    if not folders:
        return ""
    names = listed((each.as_posix() for each in folders), 3)
    return f"not scored, since no reference called alike lies there: {counted(len(folders), 'folder')} ({names})"


def _below(folder: Path) -> list[Path]:
    """The folders in it, at any depth, that hold masks, by their paths in it.

    Without DICOM series, which are masks themselves, and what lies beside masks.
    """
    holding = {path.parent for path in Walk(folder).files() if kind_of(path)} - {folder}
    inside = (path.relative_to(folder) for path in sorted(holding) if kind_of(path) is None)
    return [below for below in inside if not {*below.parts} & BESIDE_MASKS]


def _called_alike(predictions: Path, references: Path) -> bool:
    """Whether some mask in one folder is called as one in the other."""
    found, expected = ({id_of(case_name(path)) for path in scan_files(each)} for each in (predictions, references))
    return bool(found & expected)


def _inside(below: Path, name: str) -> str:
    return (below / name).as_posix()


def _pair_folder(predictions: Path, references: Path) -> Matched:
    """The masks in two folders themselves."""
    found, expected = _masks_in(predictions), _masks_in(references)
    said = ""
    if found.keys() - expected.keys() or _scans_in_the_way(found, expected):
        by_id = [_by_id(masks, folder) for masks, folder in ((found, predictions), (expected, references))]
        paired = [id for id in by_id[0] if id in by_id[1]]
        if len(paired) == len(by_id[0]) or len(paired) > len(found.keys() & expected.keys()):
            passed = [*_passed(found, by_id[0]), *_passed(expected, by_id[1])]
            found, expected = by_id
            example = paired[0]
            files = [Path(masks[example].shown).name for masks in (found, expected)]
            said = f"paired by the id in the names: {files[0]} with {files[1]} ({example})"
            if passed:
                said += f"; {counted(len(passed), 'file')} not taken for masks, since others say so: {listed(passed)}"
    if unpaired := sorted(found.keys() - expected.keys()):
        how = "the id in their names" if said else "name"
        raise VptError(
            f"{references}: no reference for {listed(unpaired)} in {predictions}; files are paired by {how}, as "
            f"{listed(expected, 2)}: rename the predictions, take them out, or add their references"
        )
    pairs = [Pair(mask, expected[name], name) for name, mask in found.items()]
    return Matched(pairs, tuple(name for name in expected if name not in found), said)


def _scans_in_the_way(found: Mapping[str, Mask], expected: Mapping[str, Mask]) -> bool:
    """Whether references called as predictions are scans, beside which a file says that it is their mask."""
    scans, _ = scans_and_masks(expected)
    masked = {id_of(name) for name in expected.keys() - scans}
    return any(name in scans and id_of(name) in masked for name in found)


def scans_and_masks(names: Iterable[str], words: Collection[str] = MASK) -> tuple[set[str], set[str]]:
    """Names that do not say mask, and those that say they are the mask of one of these; words: what says it."""
    saying = {name for name in names if not {*PLAIN.of(name.lower())}.isdisjoint(words)}
    scans = {*names} - saying
    ids = {id_of(name) for name in scans}
    return scans, {name for name in saying if id_of(name) in ids}


def id_of(name: str) -> str:
    """What is left of a case's name without the words that say mask, scan, prediction or sequence."""
    return "_".join(word for word in PLAIN.of(name) if not _tells_kind(word)) or name


def _by_id(masks: Mapping[str, Mask], folder: Any) -> dict[str, Mask]:
    """Id -> mask; where some names say that they are masks, only those.

    Raises VptError for two masks with one id.
    """
    saying = {name for name in masks if MASK & {*PLAIN.of(name.lower())}}
    found: dict[str, Mask] = {}
    for name, mask in masks.items():
        if saying and name not in saying:
            continue
        id = id_of(name)
        if id in found:
            raise VptError(
                f"{folder}: {Path(found[id].shown).name} and {Path(mask.shown).name} are both of {id} by their names; "
                "keep one of the two, or give predictions and references equal names"
            )
        found[id] = mask
    return dict(sorted(found.items()))


def _passed(masks: Mapping[str, Mask], taken: Mapping[str, Mask]) -> list[str]:
    """The files' names of those that `_by_id` did not take."""
    return [Path(mask.shown).name for mask in masks.values() if mask not in taken.values()]


def _tells_kind(word: str) -> bool:
    """Whether a word of a name says mask, scan, prediction or sequence, and not whose it is."""
    return word.lower() in MASK | IMAGE | PREDICTED | SEQUENCES or word == "0000"


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
        raise VptError(f"{unnamed}: {with_article(found)}, expected a path or a nibabel image; arrays go to score_case")
    file = given.get_filename() if hasattr(given, "get_filename") else None
    return Mask(case_name(file) if file else unnamed, str(file or unnamed), given)


def _pixels(grid: Grid) -> str:
    return f"{grid.shape[0]}x{grid.shape[1]}"


def _is_folder(given: Any) -> bool:
    return isinstance(given, str | Path) and Path(given).is_dir()
