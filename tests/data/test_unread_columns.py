"""A column that says sides or patients under a name that nothing reads is told, and no other is."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vpt.data.check import check_dataset
from vpt.data.doubts.said import doubts_of
from vpt.data.layouts import read_dataset, read_labelled
from vpt.data.splits import read_splits

COUNT = 8
EVEN = ["train"] * 6 + ["val"] * 2


def listed(root: Path, masks: bool, **columns: list[str]) -> Path:
    """A list of eight pictures, of two classes or with masks, and these columns."""
    path = root / ("cases.csv" if masks else "labels.csv")
    mask = np.zeros((16, 16), np.uint8)
    mask[:, :5] = 255
    for k in range(COUNT):
        values = np.random.default_rng(k).integers(0, 255, (16, 16), np.uint8)
        Image.fromarray(values).save(root / f"i{k}.png")
        Image.fromarray(np.where(np.arange(16) < 5, 255, 0).astype(np.uint8)[None].repeat(16, 0)).save(
            root / f"m{k}.png"
        )
    own = {"mask": [f"m{k}.png" for k in range(COUNT)]} if masks else {"label": list("ab" * (COUNT // 2))}
    every = {"image": [f"i{k}.png" for k in range(COUNT)]} | own | columns
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([[*every], *zip(*every.values(), strict=True)])
    return path


def of_columns(path: Path, masks: bool) -> list[str]:
    """What the check says of columns; a training says the same."""
    dataset = read_dataset(path) if masks else read_labelled(path)
    told = [text for text in doubts_of(dataset, read_splits(dataset)) if "the column" in text]
    found = [each.text for each in check_dataset(path).warnings if "the column" in each.text]
    assert len(told) == len(found)
    return found


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize(
    ("name", "cells", "said"),
    [
        ("Usage", ["Training"] * 5 + ["PublicTest", "PrivateTest", "PublicTest"], "usage says test of 3, train of 5"),
        ("is_test", list("00000011"), "is_test says not test of 6, test of 2"),
        ("part", ["train"] * 6 + ["test"] * 2, "part says test of 2, train of 6"),
    ],
)
def test_sides_under_another_name(tmp_path, masks: bool, name: str, cells: list[str], said: str) -> None:
    (text,) = of_columns(listed(tmp_path, masks, **{name: cells}), masks)

    assert said in text
    assert text.endswith("call it split, with train, val and test in it")


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("name", ["MRN", "patient_name", "StudyInstanceUID", "exam_id", "participant"])
def test_patients_under_another_name(tmp_path, masks: bool, name: str) -> None:
    people = ["p0", "p0", "p1", "p1", "p2", "p2", "p3", "p1"]
    (text,) = of_columns(listed(tmp_path, masks, split=EVEN, **{name: people}), masks)

    assert f"1 value of the column {name.lower()}, which is not read, is on two sides (" in text
    assert text.endswith("call the column patient")


@pytest.mark.parametrize("masks", [True, False])
def test_other_columns_say_nothing(tmp_path, masks: bool) -> None:
    others = {"sex": list("fmfmfmfm"), "study": ["x"] * COUNT, "result": ["test"] * COUNT, "positive": list("01010101")}
    others |= {"pcr_test": list("01010101"), "valid": list("11111110"), "patient_age": list("45454545")}
    others |= {"patient gender": list("fmfmfmfm"), "series_number": list("23232323"), "exam_no": list("12121212")}
    assert of_columns(listed(tmp_path, masks, **others), masks) == []
    people = ["p0", "p0", "p1", "p1", "p2", "p2", "p3", "p3"]
    assert of_columns(listed(tmp_path, masks, split=EVEN, MRN=people), masks) == []
    assert of_columns(listed(tmp_path, masks, split=EVEN, patient=people, mrn=[*people[:-1], "p0"]), masks) == []
    assert of_columns(listed(tmp_path, masks, split=EVEN, usage=["train"] * 6 + ["test"] * 2), masks) == []
