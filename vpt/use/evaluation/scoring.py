"""Pairs of label volumes -> Report. Everything that can be wrong with the files is said before any score is computed,
but for voxels, which are checked case by case as they are read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vpt.data.groups import read_groupings
from vpt.data.label_maps import require_same_names
from vpt.data.layouts.description import description, read_patients
from vpt.data.mask_colours import require_one_numbering
from vpt.data.patients import Patients, by_pattern, of_folders, that_differ
from vpt.errors import VptError
from vpt.machine.available import cores
from vpt.parallel import in_order
from vpt.progress import Tick, silent
from vpt.report.segmentation import Report
from vpt.scores.cases import Empty, LabelScores, check_options, score_case
from vpt.scores.lesions import OVERLAP, LesionScores, check_overlap, score_lesions
from vpt.scores.settings import CaseResult, Settings
from vpt.use.evaluation.doubted_masks import Seen, doubts_of_masks, see_pair
from vpt.use.evaluation.label_numbers import require_numbered_alike
from vpt.use.evaluation.named_cases import cases_meant, said_of_cases
from vpt.use.evaluation.pairing import pair_masks
from vpt.use.evaluation.pairs import Matched, Pair, Volume
from vpt.use.evaluation.scored_labels import (
    Labels,
    annotated_of,
    choose_labels,
    dataset_files,
    refuse_scan,
    require_declared,
    unread_beside,
)
from vpt.words import listed

MOST_WORKERS = 4  # more hold more volumes in memory than they save time


def evaluate(
    predictions: Volume | Sequence[Volume],
    references: Volume | Sequence[Volume],
    labels: Mapping[int, str] | Iterable[int | str] | None = None,
    *,
    strict: bool = False,
    empty: Empty = "nan",
    tolerance: float = 1.0,
    tolerances: Mapping[int | str, float] | None = None,
    lesions: str | int | Iterable[int | str] = (),
    lesion_overlap: float = OVERLAP,
    annotated: Sequence[Collection[int] | None] | None = None,
    patients: str | None = None,
    by: str | Sequence[str] | None = None,
    groups: str | Path | None = None,
    title: str = "Evaluation",
    workers: int | None = None,
    progress: Tick = silent,
) -> Report:
    """Score predicted against reference label volumes (3-D NIfTI) or masks of images, each case on its own grid.

    Args:
        predictions, references: two folders (paired by case name, the file's name without its ending; where none are
            called alike by the name without words such as `seg` or `T1`), two files or nibabel images, or two
            sequences of them in the same order; of images, distances are in pixels.
        labels: the labels to score, ids (or names in dataset.json) or id -> name; others are not looked at. None takes
            them from `dataset.json` in the references' folder (also of references below it) or the one above (what it
            merges, drops or ignores is so in both), else every label above 0 that a reference holds; a mask must not
            hold others then. Ids that are given are those of such a dataset.json.
        strict: of two folders, references without a prediction are an error. Without it they are not scored, and the
            report names them (`Report.missing`).
        empty: score of a label that is absent in both volumes: "nan" (left out of means), "one" or "zero".
        tolerance: of NSD, mm (of images: pixels); tolerances: of labels (ids or names) that have one of their own.
        lesions: labels (ids or names, or "all") that are looked at lesion by lesion as well; a predicted lesion is the
            true one from an IoU of `lesion_overlap` on.
        annotated: of each pair of two sequences the ids that somebody has looked for in the reference, None for all:
            others are not scored there. Of folders, `annotated` in that `dataset.json` says it.
        patients: a regular expression that finds in every case's name whose it is, instead of what dataset.json says
            or the names let guess; intervals are over patients.
        by: columns that scores are told apart by (sex,site), of the CSV `groups`, or of the one that dataset.json
            names.
        workers: cases at a time, of fewer cases labels as well; None takes the machine's cores, four at most. Scores
            do not depend on it.
        progress: called as (done, total, name) after each case.

    Raises:
        VptError: a prediction without reference, an unreadable file, grids that differ, a label that is not in
            `labels`, values that are no whole numbers, those of a scan or shades between labels, palettes in which a
            number is not the same colour, no label at all, an option outside its range.

    What may be wrong in masks and cannot be known (edges that were interpolated or dithered, an inverted background,
    numbers that are no labels) stands in `Report.doubts`.

    >>> evaluate("out", "labelsTr").save("scores")
    """
    check_options(empty, tolerance, tolerances)
    check_overlap(lesion_overlap)
    if workers is not None and workers < 1:
        raise VptError(f"workers: {workers}, expected 1 or more")
    if groups is not None and by is None:
        raise VptError(f"groups={groups}: of which column? Say it with `by`")
    matched = _matched(predictions, references, strict)
    pairs = matched.pairs
    require_numbered_alike(predictions, matched.labels, pairs)
    chosen = choose_labels(labels, pairs, matched.labels)
    settings = Settings(
        title,
        empty,
        tolerance,
        unit=pairs[0].reference.unit,
        tolerances={chosen.id_of(name, "tolerance"): distance for name, distance in (tolerances or {}).items()},
        lesions=tuple(_lesions(lesions, chosen)),
        lesion_overlap=lesion_overlap,
    )
    whose, guess = _patients(pairs, matched.missing, patients)
    names = [pair.case for pair in pairs]
    groupings = read_groupings(by, names, whose, file=groups, described=dataset_files(pairs))
    read = [pair.read_as(chosen.values) for pair in pairs] if chosen.values else pairs
    results: list[CaseResult] = []
    seen: list[tuple[Seen, Seen]] = []
    threads = workers or cores(MOST_WORKERS)
    at_once = min(threads, len(read))  # the labels of few cases share what is left
    known = annotated_of(pairs, chosen, annotated, matched.missing)
    for result, both in in_order(
        lambda each: _score(*each, chosen, settings, threads // at_once), zip(read, known, strict=True), at_once
    ):
        results.append(result)
        seen.append(both)
        progress(len(results), len(pairs), result.name)
    return Report(
        tuple(results),
        chosen.names,
        settings,
        matched.missing,
        groups=tuple(whose(name) for name in names),
        groupings=groupings,
        notes=tuple(filter(None, [matched.said, unread_beside(pairs), guess])),
        doubts=doubts_of_masks(pairs, seen, chosen),
        missing_files=matched.missing_files,
    )


def _lesions(given: Iterable[int | str] | str | int, labels: Labels) -> Iterable[int]:
    """The ids of labels that are looked at lesion by lesion; one may be given by itself."""
    if given == "all":
        return labels.names
    return [labels.id_of(name, "lesions") for name in ([given] if isinstance(given, str | int) else given)]


def _matched(predictions: Any, references: Any, strict: bool) -> Matched:
    """The pairs, each on one grid, all of one kind."""
    matched = pair_masks(predictions, references)
    if matched.missing and strict:
        raise VptError(
            f"{predictions}: no prediction for {listed(matched.missing)}, which {references} holds; "
            "predict them as well, or score without `strict`"
        )
    for pair in matched.pairs:
        pair.check_grids()
    if _are_images(matched.pairs):
        masks = [mask for pair in matched.pairs for mask in (pair.reference, pair.prediction)]
        require_one_numbering([mask.source for mask in masks if isinstance(mask.source, Path)])
    return matched


def _score(
    pair: Pair, annotated: Collection[int], labels: Labels, settings: Settings, workers: int
) -> tuple[CaseResult, tuple[Seen, Seen]]:
    """A case's scores, and what is to be doubted in its masks."""
    mine, theirs = pair.grids()
    found, true = pair.prediction.read(mine), pair.reference.read(theirs)
    for held, mask in ((found, pair.prediction), (true, pair.reference)):
        refuse_scan(held, mask.shown)
    require_same_names(true, labels.names, pair.reference.shown, "the labels that are scored", "these")
    require_same_names(found, labels.names, pair.prediction.shown, "the labels that are scored", "these")
    require_same_names(found, dict(true.names), pair.prediction.shown, pair.reference.shown, "there")
    if labels.complete:
        labels.check(found, pair.prediction.shown)
        labels.check(true, pair.reference.shown, true.ignored)
    require_declared((id for id in true.ids if id != true.ignored), annotated, labels, pair.reference.shown)
    seen = see_pair(pair, found, true, labels)
    prediction, reference = found.array, true.array
    spacing = theirs.steps
    if pair.reference.unit == "px":  # as a volume of one slice, every voxel of it would touch the outside
        prediction, reference, spacing = prediction[..., 0], reference[..., 0], theirs.spacing[:2]
    scores = score_case(
        prediction,
        reference,
        spacing,
        annotated,
        empty=settings.empty,
        tolerance=settings.tolerance,
        tolerances=settings.tolerances,
        ignored=true.ignored,
        workers=workers,
    )
    overlap = settings.lesion_overlap
    asked = [label for label in settings.lesions if label in annotated]
    lesions = score_lesions(prediction, reference, spacing, asked, overlap=overlap, ignored=true.ignored)
    scores = {label: scores.get(label, LabelScores.unknown()) for label in labels.names}
    lesions = {label: lesions.get(label, LesionScores((), ())) for label in settings.lesions}
    return CaseResult(pair.case, pair.prediction.shown, pair.reference.shown, scores, lesions), seen


def _patients(pairs: Sequence[Pair], missing: Collection[str], pattern: str | None) -> tuple[Callable[[str], str], str]:
    """Whose each case is, and how that was guessed, in words."""
    names = [pair.case for pair in pairs]
    if pattern is not None:
        return by_pattern(names, pattern).__getitem__, ""
    said: dict[str, str] = {}
    for file in reversed(dataset_files(pairs)):
        patients = read_patients(description(file), file, ())
        said |= said_of_cases(patients, cases_meant(patients, pairs, missing), file)
    whose = Patients(names, said, of_folders(that_differ({pair.case: _folders(pair) for pair in pairs})))
    return whose.of, whose.guess()


def _folders(pair: Pair) -> tuple[str, ...]:
    """The folders in that of all references in which a pair's lies."""
    return Path(pair.reference.shown).relative_to(pair.folder).parts[:-1] if pair.folder else ()


def _are_images(pairs: Sequence[Pair]) -> bool:
    """Whether distances are pixels or mm; a mean over both would mean nothing."""
    units = {pair.reference.unit for pair in pairs}
    if len(units) > 1:
        raise VptError("some of the pairs are images and others NIfTI; score them one kind at a time")
    return units == {"px"}
