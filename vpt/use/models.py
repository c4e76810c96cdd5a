"""Which models a user means: runs and artifacts, and the folders of `vpt train --folds` and `vpt compare`."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from vpt.errors import VptError, VptWarning
from vpt.files import read_json
from vpt.use.folds import fold_runs, is_of_folds

TABLE = "compare.json"  # of `vpt compare`, the best method first


def models_in(given: str | Path | Sequence[str | Path]) -> list[Path]:
    """Runs and artifacts; in the place of a folder of folds all of them, in that of a comparison its winner.

    Raises:
        VptError: none; folds that are not finished; a comparison without a tested method.
    """
    several = [given] if isinstance(given, str | Path) else given
    if not isinstance(several, Iterable) or not all(isinstance(path, str | Path) for path in several):
        raise VptError(f"model {given!r}: expected a run's folder (of `vpt train`) or an artifact, or a list of them")
    paths = [Path(path) for path in several]
    if not paths:
        raise VptError("no model; give a run's folder (of `vpt train`) or an artifact (.safetensors), or several")
    return [model for path in paths for model in _models_of(path)]


def _models_of(path: Path) -> list[Path]:
    if is_of_folds(path):
        return fold_runs(path)
    return [winner_of(path)] if is_comparison(path) else [path]


def is_comparison(folder: Path) -> bool:
    return (folder / TABLE).is_file()


def winner_of(comparison: Path) -> Path:
    """The run of the method that leads a comparison's table, its first seed; a `VptWarning` says which it is."""
    methods: list[dict[str, Any]] = read_json(comparison / TABLE)["methods"]
    best = next((method for method in methods if method.get("measured")), None)
    runs = sorted((comparison / best["name"]).glob("seed-*/best.safetensors")) if best else []
    if best is None or not runs:
        raise VptError(
            f"{comparison}: a comparison without a trained and tested method yet; go on with its `vpt compare`, "
            "or give one of its runs"
        )
    run = runs[0].parent
    warnings.warn(
        f"{comparison}: takes {run.relative_to(comparison)}, whose method ({best['shown']}) leads the table; "
        "the test side chose it, so its score there is no longer that of unseen cases",
        VptWarning,
        stacklevel=4,
    )
    return run
