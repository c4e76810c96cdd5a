"""Progress for people, with the time left: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO, cast

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

Tick = Callable[[int, int, str], None]  # done, total, note
EVERY = 10.0  # seconds from one plain line to the next


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a line at once, on standard output unless told otherwise.

    Where nobody can read it any more (a closed terminal, the end of a pipe, a full disk), the work goes on: what takes
    hours does not end for want of a reader.
    """
    with suppress(OSError):
        print(text, file=stream, flush=True)


class _Unfailing:
    """A terminal for bars, which may be closed while they are drawn."""

    def __init__(self, terminal: TextIO):
        self._terminal = terminal

    def __getattr__(self, name: str) -> object:
        return getattr(self._terminal, name)

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._terminal.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._terminal.flush()


def silent(done: int, total: int, note: str) -> None:
    """The progress of callers that show none."""


_quiet = False


@contextmanager
def quiet() -> Iterator[None]:
    """No bars inside: for work of which another bar shows the whole."""
    global _quiet
    before, _quiet = _quiet, True
    try:
        yield
    finally:
        _quiet = before


def is_live() -> bool:
    """Whether a bar is drawn where it is seen, and what is printed goes to the same terminal."""
    return not _quiet and sys.stderr.isatty() and sys.stdout.isatty()


@contextmanager
def bar(title: str, above: Callable[[int], RenderableType] | None = None) -> Iterator[Tick]:
    """A progress bar on a terminal, a plain line every ten seconds elsewhere; call it with (done, total, note).

    above: what a terminal of so many columns shows over the bar, asked for anew whenever it is drawn, and left there at
    the end.
    """
    if _quiet:
        yield silent
    elif not sys.stderr.isatty():
        yield _plain(title)
    else:
        from rich.console import Console

        with _drawn(title, above, Console(file=cast(TextIO, _Unfailing(sys.stderr)))) as tick:
            yield tick


@contextmanager
def _drawn(title: str, above: Callable[[int], RenderableType] | None, console: Console) -> Iterator[Tick]:
    from rich.console import Group
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    note = TextColumn("{task.fields[note]}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), note)
    progress = Progress(*columns, console=console)
    task = progress.add_task(title, total=None, note="")

    def whole() -> RenderableType:
        return Group(above(console.width), progress) if above else progress

    # what is printed into a file meanwhile is not for the terminal
    live = Live(get_renderable=whole, console=console, transient=True, redirect_stdout=sys.stdout.isatty())
    try:
        with live:
            yield lambda done, total, note: progress.update(task, completed=done, total=total, note=note)
    finally:
        if above:
            console.print(above(console.width))


def _plain(title: str) -> Tick:
    said = started = time.monotonic()
    first: int | None = None

    def tick(done: int, total: int, note: str) -> None:
        nonlocal said, started, first
        now = time.monotonic()
        if first is None:  # what was done before this start says nothing of its speed
            first, started = done, now
        if now - said > EVERY:
            said = now
            left = f", {in_words((now - started) / (done - first) * (total - done))} left" if done > first else ""
            say(f"{title}: {done}/{total} {note}{left}", sys.stderr)

    return tick


def in_words(seconds: float) -> str:
    """40 -> "40 s", 200 -> "3 min", 7500 -> "2 h 5 min"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
