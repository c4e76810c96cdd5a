"""SIGINT, SIGTERM and what else asks a program to end: what is being done saves itself and leaves."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from vpt.machine.interruption import forget, raise_again, remember

# SIGHUP: the terminal, or the connection to it, was closed; SIGXCPU: the processor time of a limit is used up.
STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGXCPU") if hasattr(signal, name))
HANGUP = getattr(signal, "SIGHUP", None)
EVERY_SECOND = getattr(signal, "SIGXCPU", None)  # sent again and again until the hard limit
TWICE = 1.0  # seconds: `timeout` and wrappers send a signal to a process and to its group, which is one wish


class Interrupted(KeyboardInterrupt):
    """A signal to stop came; what has been done is saved, and the same command goes on with it."""

    def __init__(self, number: int = signal.SIGINT):
        super().__init__(signal.Signals(number).name)
        self.number = number
        self.place = ""  # in the work, for messages

    @property
    def code(self) -> int:
        """The exit code that says so: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP, 152 for SIGXCPU."""
        return 128 + self.number


class Signals:
    """Which signal came first, if any, on which `told` is called; a second one, over a second later, ends at once."""

    def __init__(self, told: Callable[[], None] = lambda: None) -> None:
        self.number: int | None = None
        self._told, self._came = told, threading.Event()
        self._since = 0.0
        self._at_once = False

    def wait(self, seconds: float) -> bool:
        """Until a signal has come, or so long -> whether one has."""
        return self._came.wait(seconds)

    def check(self) -> None:
        """Raises Interrupted where a signal has come."""
        if self.number is not None:
            raise Interrupted(self.number)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside a signal raises Interrupted wherever it meets the program: for work that can be done again.

        A library in whose midst it is raised may pass it over, or raise an error of its own for it: then it is raised
        anew at the end of what is done inside.
        """
        before, self._at_once = self._at_once, True
        try:
            self.check()
            yield
            raise_again()
        except Exception as error:
            raise_again(error)
            raise
        finally:
            self._at_once = before

    @contextmanager
    def later(self) -> Iterator[None]:
        """Inside a signal is only noted: for work that asks at the right moments."""
        before, self._at_once = self._at_once, False
        try:
            yield
        finally:
            self._at_once = before

    def receive(self, number: int, frame: FrameType | None) -> None:
        """The handler."""
        if self.number is None:
            self.number, self._since = number, time.monotonic()
            self._came.set()
            self._told()
        elif time.monotonic() - self._since < TWICE or number == EVERY_SECOND:
            return
        else:
            signal.signal(number, signal.SIG_DFL)  # a third one does not ask
            raise Interrupted(number)
        if self._at_once:
            raise remember(Interrupted(number))


@contextmanager
def heed_signals(told: Callable[[], None] = lambda: None) -> Iterator[Signals]:
    """Signals to stop are noted inside, and their handlers put back after. In other threads none is ever noted.

    SIGHUP that is ignored stays so: that is what `nohup` is for.
    """
    signals = Signals(told)
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    before = {number: signal.getsignal(number) for number in STOPPING}
    if before.get(HANGUP) == signal.SIG_IGN:
        del before[HANGUP]
    for number in before:
        signal.signal(number, signals.receive)
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        forget()


@contextmanager
def held_back() -> Iterator[None]:
    """The signals wait, also for processes that are started inside: there they wait for good.

    A new worker that has not yet said that it ignores them does not die of what is meant for the whole group.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows sends none to a group
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def quiet_children() -> Iterator[None]:
    """The end of a child raises nothing inside, and its handler is put back after.

    torch's loader installs a handler that raises wherever the program happens to be, be it in the middle of a step or
    of what is written. The loader itself sees within five seconds that a worker is gone, and raises where it is asked.
    """
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def leave_to_main() -> None:
    """In a worker: Ctrl-C and a cluster's SIGTERM reach all processes, and the main one says what happens."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
