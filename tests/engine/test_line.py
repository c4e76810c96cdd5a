"""Who leaves says why; who says nothing is lost; and each of these is said by one process."""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from together import in_processes

from vpt.engine import line as module
from vpt.engine.line import Leaving, Line
from vpt.engine.processes import HERE, Place
from vpt.engine.signals import Interrupted
from vpt.errors import SaidElsewhere, VptError

BROKEN = RuntimeError("Connection closed by peer")


def place(number: int, of: int = 3) -> Place:
    return Place(number, of, number, of, HERE, 29500, "torchrun")


class Three:
    """The lines of three processes, and the leavings that each one heard of."""

    def __init__(self) -> None:
        pairs = [socket.socketpair() for _ in range(2)]
        self.heard: list[list[Leaving]] = [[], [], []]
        ends = [{1: pairs[0][0], 2: pairs[1][0]}, {0: pairs[0][1]}, {0: pairs[1][1]}]
        self.sockets = [list(each.values()) for each in ends]
        self.lines = [Line(place(number), own, self.heard[number].append) for number, own in enumerate(ends)]

    def kill(self, number: int) -> None:
        self.lines[number]._closed = True
        for each in self.sockets[number]:
            each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for number, line in enumerate(self.lines):
            line.leave(Leaving(number, "done"))


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> Iterator[Three]:
    monkeypatch.setattr(module, "FORCED", 3600.0)
    found = Three()
    yield found
    found.close()


def test_the_end_is_no_loss(three: Three) -> None:
    three.close()
    time.sleep(0.1)
    assert three.heard == [[], [], []]


def test_one_that_is_lost_is_said_by_the_first(three: Three) -> None:
    three.kill(1)
    first, third = (three.lines[number].error(BROKEN) for number in (0, 2))
    assert str(first).startswith("process 1 of 3, counted from 0, is gone")
    assert isinstance(third, SaidElsewhere)
    assert three.heard[2] == [Leaving(1, "lost")]


def test_where_the_first_is_lost_the_next_one_says_it(three: Three) -> None:
    three.kill(0)
    second, third = (three.lines[number].error(BROKEN) for number in (1, 2))
    assert str(second).startswith("process 0 of 3, counted from 0, is gone")
    assert isinstance(second, VptError)
    assert not isinstance(second, SaidElsewhere)
    assert isinstance(third, SaidElsewhere)


def test_what_failed_is_said_by_the_first(three: Three) -> None:
    assert three.lines[1].leave(Leaving(1, "failed", text="a.nii.gz: gone"))
    assert str(three.lines[0].error(BROKEN)) == "process 1 of 3, counted from 0, failed: a.nii.gz: gone"
    assert isinstance(three.lines[2].error(BROKEN), SaidElsewhere)


def test_a_signal_to_one_is_one_to_all(three: Three) -> None:
    told = Leaving(2, "interrupted", signal=signal.SIGTERM)
    leaves = threading.Thread(target=three.lines[2].leave, args=(told,), daemon=True)
    leaves.start()
    for number in (0, 1):
        error = three.lines[number].error(BROKEN)
        assert isinstance(error, Interrupted)
        assert error.code == 143
    assert leaves.is_alive(), "the first one saves the state, and launchers end all once one has left"
    three.lines[0].leave(Leaving(0, "interrupted", signal=signal.SIGTERM))
    leaves.join(10)
    assert not leaves.is_alive()


def test_what_nobody_explains_is_shown(three: Three, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SOON", 0.01)
    assert "is broken (Connection closed by peer)" in str(three.lines[0].error(BROKEN))


@pytest.mark.parametrize(
    ("leaving", "code", "said"),
    [(b'{"number": 1, "why": "interrupted", "signal": 15, "text": ""}\n', 143, ""), (b"", 1, "error: process 1 of 2")],
)
def test_one_that_hangs_is_ended(tmp_path: Path, leaving: bytes, code: int, said: str) -> None:
    def hang(number: int) -> None:
        module.FORCED = 0.2
        own, other = socket.socketpair()
        line = Line(place(0, 2), {1: own}, lambda leaving: None)
        line.waiting = True
        other.sendall(leaving)
        other.close()
        time.sleep(30)
        sys.exit(3)

    (ended,) = in_processes(hang, tmp_path, of=1)
    assert (ended.code, ended.err[: len(said)]) == (code, said)
