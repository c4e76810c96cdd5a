"""The training loop, whole and visible, on Lightning Fabric."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset

from vpt.engine.average import Average
from vpt.engine.checkpoint import Progress
from vpt.engine.optim import schedule, schedule_of_epochs, set_rates
from vpt.errors import VptError
from vpt.progress import Tick, bar
from vpt.tasks.batch import Batch, Loss, to_device

if TYPE_CHECKING:
    from lightning.fabric import Fabric


STOPPING = (signal.SIGINT, signal.SIGTERM)

EpochSampler = Callable[[int], Sequence[Sequence[Any]]]
"""The number of an epoch -> the samples of each of its batches, the same at every call."""


class Interrupted(Exception):
    """SIGINT or SIGTERM came; the state is saved."""


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

    def group(self, step: int) -> tuple[int, bool]:
        """How many batches share the update that batch `step` of an epoch is part of, and whether it is their last."""
        first = step - step % self.accumulate
        count = min(self.accumulate, self.steps - first)
        return count, step + 1 == first + count


@dataclass(frozen=True)
class Hooks:
    """What happens around the loop: `validate` returns scores, `settings.score` among them; `save` writes the state.

    Without `validate` nothing chooses, and every epoch counts as the best so far.
    """

    validate: Callable[[], dict[str, float]] | None
    save: Callable[[Progress], None]
    epoch_end: Callable[[Progress, bool], None]  # the second argument: this epoch is the best so far


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
) -> Progress:
    """Train from `progress` to the last epoch.

    dataset: gives each sample that `draw` names, its parts by name, see `vpt.tasks.batch.Batch`; forward: batch ->
    output; loss: of output and batch, to which a penalty of the output is added; average: validated and saved in place
    of what trains.

    Batches depend on seed, epoch and step only, so a resumed run sees exactly what an uninterrupted one would.

    Raises:
        Interrupted: after a signal, with the state saved at the step that was reached.
        VptError: the loss is no longer finite.
    """
    with stop_on_signal() as stopped, bar("training") as tick:
        while progress.epoch < settings.epochs and not out_of_patience(progress, settings):
            batches = load_batches(dataset, draw, settings, progress)
            train_epoch(fabric, forward, optimizer, loss, batches, settings, progress, hooks, stopped, tick, average)
            row = {
                "epoch": progress.epoch + 1,
                "loss": progress.loss_sum / settings.steps,
                "lr": optimizer.param_groups[0]["peak"] * rate(progress.epoch, settings.steps - 1, settings),
                "seconds": progress.seconds,
                "steps": (progress.epoch + 1) * settings.steps,
            }
            with average.applied() if average else nullcontext():
                better = hooks.validate is None
                last = progress.epoch + 1 == settings.epochs
                if hooks.validate and (last or (progress.epoch + 1) % settings.validate_every == 0):
                    row |= hooks.validate()
                    found = row[settings.score]
                    better = found > progress.best or found == progress.best == 0  # 0 chooses nothing
                progress.rows.append(row)
                progress.epoch, progress.step, progress.loss_sum = progress.epoch + 1, 0, 0.0
                if better:
                    progress.best, progress.best_epoch = row.get(settings.score, 0.0), progress.epoch
                hooks.epoch_end(progress, better)
            hooks.save(progress)
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
    return schedule(epoch * settings.steps + step, settings.epochs * settings.steps, settings.warmup)


def train_epoch(
    fabric: Fabric,
    forward: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    batches: Iterator[Batch],
    settings: Settings,
    progress: Progress,
    hooks: Hooks,
    stopped: threading.Event,
    tick: Tick,
    average: Average | None = None,
) -> None:
    """The rest of epoch `progress.epoch`, from step `progress.step`."""
    forward.train()
    optimizer.zero_grad(set_to_none=True)
    total = settings.epochs * settings.steps
    started, seconds = time.perf_counter(), progress.seconds
    for batch in batches:
        set_rates(optimizer, rate(progress.epoch, progress.step, settings))
        batch = to_device(batch, fabric.device)
        output = forward(batch)
        error = loss(output, batch)
        if output.penalty is not None:
            error = error + output.penalty
        value = float(error.detach())
        sharing, last = settings.group(progress.step)
        if not math.isfinite(value):
            raise VptError(
                f"the loss became {value} in epoch {progress.epoch + 1}, step {progress.step + 1}; "
                "lower optim.lr and optim.prompt_lr, or set precision=32-true; the best artifact so far is kept"
            )
        fabric.backward(error / sharing)
        if last:
            if settings.clip is not None:
                fabric.clip_gradients(forward, optimizer, max_norm=settings.clip, error_if_nonfinite=False)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if average:
                average.update()
        progress.step += 1
        progress.loss_sum += value
        progress.seconds = seconds + time.perf_counter() - started
        tick(
            progress.epoch * settings.steps + progress.step,
            total,
            f"epoch {progress.epoch + 1}/{settings.epochs}, loss {value:.3f}, "
            f"best {in_words(settings.score)} {max(progress.best, 0):.3f}",
        )
        if last and stopped.is_set():  # not between batches that share an update
            hooks.save(progress)
            raise Interrupted


def load_batches(dataset: Dataset, draw: EpochSampler, settings: Settings, progress: Progress) -> Iterator[Batch]:
    """The batches of the epoch that are left, as the data set gives them."""
    return iter(make_loader(dataset, draw(progress.epoch)[progress.step :], settings.workers))


def make_loader(dataset: Dataset, batches: Sequence[Sequence[Any]], workers: int) -> DataLoader:
    """The data set's samples, batch by batch."""
    order: Any = batches
    own = torch.Generator()  # else the loader draws from torch's own, which a resumed epoch would do once more
    return DataLoader(dataset, batch_sampler=order, num_workers=workers, worker_init_fn=_prepare_worker, generator=own)


def choose_workers(wanted: int | None) -> int:
    """What the config says, else all cores but one, 8 at most."""
    return min(8, (os.cpu_count() or 2) - 1) if wanted is None else wanted


def in_words(score: str) -> str:
    """`dice` -> "Dice", `balanced_accuracy` -> "balanced accuracy"."""
    return {"dice": "Dice", "auroc": "AUROC"}.get(score, score.replace("_", " "))


def _prepare_worker(worker: int) -> None:
    """Leave signals to the main process, and the cores to the other workers.

    Ctrl-C and a cluster's SIGTERM reach the whole group of processes; a worker that ended first would be an error.
    """
    import cv2

    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(0)


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """A first SIGINT or SIGTERM sets the event, a second SIGINT acts as usual. In other threads it is never set."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = {number: signal.getsignal(number) for number in STOPPING}

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.set()
        signal.signal(signal.SIGINT, before[signal.SIGINT])

    for number in before:
        signal.signal(number, stop)
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
