"""Progress: the time left in words, a bar with a table on a terminal, plain lines where nobody watches."""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Callable
from typing import cast

import pytest
from rich.text import Text

import vpt.progress as progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that passes, as it is set."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(("seconds", "words"), [(0, "0 s"), (89, "89 s"), (200, "3 min"), (7500, "2 h 5 min")])
def test_time_in_words(seconds: float, words: str) -> None:
    assert progress.in_words(seconds) == words


def test_plain_lines_say_the_time_left_by_the_speed_since_this_start(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.bar("training") as tick:
        tick(100, 200, "resumed")
        for done, clock[0] in ((110, 5.0), (120, 11.0), (121, 12.0), (130, 30.0)):
            tick(done, 200, "loss 1")

    assert capsys.readouterr().err.splitlines() == [
        "training: 120/200 loss 1, 44 s left",
        "training: 130/200 loss 1, 70 s left",
    ]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Terminal]:
    """Makes the standard error a terminal of 60 columns; in the test, since pytest puts its own there before."""
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")

    def watch() -> Terminal:
        monkeypatch.setattr(sys, "stderr", Terminal())
        return cast(Terminal, sys.stderr)

    return watch


def test_a_terminal_shows_a_table_over_the_bar_and_keeps_the_table(watched: Callable[[], Terminal]) -> None:
    terminal, rows = watched(), ["first"]
    with progress.bar("training", lambda width: Text(f"{' '.join(rows)} of {width}")) as tick:
        tick(1, 2, "")
        rows.append("second")

    lines = terminal.getvalue().split("\n")
    assert any("first" in line for line in lines)
    assert lines[-2].endswith("first second of 60")
    assert "training" not in lines[-2]


def test_what_goes_into_a_file_is_not_drawn_into_the_bar(
    watched: Callable[[], Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal, file = watched(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", file)
    with progress.bar("training"):
        print("epoch 1: done")

    assert file.getvalue() == "epoch 1: done\n"
    assert "epoch 1" not in terminal.getvalue()


def test_nothing_is_live_where_one_of_the_outputs_is_a_file(
    watched: Callable[[], Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    watched()
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert not progress.is_live()
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert progress.is_live()
    with progress.quiet():
        assert not progress.is_live()


class Closed(io.TextIOBase):
    """A terminal whose window is gone."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise io.UnsupportedOperation

    def write(self, text: str) -> int:
        raise OSError(errno.EIO, "Input/output error")

    def flush(self) -> None:
        raise OSError(errno.EIO, "Input/output error")


def test_work_goes_on_where_the_terminal_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Closed())
    monkeypatch.setattr(sys, "stderr", Closed())
    with progress.bar("training", above=lambda width: Text("a table")) as tick:
        for done in range(3):
            tick(done, 3, "loss 1")
            progress.say("a line")
