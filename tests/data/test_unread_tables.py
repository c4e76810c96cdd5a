"""Tables beside a data set that say who is tested, or whose a case is, are told where nothing reads them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vpt.data.check import check_dataset
from vpt.data.doubts.said import doubts_of
from vpt.data.layouts import read_dataset
from vpt.data.splits import read_splits

COUNT = 8


def pictures(root: Path, table: str, header: str, *lines: str) -> Path:
    """Eight pictures with masks, and a table beside them."""
    for k in range(COUNT):
        values = np.random.default_rng(k).integers(0, 255, (16, 16), np.uint8)
        mask = np.where(values > 128 + k, 255, 0).astype(np.uint8)
        for path, array in ((root / f"photos/i{k}.png", values), (root / f"masks/i{k}_mask.png", mask)):
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(array).save(path)
    (root / table).write_text("\n".join([header, *lines]) + "\n")
    return root


def of_tables(root: Path, table: str) -> list[str]:
    """What the check says of the table; a training says the same."""
    dataset = read_dataset(root)
    told = [text for text in doubts_of(dataset, read_splits(dataset)) if table in text and "column" in text]
    assert told == [each.text for each in check_dataset(root).warnings if table in each.text and "column" in each.text]
    return told


@pytest.mark.parametrize("separator", [",", ";"])
@pytest.mark.parametrize("name", ["i{}", "photos/i{}.png"])
def test_sides_in_a_table_that_nothing_reads(tmp_path: Path, separator: str, name: str) -> None:
    """As TotalSegmentator's `meta.csv`, whose test scans were trained on."""
    lines = (separator.join([name.format(k), "60", "test" if k > 5 else "train"]) for k in range(COUNT))
    (text,) = of_tables(pictures(tmp_path, "meta.csv", separator.join(["id", "age", "split"]), *lines), "meta.csv")

    assert text.startswith("meta.csv says in its column split test of 2, train of 6 cases, but is not read, ")
    assert text.endswith('write the sides into split.json ({"train": [...], "val": [...], "test": [...]})')


@pytest.mark.parametrize("name", ["lesion_id", "Patient ID", "StudyInstanceUID"])
def test_patients_in_a_table_that_nothing_reads(tmp_path: Path, name: str) -> None:
    lines = (f"L{k % 2},i{k}" for k in range(COUNT))
    root = pictures(tmp_path, "of_images.csv", f"{name},image_id", *lines)
    names = [f"i{k}" for k in range(COUNT)]
    (root / "split.json").write_text(json.dumps({"train": names[:4], "val": names[4:6], "test": names[6:]}))
    (text,) = of_tables(root, "of_images.csv")

    assert text.startswith(f"2 values of the column {name.lower()} of of_images.csv, which is not read, are on two ")
    assert text.endswith('say so in dataset.json: "patients": {"CASE": "PATIENT", ...}')


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ("image_id,age,sex,test", "i{0},60,f,positive"),  # nobody's sides
        ("image_id,patient_id", "i{0},P{0}"),  # a patient each
        ("image_id,split,patient_id", "j{0},train,P1"),  # of other images
        ("image_id,split", "i{0},train"),  # nothing is kept apart
    ],
)
def test_other_tables_say_nothing(tmp_path: Path, header: str, line: str) -> None:
    assert not of_tables(pictures(tmp_path, "meta.csv", header, *map(line.format, range(COUNT))), "meta.csv")
