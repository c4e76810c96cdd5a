"""Series whose headers let doubt whether they are one scan, in HU: said, with what to do."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from tests.dicom_series import STEP, write_multiframe, write_series
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


@pytest.mark.parametrize(
    ("unit", "between", "said"), [("HU", STEP, ""), ("Z_EFF", STEP, "in Z_EFF"), ("HU", STEP / 2, "header says 1.25")]
)
def test_a_multiframe_file_is_doubted_by_the_headers_of_its_frames(
    tmp_path: Path, unit: str, between: float, said: str
) -> None:
    data = dcmread(write_multiframe(tmp_path / "a.dcm"))
    data.Modality = "CT"
    for group in data.PerFrameFunctionalGroupsSequence:
        group.PixelValueTransformationSequence[0].RescaleType = unit
    data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = between
    data.save_as(tmp_path / "a.dcm")

    found = reader_of(tmp_path / "a.dcm").doubts()
    assert said in found[0] if said else found == []


@pytest.mark.parametrize(
    ("spacing", "doubted"), [([70, 70], True), ([0.75, 0.005], True), ([30, 0.01], False)], ids=str
)
def test_pixels_of_a_size_that_no_scanner_has(tmp_path: Path, spacing: list[float], doubted: bool) -> None:
    found = reader_of(write_series(tmp_path / "s", change=having(PixelSpacing=spacing))).doubts()
    assert ["mm, which no scanner has (expected 0.01 to 30 mm)" in text for text in found] == [True] * doubted


@pytest.mark.parametrize(("padding", "signed", "doubted"), [(63536, 0, True), (0, 0, False), (-2000, 1, False)])
def test_padding_below_0_that_is_read_as_the_highest_number(
    tmp_path: Path, padding: int, signed: int, doubted: bool
) -> None:
    found = reader_of(
        write_series(tmp_path / "s", change=having(PixelRepresentation=signed, PixelPaddingValue=padding))
    ).doubts()
    assert ["counts as 126072 HU, as if it were -2000" in text for text in found] == [True] * doubted


def test_other_modalities_have_other_values(tmp_path: Path) -> None:
    of_pet = having(Modality="PT", RescaleIntercept=lambda k: k, RescaleType="BQML")
    assert reader_of(write_series(tmp_path / "s", change=of_pet)).doubts() == []


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (["DERIVED", "SECONDARY", "AXIAL", "MIP"], "(ImageType MIP)"),
        (["DERIVED", "PRIMARY", "MINIP"], "(ImageType MINIP)"),
        (["DERIVED", "PRIMARY", "PROJECTION IMAGE", "MIP"], "(ImageType PROJECTION IMAGE, MIP)"),
        (["DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 MIP"], "(ImageType CT_SOM5 MIP)"),
        (["ORIGINAL", "PRIMARY", "MNIP", "ND", "NORM"], "(ImageType MNIP)"),
        (["DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 MPR"], ""),
        (["DERIVED", "SECONDARY", "MPR"], ""),
        (["ORIGINAL", "PRIMARY", "AXIAL"], ""),
    ],
    ids=str,
)
def test_projections_are_told(tmp_path: Path, kind: list[str], said: str) -> None:
    """A hospital's study holds them beside the scan that they were made of."""
    found = reader_of(write_series(tmp_path / "s", change=having(ImageType=kind))).doubts()
    assert ["projections through several by its header " + said in text for text in found] == [True] * bool(said)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"CorrectedImage": ["NORM", "DTIM", "SCAT", "DECY"]}, "not corrected for attenuation by its header"),
        ({"CorrectedImage": "NORM"}, "not corrected for attenuation by its header"),
        ({"Units": "CNTS"}, "PET whose values are counts by its header (Units CNTS), not Bq/ml or SUV"),
        ({"Units": "1CM"}, "a map of attenuation by its header"),
    ],
    ids=str,
)
def test_pet_that_does_not_measure_uptake(tmp_path: Path, values: dict[str, Any], said: str) -> None:
    (found,) = reader_of(write_series(tmp_path / "s", change=having(Modality="PT", **values))).doubts()
    assert said in found


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")  # small letters, which no standard has
@pytest.mark.parametrize("units", ["BQML", "GML", "MLMINML"])
def test_sound_pet(tmp_path: Path, units: str) -> None:
    """What a unit of PET is called says nothing of another modality, whose attributes of that name are not read."""
    sound = having(Modality="PT", Units=units, CorrectedImage=["NORM", "ATTN", "SCAT", "DECY"])
    small = having(Modality="PT", Units=units.lower(), CorrectedImage=["norm", "attn"])
    assert reader_of(write_series(tmp_path / "small", change=small, series=5)).doubts() == []
    assert reader_of(write_series(tmp_path / "s", change=sound)).doubts() == []
    assert reader_of(write_series(tmp_path / "ct", change=having(Units="CNTS"), series=4)).doubts() == []


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
