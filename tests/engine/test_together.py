"""Training in several processes: the weights of one, one that writes and speaks, and none that hangs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from together import SETTINGS, Ended, assert_alike, from_words, in_processes, vpt_in_processes, words

from vpt.engine.run import train
from vpt.files import read_json, write_json

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
    """The run of one process, that of two, with three validation cases, and how these ended."""
    folder = tmp_path_factory.mktemp("together")
    data = shutil.copytree(tiny_data, folder / "blobs")
    sides = read_json(data / "split.json")
    write_json(data / "split.json", {"train": sides["train"][2:], "val": sides["train"][:2] + sides["val"], "test": []})
    one = train(data, folder / "one", overrides=from_words(MANY))
    return one, folder / "two", vpt_in_processes(words(data, folder / "two", MANY), folder)


@pytest.mark.slow
def test_two_processes_give_the_weights_and_scores_of_one(segmented: tuple[Path, Path, list[Ended]]) -> None:
    one, two, ended = segmented
    assert [each.code for each in ended] == [0, 0], ended
    assert_alike(two, one)
    assert len(list((two / "previews").iterdir())) == 3


@pytest.mark.slow
def test_only_the_first_process_speaks_and_writes(segmented: tuple[Path, Path, list[Ended]]) -> None:
    _, two, (first, second) = segmented
    assert "2 processes, each with its share of every batch" in first.out
    assert (second.out, second.err) == ("", "")
    assert len(list((two / "tensorboard").iterdir())) == 1
    assert (two / "train.log").read_text().count("started") == 1


@pytest.mark.slow
def test_a_batch_too_small_for_all_and_full_fine_tuning(tiny_classes: Path, tmp_path: Path) -> None:
    def run(out: str) -> Path:
        return train(tiny_classes, tmp_path / out, overrides=from_words(CLASSES), brief=True)

    one, ended = run("one"), in_processes(lambda number: run("two"), tmp_path)
    assert [each.code for each in ended] == [0, 0], ended
    assert_alike(tmp_path / "two", one)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "--devices"])
def test_launchers_start_them(tiny_classes: Path, tmp_path: Path, launcher: str) -> None:
    ours = ["-m", "vpt.cli", *map(str, words(tiny_classes, tmp_path / "run", CLASSES | {"train.epochs": 1}))]
    command = {
        "torchrun": [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *ours],
        "--devices": [sys.executable, *ours, "--devices", "2"],
    }[launcher]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "2 processes, each with its share of every batch" in done.stdout
    assert done.stdout.count("best artifact: ") == 1


@pytest.mark.slow
def test_folds_are_shared_by_processes_and_not_trained_together(tiny_data: Path, tmp_path: Path) -> None:
    settings = SETTINGS | {"train.epochs": 1, "train.max_steps": 1, "data.folds": 2}
    ended = vpt_in_processes(words(tiny_data, tmp_path / "folds", settings, "--folds", "2"), tmp_path)
    assert [each.code for each in ended] == [0, 0], ended
    logs = sorted((tmp_path / "folds").glob("fold*/train.log"))
    assert len(logs) == 2
    assert all("processes, each" not in log.read_text() for log in logs)
