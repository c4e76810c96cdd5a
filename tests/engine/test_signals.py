"""SIGINT and SIGTERM: noted or raised, once where they are sent twice, put back after."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vpt
from vpt.engine import run as run_module
from vpt.engine import signals as module
from vpt.engine.folder import standing_of
from vpt.engine.signals import STOPPING, Interrupted, heed_signals, held_back
from vpt.use.archives.attempts import attempt


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_is_noted_and_raised_where_the_work_asks(number: int, code: int) -> None:
    before = signal.signal(number, signal.SIG_DFL)  # SIGHUP is ignored where the tests run under `nohup`
    try:
        with heed_signals() as signals:
            os.kill(os.getpid(), number)
            assert signals.number == number
            with pytest.raises(Interrupted) as stop:
                signals.check()
            assert stop.value.code == code
    finally:
        signal.signal(number, before)


def test_work_that_can_be_done_again_is_left_at_once() -> None:
    went_on = []
    with heed_signals() as signals, pytest.raises(Interrupted), signals.at_once():  # noqa: PT012 (left in the middle)
        os.kill(os.getpid(), signal.SIGTERM)
        went_on.append(True)
    assert not went_on


def into_an_error() -> None:
    raise ValueError("could not determine the shape")


def into_nothing() -> None:
    pass


@pytest.mark.parametrize("turned", [into_an_error, into_nothing])
def test_what_a_library_makes_of_an_interruption_is_still_one(turned: Callable[[], None]) -> None:
    """As safetensors does, in whose reading of a file the signal comes."""
    with heed_signals() as signals, pytest.raises(Interrupted) as stop, signals.at_once():  # noqa: PT012
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            turned()
    assert stop.value.code == 143


@pytest.mark.parametrize("turned", [into_an_error, into_nothing])
def test_nor_is_it_a_failure_of_the_scan_that_it_met(turned: Callable[[], None]) -> None:
    def segment() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            turned()

    with heed_signals() as signals, pytest.raises(Interrupted) as stop, signals.at_once():  # noqa: PT012
        attempt("a", "a.nii.gz", segment)
        attempt("b", "b.nii.gz", lambda: pytest.fail("the batch went on"))
    assert stop.value.code == 143
    assert attempt("c", "c.nii.gz", lambda: "a mask") == "a mask"  # of the next batch


def test_what_was_begun_goes_on_where_a_library_made_an_error_of_the_signal(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe = run_module.describe_run

    def described_in_a_library(run: Path, setup: Any) -> None:
        describe(run, setup)
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            into_an_error()

    monkeypatch.setattr(run_module, "describe_run", described_in_a_library)
    with pytest.raises(Interrupted):
        vpt.train(tiny_data, tmp_path / "run", overrides={"train.workers": 0})
    assert standing_of(tmp_path / "run") == "begun"


def test_an_error_after_a_signal_that_only_was_noted_stays_one() -> None:
    with heed_signals() as signals, pytest.raises(ValueError, match="shape"), signals.at_once(), signals.later():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGTERM)
        into_an_error()


def test_what_came_before_is_raised_on_entry() -> None:
    with heed_signals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted), signals.at_once():
            pass


def test_the_same_wish_twice_is_one_and_a_second_one_acts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """`timeout` sends SIGTERM to its child and to the group."""
    with heed_signals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.number == signal.SIGTERM
        monkeypatch.setattr(module, "TWICE", 0.0)
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)


def test_processor_time_that_is_used_up_is_said_every_second_and_is_one_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TWICE", 0.0)
    with heed_signals() as signals:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGXCPU)
        assert signals.number == signal.SIGXCPU


def test_nohup_keeps_a_training_from_the_end_of_its_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with heed_signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.number is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in STOPPING]
    with heed_signals():
        assert [signal.getsignal(number) for number in STOPPING] != before
    assert [signal.getsignal(number) for number in STOPPING] == before


def test_a_signal_waits_while_workers_start() -> None:
    with heed_signals() as signals:
        with held_back():
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)  # not to a thread of another test's
            assert signals.number is None
        assert signals.number == signal.SIGTERM


def test_training_works_in_a_thread_where_signals_cannot_be_caught() -> None:
    seen: list[int | None] = []

    def use() -> None:
        with heed_signals() as signals:
            seen.append(signals.number)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert seen == [None]
