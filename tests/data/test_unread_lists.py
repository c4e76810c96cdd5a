"""A file beside the cases that lists who is tested is told where the sides are drawn, and no other file is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vpt.data.check import check_dataset
from vpt.data.doubts.said import doubts_of
from vpt.data.layouts import read_dataset, read_labelled
from vpt.data.splits import read_splits

NAMES = [f"img_{k}" for k in range(8)]
TRAIN, TEST = NAMES[:5], NAMES[5:]


@pytest.fixture(params=["masks", "classes"])
def root(request, tmp_path) -> Path:
    """Eight pictures, with masks or in folders of two classes."""
    for k, name in enumerate(NAMES):
        picture = Image.fromarray(np.random.default_rng(k).integers(0, 255, (16, 16), np.uint8))
        mask = np.zeros((16, 16), np.uint8)
        mask[2:9, 3 : 8 + k % 3] = 255
        files = (
            {"images": picture, "masks": Image.fromarray(mask)} if request.param == "masks" else {"ab"[k % 2]: picture}
        )
        for folder, each in files.items():
            (tmp_path / folder).mkdir(exist_ok=True)
            each.save(tmp_path / folder / f"{name}.png")
    return tmp_path


def told(root: Path) -> list[str]:
    """What the check says of such files; a training says the same."""
    dataset = read_dataset(root) if (root / "masks").is_dir() else read_labelled(root)
    training = [text for text in doubts_of(dataset, read_splits(dataset)) if "the sides are drawn" in text]
    found = [each.text for each in check_dataset(root).warnings if "the sides are drawn" in each.text]
    assert found == training
    return found


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"train.txt": "\n".join(TRAIN), "test.txt": "\n".join(TEST)},
            "test.txt names 3, train.txt names 5 of 8 cases",
        ),
        (
            {"test.lst": "".join(f"images/{name}.png masks/{name}.png\n" for name in TEST)},
            "test.lst names 3 of 8",
        ),
        ({"ImageSets/Segmentation/val.txt": "\r\n".join(TEST)}, "ImageSets/Segmentation/val.txt names 3 of 8"),
        ({"split.csv": "\n".join(f"{name}.png,train" for name in NAMES)}, "split.csv names 8 of 8"),
        ({"splits.json": json.dumps({"train": TRAIN, "test": TEST})}, "splits.json names 8 of 8"),
        ({"fold_0.json": json.dumps([{"case": f"a\\{name}.png"} for name in TEST])}, "fold_0.json names 3 of 8"),
        ({"train_list.txt": "\n".join(TRAIN)}, "train_list.txt names 5 of 8 cases, but is not read"),
    ],
)
def test_files_that_list_sides_are_told(root: Path, files: dict[str, str], said: str) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (text,) = told(root)

    assert text.startswith(said)
    assert "write the sides into split.json" in text


def test_other_files_and_sides_that_are_said_are_not(root: Path) -> None:
    (root / "train.txt").write_text("\n".join(NAMES))  # all of them, so nothing is kept apart
    (root / "blood_test.csv").write_text("\n".join(f"{name},0.5" for name in NAMES))
    (root / "test.txt").write_text("other_1\nother_2\n")
    (root / "readme.txt").write_text("\n".join(TEST))
    (root / "test_scores.csv").write_text("1,2,3\n")
    (root / "splits.json").write_text("{ broken")
    (root / "val.txt").mkdir()
    os.mkfifo(root / "test.json")
    (root / "run").mkdir()  # a training among the data, whose sides are its own
    for name in ("plan.json", "config.yaml"):
        (root / "run" / name).write_text("{}")
    (root / "run" / "splits.json").write_text(json.dumps({"train": TRAIN, "val": TEST}))
    assert told(root) == []

    (root / "test.txt").write_text("\n".join(TEST))
    assert len(told(root)) == 1
    folder = "" if (root / "masks").is_dir() else "ab"
    sides = {"train": TRAIN[:4], "val": TRAIN[4:], "test": TEST}
    named = {its: [f"{folder[NAMES.index(n) % 2]}/{n}" if folder else n for n in names] for its, names in sides.items()}
    (root / "split.json").write_text(json.dumps(named))
    assert told(root) == []


@pytest.mark.parametrize("word", ["test", "validation", "val"])
def test_sides_in_a_dataset_json_are_told_where_these_are_cases_that_are_read(make_dataset, word: str) -> None:
    root = make_dataset("msd")
    source = root / "dataset.json"
    content = json.loads(source.read_text())
    source.write_text(json.dumps(content | {word: content["training"][2:], "testing": ["imagesTs/other.nii.gz"]}))
    (text,) = told_of_volumes(root)

    assert text.startswith(f"`{word}` of dataset.json names 2 of 4 cases, but is not read")
    source.write_text(json.dumps(content | {word: ["./imagesTs/case_00.nii.gz"]}))
    assert told_of_volumes(root) == []


def told_of_volumes(root: Path) -> list[str]:
    return [each.text for each in check_dataset(root).warnings if "the sides are drawn" in each.text]


@pytest.mark.parametrize(("inner", "is_told"), [("images", True), ("labelled_images", True), ("cat_images", False)])
def test_lists_above_a_folder_of_images(tmp_path: Path, inner: str, is_told: bool) -> None:
    for k, name in enumerate(NAMES):
        path = tmp_path / "dtd" / inner / "ab"[k % 2] / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(k).integers(0, 255, (16, 16), np.uint8)).save(path)
    (tmp_path / "dtd/labels").mkdir()
    (tmp_path / "dtd/labels/test1.txt").write_text("\n".join(f"{'ab'[k % 2]}/img_{k}.png" for k in range(5, 8)))
    (tmp_path / "dtd/all.csv").write_text("filename;video_id\n" + "\n".join(f"{name}.png;v1" for name in NAMES))
    (tmp_path / "test.txt").write_text("\n".join(NAMES))  # of another set

    found = told(tmp_path / "dtd" / inner)

    assert [text.partition(" of 8")[0] for text in found] == ["../labels/test1.txt names 3"] * is_told
    tables = [
        each.text for each in check_dataset(tmp_path / "dtd" / inner).warnings if "video_id of ../all" in each.text
    ]
    assert len(tables) == is_told
