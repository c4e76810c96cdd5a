"""Two runs on their test cases, or two folders of masks against one of references -> what differs between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vpt.errors import VptError
from vpt.progress import Tick, silent
from vpt.report.class_view import CHOSEN
from vpt.report.classification import ClassReport
from vpt.report.paired import PairedClasses, PairedFiles, PairedReport
from vpt.report.segmentation import Report
from vpt.scores.paired import pair_classifications, pair_segmentations
from vpt.use.evaluation.scoring import evaluate
from vpt.words import agreeing, listed


def compare_runs(first: Path, second: Path, *, progress: Tick = silent, **settings: Any) -> PairedReport:
    """Evaluate two runs (see `evaluate_run` for the settings) and pair what both have tested.

    Raises VptError where one segments and the other classifies, labels differ, or no case is in both.
    """
    from vpt.use.runs import evaluate_run

    reports = [evaluate_run(run, progress=progress, **settings)[0] for run in (first, second)]
    found = _paired(reports[0], reports[1], str(first), str(second))
    return replace(found, notes=(_sides(reports, (first, second)), *found.notes))


def _sides(reports: Sequence[Report | ClassReport], runs: Sequence[Path]) -> str:
    """Which side of the split each was scored on, and what else its title says of how."""
    titles = [each.settings.title if isinstance(each, Report) else each.title for each in reports]
    a, b = (title.removeprefix(f"{run}: ") for title, run in zip(titles, runs, strict=True))
    return f"scored on the {a}" if a == b else f"scored: A on the {a}; B on the {b}"


def compare_masks(first: Path, second: Path, references: Path, **settings: Any) -> PairedReport:
    """Score two folders of masks against one of references (see `evaluate` for the settings) and pair the cases."""
    one, other = (evaluate(masks, references, **settings) for masks in (first, second))
    names = {case.reference_file: case.name for case in one.cases}
    alike = tuple(replace(case, name=names.get(case.reference_file, case.name)) for case in other.cases)
    found = _paired(one, replace(other, cases=alike), str(first), str(second))
    lacking = {*other.missing_files}
    missing = tuple(name for name, file in zip(one.missing, one.missing_files, strict=True) if file in lacking)
    if not missing:
        return found
    said = (
        f"{len(missing)} of {len(one.cases) + len(one.missing)} references {agreeing(len(missing), 'have')} no "
        f"prediction in either and {agreeing(len(missing), 'are')} not compared: {listed(missing, 3)} (--strict makes "
        "this an error)"
    )
    return replace(found, notes=(*found.notes, said), missing=missing)


def _of_whom(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """What is said of both, then what is said of one alone, with its letter."""
    alone = [
        f"{letter}: {said}"
        for letter, own, other in (("A", first, second), ("B", second, first))
        for said in own
        if said not in other
    ]
    return [*(said for said in first if said in second), *alone]


def _paired(one: Report | ClassReport, other: Report | ClassReport, first: str, second: str) -> PairedReport:
    if isinstance(one, Report) and isinstance(other, Report):
        warned = [f"warning: {doubt}" for doubt in _of_whom([*map(str, one.doubts)], [*map(str, other.doubts)])]
        notes = (*_of_whom(one.notes, other.notes), *warned)
        found = pair_segmentations(one, other)
        files, unit = _files(one, other), one.settings.unit
        return PairedReport(found, first, second, "Dice", _how(one), notes, one.labels, files, unit=unit)
    if isinstance(one, ClassReport) and isinstance(other, ClassReport):
        shown = "probability of the truth"
        found = pair_classifications(one, other)
        return PairedReport(found, first, second, shown, one.method(), classes=_classes(one, other))
    raise VptError(f"{first} and {second}: one segments and the other classifies; compare runs of one task")


def _how(report: Report) -> str:
    return str(report.summary()["confidence_intervals"]["method"])


def _files(one: Report, other: Report) -> dict[str, PairedFiles]:
    theirs = {case.name: case.prediction_file for case in other.cases}
    return {
        case.name: PairedFiles(case.prediction_file, theirs[case.name], case.reference_file)
        for case in one.cases
        if case.name in theirs
    }


def _classes(one: ClassReport, other: ClassReport) -> PairedClasses:
    """The classes of the cases that both have."""
    theirs = {name: row for row, name in enumerate(other.names)}
    mine = [row for row, name in enumerate(one.names) if name in theirs]
    first, second = one.restricted(mine), other.restricted([theirs[one.names[row]] for row in mine])
    pairs = zip(first.names, first.answers(), second.answers(), strict=True)
    answers = {name: (true, ours, others) for name, (true, ours), (_, others) in pairs}
    counts = () if one.target == "labels" else (first.confusion(), second.confusion())
    return PairedClasses(one.classes, CHOSEN[one.target], counts, answers)
