"""What makes values of stored numbers is known, and a file holds as many numbers as its header says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_series import MRImageStorage, numbers, write_multiframe, write_series
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from vpt.errors import VptError
from vpt.readers import reader_of

HU = 2 * numbers().transpose(2, 1, 0).astype(np.float32) - 1000  # (X, Y, Z)
TABLED = 3.0 * (numbers().transpose(2, 1, 0) - 100)
STORED = numbers().transpose(2, 1, 0)


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
        _put(data, changes)

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


@pytest.mark.parametrize(
    ("within", "beside", "scaled"),
    [
        ({}, {}, STORED),
        ({}, {"RescaleSlope": 3, "RescaleIntercept": -500}, STORED * 3.0 - 500),
        ({"RescaleSlope": 2, "RescaleIntercept": 7}, {"RescaleSlope": 3, "RescaleIntercept": -500}, STORED * 2.0 + 7),
    ],
)
def test_frames_without_a_slope_of_their_own_have_the_files(
    tmp_path: Path, within: dict[str, float], beside: dict[str, float], scaled: np.ndarray
) -> None:
    path = scaled_multiframe(tmp_path / "mr.dcm", within, beside)
    assert np.array_equal(read(path), scaled)

    sitk = pytest.importorskip("SimpleITK")
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).transpose(2, 1, 0), scaled)


@pytest.mark.parametrize(("within", "beside"), [("RescaleSlope", "RescaleIntercept"), ("RescaleIntercept",) * 2])
def test_a_slope_in_one_place_and_an_intercept_in_another_are_refused(tmp_path: Path, within: str, beside: str) -> None:
    path = scaled_multiframe(tmp_path / "mr.dcm", {within: 2}, {beside: 3, "RescaleSlope": 3})
    other = {"RescaleSlope": "RescaleIntercept", "RescaleIntercept": "RescaleSlope"}[within]
    with pytest.raises(VptError, match=rf"mr\.dcm: its {other} is beside its functional groups, which have the other"):
        read(path)


def test_a_frame_without_a_slope_among_those_that_have_one_has_not_the_files(tmp_path: Path) -> None:
    path = scaled_multiframe(tmp_path / "mr.dcm", {"RescaleSlope": 2, "RescaleIntercept": 7}, {"RescaleSlope": 3})
    data = dcmread(path)
    del data.PerFrameFunctionalGroupsSequence[2].PixelValueTransformationSequence
    data.save_as(path)
    with pytest.raises(VptError, match=r"has the RescaleSlope 2 and mr\.dcm frame 3 has none, expected it in all"):
        read(path)


def _put(data: Dataset, values: dict[str, float]) -> None:
    for keyword, value in values.items():
        setattr(data, keyword, value)


def scaled_multiframe(path: Path, within: dict[str, float], beside: dict[str, float]) -> Path:
    """within: what each frame's functional group says; beside: what the file says itself."""
    data = dcmread(write_multiframe(path))
    for group in data.PerFrameFunctionalGroupsSequence:
        del group.PixelValueTransformationSequence
        if within:
            group.PixelValueTransformationSequence = [Dataset()]
            _put(group.PixelValueTransformationSequence[0], within)
    _put(data, beside)
    data.save_as(path)
    return path


def test_a_table_beside_a_slope_of_the_frames_is_refused(tmp_path: Path) -> None:
    data = dcmread(scaled_multiframe(tmp_path / "mr.dcm", {"RescaleSlope": 2, "RescaleIntercept": 7}, {}))
    put_table(data, None, None)
    data.save_as(tmp_path / "mr.dcm")
    with pytest.raises(VptError, match=r"has a table of values \(Modality LUT\) and a RescaleSlope or"):
        read(tmp_path / "mr.dcm")


@pytest.mark.parametrize("changes", [{"Rows": 3}, {"Rows": 5}, {"Columns": 4}], ids=str)
def test_more_runs_than_the_header_says_are_refused(tmp_path: Path, changes: dict[str, int]) -> None:
    def change(k: int, data: Any) -> None:
        data.compress(RLELossless, generate_instance_uid=False)
        _put(data, changes)

    with pytest.raises(VptError, match=r"3_000\.dcm: frame 0 holds 48 pixels by itself, its header says \d"):
        read(write_series(tmp_path / "ct", change=change))


@pytest.mark.parametrize("offsets", [True, False])
@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("parts", [1, 2])
def test_more_frames_than_the_header_says_are_refused(tmp_path: Path, syntax: UID, offsets: bool, parts: int) -> None:
    """A frame in parts is one."""

    def change(k: int, data: Any) -> None:
        data.compress(syntax, generate_instance_uid=False)
        (frame,) = generate_frames(data.PixelData, number_of_frames=1)
        data.PixelData = encapsulate([frame] * frames, fragments_per_frame=parts, has_bot=offsets)

    pixels, frames = numbers((3, 32, 32)), 1
    assert np.array_equal(read(write_series(tmp_path / "one", pixels, change=change)), 2.0 * pixels.T - 1000)
    frames = 2
    with pytest.raises(VptError, match=r"3_000\.dcm: 2 frames are packed in it, its header says 1 \(NumberOfFrames\)"):
        read(write_series(tmp_path / "two", pixels, change=change))


@pytest.mark.parametrize(("kind", "least", "most"), [(np.uint16, 0, 2**16), (np.int16, -(2**15), 2**15)])
def test_lossless_jpeg_as_itk_packs_it_is_read(tmp_path: Path, kind: type, least: int, most: int) -> None:
    sitk = pytest.importorskip("SimpleITK")
    pixels = np.random.default_rng(0).integers(least, most, (2, 33, 21)).astype(kind)

    def change(k: int, data: Any) -> None:
        writer = sitk.ImageFileWriter()
        writer.UseCompressionOn()
        writer.SetCompressor("JPEG")
        writer.SetFileName(str(tmp_path / "packed.dcm"))
        writer.Execute(sitk.GetImageFromArray(pixels[k]))
        packed = dcmread(tmp_path / "packed.dcm")
        assert packed.file_meta.TransferSyntaxUID == JPEGLosslessSV1
        data.file_meta.TransferSyntaxUID = JPEGLosslessSV1
        data.PixelData = packed.PixelData

    folder = write_series(tmp_path / "ct", pixels, change=change)
    assert np.array_equal(read(folder), 2.0 * pixels.transpose(2, 1, 0) - 1000)
