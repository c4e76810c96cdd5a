"""The samples of an epoch, batch by batch, from worker processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from vpt.engine.signals import held_back, leave_to_main, quiet_children
from vpt.errors import VptError
from vpt.machine.available import cores

EpochSampler = Callable[[int], Sequence[Sequence[Any]]]
"""The number of an epoch -> the samples of each of its batches, the same at every call."""


def make_loader(dataset: Dataset, batches: Sequence[Sequence[Any]], workers: int) -> DataLoader:
    """The data set's samples, batch by batch."""
    order: Any = batches
    own = torch.Generator()  # else the loader draws from torch's own, which a resumed epoch would do once more
    return DataLoader(dataset, batch_sampler=order, num_workers=workers, worker_init_fn=_prepare_worker, generator=own)


def load(dataset: Dataset, batches: Sequence[Sequence[Any]], workers: int) -> Iterator[Any]:
    """The same, with workers that leave signals to the main process from the start.

    Raises:
        VptError: workers that cannot be started; one that was ended from outside, as a system does that is short of
            memory.
    """
    try:
        loaded = _begun(dataset, batches, workers)
        with quiet_children():
            yield from loaded
    except RuntimeError as error:
        if "DataLoader worker" not in str(error) or "Caught" in str(error):
            raise
        raise VptError(
            f"a process that makes samples was ended from outside ({str(error).splitlines()[0]}), as systems do that "
            f"are short of memory; set train.workers below {workers}, 0 for none"
        ) from error


def _begun(dataset: Dataset, batches: Sequence[Sequence[Any]], workers: int) -> Iterator[Any]:
    try:
        if workers:
            multiprocessing.Lock()  # what the loader makes first, and leaves half-made where it cannot be had
        with held_back():
            return iter(make_loader(dataset, batches, workers))
    except OSError as error:
        raise VptError(
            f"processes that make samples cannot be started ({error.strerror}), as where /dev/shm cannot be written or "
            f"is full; set train.workers below {workers}, 0 for none"
        ) from error


def choose_workers(wanted: int | None, share: int | None = None) -> int:
    """What the config says, else one less than this process's share of the cores, all of them by default; 8 at most."""
    return min(8, (share or cores()) - 1) if wanted is None else wanted


def _prepare_worker(worker: int) -> None:
    """Leave signals to the main process, and the cores to the other workers."""
    leave_to_main()
    import cv2

    cv2.setNumThreads(0)
