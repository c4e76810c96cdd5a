"""Runs of all folds summed up: every case scored by the fold that had not seen it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from vpt.artifact import read_artifact
from vpt.data.splits import read_written
from vpt.errors import VptError
from vpt.progress import Tick, silent
from vpt.report.classification import ClassReport
from vpt.report.segmentation import Report
from vpt.scores.groups import Grouping
from vpt.use.folds import fold_runs
from vpt.use.runs import evaluate_run, variant
from vpt.vocabulary import DECIDED, AskedDecision
from vpt.words import counted, listed

FOLDER = "cross_validation"


def evaluate_folds(
    given: Path | Sequence[Path],
    out: Path | None = None,
    *,
    oracle_box: bool = False,
    tta: bool = False,
    decide: AskedDecision = "auto",
    postprocess: bool = True,
    progress: Tick = silent,
    **settings: Any,
) -> tuple[Report | ClassReport, Path]:
    """The folder of `vpt train --folds`, or a run for each fold -> a report over all validation cases, and its folder.

    Intervals are over patients. oracle_box, tta, decide, postprocess, settings: see `vpt.use.runs.evaluate_run`;
    out: by default `cross_validation` (with `_oracle_box`, `_tta`, `_dice`, `_likeliest`, `_raw`) in the folder, of
    runs beside the first.

    Raises:
        VptError: folds that are not finished, a case that two runs validate, labels that differ.
    """
    runs = fold_runs(given) if isinstance(given, Path) else list(given)
    suffix, told = variant(oracle_box, tta, postprocess, decide)
    folder = out or (given if isinstance(given, Path) else runs[0].parent) / f"{FOLDER}{suffix}"
    left = _require_apart(runs)
    asked = {"oracle_box": oracle_box, "tta": tta, "decide": decide, "postprocess": postprocess, **settings}
    reports = []
    for done, run in enumerate(runs):
        report, _ = evaluate_run(run, split="val", out=folder, **asked)
        reports.append(report)
        progress(done + 1, len(runs), run.name)
    title = f"{given if isinstance(given, Path) else runs[0].parent}: {counted(len(runs), 'fold')}, every case scored "
    title += "by the one that had not trained on it" + (f"; {left} in no fold's validation" if left else "")
    return _merged(reports, title + told + _chosen(runs, postprocess, decide)), folder


def _chosen(runs: Sequence[Path], postprocess: bool, decide: AskedDecision) -> str:
    """Of folds that chose by the cases that they now score: how many did."""
    artifacts = [read_artifact(run) for run in runs]
    tidied = sum(bool(each.postprocess) for each in artifacts) if postprocess else 0
    wider = sum(each.decision == "dice" for each in artifacts) if decide == "auto" else 0
    said = {f"with {DECIDED['dice']}": wider, "post-processed": tidied}
    return "".join(f"; {n} of them {what}, as chosen on the cases that they score" for what, n in said.items() if n)


def _require_apart(runs: Sequence[Path]) -> int:
    """Raise VptError where a case would be scored twice; how many cases would not be at all."""
    seen: dict[str, Path] = {}
    known: set[str] = set()
    for run in runs:
        if not (run / "splits.json").is_file():
            raise VptError(f"{run}: not a run's folder (no splits.json); give runs of `vpt train --fold`")
        splits = read_written(run / "splits.json").to_dict()
        if not splits["val"]:
            raise VptError(f"{run}: nothing validates in it, so it is no fold; leave it out")
        known.update(chain.from_iterable(splits.values()))
        for name in splits["val"]:
            if name in seen:
                raise VptError(f"{name} is validated in {seen[name]} and in {run}; give every fold once")
            seen[name] = run
    return len(known - set(seen))


def _merged(reports: Sequence[Report | ClassReport], title: str) -> Report | ClassReport:
    masks = [report for report in reports if isinstance(report, Report)]
    classes = [report for report in reports if isinstance(report, ClassReport)]
    if masks and classes:
        raise VptError("some of the runs segment and others classify; give the folds of one training")
    return _of_masks(masks, title) if masks else _of_classes(classes, title)


def _of_masks(reports: Sequence[Report], title: str) -> Report:
    first = reports[0]
    _require_one("labels", [report.labels for report in reports])
    return replace(
        first,
        cases=tuple(chain.from_iterable(report.cases for report in reports)),
        settings=replace(first.settings, title=title),
        groups=tuple(chain.from_iterable(report.groups or () for report in reports)),
        groupings=_merged_groupings([report.groupings for report in reports]),
    )


def _merged_groupings(found: Sequence[tuple[Grouping, ...]]) -> tuple[Grouping, ...]:
    """Each column's for the cases of all folds."""
    return tuple(_merged_grouping(of_column) for of_column in zip(*found, strict=True))


def _merged_grouping(told: Sequence[Grouping]) -> Grouping:
    of = {name: group for each in told for name, group in each.of.items()}
    return Grouping(told[0].column, of, tuple(chain.from_iterable(each.without for each in told)))


def _of_classes(reports: Sequence[ClassReport], title: str) -> ClassReport:
    _require_one("classes", [(report.target, report.classes) for report in reports])
    return replace(
        reports[0],
        names=tuple(chain.from_iterable(report.names for report in reports)),
        probabilities=np.concatenate([report.probabilities for report in reports]),
        targets=np.concatenate([report.targets for report in reports]),
        annotated=np.concatenate([report.looked for report in reports]),
        groups=tuple(chain.from_iterable(report.groups or () for report in reports)),
        title=title,
        groupings=_merged_groupings([report.groupings for report in reports]),
    )


def _require_one(what: str, found: Iterable[Any]) -> None:
    distinct = list(dict.fromkeys(map(str, found)))
    if len(distinct) > 1:
        raise VptError(f"runs with different {what} ({listed(distinct, 2)}); give the folds of one training")
