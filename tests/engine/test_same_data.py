"""Marks of a data set: what changes them, by the name of the case, and what does not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vpt.data.layouts import read_dataset, read_labelled
from vpt.data.splits import read_splits
from vpt.engine.same_data import keep_marks, marks_of_data, require_same_data
from vpt.errors import VptError


def marks(path: Path, read: Callable[..., object] = read_dataset) -> dict[str, str]:
    dataset = read(path)
    return marks_of_data(dataset, [read_splits(dataset)])


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in {**before, **after} if before.get(name) != after.get(name)}


def test_a_copy_is_the_same_data_and_another_mask_is_not(tiny_data: Path, copied_data: Path) -> None:
    before = marks(tiny_data)
    assert changed(before, marks(copied_data)) == set()
    first, second = sorted((copied_data / "labelsTr").iterdir())[:2]
    shutil.copy(first, second)
    assert changed(before, marks(copied_data)) == {second.name.removesuffix(".nii.gz")}


def test_another_name_of_a_label_and_another_side_are_other_data(copied_data: Path) -> None:
    before, described = marks(copied_data), copied_data / "dataset.json"
    content = json.loads(described.read_text())
    described.write_text(described.read_text().replace(list(content["labels"])[-1], "renamed"))
    assert changed(before, marks(copied_data)) == {"the set of labels"}
    before, sides = marks(copied_data), json.loads((copied_data / "split.json").read_text())
    sides["val"].append(moved := sides["train"].pop())
    (copied_data / "split.json").write_text(json.dumps(sides))
    assert changed(before, marks(copied_data)) == {moved}


def test_pixels_of_all_images_in_one_file(tiny_npz: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(tiny_npz, tmp_path / "stripesmnist.npz"))
    before = marks(path, read_labelled)
    with np.load(path) as held:
        arrays = dict(held)
    np.savez(path, **{**arrays, "test_images": arrays["test_images"] + 1})
    assert changed(before, marks(path, read_labelled)) == {"stripesmnist.npz"}


def test_what_came_or_went_is_named_first(tmp_path: Path) -> None:
    require_same_data(tmp_path, {"a": "1"})
    keep_marks(tmp_path, {"a": "1", "b": "1", "z": "1"})
    with pytest.raises(VptError, match="other data than these: y, z, a changed since"):
        require_same_data(tmp_path, {"a": "2", "b": "1", "y": "1"})
