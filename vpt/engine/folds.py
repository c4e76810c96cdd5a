"""`vpt train --folds`: a run for every fold of a data set, in one folder; resumable, shared by several processes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vpt.config import Config, ResolvedConfig, dump_config, load_config
from vpt.config.run import OF_ONE_TASK
from vpt.data.cases import SegmentationSet, raise_first
from vpt.data.fingerprint import fingerprint_of
from vpt.data.labelled import LabelledSet
from vpt.data.planning import choose_grid
from vpt.data.splits import Splits, fold_count, read_splits, survey_splits
from vpt.engine.checkpoint import has_state
from vpt.engine.folder import RUNNING, STATE
from vpt.engine.run import train
from vpt.engine.same_data import DATA, is_at_work, is_same_data, keep_marks, marks_of_data, require_same_data
from vpt.engine.setup import encoder_input, read_data, wishes_of
from vpt.errors import VptError
from vpt.files import make_folder, read_json, write_json, write_text
from vpt.use.folds import DONE, MARK, fold_folder

WAIT = 2.0  # seconds between looks at what other processes do
OF_VOLUMES = ("plane", "neighbours", "pixel_mm", "crop")  # of the grid; images have the size alone


def train_folds(config: Config, out: str | Path) -> Path:
    """Train every fold of the config's data set, `data.folds` of them, with the config's one seed -> `out`.

    Finished folds are skipped, interrupted ones resumed, and processes that are given the same `out` share the work.
    Where the sides are fixed, folds are drawn over train and val, and test stays apart in each of them. All folds have
    one plane, pixel and image size, of the headers of all their cases, so that they can be an ensemble; windows and
    values are of each fold's training cases.

    Raises:
        VptError: more folds than patients; an `out` of something else, or of other data; what `train` refuses.
        vpt.engine.signals.Interrupted: after SIGINT or SIGTERM, with the state saved.
    """
    folds = Folds.claimed(config, Path(out))
    while todo := [fold for fold in range(folds.count) if not folds.is_done(fold)]:
        if not any(folds.attempt(fold) for fold in todo):
            time.sleep(WAIT)
    return folds.out


@dataclass(frozen=True)
class Folds:
    """What is trained in `out`; grid: the settings that all folds share whatever their cases are."""

    base: Config
    out: Path
    count: int
    grid: Mapping[str, Any]

    @classmethod
    def claimed(cls, base: Config, out: Path) -> Folds:
        """Make the folder this training's, or see that it is."""
        resolved, dataset = read_data(base)
        count = fold_count(dataset, base.data.folds)
        if base.data.fold is not None:
            raise VptError(f"data.fold={base.data.fold}: all folds are trained; leave it out, or train without --folds")
        _require_unused(out)
        marks = marks_of_data(dataset, _folds(dataset, count))
        make_folder(out, "choose another --out")
        with FileLock(out / ".claim.lock"):
            begun = (out / MARK).exists()
            if begun and not is_same_data(out, marks) and _has_learned_nothing(out):
                _require_same(out, base)
                begun = False
            if begun:
                _require_same(out, base)
                require_same_data(out, marks)
            keep_marks(out, marks)
            if not begun:
                write_text(out / "config.yaml", dump_config(base))
                write_json(out / MARK, {"folds": count, "grid": _grid(resolved, dataset, base)})
        return cls(base, out, count, read_json(out / MARK)["grid"])

    def is_done(self, fold: int) -> bool:
        return (fold_folder(self.out, fold) / DONE).exists()

    def attempt(self, fold: int) -> bool:
        """Train a fold unless another process is at it; whether it is done now."""
        folder = fold_folder(self.out, fold)
        try:
            with FileLock(f"{folder}.lock", timeout=0):
                if not self.is_done(fold):
                    self._train(fold, folder)
        except Timeout:
            return False
        return True

    def _train(self, fold: int, folder: Path) -> None:
        own = {"device": self.base.device, "callbacks": self.base.callbacks}
        if has_state(folder / STATE):
            train(None, folder, overrides=own, resume=True, alone=True)
        else:
            if not (folder / RUNNING).is_file():
                shutil.rmtree(folder, ignore_errors=True)
            settings = {**self.grid, "data.fold": fold, "data.folds": self.base.data.folds}
            train(load_config(self.base.model_dump(mode="json", exclude_unset=True), settings), folder, alone=True)
        write_json(folder / DONE, {"fold": fold, "folds": self.count})


def _has_learned_nothing(out: Path) -> bool:
    """Whether no fold is done, nor has a state, as where a damaged file ended the first, and none goes on now."""
    learned = (*out.glob(f"*/{DONE}"), *out.glob(f"*/{STATE.parent}/*{STATE.suffix}"))
    return not (learned or is_at_work(out))


def _require_unused(out: Path) -> None:
    """Raise VptError unless the folder is new, empty, or one of folds."""
    held = {item.name for item in out.iterdir() if not item.name.startswith(".")} if out.is_dir() else set()
    if held - {"config.yaml", DATA} and not (out / MARK).exists():  # asked last: another process may just have made it
        raise VptError(f"{out}: the folder is not empty, and holds no folds; choose another --out")


def _require_same(out: Path, base: Config) -> None:
    own = {"device": base.device, "callbacks": base.callbacks}  # each process has its own
    if load_config(out / "config.yaml", own) != base:
        raise VptError(
            f"{out}: holds folds with other settings (config.yaml); choose another --out, or go on with the settings "
            "they were started with"
        )


def _folds(dataset: SegmentationSet | LabelledSet, count: int) -> list[Splits]:
    """The folds as they would be if all masks held the same, for which none is read."""
    found = [survey_splits(dataset, fold, count, held={}) for fold in range(count)]
    raise_first(found[0][1], f"`{dataset.check}` lists them all")
    return [splits for splits, _ in found]


def _grid(resolved: ResolvedConfig, dataset: SegmentationSet | LabelledSet, base: Config) -> dict[str, Any]:
    """Settings of the plan by dotted keys, from the headers of all cases of the folds."""
    sides = read_splits(dataset, 0, base.data.folds)
    cases = [dataset.case(name) for name in (*sides.train, *sides.val)]
    wishes, _ = choose_grid(dataset, cases, fingerprint_of(cases), encoder_input(resolved), wishes_of(resolved))
    names = ("image_size", *(OF_VOLUMES if dataset.kind == "volumes" else ()))
    chosen = {f"plan.{name}": getattr(wishes, name) for name in names}
    return {k: v for k, v in chosen.items() if v is not None and OF_ONE_TASK.get(k, resolved.task) == resolved.task}
