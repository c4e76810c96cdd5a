"""`vpt compare`: every method searched on the validation side, trained again on train and val, tested once.

The protocol is VTAB's (Zhai et al., 2019; Jia et al., ECCV 2022, section 4.1): rate and weight decay are chosen on the
validation side, then the method learns from both sides together, once per seed, and its last epoch is tested.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vpt.artifact import read_artifact
from vpt.backbones import load_backbone
from vpt.config import Config, as_config, dump_config, load_config
from vpt.data.cases import SegmentationSet
from vpt.data.labelled import LabelledSet
from vpt.data.splits import read_splits
from vpt.engine.checkpoint import has_state
from vpt.engine.classifying import CHOOSES
from vpt.engine.folder import STATE
from vpt.engine.methods import CONTROLS, Method, choose_methods
from vpt.engine.outcome import cost_of, in_a_line, per_case
from vpt.engine.run import train
from vpt.engine.same_data import is_at_work, is_same_data, keep_marks, marks_of_data, require_same_data
from vpt.engine.setup import read_data
from vpt.engine.trial import Trial, config_of
from vpt.errors import VptError
from vpt.files import DiskFull, is_no_space, make_folder, write_text
from vpt.machine.device import choose_device
from vpt.machine.memory import peak_memory, reset_peak
from vpt.progress import bar, quiet
from vpt.report.comparison import write_comparison
from vpt.sealed import read_sealed, write_sealed
from vpt.use.pages.making import making_of
from vpt.use.runs import evaluate_run
from vpt.vocabulary import Task
from vpt.words import counted, listed

WAIT = 2.0  # seconds between looks at what other processes do
RESULT = "result.json"
CACHE = "cache"  # of prepared data
USED = ("vpt", "torch", "timm", "monai", "numpy")  # what trainings and scores come from
OWN = {"train.augment": "none", "train.workers": 0}  # what `overrides` do not say otherwise, whatever a YAML file says


def compare(
    config: str | Path | dict[str, Any] | Config,
    out: str | Path,
    *,
    methods: Sequence[str] | None = None,
    seeds: int = 3,
    budget: float | None = None,
    retry_failed: bool = False,
    overrides: dict[str, Any] | None = None,
) -> Comparison:
    """Compare methods on one data set with a test side, in the folder `out`.

    What is finished is not done again, and several processes that are given the same `out` share the work. Nor is
    what failed, unless `retry_failed`.

    Args:
        config, overrides: as of `train`, but that nothing is augmented unless `overrides` have `train.augment`;
        methods: names of `vpt.engine.methods.methods`, by default all of the task; seeds: 0 to seeds - 1;
        budget: seconds after which no further training is started; the table says what is missing;
        retry_failed: train again what failed before; where that was a search, its method's seeds too.

    Returns:
        What was compared: its `write()` makes compare.csv, compare.json, compare.png and compare.html in `out`, beside
        METHOD/TRIAL, a run for each training.

    Raises:
        VptError: what would fail for all methods alike (data without a test side, no such backbone or device); an
            `out` of another comparison, or of other data; an unknown method; a setting in `overrides` that every method
            replaces; a full disk.
        vpt.engine.signals.Interrupted: after SIGINT or SIGTERM in a training, with its state saved.
    """
    started = time.monotonic()
    base = as_config(config, overrides if isinstance(config, Config) else {**OWN, **(overrides or {})})
    if base.start.path is not None:
        raise VptError(f"start.path={base.start.path}: every method is compared from its own start; leave it out")
    resolved, dataset = read_data(base)
    assert resolved.task is not None
    splits = read_splits(dataset, resolved.data.fold)
    if not splits.test or not splits.val:
        raise VptError(f"{dataset.root}: needs cases in val, to choose with, and in test; name them in split.json")
    chosen = choose_methods(methods, resolved.task)
    _require_heard(overrides or {}, chosen)
    comparison = Comparison(Path(out), base, resolved.task, dataset, chosen, seeds)
    choose_device(base.device)
    load_backbone(  # else every training would say that it is missing
        base.backbone.name, weights=base.backbone.weights, **base.backbone.options
    )
    comparison.claim(marks_of_data(dataset, [splits]))
    if retry_failed:
        comparison.forget_failures()
    with bar("comparing") as tick:
        while todo := comparison.pending():
            if budget is not None and time.monotonic() - started > budget:
                break
            with quiet():
                trial = comparison.run_one(todo)
            if trial is None:
                time.sleep(WAIT)
            tick(*comparison.progress(), "" if trial is None else f"{trial.method} {trial.name}")
    return comparison


def _require_heard(overrides: Mapping[str, Any], methods: Mapping[str, Method]) -> None:
    """Refuse settings that every method replaces by its own."""
    for key in overrides:
        if all(method.replaces(key) for method in methods.values()):
            heed = "has its own, or searches it" if len(methods) == 1 else "have their own, or search it"
            raise VptError(
                f"{key}: {listed(methods, 3)} {heed}, so it would change nothing; leave it out, or train with it by "
                "`vpt train`"
            )


@dataclass(frozen=True)
class Comparison:
    """What is compared, and the folder that says how far it is."""

    out: Path
    base: Config
    task: Task
    dataset: SegmentationSet | LabelledSet
    methods: Mapping[str, Method]
    seeds: int

    @property
    def score(self) -> str:
        """The validation score that chooses."""
        return CHOOSES[self.dataset.target] if isinstance(self.dataset, LabelledSet) else "dice"

    def claim(self, marks: Mapping[str, str]) -> None:
        """Make the folder this comparison's, or see that it is; marks: of its data, see `marks_of_data`."""
        path = self.out / "config.yaml"
        if path.exists() and load_config(path, {"device": self.base.device}) != self.base:  # each process has its own
            raise VptError(
                f"{self.out}: holds a comparison with other settings (config.yaml); choose another --out, or go on "
                "with the settings it was started with"
            )
        others = self.out.is_dir() and any(not item.name.startswith(".") for item in self.out.iterdir())
        if others and not path.exists():  # asked last: another process may just have made it
            raise VptError(f"{self.out}: the folder is not empty; choose another --out")
        make_folder(self.out, "choose another --out")
        with FileLock(self.out / ".claim.lock"):  # another process may have begun anew, and train by now
            if not is_same_data(self.out, marks) and self._has_learned_nothing():
                self._forget_all()
            else:
                require_same_data(self.out, marks)
            write_text(path, dump_config(self.base))  # first: without it the folder would be of something else
            keep_marks(self.out, marks)

    def _has_learned_nothing(self) -> bool:
        """Whether all trainings failed, as on a damaged file, or were never started, and none goes on now."""
        done = {path.parent: "failed" not in read_sealed(path) for path in self.out.glob(f"*/*/{RESULT}")}
        states = (path.parents[1] for path in self.out.glob(f"*/*/{STATE.parent}/*"))
        return not (any(done.values()) or any(run not in done for run in states) or is_at_work(self.out))

    def _forget_all(self) -> None:
        """What failed on other data, and what was prepared of them."""
        for path in self.out.glob(f"*/*/{RESULT}"):
            shutil.rmtree(path.parent)
        shutil.rmtree(self.out / CACHE, ignore_errors=True)

    def forget_failures(self) -> None:
        """Take back what failed. Seeds learned with what a search chose, and it may choose otherwise now."""
        for name in self.methods:
            results = {path: read_sealed(path) for path in (self.out / name).glob(f"*/{RESULT}")}
            failed = [path for path, result in results.items() if "failed" in result]
            searched = any(path.parent.name.startswith("search-") for path in failed)
            seeds = [path for path in results if path.parent.name.startswith("seed-")] if searched else []
            for path in {*failed, *seeds}:
                shutil.rmtree(path.parent)

    # --- what is to be done -------------------------------------------------------------------------------------------

    def pending(self) -> list[Trial]:
        """The trainings that can start now and have no result, searches first, then seed by seed."""
        rounds: list[list[Trial]] = [[] for _ in range(2 + self.seeds)]
        for name, method in self.methods.items():
            for number, trials in enumerate(self._rounds(name, method)):
                missing = [trial for trial in trials if self.result(trial) is None]
                rounds[number] += missing
                if missing and number < 2:
                    break
        return [trial for trials in rounds for trial in trials]

    def _rounds(self, name: str, method: Method) -> Iterator[list[Trial]]:
        """The rates, then the decays at the best rate, then the seeds with the best of all. Results must be there."""
        rates = [self._search(name, settings) for settings in method.rates()]
        yield rates
        best = self.best(rates)
        if best is None:
            return
        decays = [self._search(name, settings) for settings in method.decays(dict(best.settings))]
        yield decays
        best = self.best([*rates, *decays])
        assert best is not None
        for seed in range(self.seeds):
            yield [Trial(name, f"seed-{seed}", best.settings, seed, final=True)]

    def _search(self, method: str, settings: Mapping[str, Any]) -> Trial:
        values = "-".join(f"{key.rpartition('.')[2]}={value:g}" for key, value in settings.items())
        return Trial(method, f"search-{values}", settings)

    def best(self, trials: Sequence[Trial]) -> Trial | None:
        """The trial with the highest validation score; None if all failed."""
        scored = [(result["score"], trial) for trial in trials if (result := self.result(trial)) and "score" in result]
        return max(scored, key=lambda pair: pair[0])[1] if scored else None

    def progress(self) -> tuple[int, int]:
        """Trainings that are done, and how many there will be."""
        searched = sum(len(method.rates()) + len(method.decays({})) for method in self.methods.values())
        done = sum(len(list((self.out / name).glob(f"*/{RESULT}"))) for name in self.methods)
        return done, searched + self.seeds * len(self.methods)

    def folder(self, trial: Trial) -> Path:
        return self.out / trial.method / trial.name

    def result(self, trial: Trial) -> dict[str, Any] | None:
        path = self.folder(trial) / RESULT
        return read_sealed(path) if path.exists() else None

    @property
    def without_result(self) -> list[str]:
        """The methods of which every training failed."""
        found = {name: list((self.out / name).glob(f"*/{RESULT}")) for name in self.methods}
        return [name for name, paths in found.items() if paths and all("failed" in read_sealed(path) for path in paths)]

    def write(self, command: Sequence[str] = ()) -> Any:
        """The table of what there is, in files and for a terminal; command: that asked for it, for the page."""
        shown = {name: method.shown for name, method in self.methods.items()}
        title = f"{self.dataset.name}: {counted(len(shown), 'method')}"
        together = self.base.data.shots is None
        named = {
            "data set": str(self.base.data.path),
            "encoder": self.base.backbone.name,
            "seeds": ", ".join(map(str, range(self.seeds))),
            "device": str(choose_device(self.base.device)),
            "settings": f"{self.out / 'config.yaml'}, of each training in its folder",
        }
        return write_comparison(
            self.out,
            shown,
            self.seeds,
            title,
            self.tested,
            control=CONTROLS[self.task],
            together=together,
            facts=[making_of("To repeat it", command, named, packages=USED)],
        )

    @property
    def tested(self) -> str:
        """The score of the tables, in words; see `per_case`."""
        if not isinstance(self.dataset, LabelledSet):
            return "Dice"
        return "share of right labels" if self.dataset.target == "labels" else "accuracy"

    # --- doing it -----------------------------------------------------------------------------------------------------

    def run_one(self, trials: Sequence[Trial]) -> Trial | None:
        """The first of the trainings that no other process is at; None where they are at all of them."""
        for trial in trials:
            folder = self.folder(trial)
            folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                with FileLock(f"{folder}.lock", timeout=0):
                    if self.result(trial) is None:
                        self._run(trial, folder)
                    return trial
            except Timeout:
                continue
        return None

    def _run(self, trial: Trial, folder: Path) -> None:
        """Train, score, and write the result. A training that fails has a result that says so.

        Raises:
            DiskFull: which says nothing of the method, so that the training is done again.
        """
        device = choose_device(self.base.device)
        resume = has_state(folder / STATE)
        if not resume:
            shutil.rmtree(folder, ignore_errors=True)
        reset_peak(device)
        started = time.monotonic()
        try:
            config = None if resume else self.config_of(trial)
            own = {"device": self.base.device}
            train(config, folder, overrides=own, resume=resume, cache=self._cache(trial), brief=True, alone=True)
            result = self._measure(trial, folder, time.monotonic() - started, peak_memory(device))
        except Exception as error:  # whatever it is, the other methods go on
            if is_no_space(error):
                raise DiskFull(f"{in_a_line(error)}; once there is room the same command goes on") from error
            folder.mkdir(exist_ok=True)
            result = {"failed": in_a_line(error)}
        write_sealed(folder / RESULT, {"settings": dict(trial.settings), "seed": trial.seed, **result})

    def config_of(self, trial: Trial) -> Config:
        """What a training is told."""
        return config_of(trial, self.methods[trial.method], self.base, self.task)

    def _cache(self, trial: Trial) -> Path:
        """Where its prepared data lie: the same cases look otherwise under the plan of other training cases."""
        if not trial.final:
            return self.out / CACHE / "search"
        return self.out / CACHE / (f"seed-{trial.seed}" if self.base.data.shots else "final")

    def _measure(self, trial: Trial, folder: Path, seconds: float, memory: int | None) -> dict[str, Any]:
        result = {**cost_of(folder, seconds), "peak_memory": memory}
        if not trial.final:
            artifact = read_artifact(folder / "last.safetensors")
            return result | {"score": artifact.scores["validation"][self.score]}
        report, _ = evaluate_run(folder, device=self.base.device, cache=self._cache(trial))
        tested = per_case(report)
        return result | {"tested": tested, "patients": {name: self.dataset.patient(name) for name in tested}}
