"""Words of folders and names that say a side, and those that only look so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vpt.data.layouts import read_dataset
from vpt.data.layouts.sides import said_throughout, side_of_folder, side_of_word
from vpt.errors import VptError


@pytest.mark.parametrize(
    ("word", "side"),
    [
        ("train", "train"),
        ("TRAINING", "train"),
        ("trainval", "train"),
        ("train+val", "train"),
        ("train2017", "train"),
        ("TrainSet", "train"),
        ("testA", "test"),
        ("TestB1", "test"),
        ("TEST1", "test"),
        ("testset", "test"),
        ("Validation", "val"),
        ("01training", "train"),
        ("verse20test", "test"),
        ("trainer", ""),
        ("testis", ""),
        ("valve", ""),
        ("latest", ""),
        ("contest1", ""),
        ("", ""),
    ],
)
def test_a_word_says_a_side_alone_or_before_a_capital_or_number(word: str, side: str) -> None:
    assert side_of_word(word) == side


@pytest.mark.parametrize(
    ("folder", "side"), [("train_val", "train"), ("ISIC2018_Test_Input", "test"), ("images", ""), ("val images", "val")]
)
def test_a_folder_says_what_its_first_such_word_says(folder: str, side: str) -> None:
    assert side_of_folder(folder) == side


@pytest.mark.parametrize(
    ("paths", "sides"),
    [
        (("train_x/a", "test_x/b"), ["train", "test"]),
        (("tests/train_x/a", "tests/test_x/b"), ["train", "test"]),
        (("train_1", "testA_1"), ["train", "test"]),
        (("x/train_1", "x/val_1"), ["train", "val"]),
        (("train_1", "other_1"), []),
        (("train_x/a", "train_y/b"), []),
        (("val_1", "test_1"), []),
    ],
)
def test_sides_are_read_where_every_case_has_one_and_training_is_among_them(
    paths: tuple[str, ...], sides: list[str]
) -> None:
    found = said_throughout({path: Path(f"{path}.png") for path in paths})
    assert [*found.values()] == sides


@pytest.mark.parametrize("inner", [False, True])
def test_trainval_beside_train_and_val_holds_the_same_cases_again(tmp_path: Path, inner: bool) -> None:
    sides = {"train": (1, 2, 3), "val": (4, 5), "trainval": (1, 2, 3, 4, 5), "test": (6, 7)}
    for side, numbers in sides.items():
        for number in numbers:
            for kind in ("images", "masks"):
                folder = tmp_path / (f"{side}/{kind}" if inner else f"{side}_{kind}")
                folder.mkdir(parents=True, exist_ok=True)
                values = np.zeros((20, 24), np.uint8)
                values[number : number + 6, 3:9] = 200 if kind == "images" else 1
                Image.fromarray(values).save(folder / f"im{number}.png")
    if not inner:
        with pytest.raises(
            VptError, match=r"trainval_images/im1\.png: the second scan of train_im1 by its name; keep one"
        ):
            read_dataset(tmp_path)
        return
    dataset = read_dataset(tmp_path)
    found = {name: side for name, side in dataset.sides.items() if side}
    assert not [name for name in found if "trainval" in name]
    assert sorted(found.values()) == ["test"] * 2 + ["train"] * 3 + ["val"] * 2
