"""A table beside a set that says whose the images are is told where nothing reads it and a patient is on two sides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vpt.data.check import check_dataset
from vpt.data.doubts.said import doubts_of
from vpt.data.layouts import read_labelled
from vpt.data.splits import read_splits

COUNT = 12
NAMES = [f"ISIC_{k:07d}" for k in range(COUNT)]


def classes(root: Path, names: Sequence[str] = NAMES) -> Path:
    """A list with a column for each class, and its images in a folder."""
    root.mkdir(exist_ok=True)
    lines = ["image,MEL,NV", *(f"{name},{float(k % 2)},{float(1 - k % 2)}" for k, name in enumerate(names))]
    (root / "GroundTruth.csv").write_text("\n".join(lines))
    for k, name in enumerate(names):
        (root / "Input").mkdir(exist_ok=True)
        values = np.random.default_rng(k).integers(0, 255, (16, 16), np.uint8)
        Image.fromarray(values).save(root / "Input" / f"{name}.png")
    return root / "GroundTruth.csv"


def table(path: Path, header: str, cells: Sequence[str], names: Sequence[str] = NAMES) -> None:
    path.write_text("\n".join([header, *(f"{name},{cell}" for name, cell in zip(names, cells, strict=True))]))


def told(path: Path) -> list[str]:
    """What the check says of columns of tables; a training says the same."""
    found = [each.text for each in check_dataset(path).warnings if "of the column" in each.text]
    dataset = read_labelled(path)
    assert len(found) == len([text for text in doubts_of(dataset, read_splits(dataset)) if "of the column" in text])
    return found


PAIRS = [f"L{k // 2}" for k in range(COUNT)]
ONE_FOR_ALL = ["L0"] * COUNT


@pytest.mark.parametrize("column", ["lesion_id", "PatientID", "video_id", "StudyInstanceUID"])
def test_a_table_that_says_whose_images_are(tmp_path: Path, column: str) -> None:
    path = classes(tmp_path)
    table(tmp_path / "Metadata.csv", f"image,{column}", ONE_FOR_ALL)

    (text,) = told(path)

    assert text.startswith(f"1 value of the column {column.casefold()} of Metadata.csv, which is not read, is on two")


def test_what_it_says_is_read_where_the_list_says_it(tmp_path: Path) -> None:
    path = classes(tmp_path)
    table(tmp_path / "Metadata.csv", "image,lesion_id", PAIRS)
    assert told(path)
    header, *lines = path.read_text().splitlines()
    path.write_text(
        "\n".join([f"{header},patient", *(f"{line},{its}" for line, its in zip(lines, PAIRS, strict=True))])
    )

    assert told(path) == []


@pytest.mark.parametrize(
    ("header", "names", "cells"),
    [
        ("image,age", NAMES, ONE_FOR_ALL),
        ("image,patient_age", NAMES, ONE_FOR_ALL),
        ("image,group", NAMES, ONE_FOR_ALL),  # who is ill
        ("image,lesion_id", [f"other_{name}" for name in NAMES], ONE_FOR_ALL),
        ("image,lesion_id", NAMES, [f"L{k}" for k in range(COUNT)]),
        ("image,lesion_id", NAMES, [""] * COUNT),
    ],
)
def test_what_says_nothing_of_patients_is_not_told(tmp_path: Path, header: str, names: list[str], cells) -> None:
    path = classes(tmp_path)
    table(tmp_path / "Metadata.csv", header, cells, names)

    assert told(path) == []


def folders(root: Path, cells: Sequence[str], column: str = "Labels", called: Sequence[str] = "01") -> list[str]:
    """What is said of images in two folders, half in each, beside a list with this column."""
    classes(root)
    (root / "GroundTruth.csv").unlink()
    for k, name in enumerate(NAMES):
        folder = root / called[2 * k // COUNT]
        folder.mkdir(exist_ok=True)
        (root / "Input" / f"{name}.png").rename(folder / f"{name}.png")
    (root / "Input").rmdir()
    table(root / "all.csv", f"ImageID,{column}", cells)
    return [each.text for each in check_dataset(root).warnings if "all.csv" in each.text]


def test_folders_that_part_a_set_are_told_where_a_list_has_the_labels(tmp_path: Path) -> None:
    (text,) = folders(tmp_path, ["normal", "mass"] * (COUNT // 2))

    assert text == (
        "all.csv names the images, and its column labels says otherwise than the folders, which count as classes "
        "(normal is in 0, 1); give the list in the place of the folder, if that is the label"
    )


@pytest.mark.parametrize(
    ("cells", "column"),
    [
        (["0"] * (COUNT // 2) + ["1"] * (COUNT // 2), "label"),  # as the folders
        ([*"aaabbb", *"cccddd"], "label"),  # kinds of what the folders are
        ([*"aaaaaa", *"abbbbb"], "label"),  # a slip
        (["x"] * COUNT, "label"),
        ([*"ab"] * (COUNT // 2), "sex"),
        ([""] * COUNT, "label"),
    ],
)
def test_a_list_that_says_what_folders_say_is_not_told(tmp_path: Path, cells: list[str], column: str) -> None:
    assert folders(tmp_path, cells, column) == []


@pytest.mark.parametrize("column", ["grade", "level"])
def test_grades_beside_folders_called_by_words_are_no_other_classes(tmp_path: Path, column: str) -> None:
    assert folders(tmp_path / "words", [*"123"] * (COUNT // 3), column, ("benign", "malignant")) == []
    assert len(folders(tmp_path / "parts", [*"123"] * (COUNT // 3), column, ("part1", "part2"))) == 1
