"""The samples of an epoch, batch by batch, from worker processes."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing.queues import Queue
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from vpt.engine.signals import held_back, leave_to_main, quiet_children
from vpt.errors import VptError
from vpt.machine.available import cores, open_files

EpochSampler = Callable[[int], Sequence[Sequence[Any]]]
"""The number of an epoch -> the samples of each of its batches, the same at every call."""

USUAL_FILES = 256  # the least that systems allow a process by default


def make_loader(dataset: Dataset, batches: Sequence[Sequence[Any]], workers: int) -> DataLoader:
    """The data set's samples, batch by batch."""
    order: Any = batches
    own = torch.Generator()  # else the loader draws from torch's own, which a resumed epoch would do once more
    return DataLoader(dataset, batch_sampler=order, num_workers=workers, worker_init_fn=_prepare_worker, generator=own)


def load(dataset: Dataset, batches: Sequence[Sequence[Any]], workers: int) -> Generator[Any, None, None]:
    """A loader's batches, with workers that leave signals to the main process from the start.

    It is to be closed where it is left before its end (`contextlib.closing`): a worker ignores the signal by which
    Python ends what is left of it, so that the program would wait for the worker for ever.

    Raises:
        VptError: workers that cannot be started; one that was ended from outside, as a system does that is short of
            memory; a batch that does not fit into shared memory; what a worker refuses.
    """
    loaded = _begun(dataset, batches, workers)
    try:
        with quiet_children():
            yield from loaded
    except (VptError, OSError, MemoryError) as error:
        raise _in_its_words(error) from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error) or ("Caught" in str(error) and "shared memory" not in str(error)):
            raise
        why = str(error).strip().splitlines()[-1 if "Caught" in str(error) else 0]
        raise VptError(
            f"a process that makes samples was ended ({why}), as by systems that are short of memory, or since a batch "
            f"does not fit into /dev/shm (docker run --shm-size=2g){_few_files()}; set train.workers below {workers}, "
            "0 for none"
        ) from error
    finally:
        _end_workers(loaded)


def _few_files() -> str:
    """Words for a limit on open files below what systems usually have: every batch on its way takes some."""
    allowed = open_files()
    return "" if allowed is None or allowed >= USUAL_FILES else f", or needs more than {allowed} open files (ulimit -n)"


def _end_workers(loaded: Any) -> None:
    """End the workers of a loader's iterator, which need not be at its end."""
    if hasattr(loaded, "_shutdown_workers"):
        loaded._shutdown_workers()
        for worker in loaded._workers:
            worker.kill()


def _in_its_words(error: VptError | OSError | MemoryError) -> Exception:
    """What failed in a worker, which torch hands on with the worker's whole traceback as its text."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    _, found, said = str(error).rpartition(f"\n{name}: ")
    return kind(said.rstrip()) if found and "in DataLoader worker" in str(error) else error


def _begun(dataset: Dataset, batches: Sequence[Sequence[Any]], workers: int) -> Iterator[Any]:
    try:
        if workers:
            multiprocessing.Lock()  # what the loader makes first, and leaves half-made where it cannot be had
        with held_back():
            return iter(make_loader(dataset, batches, workers))
    except BrokenPipeError:  # of stdout, which the start of a process flushes: nobody reads it any more
        raise
    except OSError as error:
        raise VptError(
            f"processes that make samples cannot be started ({error.strerror}), as where /dev/shm cannot be written or "
            f"is full; set train.workers below {workers}, 0 for none"
        ) from error


def choose_workers(wanted: int | None, share: int | None = None) -> int:
    """What the config says, else one less than this process's share of the cores, all of them by default; 8 at most."""
    return min(8, (share or cores()) - 1) if wanted is None else wanted


def _prepare_worker(worker: int) -> None:
    """Leave signals to the main process, and the cores to the other workers; end where samples cannot be sent."""
    leave_to_main()
    setattr(Queue, "_on_queue_feeder_error", staticmethod(_end_unsent))  # noqa: B010 (mypy knows no such method)
    sys.excepthook = _end_unsent  # called by the thread that hands samples over, which would try again for ever
    import cv2

    cv2.setNumThreads(0)


def _end_unsent(*why: object) -> None:
    """In a worker whose shared memory is full, say, or which may open no more files: without it the main process would
    wait for the sample for ever.
    """
    os._exit(1)
