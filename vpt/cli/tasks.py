"""`vpt predict -m A -m B`: several tasks on one encoder."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vpt.cli.answers import ended_in_order, tell, write_page
from vpt.cli.loading import Loading
from vpt.cli.shared import usage

if TYPE_CHECKING:
    from vpt.use.archives import Asked
    from vpt.use.bank import Bank


def predict_tasks(
    loading: Loading, scans: list[Path], out: Path, asked: Asked, merge: bool, report: bool, viewer: bool
) -> int:
    """Masks of every task, or of all in one -> the exit code."""
    from vpt.progress import bar
    from vpt.report.own_results import PAGE, require_own_page
    from vpt.use.archives import ModelMark, loaded_whole, segment_archive, segment_for_tasks
    from vpt.use.bank_segmenters import MergedSegmenter

    if merge and asked.beside.probabilities:
        usage("--probabilities: several tasks in one mask have none in common; leave out --merge")
    paths = named(loading.models)
    if report and not merge:
        for task in paths:
            require_own_page(out / task / PAGE)
    bank, hashes = loaded_whole(list(paths.values()), lambda: _bank(paths, loading))
    started = time.perf_counter()
    with ended_in_order(f"{out}: the same command with --continue goes on"), bar("segmenting") as tick:
        if merge:
            together: Any = MergedSegmenter(bank)
            mark = ModelMark.of(list(paths.values()), _settings(loading, asked, bank) | {"merge": list(paths)}, hashes)
            outcomes = {"": segment_archive(together, scans, out, asked, mark, tick)}
            models = {"": together}
        else:
            settings = _settings(loading, asked, bank)
            each = zip(paths.items(), hashes, strict=True)
            marks = {task: ModelMark.of([path], settings, [its]) for (task, path), its in each}
            outcomes, models = segment_for_tasks(bank, scans, out, asked, marks, tick), bank.segmenters()
    seconds = time.perf_counter() - started
    for number, (task, outcome) in enumerate(outcomes.items()):
        said = outcome if number == 0 else replace(outcome, doubts=[], notes=[])  # those of scans are all tasks'
        tell(said, asked, seconds, sys.stdout)
        if report:
            print(f"report: {write_page(models[task], scans, outcome.out, asked, viewer)}")
    return 1 if any(outcome.failures for outcome in outcomes.values()) else 0


def named(models: list[str]) -> dict[str, Path]:
    """Tasks by their names: NAME=PATH, else called as the run's folder or the artifact's file -> artifacts."""
    from vpt.artifact import find_artifact

    found: dict[str, Path] = {}
    for given in models:
        name, equals, path = given.partition("=")
        if not equals or Path(given).exists():
            name, path = "", given
        artifact = find_artifact(path)
        of_run = artifact.stem in ("best", "last")
        name = name or (artifact.resolve().parent.name if of_run else artifact.stem)
        if name in found:
            usage(f"-m {given}: there is a task called {name} already; name them, -m first={path} -m second=...")
        if not name or Path(name).name != name:
            usage(f"-m {given}: {name!r} cannot be the name of a folder; choose another")
        found[name] = artifact
    return found


def _bank(paths: Mapping[str, Path], loading: Loading) -> Bank:
    from vpt.artifact import read_artifact
    from vpt.errors import VptError
    from vpt.use.bank import Bank
    from vpt.use.load import decided

    artifacts = {task: read_artifact(path) for task, path in paths.items()}
    for task, artifact in artifacts.items():
        if artifact.config.task != "segmentation":
            raise VptError(
                f"{task}: {artifact.path} classifies; only masks can be made side by side, predict with it alone"
            )
    first = next(iter(artifacts.values()))
    precision = loading.precision or first.config.precision
    bank = Bank(first.config.backbone.name, loading.device, loading.weights, precision, loading.postprocess)
    for task, path in paths.items():
        bank.add(task, path)
    for segmenter in bank.segmenters().values():
        decided(segmenter, loading.decide)
    return bank


def _settings(loading: Loading, asked: Asked, bank: Bank) -> dict[str, Any]:
    """The settings that change masks, for the record."""
    return {
        "force": asked.force,
        "as": asked.form,
        "series": asked.series,
        "precision": loading.precision,
        "postprocess": loading.postprocess,
        **({} if loading.decide == "auto" else {"decide": loading.decide}),
        "device": bank.device.type,
    }
