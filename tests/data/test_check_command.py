"""The command that a refusal names: `vpt check` with what the data set was read by."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from commands import Told
from PIL import Image

from vpt.config import load_config
from vpt.data.cases import SegmentationSet
from vpt.data.check import check_dataset
from vpt.data.check_command import check_command
from vpt.data.labelled import LabelledSet
from vpt.data.layouts import read_dataset
from vpt.data.splits import read_splits
from vpt.engine.setup import read_data
from vpt.errors import VptError


@pytest.fixture
def both(tmp_path: Path) -> Path:
    """Images that have masks and classes."""
    root = tmp_path / "of both"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    lines = ["path,label"]
    for k in range(6):
        image = Image.new("L", (24, 24), 40 + 20 * k)
        image.paste(200, (4, 4, 10 + k, 10))
        image.save(root / "images" / f"s{k}_1.png")
        mask = Image.new("L", (24, 24))
        mask.paste(1, (4, 4, 10 + k, 10))
        mask.save(root / "masks" / f"s{k}_1.png")
        lines.append(f"images/s{k}_1.png,{'ab'[k % 2]}")
    (root / "labels.csv").write_text("\n".join(lines))
    return root


def test_it_has_what_the_training_was_told_in_words_that_a_shell_takes() -> None:
    assert check_command("D") == "vpt check D"
    assert check_command(Path("my set"), "(P\\d+)", {"liver": [1, 2]}, "segmentation") == (
        "vpt check 'my set' --patients '(P\\d+)' --labels '{\"liver\": [1, 2]}' --task segmentation"
    )


def test_what_is_wrong_with_files_is_told_with_it(both: Path) -> None:
    for k in (0, 1):
        (both / "masks" / f"s{k}_1.png").unlink()
    overrides = {"data.patients": "(s.)", "task": "segmentation"}
    with pytest.raises(VptError, match=r"\(1 more of this kind; `vpt check '.*of both' --patients '\(s.\)' --task seg"):
        read_data(load_config(both, overrides))
    with pytest.raises(VptError, match=r"`vpt check '.*of both'` lists them all"):
        read_dataset(both)
    (both / "labels.csv").write_text("path,label\nimages/x.png,a\nimages/y.png,b\nimages/s2_1.png,a\nimages/s3_1.png,b")
    with pytest.raises(VptError, match=r"`vpt check '.*of both' --patients '\(s.\)' --task classification` lists them"):
        read_data(load_config(both, overrides | {"task": "classification"}))


def test_so_is_what_is_wrong_with_the_sides(both: Path) -> None:
    sides = {"train": ["s0_1", "s1_1", "gone", "away"], "val": ["s2_1"]}
    (both / "split.json").write_text(json.dumps(sides))
    found = read_dataset(both, patients="(s.)")
    with pytest.raises(VptError, match=r"`vpt check '.*of both' --patients '\(s.\)'` lists them all"):
        read_splits(found)
    with pytest.raises(VptError, match=r"`vpt check '.*of both'` lists them all"):
        read_splits(replace(found, check=""))  # one that was made by hand


def test_check_reads_a_set_for_the_task_that_it_is_told(both: Path, vpt: Callable[..., Told]) -> None:
    usual, classes = check_dataset(both), check_dataset(both, task="classification")
    assert isinstance(usual.dataset, SegmentationSet)
    assert isinstance(check_dataset(both, task="segmentation").dataset, SegmentationSet)
    assert isinstance(classes.dataset, LabelledSet)
    assert classes.dataset.classes == ("a", "b")

    told: Told = vpt("check", both, "--task", "classification", "--json")
    assert told.code == 0
    assert [each["name"] for each in json.loads(told.out)["classes"]] == ["a", "b"]
    told = vpt("check", both, "--task", "classes")
    assert told.err == "usage: --task classes: expected segmentation or classification\n"
    told = vpt("check", both, "--task", "classification", "--labels", "{a: 1}")
    assert "a data set for classification, whose images have no masks; leave --labels out" in told.err


def test_a_set_of_another_task_is_refused_as_by_a_training(tmp_path: Path) -> None:
    for k in range(4):
        (tmp_path / "ab"[k % 2]).mkdir(exist_ok=True)
        Image.new("L", (24, 24), 40 + 20 * k).save(tmp_path / "ab"[k % 2] / f"i{k}.png")
    assert check_dataset(tmp_path).dataset.name
    with pytest.raises(VptError) as checked:
        check_dataset(tmp_path, task="segmentation")
    with pytest.raises(VptError) as trained:
        read_data(load_config(tmp_path, {"task": "segmentation"}))
    assert str(checked.value) == str(trained.value)
