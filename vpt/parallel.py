"""Work on several things at a time, in threads: what they wait for (files, decoders, NumPy) lets the others run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

AHEAD = 4  # results for every worker that may wait for an earlier one

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores(most: int) -> int:
    """Those of the machine, `most` of them at the most."""
    return min(os.cpu_count() or 1, most)


def in_order(work: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """work(item) of every item, in their order; `workers` of them at a time.

    Items are taken as they are needed. What `work` raises is raised in its item's place, and then no other is begun.
    """
    with ThreadPoolExecutor(workers) as pool:
        waiting = iter(items)
        running = [pool.submit(work, item) for item in islice(waiting, AHEAD * workers)]
        try:
            while running:
                yield running.pop(0).result()
                running += [pool.submit(work, item) for item in islice(waiting, 1)]
        finally:
            for each in running:
                each.cancel()
