"""Work on several things at a time, in threads: what they wait for (files, decoders, NumPy) lets the others run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

from vpt.errors import VptError

AHEAD = 4  # results for every worker that may wait for an earlier one
LOOK = 2.0  # seconds between looks at whether the threads live

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores(most: int) -> int:
    """Those of the machine, `most` of them at the most."""
    return min(os.cpu_count() or 1, most)


def in_order(work: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """work(item) of every item, in their order; `workers` of them at a time.

    Items are taken as they are needed. What `work` raises is raised in its item's place, and then no other is begun.

    Raises:
        VptError: see `settled`.
    """
    with ThreadPoolExecutor(workers) as pool:
        waiting = iter(items)
        running = [pool.submit(work, item) for item in islice(waiting, AHEAD * workers)]
        try:
            while running:
                yield settled(running.pop(0), pool).result()
                running += [pool.submit(work, item) for item in islice(waiting, 1)]
        finally:
            for each in running:
                each.cancel()


def settled(future: Future[Result], pool: ThreadPoolExecutor) -> Future[Result]:
    """It, once it is done.

    Raises:
        VptError: a thread of the pool ended of its own, as it does where no memory is left to tell even that.
    """
    while not wait([future], LOOK).done:
        if not all(thread.is_alive() for thread in pool._threads) and not future.done():
            raise VptError(
                "too little memory: a thread that reads or writes ended; close other programs, or use a machine with "
                "more, and start the same command again (of an archive with --continue)"
            )
    return future
