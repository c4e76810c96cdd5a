"""Series whose headers let doubt whether they are one scan, in HU: said, with what to do."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.dicom_series import write_series
from vpt.errors import VptError
from vpt.readers import reader_of


def having(**values: Any) -> Any:
    """Changes of every slice's header; a function is given the slice's number."""

    def change(k: int, data: Any) -> None:
        for keyword, value in values.items():
            setattr(data, keyword, value(k) if callable(value) else value)

    return change


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"RescaleIntercept": lambda k: -1000 if k < 2 else 0},
            "its RescaleIntercept differs between slices (-1000 in 2 slices, 0 in 3 slices), which no CT does",
        ),
        ({"RescaleIntercept": lambda k: -1024 if k == 4 else -1000}, "(-1000 in 4 slices, -1024 in 1 slice)"),
        ({"RescaleSlope": -1}, "its RescaleSlope is below 0"),
        ({"RescaleType": "Z_EFF"}, "a CT whose values are in Z_EFF by its header (RescaleType), not in HU"),
        ({"RescaleType": "OD"}, "in OD by its header"),
        ({"RescaleType": "MGML"}, "in MGML by its header"),
    ],
)
def test_a_ct_that_is_not_in_hu_throughout(tmp_path: Path, values: dict[str, Any], said: str) -> None:
    (found,) = reader_of(write_series(tmp_path / "s", change=having(**values))).doubts()
    assert said in found


@pytest.mark.parametrize(
    "values",
    [{}, {"RescaleType": "HU"}, {"RescaleType": "US"}, {"RescaleType": "HU_MOD"}, {"RescaleSlope": lambda k: 1 + k}],
)
def test_sound_ct(tmp_path: Path, values: dict[str, Any]) -> None:
    assert reader_of(write_series(tmp_path / "s", change=having(**values))).doubts() == []


def test_other_modalities_have_other_values(tmp_path: Path) -> None:
    of_pet = having(Modality="PT", RescaleIntercept=lambda k: k, RescaleType="BQML")
    assert reader_of(write_series(tmp_path / "s", change=of_pet)).doubts() == []


@pytest.fixture
def parted(tmp_path: Path) -> Path:
    """A series of five slices, three in one folder and two in the next, beside another series."""
    write_series(tmp_path / "scan" / "a")
    (tmp_path / "scan" / "b").mkdir()
    for file in sorted((tmp_path / "scan" / "a").iterdir())[3:]:
        shutil.move(file, tmp_path / "scan" / "b" / file.name)
    write_series(tmp_path / "scan" / "c", series=7)
    return tmp_path / "scan"


def test_a_part_of_a_series_is_told(parted: Path) -> None:
    (first,), (second,) = (reader_of(parted / name).alone() for name in "ab")
    assert first == (
        "slices of the same series lie in b beside it, so this is a part of a scan; put them into one folder"
    )
    assert "lie in a beside it" in second
    assert reader_of(parted / "c").alone() == []


def test_a_folder_of_folders_names_them(parted: Path) -> None:
    with pytest.raises(VptError, match=r"no DICOM file in this folder, but 3 folders \(a, b, c\); give one of these"):
        reader_of(parted).grid()
