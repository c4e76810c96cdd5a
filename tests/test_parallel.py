"""Results come in order, of no more workers than asked for, and the first error stops what has not begun."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from vpt.errors import VptError
from vpt.machine.available import cores
from vpt.parallel import AHEAD, FEW, in_order, in_processes


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


# --- processes --------------------------------------------------------------------------------------------------------

copied = pytest.mark.skipif(sys.platform != "linux", reason="processes are copied on Linux only")
MANY = range(2 * FEW)


def test_processes_give_results_in_the_order_of_their_items():
    def late_for_the_first(number: int) -> int:
        time.sleep(0.02 if number == 0 else 0)
        return number * number

    assert list(in_processes(late_for_the_first, MANY, 2)) == [number * number for number in MANY]


@copied
def test_many_items_are_worked_on_outside_of_this_process_and_few_inside():
    assert os.getpid() not in in_processes(lambda _: os.getpid(), MANY, 2)
    assert set(in_processes(lambda _: os.getpid(), range(FEW - 1), 2)) == {os.getpid()}
    assert set(in_processes(lambda _: os.getpid(), MANY, 1)) == {os.getpid()}


@copied
def test_a_process_that_may_have_none_of_its_own_works_in_threads():
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_in_a_daemon) == list(MANY)


def _in_a_daemon() -> list[int]:
    return list(in_processes(lambda number: number, MANY, 2))


def test_an_error_of_a_process_comes_in_its_items_place():
    def work(number: int) -> int:
        if number == 3:
            raise VptError("scan 3: damaged; export it again")
        return number

    got = []
    with pytest.raises(VptError, match="scan 3: damaged; export it again"):
        got.extend(in_processes(work, MANY, 2))

    assert got == [0, 1, 2]


@copied
def test_a_process_that_is_killed_is_told_in_a_sentence():
    def work(number: int) -> int:
        if number == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    with pytest.raises(VptError, match="a process that reads was ended from outside"):
        list(in_processes(work, MANY, 2))

    assert not multiprocessing.active_children()


@copied
def test_the_processes_end_where_the_first_one_is_killed():
    code = (
        "import os, time; from vpt.parallel import in_processes\n"
        "def work(number): os.write(1, b'%d\\n' % os.getpid()); time.sleep(60)\n"  # in one piece
        "list(in_processes(work, range(100), 2))"
    )
    first = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    others = [int(first.stdout.readline()) for _ in range(2)]
    first.kill()
    first.wait()

    until = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{each}") and _runs(each) for each in others):
        assert time.monotonic() < until, "still there"
        time.sleep(0.02)
    first.stdout.close()


def _runs(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
