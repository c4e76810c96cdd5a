"""The folder of `vpt train --folds`: a run for every fold."""

from __future__ import annotations

from pathlib import Path

from vpt.errors import VptError
from vpt.files import read_json
from vpt.words import listed

MARK = "folds.json"  # in the folder: how many folds there are
DONE = "fold.json"  # in a fold's run: that it is finished


def is_run(folder: Path) -> bool:
    return (folder / "splits.json").is_file()


def is_of_folds(folder: Path) -> bool:
    return (folder / MARK).is_file()


def fold_runs(folder: Path) -> list[Path]:
    """The finished run of every fold; raises VptError where one is missing."""
    runs = [fold_folder(folder, fold) for fold in range(int(read_json(folder / MARK)["folds"]))]
    if missing := [run.name for run in runs if not (run / DONE).is_file()]:
        raise VptError(
            f"{folder}: {listed(missing)} of {len(runs)} folds not finished; go on with the `vpt train --folds` that "
            f"started them (--out {folder}), or give the finished ones by themselves"
        )
    return runs


def fold_folder(folder: Path, fold: int) -> Path:
    return folder / f"fold-{fold}"
