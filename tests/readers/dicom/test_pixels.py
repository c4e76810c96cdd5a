"""What makes values of stored numbers is known, and a file holds as many numbers as its header says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_series import MRImageStorage, numbers, write_series
from pydicom import Dataset
from pydicom.uid import JPEG2000Lossless

from vpt.errors import VptError
from vpt.readers import reader_of

HU = 2 * numbers().transpose(2, 1, 0).astype(np.float32) - 1000  # (X, Y, Z)
TABLED = 3.0 * (numbers().transpose(2, 1, 0) - 100)


def read(path: Path) -> np.ndarray:
    return reader_of(path).voxels(1).values()[0]


def put_table(data: Any, slope: float | None, inter: float | None) -> None:
    """A Modality LUT of three for each number from 100 on, beside what is left of slope and intercept."""
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [400, 100, 16], "HU"
    table.LUTData = (3 * np.arange(400)).astype("<u2").tobytes()
    data.ModalityLUTSequence = [table]
    data.RescaleSlope, data.RescaleIntercept = slope, inter


@pytest.mark.parametrize("more", [0, 2, 14])
def test_padding_behind_the_pixels_is_none_of_them(tmp_path: Path, more: int) -> None:
    def change(k: int, data: Any) -> None:
        data.PixelData += bytes(range(more))

    assert np.array_equal(read(write_series(tmp_path / "ct", change=change)), HU)


@pytest.mark.parametrize(
    "changes", [{"Rows": 3}, {"Columns": 4}, {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}], ids=str
)
def test_more_pixels_than_the_header_says_are_refused(tmp_path: Path, changes: dict[str, int]) -> None:
    def change(k: int, data: Any) -> None:
        for keyword, value in changes.items():
            setattr(data, keyword, value)

    with pytest.raises(VptError, match=r"3_000\.dcm: its header claims .* 48 bytes, but its pixels go on to 96"):
        read(write_series(tmp_path / "ct", change=change))


@pytest.mark.parametrize(("slope", "inter"), [(None, None), (1, 0)])
def test_a_table_alone_makes_values(tmp_path: Path, slope: float | None, inter: float | None) -> None:
    folder = write_series(tmp_path / "ct", change=lambda k, data: put_table(data, slope, inter))
    assert np.array_equal(read(folder), TABLED)


def test_a_table_beside_slope_and_intercept_is_refused(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", change=lambda k, data: put_table(data, 2, -1000))
    with pytest.raises(VptError, match=r"has a table of values \(Modality LUT\) and a RescaleSlope or"):
        read(folder)


@pytest.mark.parametrize("tabled", [0, 2])
def test_each_slice_has_its_table_or_its_slope(tmp_path: Path, tabled: int) -> None:
    def change(k: int, data: Any) -> None:
        if k == tabled:
            put_table(data, None, None)

    reader = reader_of(write_series(tmp_path / "ct", change=change))
    expected = HU.copy()
    expected[..., tabled] = TABLED[..., tabled]
    assert np.array_equal(reader.voxels(1).values()[0], expected)
    assert reader.doubts() == []


@pytest.mark.parametrize("silent", [0, 2])
@pytest.mark.parametrize(
    ("slope", "inter", "said"),
    [(2, 0, "the RescaleSlope 2"), (2, None, "the RescaleSlope 2"), (1, -5, "the RescaleIntercept -5"), (1, 0, None)],
)
def test_slices_without_a_slope_among_those_that_have_one_are_refused(
    tmp_path: Path, silent: int, slope: float, inter: float | None, said: str | None
) -> None:
    def change(k: int, data: Any) -> None:
        if k != silent:
            data.RescaleSlope, data.RescaleIntercept = slope, inter

    folder = write_series(tmp_path / "mr", kind=MRImageStorage, change=change)
    if said is None:
        assert np.array_equal(read(folder), numbers().transpose(2, 1, 0))
        return
    with pytest.raises(
        VptError, match=rf"mr: 3_00\d\.dcm has {said} and 3_00{silent}\.dcm has none, expected it in all"
    ):
        read(folder)


@pytest.mark.parametrize("silent", [0, 2])
def test_slices_without_a_table_among_those_that_have_one_are_refused(tmp_path: Path, silent: int) -> None:
    def change(k: int, data: Any) -> None:
        if k != silent:
            put_table(data, None, None)

    folder = write_series(tmp_path / "mr", kind=MRImageStorage, change=change)
    with pytest.raises(VptError, match=rf"has a table of values .* and 3_00{silent}\.dcm has none and no RescaleSlope"):
        read(folder)


@pytest.mark.parametrize(
    ("least", "packed", "bits", "signed", "read_as"),
    [
        (0, 16, 16, 0, True),
        (0, 16, 16, 1, True),
        (-900, 16, 16, 1, True),
        (-900, 16, 16, 0, False),
        (0, 16, 12, 0, True),  # numbers beyond 2047, which 12 bits with a sign would not hold, and those packed do
        (-900, 16, 12, 0, False),
        (-900, 12, 16, 0, False),  # -900 becomes 3196, which 16 bits with a sign hold
    ],
)
def test_numbers_below_0_that_the_header_calls_unsigned_are_refused(
    tmp_path: Path, least: int, packed: int, bits: int, signed: int, read_as: bool
) -> None:
    pixels = np.random.default_rng(0).integers(least, min(3900, 2 ** (packed - 1)), (3, 32, 32)).astype(np.int16)

    def change(k: int, data: Any) -> None:
        data.BitsStored, data.HighBit = packed, packed - 1
        data.compress(JPEG2000Lossless, generate_instance_uid=False)
        data.PixelRepresentation, data.BitsStored, data.HighBit = signed, bits, bits - 1

    folder = write_series(tmp_path / "ct", pixels, change=change)
    if read_as:
        assert np.array_equal(read(folder), 2.0 * pixels.transpose(2, 1, 0) - 1000)
        return
    with pytest.raises(VptError, match=r"3_000\.dcm: its packed numbers have a sign by themselves, its header says"):
        read(folder)
