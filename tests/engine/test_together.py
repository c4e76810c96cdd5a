"""Training in several processes: the weights of one, one that writes and speaks, and none that hangs."""

from __future__ import annotations

from pathlib import Path

import pytest
from together import SETTINGS, Ended, assert_alike, from_words, vpt_in_processes, words

from vpt.engine.run import train

MANY = SETTINGS | {
    "train.accumulate": 2,
    "train.checkpoint": "true",
    "optim.ema": 0.9,
    "loss.class_weights": "[1, 2, 1]",
}
CLASSES = {k: v for k, v in SETTINGS.items() if k != "train.batch_size"} | {
    "train.batch_size": 11,  # of 12 examples: one batch of 11, one of 1, which is too few for two processes
    "tuning.method": "full",
    "optim.method": "sgd",  # AdamW moves what has no gradient but rounding's as far as all else
    "optim.backbone_lr": 0.01,
    "loss.class_weights": "balanced",
}


@pytest.fixture(scope="module")
def segmented(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[Ended]]:
    """The run of one process, that of two, and how these ended."""
    folder = tmp_path_factory.mktemp("together")
    one = train(tiny_data, folder / "one", overrides=from_words(MANY))
    return one, folder / "two", vpt_in_processes(words(tiny_data, folder / "two", MANY), folder)


def test_two_processes_give_the_weights_and_scores_of_one(segmented: tuple[Path, Path, list[Ended]]) -> None:
    one, two, ended = segmented
    assert [each.code for each in ended] == [0, 0], ended
    assert_alike(two, one)


def test_only_the_first_process_speaks_and_writes(segmented: tuple[Path, Path, list[Ended]]) -> None:
    _, two, (first, second) = segmented
    assert "2 processes, each with its share of every batch" in first.out
    assert (second.out, second.err) == ("", "")
    assert len(list((two / "tensorboard").iterdir())) == 1
    assert (two / "train.log").read_text().count("started") == 1


def test_a_batch_too_small_for_all_and_full_fine_tuning(tiny_classes: Path, tmp_path: Path) -> None:
    one = train(tiny_classes, tmp_path / "one", overrides=from_words(CLASSES))
    ended = vpt_in_processes(words(tiny_classes, tmp_path / "two", CLASSES), tmp_path)
    assert [each.code for each in ended] == [0, 0], ended
    assert_alike(tmp_path / "two", one)
