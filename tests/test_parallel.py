"""Results come in order, of no more workers than asked for, and the first error stops what has not begun."""

from __future__ import annotations

import threading
import time

import pytest

from vpt.errors import VptError
from vpt.parallel import AHEAD, cores, in_order


def test_results_are_in_the_order_of_their_items():
    def late_for_the_first(number: int) -> int:
        time.sleep(0.02 if number == 0 else 0)
        return number * number

    assert list(in_order(late_for_the_first, range(20), 4)) == [number * number for number in range(20)]


def test_no_more_are_worked_on_than_there_are_workers():
    lock, now, most = threading.Lock(), 0, 0

    def watched(_: int) -> None:
        nonlocal now, most
        with lock:
            now, most = now + 1, max(most, now + 1)
        time.sleep(0.005)
        with lock:
            now -= 1

    list(in_order(watched, range(12), 3))

    assert most == 3


def test_items_are_taken_as_they_are_needed():
    taken = []
    results = in_order(lambda number: number, (taken.append(number) or number for number in range(100)), 2)

    next(results)

    assert len(taken) <= 2 * AHEAD + 1


def test_an_error_comes_in_its_items_place_and_no_other_is_begun():
    begun, got = [], []

    def work(number: int) -> int:
        begun.append(number)
        if number == 3:
            raise ValueError("the third")
        return number

    with pytest.raises(ValueError, match="the third"):
        got.extend(in_order(work, range(1000), 1))

    assert got == [0, 1, 2]
    assert len(begun) <= 3 + 1 + AHEAD


def test_workers_are_the_cores_up_to_the_most():
    assert cores(1) == 1
    assert 1 <= cores(4) <= 4


def test_a_thread_that_ends_without_a_word_is_waited_for_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    def unable(_: object) -> None:
        raise MemoryError  # nor could it keep the error

    monkeypatch.setattr("concurrent.futures.thread._WorkItem.run", unable)
    monkeypatch.setattr("vpt.parallel.LOOK", 0.01)
    with pytest.raises(VptError, match="too little memory: a thread that reads or writes ended"):
        list(in_order(str, range(3), 2))
