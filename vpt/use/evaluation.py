"""Pairs of label volumes -> Report. Everything that can be wrong with the files is said before any score is computed,
but for voxels, which are checked case by case as they are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vpt.data.label_values import LabelValues
from vpt.data.layouts.description import read_labels
from vpt.data.mask_values import require_one_numbering
from vpt.data.pairs import Pair, Volume, pair_masks
from vpt.errors import VptError
from vpt.progress import Tick, silent
from vpt.report.segmentation import Report
from vpt.scores.cases import Empty, check_options, score_case
from vpt.scores.segmentation import CaseResult, Settings
from vpt.words import listed


@dataclass(frozen=True)
class Labels:
    """The labels to score: id -> name in order of ids, without the background; and who says so, for messages."""

    names: dict[int, str]
    origin: str
    complete: bool = True  # False: the references may hold others as well
    values: LabelValues | None = None  # what is in the files stands for, where it is not the labels' ids

    def check(self, ids: Iterable[int], shown: str) -> None:
        if unknown := [id for id in ids if id not in {0, *self.names}]:
            raise VptError(
                f"{shown}: label{'s' if len(unknown) > 1 else ''} {listed(unknown)} not in {listed(self.names, 20)} "
                f"(from {self.origin}); add it to `labels`, or take it out of the file"
            )


def evaluate(
    predictions: Volume | Sequence[Volume],
    references: Volume | Sequence[Volume],
    labels: Mapping[int, str] | Iterable[int] | None = None,
    *,
    strict: bool = False,
    empty: Empty = "nan",
    tolerance: float = 1.0,
    title: str = "Evaluation",
    progress: Tick = silent,
) -> Report:
    """Score predicted against reference label volumes (3-D NIfTI) or masks of images, each case on its own grid.

    Args:
        predictions, references: two folders (paired by case name: the file's name without its ending), two files
            or nibabel images, or two sequences of them in the same order; of images, distances are in pixels.
        labels: the labels to score, ids or id -> name; others are not looked at. None takes them from `dataset.json`
            in the references' folder or the one above (what it merges, drops or ignores is so in both), else every
            label above 0 that a reference holds; a mask must not hold others then.
        strict: of two folders, references without a prediction are an error. Without it they are not scored, and the
            report names them (`Report.missing`).
        empty: score of a label that is absent in both volumes: "nan" (left out of means), "one" or "zero".
        tolerance: of NSD, mm (of images: pixels).
        progress: called as (done, total, name) after each case.

    Raises:
        VptError: a prediction without reference, an unreadable file, grids that differ, a label that is not in
            `labels`, values that are no whole numbers, palettes in which a number is not the same colour, no label at
            all, an option outside its range.

    >>> evaluate("out", "labelsTr").save("scores")
    """
    check_options(empty, tolerance)
    pairs, missing = pair_masks(predictions, references)
    if missing and strict:
        raise VptError(
            f"{predictions}: no prediction for {listed(missing)}, which {references} holds; "
            "predict them as well, or score without `strict`"
        )
    for pair in pairs:
        pair.check_grids()
    flat = _are_images(pairs)
    if flat:
        masks = [mask for pair in pairs for mask in (pair.reference, pair.prediction)]
        require_one_numbering([mask.source for mask in masks if isinstance(mask.source, Path)])
    chosen = _choose_labels(labels, pairs)
    pairs = [pair.read_as(chosen.values) for pair in pairs] if chosen.values else pairs
    results = []
    for done, pair in enumerate(pairs, start=1):
        results.append(_score(pair, chosen, empty, tolerance))
        progress(done, len(pairs), pair.reference.name)
    settings = Settings(title, empty, tolerance, unit="px" if flat else "mm")
    return Report(tuple(results), chosen.names, settings, missing)


def _score(pair: Pair, labels: Labels, empty: Empty, tolerance: float) -> CaseResult:
    mine, theirs = pair.grids()
    found, true = pair.prediction.read(mine), pair.reference.read(theirs)
    if labels.complete:
        labels.check(found.ids, pair.prediction.shown)
        labels.check((id for id in true.ids if id != true.ignored), pair.reference.shown)
    prediction, reference = found.array, true.array
    spacing: tuple[float, ...] = theirs.spacing
    if pair.reference.unit == "px":  # as a volume of one slice, every voxel of it would touch the outside
        prediction, reference, spacing = prediction[..., 0], reference[..., 0], spacing[:2]
    scores = score_case(
        prediction, reference, spacing, labels.names, empty=empty, tolerance=tolerance, ignored=true.ignored
    )
    return CaseResult(pair.reference.name, pair.prediction.shown, pair.reference.shown, scores)


def _are_images(pairs: Sequence[Pair]) -> bool:
    """Whether distances are pixels or mm; a mean over both would mean nothing."""
    units = {pair.reference.unit for pair in pairs}
    if len(units) > 1:
        raise VptError("some of the pairs are images and others NIfTI; score them one kind at a time")
    return units == {"px"}


# --- labels -----------------------------------------------------------------------------------------------------------


def _choose_labels(given: Mapping[int, str] | Iterable[int] | None, pairs: Sequence[Pair]) -> Labels:
    if given is not None:
        return _given_labels(given)
    for file in _dataset_files(pairs):
        try:
            named = read_labels(file)
        except VptError as error:
            raise VptError(f"{error}; or give `labels`") from error
        if named is not None:
            values = LabelValues(named)
            names = {id: name for id, name in values.labels.items() if id}
            return Labels(names, str(file), values=None if values.is_plain else values)
    found: set[int] = set()
    for reference in (pair.reference for pair in pairs):
        ids = reference.read().ids
        if ids[0] < 0:
            raise VptError(f"{reference.shown}: holds {ids[0]}, expected labels of 0 and above; is this a label map?")
        found.update(ids)
    if found <= {0}:
        raise VptError(f"{pairs[0].reference.shown}: no label above 0 in any of {len(pairs)} references; give `labels`")
    return Labels({id: str(id) for id in sorted(found - {0})}, "the references")


def _given_labels(given: Mapping[int, str] | Iterable[int]) -> Labels:
    named = given if isinstance(given, Mapping) else {label: str(label) for label in given}
    try:
        names = dict(sorted((int(label), str(name)) for label, name in named.items() if int(label) != 0))
    except (TypeError, ValueError):
        raise VptError(f"`labels`: {listed(named)} are not integer labels, such as 1, 2, 3") from None
    if not names or min(names) < 0:
        raise VptError(f"`labels`: labels {listed(names) or 'none'}, expected at least one, all above 0")
    return Labels(names, "`labels`", complete=False)


def _dataset_files(pairs: Sequence[Pair]) -> list[Path]:
    """`dataset.json` of the references' folder and of the one above, when all references lie in one folder."""
    sources = [pair.reference.source for pair in pairs]
    folders = {source.parent.resolve() for source in sources if isinstance(source, Path)}
    if len(folders) != 1:
        return []
    (folder,) = folders
    return [file for file in (folder / "dataset.json", folder.parent / "dataset.json") if file.is_file()]
