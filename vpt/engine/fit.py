"""The training loop, whole and visible, on Lightning Fabric."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset

from vpt.engine.average import Average
from vpt.engine.checkpoint import Progress
from vpt.engine.learning import Learner, Update
from vpt.engine.loading import EpochSampler, load
from vpt.engine.optim import schedule, schedule_of_epochs, schedule_without_end, set_rates
from vpt.engine.ranks import ALONE, Ranks
from vpt.engine.signals import Interrupted, Signals, heed_signals
from vpt.errors import VptError
from vpt.model import name_in_model
from vpt.progress import Tick, bar
from vpt.tasks.batch import Batch, Loss
from vpt.words import counted, listed

if TYPE_CHECKING:
    from lightning.fabric import Fabric


LOST = 3  # updates in a row of which nothing could be learned: then training stops


@dataclass(frozen=True)
class Cadence:
    """How often the state is saved within an epoch: after so many batches, or seconds; at its end in any case."""

    batches: int | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, text: str) -> Cadence:
        """`200` batches, `10m` minutes."""
        return cls(seconds=60.0 * int(text[:-1])) if text.endswith("m") else cls(batches=int(text))


@dataclass(frozen=True)
class Settings:
    """What the loop needs to know; see `vpt.config.TrainConfig` and `OptimConfig`. `score` chooses the best epoch."""

    epochs: int
    steps: int  # batches per epoch
    validate_every: int
    patience: int | None
    workers: int
    warmup: float
    clip: float | None
    score: str = "dice"
    accumulate: int = 1
    schedule: str = "step"
    save_every: Cadence = Cadence()


@dataclass(frozen=True)
class Hooks:
    """What happens around the loop: `validate` returns scores, `settings.score` among them; `save` writes the state.

    Without `validate` nothing chooses, and every epoch counts as the best so far.
    """

    validate: Callable[[], dict[str, float]] | None
    save: Callable[[Progress], None]
    epoch_end: Callable[[Progress, bool], None]  # the second argument: this epoch is the best so far
    say: Callable[[str], None] = field(default=lambda said: None)  # what a person should know
    names: Callable[[Sequence[Any]], list[str]] = field(default=lambda samples: [])  # whose the samples are
    shown: Callable[[], AbstractContextManager[Tick]] = field(default=partial(bar, "training"))


def fit(
    fabric: Fabric,
    forward: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    dataset: Dataset,
    draw: EpochSampler,
    settings: Settings,
    hooks: Hooks,
    progress: Progress,
    average: Average | None = None,
    signals: Signals | None = None,
    ranks: Ranks = ALONE,
) -> Progress:
    """Train from `progress` to the last epoch.

    dataset: gives each sample that `draw` names, its parts by name, see `vpt.tasks.batch.Batch`; forward: batch ->
    output; loss: of output and batch, to which a penalty of the output is added; average: validated and saved in place
    of what trains; signals: of who heeds them already; ranks: the processes that share every batch. The hooks are
    called in each of them, `validate` has the same scores in all.

    Batches depend on seed, epoch and step only, so a resumed run sees exactly what an uninterrupted one would.

    Raises:
        Interrupted: after a signal, with the state saved at the step that was reached.
        VptError: losses or gradients that are not finite, `LOST` updates in a row, with the state saved; too little
            memory for a single sample.
    """
    learner = Learner(fabric, forward, optimizer, loss, settings.clip, average, progress.parts, hooks.say, ranks)
    with ExitStack() as stack:
        signals = signals or stack.enter_context(heed_signals())
        tick = stack.enter_context(hooks.shown())
        while progress.epoch < settings.epochs and not out_of_patience(progress, settings):
            drawn = draw(progress.epoch)[progress.step :]
            with closing(load(dataset, [ranks.share(batch) for batch in drawn], settings.workers)) as batches:
                train_epoch(learner, batches, drawn, settings, progress, hooks, signals, tick)
            try:
                end_epoch(learner, settings, progress, hooks, signals)
            except Interrupted:  # in the validation, which is done again
                hooks.save(progress)
                raise
            signals.check()
    return progress


def out_of_patience(progress: Progress, settings: Settings) -> bool:
    """Whether the last epoch was validated, and `patience` epochs have passed since the best one."""
    if settings.patience is None or not progress.rows or settings.score not in progress.rows[-1]:
        return False
    return progress.step == 0 and progress.epoch - progress.best_epoch >= settings.patience


def rate(epoch: int, step: int, settings: Settings) -> float:
    """Factor of the peak rates at a step of an epoch."""
    if settings.schedule == "epoch":
        return schedule_of_epochs(epoch, settings.epochs, settings.warmup)
    place = epoch * settings.steps + step
    if settings.schedule == "constant":
        return schedule_without_end(place, settings.steps, settings.warmup)
    return schedule(place, settings.epochs * settings.steps, settings.warmup)


def train_epoch(
    learner: Learner,
    batches: Iterator[Batch],
    drawn: Sequence[Sequence[Any]],
    settings: Settings,
    progress: Progress,
    hooks: Hooks,
    signals: Signals,
    tick: Tick,
) -> None:
    """The rest of epoch `progress.epoch`, from step `progress.step`; drawn: the samples of its batches."""
    learner.forward.train()
    start = progress.step
    saved, started, seconds = time.monotonic(), time.perf_counter(), progress.seconds
    for group in _groups(batches, settings, start):
        first, progress.step = progress.step, progress.step + len(group)
        set_rates(learner.optimizer, rate(progress.epoch, progress.step - 1, settings))
        samples = drawn[first - start : progress.step - start]
        found = learner.update(group, [len(batch) for batch in samples])
        progress.parts = learner.parts
        progress.seconds = seconds + time.perf_counter() - started
        _note(found, samples, progress, hooks)
        tick(
            progress.epoch * settings.steps + progress.step,
            settings.epochs * settings.steps,
            f"epoch {progress.epoch + 1}/{settings.epochs}, loss {found.losses[-1]:.3f}, "
            f"best {in_words(settings.score)} {max(progress.best, 0):.3f}",
        )
        if came := learner.ranks.most(signals.number or 0):  # to any process, so that all stop after the same step
            signals.number = came
        if signals.number or _is_due(settings.save_every, first, progress.step, time.monotonic() - saved):
            hooks.save(progress)
            saved = time.monotonic()
        signals.check()


def _tell_idle(learner: Learner, hooks: Hooks) -> None:
    """Say for which tensors of prompts or head nothing was learned, though for others it was.

    Of an encoder the last norm may be left out by a head.
    """
    idle = [name for name in map(name_in_model, learner.untouched) if not name.startswith("backbone.")]
    if idle and len(learner.untouched) < sum(p.requires_grad for p in learner.forward.parameters()):
        hooks.say(
            f"{counted(len(idle), 'tensor')} that should train had no gradient in the whole epoch ({listed(idle, 4)}), "
            "so they stay as they were: does the loss depend on them, and does whoever hands them on detach them?"
        )


def end_epoch(learner: Learner, settings: Settings, progress: Progress, hooks: Hooks, signals: Signals) -> None:
    """Validate what was learned, tell and save it; a signal during the validation leaves `progress` as it was."""
    if progress.epoch == 0:
        _tell_idle(learner, hooks)
    row = {
        "epoch": progress.epoch + 1,
        "loss": progress.loss_sum / max(1, settings.steps - progress.lost),
        "lr": learner.optimizer.param_groups[0]["peak"] * rate(progress.epoch, settings.steps - 1, settings),
        "seconds": progress.seconds,
        "steps": (progress.epoch + 1) * settings.steps,
    }
    with learner.average.applied() if learner.average else nullcontext():
        better = hooks.validate is None
        last = progress.epoch + 1 == settings.epochs
        if hooks.validate and (last or (progress.epoch + 1) % settings.validate_every == 0):
            with signals.at_once():
                row |= hooks.validate()
            found = row[settings.score]
            better = found > progress.best or found == progress.best == 0  # 0 chooses nothing
        progress.rows.append(row)
        progress.epoch, progress.step, progress.loss_sum, progress.lost = progress.epoch + 1, 0, 0.0, 0
        if better:
            progress.best, progress.best_epoch = row.get(settings.score, 0.0), progress.epoch
        hooks.epoch_end(progress, better)
    hooks.save(progress)


def in_words(score: str) -> str:
    """`dice` -> "Dice", `balanced_accuracy` -> "balanced accuracy"."""
    return {"dice": "Dice", "auroc": "AUROC"}.get(score, score.replace("_", " "))


def _groups(batches: Iterator[Batch], settings: Settings, step: int) -> Iterator[list[Batch]]:
    """Batches that share an update, from a step of the epoch on; its last ones share what is left."""
    while group := list(islice(batches, settings.accumulate - step % settings.accumulate)):
        yield group
        step += len(group)


def _is_due(cadence: Cadence, first: int, step: int, seconds: float) -> bool:
    """Whether the state is to be saved after the batches `first` up to `step` of an epoch."""
    if cadence.batches is not None:
        return first // cadence.batches < step // cadence.batches
    return cadence.seconds is not None and seconds >= cadence.seconds


def _note(found: Update, drawn: Sequence[Sequence[Any]], progress: Progress, hooks: Hooks) -> None:
    """Count an update in, or say of which samples nothing could be learned; stop where that is all that happens."""
    if found.fault is None:
        for value in found.losses:
            progress.loss_sum += value
        progress.skipped = 0
        return
    samples = [drawn[batch][place] for batch, place in found.spoilt] or [one for batch in drawn for one in batch]
    names = listed(list(dict.fromkeys(hooks.names(samples)))) or "its batch"
    place = f"in epoch {progress.epoch + 1}, step {progress.step}"
    progress.lost += len(drawn)
    progress.skipped += 1
    if progress.skipped < LOST:
        hooks.say(f"{place} {found.fault}, so nothing is learned from it ({names})")
        return
    progress.skipped = 0  # resumed, it has as many tries again
    hooks.save(progress)
    raise VptError(
        f"{place} {found.fault} ({names}), for the {LOST}rd time in a row; lower optim.lr and optim.prompt_lr, or set "
        "precision=32-true; the best artifact so far is kept, and the state is saved"
    )
