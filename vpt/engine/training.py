"""A job's training: the loop with the run's model, optimiser, state, artifacts and log around it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from logging import Logger
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vpt.artifact import read_artifact, save_artifact
from vpt.artifact_doubts import absurd_numbers
from vpt.config import Config
from vpt.data.cases import SegmentationSet
from vpt.engine.average import Average
from vpt.engine.callbacks import Told
from vpt.engine.callbacks.base import Epoch
from vpt.engine.checkpoint import Progress, load_state, save_state
from vpt.engine.fit import Cadence, Hooks, Settings, fit, in_words
from vpt.engine.folder import STATE, require_same, same_folder
from vpt.engine.job import Job
from vpt.engine.kept_marks import changed_since, keep_marks
from vpt.engine.learning import scaler_of
from vpt.engine.loading import choose_workers
from vpt.engine.logs import write_metrics
from vpt.engine.optim import build_optimizer
from vpt.engine.processes import without_fabric
from vpt.engine.ranks import Ranks
from vpt.engine.signals import Interrupted, Signals
from vpt.engine.table import epoch_table
from vpt.errors import VptError
from vpt.machine.memory import keeping_buffers
from vpt.machine.precision import prepare_frozen
from vpt.machine.scarce import KINDS, is_out_of_memory
from vpt.model import Output
from vpt.progress import bar, is_live
from vpt.report.pictures import write_progress
from vpt.tasks.batch import LearningLoss
from vpt.words import counted, listed

MOST_SCORES = 16  # in a line

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from rich.table import Table


def train_job(
    run: Path, job: Job, log: Logger, signals: Signals, callbacks: Told, *, resume: bool, brief: bool
) -> Progress:
    """Train a prepared job from its state, or from the start, and leave state, artifacts and metrics in its folder.

    The state is saved before the first step, so that from here on nothing has to be prepared or decided again. Of
    several processes that train together the first one writes.

    Raises:
        Interrupted: see `vpt.engine.fit.fit`.
        VptError: what `fit` says; a folder that is gone, full or read-only; too little memory; a callback that cannot
            start.
    """
    config, model, ranks = job.setup.config, job.model, job.ranks
    model.checkpointing = config.train.checkpoint
    if config.train.compile:
        model.compile_blocks()
    fabric = _fabric(job)
    prepare_frozen(model.backbone, job.precision)
    ranks.start_alike(model)
    optimizer = build_optimizer(model, **config.optim.model_dump(exclude={"warmup", "schedule", "clip", "ema"}))
    average = Average(model, config.optim.ema) if config.optim.ema else None
    stays = same_folder(run)
    kept = _Kept(run / STATE, job, optimizer, average, scaler_of(fabric), stays)
    # the model is on its device, where the optimiser's moments go as well
    progress = _resumed(kept, ranks, log) if resume else Progress(processes=ranks.of)
    _require_best(run, progress, job.score)
    forward, fabric_optimizer = fabric.setup(job.forward, optimizer)
    forward.register_forward_hook(_require_finite)
    with _told(run, job, progress), signals.later(), keeping_buffers(job.setup.device):
        save = ranks.only_first(kept.save)
        save(progress)
        callbacks.start(run, config, progress)
        hooks = Hooks(
            validate=(lambda: job.validate(forward)) if job.validates else None,
            save=save,
            epoch_end=ranks.only_first(_Ended(run, job, log, callbacks, brief, stays)),
            say=log.warning,
            names=job.names,
            shown=lambda: bar("training", lambda width: _table(job, progress, width)),
        )
        return fit(
            fabric,
            forward,
            fabric_optimizer,
            job.loss,
            job.dataset,
            job.draw,
            _settings(config, job),
            hooks,
            progress,
            average,
            signals,
            ranks,
        )


@dataclass(frozen=True)
class _Kept:
    """All that the state holds."""

    path: Path
    job: Job
    optimizer: torch.optim.Optimizer
    average: Average | None
    scaler: Any
    stays: Callable[[], bool]  # whether the run's folder is still the same

    def save(self, progress: Progress) -> None:
        require_same(self.job.run, self.stays())
        kept = self.job.model, self.optimizer, progress, self.average, self.scaler
        save_state(self.path, *kept, self.learned, self.job.setup.decided())
        keep_marks(self.path.parent, self.job.setup.marks)

    def load(self, log: Logger) -> Progress:
        kept = self.job.model, self.optimizer, self.average, self.scaler
        setup = self.job.setup
        changed = partial(changed_since, self.path.parent, setup.marks, setup.files)
        return load_state(self.path, *kept, log.warning, self.learned, setup.decided(), changed)

    @property
    def learned(self) -> LearningLoss | None:
        return self.job.loss if isinstance(self.job.loss, LearningLoss) else None


def _require_best(run: Path, progress: Progress, score: str) -> None:
    """Raise VptError where the artifact of the best epoch so far is gone, damaged or of another run.

    That would be told at the end, or never. An artifact of an epoch after the saved state is of a run that ended
    between the two, and is written again.
    """
    path = run / "best.safetensors"
    if not progress.best_epoch:
        return
    mend = f"put it back, or remove {run} to train anew"
    if not path.is_file():
        raise VptError(f"{path}: is gone, the artifact of epoch {progress.best_epoch}, the best so far; {mend}")
    kept = read_artifact(path).scores.get("validation", {})
    epoch, found = kept.get("epoch") or 0, kept.get(score) or 0.0
    if not epoch > progress.epoch and (epoch, found) != (progress.best_epoch, progress.best):  # NaN is no epoch
        raise VptError(
            f"{path}: of epoch {epoch:g} with {in_words(score)} {found:.4f}, where the best of this run so far is "
            f"epoch {progress.best_epoch} with {progress.best:.4f}, so it is another run's; {mend}"
        )


def _resumed(kept: _Kept, ranks: Ranks, log: Logger) -> Progress:
    """The progress in the saved state, which the first process reads first, since that may put the file in order."""
    with ranks.in_turn():
        progress = kept.load(log)
    if (progress.epoch, progress.step) != ranks.told(lambda: (progress.epoch, progress.step)):
        raise VptError(
            f"{kept.path}: another state than the first process reads; wait until the disk that all machines share "
            "shows the same everywhere, and start the same command again"
        )
    if progress.processes != ranks.of:
        log.info(
            f"resumed with {ranks.of} instead of {progress.processes} processes: the same batches, but sums round "
            "otherwise, and dropout draws otherwise"
        )
        progress.processes = ranks.of
    kept.job.previews.go_on(progress.epoch)
    return progress


@dataclass(frozen=True)
class _Ended:
    """The end of an epoch: artifacts, metrics, pictures, callbacks, a line in the log."""

    run: Path
    job: Job
    log: Logger
    callbacks: Told
    brief: bool
    stays: Callable[[], bool]

    def __call__(self, progress: Progress, best: bool) -> None:
        require_same(self.run, self.stays())
        row, job = progress.rows[-1], self.job
        if odd := absurd_numbers(job.model.trained_state()):
            raise VptError(
                f"epoch {progress.epoch}: {odd}, so the training diverged; lower optim.lr and optim.prompt_lr"
            )
        scores = {key: value for key, value in row.items() if key == job.score or key in job.shown}
        for name in ("best.safetensors", "last.safetensors")[not best :]:
            self._write_artifact(name, scores | {"epoch": progress.epoch})
        write_metrics(self.run / "metrics.csv", progress.rows)
        epochs = job.setup.config.train.epochs
        self.callbacks.epoch(Epoch(self.run, progress.epoch, epochs, row, best, self._draw(progress)))
        said = f"epoch {progress.epoch}/{epochs}: loss {row['loss']:.4f}, {_said(job, row)}"
        self.log.info(said, extra={"is_in_table": is_live()})

    def _draw(self, progress: Progress) -> dict[str, Path]:
        """progress.png, and the pictures of validation cases that are due."""
        if self.brief:
            return {}
        write_progress(self.run / "progress.png", progress.rows, self.job.shown, self.job.score, self.run.name)
        return self.job.previews.draw(progress.epoch)

    def _write_artifact(self, name: str, scores: dict[str, float]) -> None:
        setup = self.job.setup
        save_artifact(
            self.run / name,
            self.job.model,
            config=setup.config,
            plan=setup.plan,
            labels=setup.dataset.labels,
            scores={"validation": scores},
            codes=setup.dataset.codes if isinstance(setup.dataset, SegmentationSet) else None,
            earlier=setup.earlier,
        )


def _require_finite(forward: torch.nn.Module, given: Any, output: Output) -> None:
    """A hook that stops a validation of answers which are none; in training a step is left out, see `fit`."""
    if not forward.training and not output.logits.isfinite().all():
        raise VptError(
            "the model's answers in the validation are not finite, so nothing can be chosen by them; lower optim.lr "
            "and optim.prompt_lr, or set precision=32-true"
        )


def _fabric(job: Job) -> Fabric:
    """This process on the run's device, whatever launchers say in the environment: see `ranks` for the others."""
    from lightning.fabric import Fabric
    from lightning.fabric.plugins.environments import LightningEnvironment

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # it announces the precision
    device, on_gpu = job.setup.device, job.setup.device.type == "cuda"
    with without_fabric():
        return Fabric(
            accelerator=device.type,
            devices=[torch.cuda.current_device() if device.index is None else device.index] if on_gpu else 1,
            precision=job.precision,
            plugins=[LightningEnvironment()],
        )


