"""Which slices are of one series: of one kind of scan, in one direction but for what headers round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dicom_series import header, numbers, put_pixels, write_series
from pydicom.uid import UltrasoundMultiFrameImageStorage

from vpt.errors import VptError
from vpt.readers import ChosenSeries, reader_of


def test_two_modalities_under_one_uid_are_two_series(tmp_path: Path) -> None:
    def change(k: int, data: Any) -> None:
        data.Modality = "CT" if k < 3 else "PT"

    folder = write_series(tmp_path / "both", change=change)

    with pytest.raises(VptError, match=r"2 series, expected one: 3 'thorax' \(CT, 3 slices\), 3 'thorax' \(PT, 2 sl"):
        reader_of(folder).grid()
    assert reader_of(ChosenSeries(folder, "largest")).grid().shape[2] == 3


def test_directions_that_differ_by_rounding_are_one(tmp_path: Path) -> None:
    def change(k: int, data: Any) -> None:
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0.0049 + 0.0002 * (k % 2)]  # rounded to 0.00 and 0.01

    assert reader_of(write_series(tmp_path / "ct", change=change)).grid().shape[2] == 5


def test_a_film_is_told_how_to_be_read(tmp_path: Path) -> None:
    data = header(UltrasoundMultiFrameImageStorage)
    put_pixels(data, numbers())
    data.Modality, data.NumberOfFrames = "US", 5
    data.save_as(tmp_path / "us.dcm", enforce_file_format=True)

    said = r"\(US, frames without places, 5 slices\); export the frames as pictures if it is a film, or give the folder"
    with pytest.raises(VptError, match=said):
        reader_of(tmp_path / "us.dcm").grid()


@pytest.mark.parametrize("slices", [1, 5])
def test_a_mosaic_is_no_slice(tmp_path: Path, slices: int) -> None:
    """One picture of all slices has a place and a size like any other, so nothing else would tell."""

    def change(k: int, data: Any) -> None:
        data.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]

    folder = write_series(tmp_path / "epi", numbers((slices, 6, 8)), change=change)
    with pytest.raises(VptError, match=r"3_000.dcm: a mosaic, all slices of a volume side by side in one picture"):
        reader_of(folder).grid()
