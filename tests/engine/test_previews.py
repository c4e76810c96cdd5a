"""While it trains a run leaves pictures of the same few validation cases, those that were worst at first."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_run import SETTINGS

from vpt.engine.previews import MOST, WATCHED, Previews
from vpt.engine.run import train
from vpt.errors import VptWarning


def previews(run: Path, epochs: int = 40, drawn: bool = True) -> Previews:
    setup = SimpleNamespace(config=SimpleNamespace(train=SimpleNamespace(epochs=epochs)))
    found = Previews(run, setup)
    if drawn:

        def draw(seen, epoch: int) -> Path:
            path = run / f"previews/{seen.name}/epoch_{epoch:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            return path

        found._drawn = draw
    return found


def see(watched: Previews, **dice: float) -> None:
    watched.begin()
    truth = np.zeros((9, 4, 4), np.int16)
    truth[2:7, 1, 1], truth[0, 0, 0] = 1, -1
    for name, value in dice.items():
        watched.see(name, np.zeros_like(truth), truth, {"blob": value})


def test_the_worst_of_the_first_validation_are_kept_to_the_end(tmp_path) -> None:
    watched = previews(tmp_path)
    see(watched, a=0.9, b=0.1, c=0.2, d=math.nan, e=0.3, f=0.4)
    assert list(watched.draw(1)) == ["b", "c", "e", "f"]
    assert len(watched.seen) == WATCHED
    see(watched, a=0.0, b=0.8, c=0.7, d=0.0, e=0.9, f=0.6)
    assert set(watched.draw(40)) == {"b", "c", "e", "f"}
    assert watched.seen[0].title(40) == "f, epoch 40: Dice blob 0.600"


def test_slices_hold_what_is_labelled_and_nothing_ignored(tmp_path) -> None:
    watched = previews(tmp_path)
    see(watched, a=0.5)
    (seen,) = watched.seen
    assert seen.places == (3, 4, 5)
    assert seen.truth.max() == 1
    watched.begin()
    ignored = np.full((2, 3, 3), -1, np.int16)
    watched.see("b", np.ones((2, 3, 3), np.uint8), ignored, {})
    assert watched.seen[0].truth.min() == 0
    assert watched.seen[0].title(3) == "b, epoch 3: Dice undefined"


@pytest.mark.parametrize("epochs", [1, 5, 20, 300])
def test_their_number_is_bounded_and_the_last_epoch_is_there(tmp_path, epochs) -> None:
    watched = previews(tmp_path, epochs)
    drawn = []
    for epoch in range(1, epochs + 1):
        see(watched, a=0.5)
        drawn += [epoch] if watched.draw(epoch) else []
    assert (drawn[0], drawn[-1]) == (1, epochs)
    assert len(drawn) <= MOST + 1


def test_an_epoch_without_validation_has_none(tmp_path) -> None:
    watched = previews(tmp_path)
    watched.begin()
    assert watched.draw(1) == {}


def test_a_resumed_run_goes_on_with_its_cases(tmp_path) -> None:
    first = previews(tmp_path, 20)
    see(first, a=0.1, b=0.2, c=0.3, d=0.4, e=0.5)
    first.draw(8)
    later = previews(tmp_path, 20)
    later.go_on(8)
    see(later, a=0.9, b=0.9, c=0.9, d=0.9, e=0.0)
    assert later.draw(9) == {}
    assert set(later.draw(10)) == {"a", "b", "c", "d"}


@pytest.mark.parametrize("before", [0, 4])
def test_what_a_killed_run_drew_in_part_is_drawn_again(tmp_path, before) -> None:
    first = previews(tmp_path, 20)
    if before:
        see(first, a=0.1, b=0.2, c=0.3, d=0.4, e=0.5)
        first.draw(before)
    first._draw = lambda seen, epoch: None if seen.name in "cd" else first._drawn(seen, epoch)
    see(first, a=0.1, b=0.2, c=0.3, d=0.4, e=0.5)
    first.draw(8)
    later = previews(tmp_path, 20)
    later.go_on(7)
    see(later, a=0.1, b=0.2, c=0.3, d=0.4, e=0.5)
    assert set(later.draw(8)) == {"a", "b", "c", "d"}


@pytest.mark.slow
def test_a_run_that_ended_while_it_drew_goes_on_to_the_pictures_of_one_that_did_not(
    copied_data, tmp_path, monkeypatch
) -> None:
    sides = json.loads((copied_data / "split.json").read_text())
    sides["val"] += [sides["train"].pop()]
    (copied_data / "split.json").write_text(json.dumps(sides))
    short = SETTINGS | {"train.max_steps": 1}
    whole = train(copied_data, tmp_path / "whole", overrides=short)
    real, calls = Previews._drawn, iter(range(4))

    def drawn(self: Previews, *given: object) -> Path:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return real(self, *given)

    monkeypatch.setattr(Previews, "_drawn", drawn)
    with pytest.raises(KeyboardInterrupt):
        train(copied_data, tmp_path / "run", overrides=short)
    monkeypatch.undo()
    run = train(copied_data, tmp_path / "run", overrides=short)
    pictures = [sorted(path.relative_to(each) for path in each.glob("previews/*/*")) for each in (whole, run)]
    assert len(pictures[0]) == 4
    assert pictures[0] == pictures[1]


def test_a_run_leaves_pictures_that_tensorboard_has_too(tiny_run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    cases = sorted((tiny_run / "previews").iterdir())
    assert cases
    assert [path.name for path in sorted(cases[0].iterdir())] == ["epoch_0001.png", "epoch_0002.png"]
    board = EventAccumulator(str(tiny_run / "tensorboard"))
    board.Reload()
    assert set(board.Tags()["images"]) == {f"previews/{case.name}" for case in cases}
    assert [image.step for image in board.Images(f"previews/{cases[0].name}")] == [1, 2]


@pytest.mark.slow
def test_a_scan_that_is_gone_stops_no_training(copied_data, tmp_path, monkeypatch) -> None:
    draw = Previews.draw

    def without_scans(self: Previews, epoch: int) -> dict[str, Path]:
        shutil.move(copied_data / "imagesTr", tmp_path / "elsewhere")
        try:
            return draw(self, epoch)
        finally:
            shutil.move(tmp_path / "elsewhere", copied_data / "imagesTr")

    monkeypatch.setattr(Previews, "draw", without_scans)
    with pytest.warns(VptWarning, match="no preview in epoch 1: "):
        train(copied_data, tmp_path / "run", overrides=SETTINGS | {"train.epochs": 1, "train.max_steps": 1})
    assert not list((tmp_path / "run/previews").rglob("*.png"))