@contextmanager
def _told(run: Path, job: Job, progress: Progress) -> Iterator[None]:
    """What ends a training, in a sentence."""
    try:
        yield
    except Interrupted as stop:
        stop.place = f" in epoch {progress.epoch + 1}, step {progress.step}"
        raise
    except KINDS as error:
        if not is_out_of_memory(error):
            raise
        raise VptError(
            f"out of memory on {job.setup.device} with {counted(job.batch_size, job.unit)} of "
            f"{job.setup.plan.image_size} px a batch; lower train.batch_size or plan.image_size"
        ) from error
    except (OSError, VptError) as error:
        if run.is_dir():
            raise
        raise VptError(f"{run}: the run's folder is gone, so the training ends; nothing else was touched") from error


def _table(job: Job, progress: Progress, width: int) -> Table:
    return epoch_table(progress.rows, job.shown, job.score, progress.best_epoch, width)


def _said(job: Job, row: dict[str, float]) -> str:
    what = "Dice" if job.score.endswith("dice") else "scores"
    return f"validation {what} {scores_told(row, job.shown, job.score)}"


def scores_told(row: Mapping[str, float], shown: Mapping[str, str], score: str) -> str:
    """A validation's scores by their names; of many the one that chooses and the first of them."""
    scores = [f"{name} {row[key]:.3f}" for key, name in shown.items() if key in row]
    chooses = f"{row[score]:.3f}: " if len(scores) > MOST_SCORES else ""
    return chooses + listed(scores, MOST_SCORES) if scores else "not taken"


def _settings(config: Config, job: Job) -> Settings:
    train = config.train
    return Settings(
        epochs=train.epochs,
        steps=job.steps,
        validate_every=train.validate_every,
        patience=train.patience,
        workers=choose_workers(train.workers, job.ranks.cores),
        warmup=config.optim.warmup,
        clip=config.optim.clip,
        schedule=config.optim.schedule,
        score=job.score,
        accumulate=train.accumulate,
        save_every=Cadence.of(train.save_every),
    )
