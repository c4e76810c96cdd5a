"""Work on several things at a time: in threads, where they wait for files, decoders and NumPy; else in processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.connection import wait as wait_for
from threading import Thread
from typing import Any, TypeVar

from vpt.errors import VptError

AHEAD = 4  # results for every worker that may wait for an earlier one
LOOK = 2.0  # seconds between looks at whether the threads live
FEW = 16  # items that are not worth the start of processes
CHUNK = 16  # items at the most that a process is sent at once: sending one alone takes half a millisecond

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(work: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """work(item) of every item, in their order; `workers` of them at a time.

    Items are taken as they are needed. What `work` raises is raised in its item's place, and then no other is begun.

    Raises:
        VptError: see `settled`.
    """
    with ThreadPoolExecutor(workers) as pool:
        yield from _in_order(pool, work, items, workers)


def in_processes(
    work: Callable[[Item], Result], items: Sequence[Item], workers: int, worth: int = FEW
) -> Iterator[Result]:
    """`in_order` in processes, for work that Python itself does, which threads only take turns at.

    Processes are copies of this one, made when the first result is asked for; what `work` changes is theirs alone.
    Results are pickled. Where processes cannot be copied safely (other systems than Linux), and for less than `worth`
    items, threads serve.

    Raises:
        VptError: a process was ended from outside.
    """
    alone = workers < 2 or multiprocessing.current_process().daemon  # which may have no processes of its own
    if sys.platform != "linux" or alone or len(items) < worth:
        yield from in_order(work, items, workers)
        return
    copies = multiprocessing.get_context("fork")
    try:
        with ProcessPoolExecutor(workers, copies, initializer=_begin, initargs=(work, items)) as pool:
            size = max(1, min(CHUNK, len(items) // (AHEAD * workers)))
            chunks = [range(start, min(start + size, len(items))) for start in range(0, len(items), size)]
            for done, error in _in_order(pool, _work_on, chunks, workers):
                yield from done
                if error is not None:
                    raise error
    except BrokenProcessPool as error:
        raise VptError(
            "a process that reads was ended from outside, as systems do that are short of memory; close other "
            "programs, or use a machine with more, and start the same command again"
        ) from error


def _in_order(pool: Executor, work: Callable[[Any], Result], items: Iterable[Any], workers: int) -> Iterator[Result]:
    waiting = iter(items)
    running = [pool.submit(work, item) for item in islice(waiting, AHEAD * workers)]
    try:
        while running:
            yield settled(running.pop(0), pool).result()
            running += [pool.submit(work, item) for item in islice(waiting, 1)]
    finally:
        for each in running:
            each.cancel()


_task: tuple[Callable[[Any], Any], Sequence[Any]]  # of a process of `in_processes`, for its whole life


def _begin(work: Callable[[Any], Any], items: Sequence[Any]) -> None:
    """In a process of its own: leave Ctrl-C to the first one, and end where that does."""
    global _task
    _task = work, items
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_the_first, daemon=True).start()


def _end_with_the_first() -> None:
    first: Any = multiprocessing.parent_process()
    wait_for([first.sentinel])
    os._exit(1)


def _work_on(chunk: range) -> tuple[list[Any], Exception | None]:
    """The results of these items, up to the first for which `work` raises something, and that."""
    work, items = _task
    done: list[Any] = []
    try:
        done.extend(work(items[number]) for number in chunk)
    except Exception as error:
        return done, error
    return done, None


def settled(future: Future[Result], pool: Executor) -> Future[Result]:
    """It, once it is done.

    Raises:
        VptError: a thread of the pool ended of its own, as it does where no memory is left to tell even that.
    """
    while not wait([future], LOOK).done:
        threads = pool._threads if isinstance(pool, ThreadPoolExecutor) else ()
        if not all(thread.is_alive() for thread in threads) and not future.done():
            raise VptError(
                "too little memory: a thread that reads or writes ended; close other programs, or use a machine with "
                "more, and start the same command again (of an archive with --continue)"
            )
    return future
