"""One of several processes leaves: the others follow, the state is whole, and what happened is said once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from together import SETTINGS, assert_alike, from_words, vpt_in_processes, words

from vpt.engine.run import train
from vpt.errors import VptError


def at_step(number: int, step: int, act: Callable[[], None]) -> Callable[[int], None]:
    """In process `number`, at the loss of that step: act."""

    def before(own: int) -> None:
        from vpt.engine import segmenting

        real, calls = segmenting.dice_ce(), iter(range(1, 1_000_000))

        def loss(output: Any, batch: Any) -> torch.Tensor:
            if next(calls) == step and own == number:
                act()
            return real(output, batch)

        segmenting.dice_ce = lambda *settings: loss

    return before


def at_validation(number: int, act: Callable[[], None]) -> Callable[[int], None]:
    def before(own: int) -> None:
        from vpt.engine import segmenting

        real = segmenting.validate

        def validate(*given: Any) -> Any:
            if own == number:
                act()
            return real(*given)

        segmenting.validate = validate

    return before


def send(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def fail() -> None:
    raise VptError("a.nii.gz: gone; put it back")


@pytest.fixture(scope="module")
def whole(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tiny_data, tmp_path_factory.mktemp("leaving") / "whole", overrides=from_words(SETTINGS))


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_a_signal_to_one_ends_all_with_the_state_of_that_step(
    tiny_data: Path, whole: Path, tmp_path: Path, number: int
) -> None:
    run = tmp_path / "run"
    ended = vpt_in_processes(words(tiny_data, run, SETTINGS), tmp_path, before=at_step(number, 2, send(signal.SIGTERM)))
    assert [each.code for each in ended] == [143, 143], ended
    assert "interrupted in epoch 1, step 2" in ended[0].out
    assert (ended[1].out, ended[1].err) == ("", "")
    train(None, run, resume=True)  # by one process
    assert "resumed with 1 instead of 2 processes" in (run / "train.log").read_text()
    assert_alike(run, whole)


@pytest.mark.slow
def test_after_a_signal_nobody_leaves_before_the_state_is_saved(tiny_data: Path, tmp_path: Path) -> None:
    """Else `srun --kill-on-bad-exit` and torchrun end the one that is still saving."""
    signalled, saved, order = at_step(1, 2, send(signal.SIGTERM)), tmp_path / "saved", tmp_path / "order"

    def before(own: int) -> None:
        signalled(own)
        slowly_saved(saved) if own == 0 else note_at_leaving(order, saved)

    ended = vpt_in_processes(words(tiny_data, tmp_path / "run", SETTINGS), tmp_path, before=before)
    assert [each.code for each in ended] == [143, 143], ended
    assert order.read_text() == "after"


def slowly_saved(saved: Path) -> None:
    """The first process takes two seconds for a state but the one before the first step."""
    from vpt.engine import training

    real = training.save_state

    def save(path: Path, *given: Any) -> None:
        if path.exists():
            time.sleep(2)
            saved.touch()
        real(path, *given)

    training.save_state = save


def note_at_leaving(order: Path, saved: Path) -> None:
    from vpt.engine.line import Line

    real = Line.leave

    def leave(line: Line, leaving: Any) -> bool:
        said = real(line, leaving)
        order.write_text("after" if saved.exists() else "before")
        return said

    Line.leave = leave  # type: ignore[method-assign]


@pytest.mark.slow
def test_a_signal_to_one_in_the_validation_ends_all(tiny_data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ended = vpt_in_processes(words(tiny_data, run, SETTINGS), tmp_path, before=at_validation(1, send(signal.SIGINT)))
    assert [each.code for each in ended] == [130, 130], ended
    assert "interrupted in epoch 1, step 3" in ended[0].out


@pytest.mark.slow
@pytest.mark.parametrize(("lost", "told"), [(1, 0), (0, 1)])
def test_one_that_is_killed_ends_the_others_in_seconds(tiny_data: Path, tmp_path: Path, lost: int, told: int) -> None:
    run = tmp_path / "run"
    settings = SETTINGS | {"train.workers": 1}  # which keeps the killed one's connections for a while
    ended = vpt_in_processes(words(tiny_data, run, settings), tmp_path, before=at_step(lost, 2, send(signal.SIGKILL)))
    assert ended[lost].code == -signal.SIGKILL
    assert ended[told].code == 1
    assert ended[told].err.count("error:") == 1
    assert f"process {lost} of 2, counted from 0, is gone" in ended[told].err
    assert ended[told].seconds - ended[lost].seconds < 10
    again = vpt_in_processes(words(tiny_data, run, settings), tmp_path)
    assert [each.code for each in again] == [0, 0], again


@pytest.mark.slow
def test_what_fails_in_one_is_said_once(tiny_data: Path, tmp_path: Path) -> None:
    ended = vpt_in_processes(words(tiny_data, tmp_path / "run", SETTINGS), tmp_path, before=at_step(1, 2, fail))
    assert [each.code for each in ended] == [1, 1]
    said = "error: process 1 of 2, counted from 0, failed: a.nii.gz: gone; put it back\n"
    assert (ended[0].err, ended[1].err) == (said, "")


def test_what_fails_in_all_is_said_once(tmp_path: Path) -> None:
    ended = vpt_in_processes(words(tmp_path / "nothing", tmp_path / "run", SETTINGS), tmp_path)
    assert [each.code for each in ended] == [1, 1]
    assert ended[0].err.startswith("error: ")
    assert ended[0].err.count("\n") == 1
    assert ended[1].err == ""
    assert not (tmp_path / "run").exists()
