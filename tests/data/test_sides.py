"""Words of folders and names that say a side, and those that only look so."""

from __future__ import annotations

from pathlib import Path

import pytest

from vpt.data.layouts.sides import said_throughout, side_of_folder, side_of_word


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
