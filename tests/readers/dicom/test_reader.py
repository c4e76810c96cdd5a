"""A series is one volume at its place in the patient, with its values; what is none is refused by name."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from dicom_series import (
    AXIAL,
    NAME,
    PATIENT_ID,
    PIXEL,
    STEP,
    MRImageStorage,
    header,
    numbers,
    put_pixels,
    write_multiframe,
    write_series,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.uid import JPEG2000Lossless, SecondaryCaptureImageStorage

from vpt.data.scans import find_scans
from vpt.errors import VptError
from vpt.readers import ChosenSeries, Reader, format_of, reader_of

HU = 2 * numbers().transpose(2, 1, 0).astype(np.float32) - 1000  # (X, Y, Z)
OBLIQUE = (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)


def refuses(sentence: str):
    return pytest.raises(VptError, match=sentence)


def read(path: Path | ChosenSeries) -> np.ndarray:
    return reader_of(path).voxels(1).values()[0]


def as_itk_places(reader: Reader, folder: Path) -> None:
    """SimpleITK, which reads DICOM with a library of its own, has the same values at the same places."""
    files = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    image = SimpleITK.ReadImage(files)
    theirs = SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0)
    grid = reader.grid()
    inverse = np.linalg.inv(grid.affine)
    mine = reader.voxels(1).values()[0]
    for index in np.ndindex(*theirs.shape):
        point = np.array(image.TransformIndexToPhysicalPoint([int(part) for part in index])) * [-1, -1, 1]
        here = inverse[:3, :3] @ point + inverse[:3, 3]
        assert np.allclose(here, np.rint(here), atol=1e-3)
        assert mine[tuple(np.rint(here).astype(int))] == theirs[index]


# --- place and values -------------------------------------------------------------------------------------------------


def test_a_series_is_a_volume_in_hu_at_its_place(tmp_path):
    reader = reader_of(write_series(tmp_path / "ct"))

    voxels = reader.voxels(1)

    assert np.array_equal(voxels.values()[0], HU)
    assert voxels.channels[0].stored.dtype == np.int16
    expected = [[-PIXEL[1], 0, 0, 10], [0, -PIXEL[0], 0, -20], [0, 0, STEP, 30], [0, 0, 0, 1]]
    assert np.allclose(voxels.grid.affine, expected)
    assert (reader.kind, reader.unit, reader.is_deep(), reader.count_channels()) == ("volumes", "mm", True, 1)
    assert reader.doubts() == []


@pytest.mark.parametrize("turn", [AXIAL, OBLIQUE, (0, 1, 0, 0, 0, -1)])
@pytest.mark.parametrize("reverse", [False, True])
def test_it_lies_where_other_programs_read_it(tmp_path, turn, reverse):
    folder = write_series(tmp_path / "ct", turn=turn, reverse=reverse)

    as_itk_places(reader_of(folder), folder)


@given(
    st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: 0.3 < np.linalg.norm(q) < 1.9), st.booleans()
)
@settings(max_examples=8, deadline=None)
def test_any_direction_is_read_at_its_place(tmp_path_factory, quaternion, reverse):
    axes = np.array(SimpleITK.VersorTransform(list(np.array(quaternion) / np.linalg.norm(quaternion))).GetMatrix())
    turn = [round(float(part), 6) for part in axes.reshape(3, 3).T[:2].ravel()]
    folder = write_series(tmp_path_factory.mktemp("turned") / "ct", numbers((2, 3, 4)), turn=turn, reverse=reverse)

    as_itk_places(reader_of(folder), folder)


def test_files_need_no_ending_and_may_lie_beside_others(tmp_path):
    folder = write_series(tmp_path / "ct")
    for file in folder.iterdir():
        file.rename(folder / f"1.2.840.{file.stem[-1]}")
    (folder / "notes.txt").write_text("about the scan")
    (folder / ".hidden").write_bytes(b"x")

    assert np.array_equal(read(folder), HU)
    assert reader_of(folder).doubts() == ["1 file beside the series that is no DICOM"]


def test_slopes_that_differ_between_slices_are_applied_to_each(tmp_path):
    def change(k, data):
        data.RescaleSlope = k + 1

    expected = numbers().transpose(2, 1, 0) * np.arange(1.0, 6) - 1000

    assert np.array_equal(read(write_series(tmp_path / "ct", change=change)), expected)


@pytest.mark.parametrize(("kind", "bits"), [("u2", 12), ("i2", 16)])
def test_an_image_whose_least_number_is_white_is_inverted(tmp_path, kind, bits):
    pixels = numbers().astype(kind)

    def change(k, data):
        data.PhotometricInterpretation, data.BitsStored, data.HighBit = "MONOCHROME1", bits, bits - 1

    reader = reader_of(write_series(tmp_path / "mr", pixels, change=change, kind=MRImageStorage))

    most = 2**bits - 1 if kind == "u2" else -1
    assert np.array_equal(reader.voxels(1).values()[0], most - numbers().transpose(2, 1, 0))
    assert reader.doubts() == ["the least number means white (MONOCHROME1): inverted"]


def test_values_with_units_are_not_inverted_and_it_is_said(tmp_path):
    def change(k, data):
        data.PhotometricInterpretation = "MONOCHROME1"

    reader = reader_of(write_series(tmp_path / "ct", change=change))

    assert np.array_equal(reader.voxels(1).values()[0], HU)
    assert "not inverted" in reader.doubts()[0]


@pytest.mark.parametrize("inverted", [False, True])
def test_a_table_of_values_is_applied(tmp_path, inverted):
    def change(k, data):
        table = Dataset()
        table.LUTDescriptor, table.ModalityLUTType = [400, 0, 12], "US"
        table.add_new("LUTData", "US", [3 * value for value in range(400)])
        put_pixels(data, numbers()[k].astype(np.uint16))
        data.ModalityLUTSequence = [table]
        if inverted:
            data.PhotometricInterpretation = "MONOCHROME1"

    found = read(write_series(tmp_path / "mr", change=change, kind=MRImageStorage))
    expected = 3 * numbers().transpose(2, 1, 0).astype(int)
    assert np.array_equal(found, 4095 - expected if inverted else expected)


def test_a_ct_whose_table_does_not_say_hu_is_refused(tmp_path):
    def change(k, data):
        table = Dataset()
        table.LUTDescriptor, table.ModalityLUTType = [400, 0, 16], "US"
        table.add_new("LUTData", "US", [0] * 400)
        put_pixels(data, numbers()[k].astype(np.uint16))
        del data.RescaleSlope, data.RescaleIntercept
        data.ModalityLUTSequence = [table]

    with refuses("a CT without RescaleIntercept, so its numbers are not known to be HU"):
        read(write_series(tmp_path / "ct", change=change))


@pytest.mark.parametrize(("slope", "inter"), [(0, -1000), ("NaN", -1000), (2, "NaN"), (None, "NaN")])
@pytest.mark.filterwarnings("ignore")
def test_a_slope_that_makes_no_values_is_refused(tmp_path, slope, inter):
    def change(k, data):
        data.RescaleSlope, data.RescaleIntercept = slope, inter

    with refuses("its RescaleSlope is 0, or it or the intercept is no number"):
        read(write_series(tmp_path / "ct", change=change))


@pytest.mark.parametrize("implicit", [False, True])
def test_files_without_a_preamble_are_read(tmp_path, implicit):
    folder = write_series(tmp_path / "ct")
    for path in folder.iterdir():
        bare = Dataset()
        bare.update(dcmread(path))
        dcmwrite(path, bare, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
        assert path.read_bytes()[:2] == b"\x08\0"
    assert np.array_equal(read(folder), HU)


def test_a_zip_in_a_zip_is_said(tmp_path):
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as packed:
        packed.writestr("inner.zip", b"PK")
    with refuses("no DICOM file in it, but inner.zip, which is a zip itself; unpack it"):
        read(tmp_path / "outer.zip")


def test_a_ct_that_does_not_say_what_makes_hu_of_it_is_refused(tmp_path):
    def change(k, data):
        del data.RescaleIntercept

    with refuses(r"ct: 3_000\.dcm is a CT without RescaleIntercept.*HU"):
        read(write_series(tmp_path / "ct", change=change))


def test_a_multiframe_file_is_a_volume_with_the_scale_of_each_frame(tmp_path):
    slopes = [1, 2, 3, 4, 5]
    path = write_multiframe(tmp_path / "mr.dcm", slopes=slopes, order=[3, 1, 4, 0, 2])
    reader = reader_of(path)

    assert np.array_equal(reader.voxels(1).values()[0], numbers().transpose(2, 1, 0) * np.array(slopes))
    assert np.allclose(reader.grid().affine[:3, 3], [10, -20, 30])
    assert reader.grid().shape == (8, 6, 5)


def test_series_are_channels_on_one_grid(tmp_path):
    one, other = write_series(tmp_path / "a"), write_series(tmp_path / "b", numbers() + 7, series=4)
    moved = write_series(tmp_path / "c", origin=(0, 0, 0))

    voxels = reader_of([one, other]).voxels(2)

    assert voxels.shape == (2, 8, 6, 5)
    assert np.array_equal(voxels.values()[1] - voxels.values()[0], np.full((8, 6, 5), 14))
    with refuses(r"c: not on the grid of .*a: origin"):
        reader_of([one, moved]).voxels(2)
    with refuses("one series, expected 2 channels"):
        reader_of(one).voxels(2)


# --- packed -----------------------------------------------------------------------------------------------------------


def compressed(tmp_path: Path) -> Path:
    def change(k, data):
        data.compress(JPEG2000Lossless, generate_instance_uid=False)

    return write_series(tmp_path / "packed", numbers((2, 40, 48)), change=change)


def test_compressed_pixels_are_unpacked(tmp_path):
    assert np.array_equal(read(compressed(tmp_path)), 2 * numbers((2, 40, 48)).transpose(2, 1, 0) - 1000.0)


def test_a_decoder_that_is_missing_is_one_sentence(tmp_path, monkeypatch):
    from pydicom.pixels.decoders import JPEG2000LosslessDecoder

    folder = compressed(tmp_path)
    monkeypatch.setattr(JPEG2000LosslessDecoder, "_available", {})

    with refuses(r"packed: 3_000\.dcm: its pixels are packed \(JPEG 2000.*pylibjpeg.*pip install 'vpt\[dicom\]'"):
        read(folder)


def test_without_pydicom_it_is_one_sentence(tmp_path, monkeypatch):
    folder = write_series(tmp_path / "ct")
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)

    with refuses(r"ct: DICOM, which takes pydicom to read; pip install 'vpt\[dicom\]'"):
        read(folder)


def zipped(folder: Path, prefix: str = "study/") -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as packed:
        for file in sorted(folder.iterdir()):
            packed.writestr(prefix + file.name, file.read_bytes(), zipfile.ZIP_DEFLATED)
    return path


def test_a_zip_is_read_like_its_folder(tmp_path):
    path = zipped(write_series(tmp_path / "ct"))

    assert np.array_equal(read(path), HU)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["ct", "ct.zip"]


@pytest.mark.parametrize("prefix", ["../", "/", "a/../../"])
def test_a_zip_may_list_no_file_outside_of_itself(tmp_path, prefix):
    with refuses(r"ct\.zip: lists a file outside of itself"):
        read(zipped(write_series(tmp_path / "ct"), prefix))


def test_a_zip_is_of_bounded_size(tmp_path, monkeypatch):
    from vpt.readers.dicom import files

    path = zipped(write_series(tmp_path / "ct"))
    monkeypatch.setattr(files, "MOST_BYTES", 1000)

    with refuses(r"ct\.zip: 5 files of .* GiB unpacked.*; unpack it"):
        read(path)


def test_what_is_no_zip_and_what_is_damaged_in_one_is_said(tmp_path):
    path = zipped(write_series(tmp_path / "ct"))
    with zipfile.ZipFile(path) as archive:
        packed = archive.infolist()[1]
    content = bytearray(path.read_bytes())
    middle = packed.header_offset + packed.compress_size // 2
    content[middle : middle + 40] = bytes(40)
    path.write_bytes(content)
    (tmp_path / "no.zip").write_text("no zip")

    with refuses(r"ct\.zip/study/3_00.\.dcm: damaged in its zip"):
        read(path)
    with refuses(r"no\.zip: not a readable zip"):
        read(tmp_path / "no.zip")


def test_damage_anywhere_in_a_member_of_a_zip_is_said_alike(tmp_path):
    """Depending on where it lies it is found while unpacking, or by the checksum."""
    path = zipped(write_series(tmp_path / "ct"))
    with zipfile.ZipFile(path) as archive:
        packed = archive.infolist()[1]
    content = path.read_bytes()
    start = packed.header_offset + 30 + len(packed.filename)
    for at in range(start, start + packed.compress_size, 7):
        path.write_bytes(content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :])
        with refuses(r"ct\.zip/study/3_001\.dcm: damaged in its zip"):
            read(path)


# --- slices that are no volume ----------------------------------------------------------------------------------------


def test_a_missing_slice_is_said_with_its_neighbours(tmp_path):
    folder = write_series(tmp_path / "ct")
    (folder / "3_002.dcm").unlink()

    with refuses(
        r"ct: 1 slice is missing between 3_001\.dcm and 3_003\.dcm \(5 mm apart, the others 2\.5 mm; 1 place\)"
    ):
        read(folder)


SPOILT = {
    "a position that is none": ("ImagePositionPatient", ["nan", "0", "0"], r"ImagePositionPatient is nanx0x0, which"),
    "one without end": ("ImagePositionPatient", ["1e400", "0", "0"], r"ImagePositionPatient is infx0x0, which is none"),
    "pixels of no size": ("PixelSpacing", [0, 0], r"PixelSpacing is 0x0, which is none; export the original series"),
    "pixels of less": ("PixelSpacing", [-1, 1], r"PixelSpacing is -1x1, which is none"),
    "numbers of a palette": ("PhotometricInterpretation", "PALETTE COLOR", r"3_000\.dcm is in colour, expected grey"),
}


@pytest.mark.parametrize(("keyword", "value", "sentence"), SPOILT.values(), ids=SPOILT)
def test_what_makes_no_volume_of_one_slice_is_said(tmp_path, keyword, value, sentence):
    with refuses(sentence):
        read(write_series(tmp_path / "ct", change=lambda k, data: setattr(data, keyword, value)))


def test_slices_in_another_direction_in_the_series_are_named(tmp_path):
    uid = dcmread(write_series(tmp_path / "ct") / "3_000.dcm").SeriesInstanceUID
    one = numbers()[:1]
    write_series(
        tmp_path / "ct", one, series=8, turn=OBLIQUE, change=lambda k, data: setattr(data, "SeriesInstanceUID", uid)
    )

    with refuses(r"slices of which lie in another direction, or say none: 8_000\.dcm, 6 slices\); take these out, or"):
        read(tmp_path / "ct")


@pytest.mark.parametrize("keyword", ["PatientID", "StudyInstanceUID", "FrameOfReferenceUID"])
def test_slices_of_several_by_their_headers_are_a_doubt(tmp_path, keyword):
    folder = write_series(tmp_path / "ct", change=lambda k, data: setattr(data, keyword, f"1.2.{k > 2:d}"))

    assert np.array_equal(read(folder), HU)
    (doubt,) = reader_of(folder).doubts()
    assert doubt.startswith("its slices are of 2 ")
    assert "1.2." not in doubt


@pytest.mark.parametrize(
    ("said", "doubted"),
    [(STEP, False), (STEP / 2, True), (STEP / 3, True), (STEP / 1.5, False), (9, False), (0.1, False)],
)
def test_slices_that_lie_farther_apart_than_their_header_says_are_a_doubt(tmp_path, said, doubted):
    folder = write_series(tmp_path / "ct", change=lambda k, data: setattr(data, "SpacingBetweenSlices", said))

    assert any("are slices missing?" in text for text in reader_of(folder).doubts()) == doubted


def test_a_list_of_a_disks_files_is_passed_over_damaged_or_not(tmp_path):
    folder = write_series(tmp_path / "ct")
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")

    assert np.array_equal(read(folder), HU)
    assert reader_of(folder).doubts() == []


def test_a_slice_whose_white_is_the_others_black_is_said(tmp_path):
    def change(k, data):
        data.PhotometricInterpretation = "MONOCHROME1" if k == 2 else "MONOCHROME2"

    with refuses(
        r"least number means white in 3_002\.dcm \(MONOCHROME1\) and black in 3_000\.dcm, so they are not one"
    ):
        read(write_series(tmp_path / "mr", kind=MRImageStorage, change=change))
    assert np.array_equal(read(write_series(tmp_path / "ct", change=change)), HU)  # of CT it is about display


@pytest.mark.parametrize(("high", "shift", "readable"), [(11, 0, True), (15, 0, True), (15, 4, False), (13, 2, False)])
def test_numbers_in_the_upper_bits_are_said(tmp_path, high, shift, readable):
    def change(k, data):
        data.BitsStored, data.HighBit = 12, high

    pixels = numbers().astype(np.uint16)
    folder = write_series(tmp_path / "ct", pixels << shift, change=change)

    if readable:
        assert np.array_equal(read(folder), HU)
        return
    with refuses(rf"its numbers of 12 bits end at bit {high} \(HighBit\), expected 11, so they would be read cut off"):
        read(folder)


@pytest.mark.parametrize("count", [3, 4, 6])
def test_frames_that_are_not_as_many_as_their_places_are_said(tmp_path, count):
    path = write_multiframe(tmp_path / "mr.dcm")
    data = dcmread(path)
    data.NumberOfFrames = count
    data.save_as(path)

    with refuses(rf"mr\.dcm: {count} frames, but places of 5 \(its functional groups\)"):
        read(path)


def test_two_slices_at_one_place_are_said(tmp_path):
    folder = write_series(tmp_path / "ct")
    shutil.copy(folder / "3_002.dcm", folder / "copy.dcm")

    with refuses(r"ct: 3_002\.dcm and copy\.dcm lie at the same place \(1 place\)"):
        read(folder)


@pytest.mark.parametrize(
    ("moved", "sentence"), [(0.9, r"3_001\.dcm and 3_002\.dcm 3\.4 mm"), (-0.9, r"3_002\.dcm and")]
)
def test_uneven_slices_are_said(tmp_path, moved, sentence):
    def change(k, data):
        data.ImagePositionPatient[2] += moved if k == 2 else 0

    with refuses(f"ct: slices lie unevenly, .*{sentence}"):
        read(write_series(tmp_path / "ct", change=change))


def test_positions_that_are_rounded_are_even(tmp_path):
    def change(k, data):
        data.ImagePositionPatient[2] = [30, 32.5, 35.1, 37.5, 40][k]

    reader = reader_of(write_series(tmp_path / "ct", change=change))

    assert reader.grid().spacing == pytest.approx((0.5, 0.75, 2.5))


def test_slices_of_another_size_or_direction_are_said(tmp_path):
    write_series(tmp_path / "size")
    other = write_series(tmp_path / "more", numbers((1, 4, 8)), origin=(0, 0, 99))
    shutil.copy(other / "3_000.dcm", tmp_path / "size/z.dcm")

    with refuses(r"size: z\.dcm has rows x columns 4x8, 3_000\.dcm 6x8"):
        read(tmp_path / "size")


def test_a_slice_shifted_in_its_plane_is_said(tmp_path):
    def change(k, data):
        data.ImagePositionPatient[0] += 2 if k == 2 else 0

    with refuses(r"ct: 3_002\.dcm is shifted by 4 pixels against its neighbours"):
        read(write_series(tmp_path / "ct", change=change))


def test_one_slice_is_a_volume_if_it_says_how_thick_it_is(tmp_path):
    folder = write_series(tmp_path / "ct", numbers((1, 6, 8)))

    def change(k, data):
        del data.SliceThickness

    assert reader_of(folder / "3_000.dcm").grid().spacing == (0.5, 0.75, 2.5)
    with refuses("one slice that does not say how thick"):
        read(write_series(tmp_path / "thin", numbers((1, 6, 8)), change=change))


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_a_slice_without_a_place_is_said(tmp_path, keyword):
    def change(k, data):
        if k == 2:
            del data[keyword]

    with refuses(rf"3_002\.dcm: no {keyword}, so it has no place|series of slices|in 2 directions"):
        read(write_series(tmp_path / "ct", change=change))


def test_directions_that_are_not_perpendicular_are_said(tmp_path):
    def change(k, data):
        data.ImageOrientationPatient = [1, 0, 0, 0.1, 1, 0]

    with refuses("no pair of perpendicular directions"):
        read(write_series(tmp_path / "ct", change=change))


def test_colour_is_said(tmp_path):
    def change(k, data):
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0

    with refuses("in colour, expected grey"):
        read(write_series(tmp_path / "ct", change=change))


@pytest.mark.parametrize("kept", [200, 900])
def test_a_file_that_is_cut_off_is_said_by_name(tmp_path, kept):
    folder = write_series(tmp_path / "ct")
    file = folder / "3_002.dcm"
    file.write_bytes(file.read_bytes()[:kept])

    with refuses(r"3_002\.dcm"):
        read(folder)


def test_a_file_that_is_none_is_said_by_name(tmp_path):
    folder = write_series(tmp_path / "ct")
    (folder / "x.dcm").write_bytes(b"no DICOM" * 100)

    with refuses(r"x\.dcm: no DICOM inside"):
        read(folder)


# --- a tilted gantry --------------------------------------------------------------------------------------------------


def ramp(tilt: float) -> tuple[np.ndarray, np.ndarray]:
    """(slices, rows, columns) of a patient whose values grow along Y in mm, and how far each slice is shifted there."""
    shifts = np.tan(np.radians(tilt)) * STEP * np.arange(6)
    rows = np.arange(40) * PIXEL[0]
    return np.round(10 * (rows[None] + shifts[:, None]))[..., None].repeat(8, -1).astype(np.int16), shifts


def tilted(folder: Path, tilt: float) -> Path:
    pixels, shifts = ramp(tilt)

    def change(k, data):
        data.ImagePositionPatient[1] += shifts[k]
        data.RescaleSlope, data.RescaleIntercept = 1, 0

    return write_series(folder, pixels, change=change)


def test_a_tilted_gantry_is_resampled_to_straight_axes_and_said(tmp_path):
    reader = reader_of(tilted(tmp_path / "ct", 20))

    values, grid = reader.voxels(1).values()[0], reader.grid()

    axes = grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0)
    assert np.allclose(axes.T @ axes, np.eye(3))
    assert "the gantry was tilted by 20 degrees: resampled to straight axes" in reader.doubts()[0]
    # In the patient the value is ten times the distance along Y from the first pixel, wherever a slice has one.
    there = 10 * np.arange(grid.shape[1]) * PIXEL[0]
    covered = values[4] > 0
    inside = covered & np.roll(covered, 1, axis=0) & np.roll(covered, -1, axis=0)
    assert inside.sum() > 0.8 * inside.size
    assert np.abs((values[4] - there[:, None])[inside]).max() <= 1.0


def test_a_lean_below_a_tenth_of_a_pixel_is_straight(tmp_path):
    reader = reader_of(tilted(tmp_path / "ct", 0.1))

    assert reader.grid().shape == (8, 40, 6)
    assert reader.doubts() == []


# --- which series -----------------------------------------------------------------------------------------------------


def mixed(folder: Path, *, second: bool = True) -> Path:
    """A volume, a localizer in three directions, one by its type, a screenshot, and perhaps a second volume."""
    write_series(folder, description=f"thorax of {NAME.split('^')[0].upper()}")
    for k, turn in enumerate((AXIAL, OBLIQUE, (0, 1, 0, 0, 0, -1))):
        scratch = write_series(folder / "scratch", numbers((1, 6, 8)), turn=turn, series=1, description="survey")
        shutil.move(scratch / "1_000.dcm", folder / f"survey{k}.dcm")

    def scout(k, data):
        data.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    write_series(folder, numbers((1, 6, 8)), series=2, description="scout", change=scout)
    if second:
        write_series(folder, numbers((7, 6, 8)), series=12, description="thorax lung")
    screenshot = header(SecondaryCaptureImageStorage, series=99, description="report")
    put_pixels(screenshot, numbers()[0])
    screenshot.save_as(folder / "99.dcm", enforce_file_format=True)
    (folder / "scratch").rmdir()
    return folder


def test_the_one_volume_is_taken_and_what_is_left_out_is_said(tmp_path):
    reader = reader_of(mixed(tmp_path / "study", second=False))

    assert np.array_equal(reader.voxels(1).values()[0], HU)
    assert reader.doubts() == [
        "series 3 'thorax of ***' (CT, 5 slices) is read, not 1 'survey' (CT, slices in 3 directions, 3 slices), "
        "2 'scout' (CT, localizer, 1 slice), 99 'report' (MR, no place in space, 1 slice)"
    ]


def test_several_volumes_are_refused_with_the_list(tmp_path):
    with refuses(
        r"study: 2 series, expected one: 1 'survey'.*3 'thorax of \*\*\*' .*12 'thorax lung' .*--series NUMBER"
    ):
        read(mixed(tmp_path / "study"))


@pytest.mark.parametrize(
    ("wanted", "slices"), [("3", 5), ("12", 7), ("largest", 7), ("thorax lung", 7), ("LUNG", 7), ("thorax of ***", 5)]
)
def test_a_series_is_chosen_by_number_description_or_size(tmp_path, wanted, slices):
    assert reader_of(ChosenSeries(mixed(tmp_path / "study"), wanted)).grid().shape[2] == slices


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ("7", "no series fits --series 7; there are"),
        ("thorax", "2 series fit"),
        ("2", "no volume .localizer. that fits"),
    ],
)
def test_a_choice_that_does_not_fit_is_refused(tmp_path, wanted, sentence):
    with refuses(sentence):
        reader_of(ChosenSeries(mixed(tmp_path / "study"), wanted)).grid()


def test_a_folder_without_dicom_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    write_series(tmp_path / "above/series")

    with refuses("empty: no DICOM file in this folder; give the folder that holds the series"):
        read(tmp_path / "empty")
    with refuses(r"above: no DICOM file in this folder; did you mean .*series\?"):
        read(tmp_path / "above")


# --- masks and privacy ------------------------------------------------------------------------------------------------


def test_a_mask_is_a_nifti_at_the_place_of_the_scan_without_its_header(tmp_path):
    reader = reader_of(write_series(tmp_path / "ct", turn=OBLIQUE))
    labels = (HU > 0).astype(np.uint8)

    path = tmp_path / "mask.nii"
    reader_of(reader.mask(labels)).write_mask(path, reader.mask(labels))

    back = reader_of(path)
    assert back.grid().matches(reader.grid())
    assert back.doubts() == []
    assert np.array_equal(back.labels().array, labels)
    assert SimpleITK.ReadImage(str(path)).GetSize() == (8, 6, 5)
    content = path.read_bytes()
    assert not any(part.encode() in content for part in (*NAME.split("^"), PATIENT_ID))


def test_no_error_quotes_the_patient(tmp_path, capsys, recwarn):
    def change(k, data):
        data.PatientID = data.PatientName = NAME * 5  # longer than the standard lets it be
        if k == 2:
            data.add_new("SliceThickness", "LO", NAME)
            data.add_new("PixelSpacing", "LO", [NAME, NAME])

    folder = write_series(tmp_path / "ct", change=change)

    with pytest.raises(VptError) as error:
        read(folder)

    assert NAME.split("^")[0] not in f"{error.value} {capsys.readouterr()} {[str(each.message) for each in recwarn]}"


UNNAMED = ["IM0001", "00000001", "1.2.840.113619.2.55", "IMG.001", "slice_a", "slice.ctx", "1.2.840.1b"]


@pytest.mark.parametrize("name", UNNAMED)
def test_a_file_is_dicom_by_its_mark_whatever_it_is_called(tmp_path, name):
    file = write_series(tmp_path / "s", numbers()[:1]) / "3_000.dcm"
    expected = reader_of(file).voxels(1).values()
    unnamed = file.rename(tmp_path / name)

    assert np.array_equal(reader_of(unnamed).voxels(1).values(), expected)
    (case,) = find_scans(unnamed, 1)
    assert case.images == (unnamed,)


@pytest.mark.parametrize("name", ["IM{}", "1.2.840.113619.{}", "{}.img", "slice.{}x", "{}.ctx", "CT.1.2.{}.CT"])
def test_so_is_a_folder_of_them(tmp_path, name):
    folder = write_series(tmp_path / "s")
    expected = reader_of(folder).voxels(1).values()
    for k, file in enumerate(sorted(folder.iterdir())):
        file.rename(folder / name.format(k))
    (folder / "notes.txt").write_text("no slice")

    (case,) = find_scans(folder, 1)

    assert case.images == (folder,)
    assert np.array_equal(reader_of(folder).voxels(1).values(), expected)


def test_files_of_other_formats_and_lists_are_none(tmp_path):
    file = write_series(tmp_path / "s", numbers()[:1]) / "3_000.dcm"
    for name in ("README", "notes.txt", "list.csv"):
        (tmp_path / name).write_text("no scan, but of more than 132 letters" * 10)
        assert format_of(tmp_path / name) is None
    file.rename(tmp_path / "DICOMDIR")
    assert format_of(tmp_path / "DICOMDIR") is None
    shutil.copy(tmp_path / "DICOMDIR", tmp_path / "a.img")
    with pytest.raises(VptError, match=r"a DICOM file by its content, .*; rename it to \.dcm"):
        reader_of(tmp_path / "a.img").grid()


def test_a_slice_by_itself_is_said_to_have_others_beside_it(tmp_path):
    folder = write_series(tmp_path / "ct")
    file = (folder / "3_002.dcm").rename(folder / "IM0003")

    assert reader_of(file).grid().shape == (8, 6, 1)
    assert reader_of(file).alone() == [
        f"a single slice, and 4 more DICOM files lie beside it; for the whole series give the folder, {folder}"
    ]
    assert reader_of(folder).alone() == []


def test_a_slice_in_memory_is_asked_for_as_a_path(tmp_path):
    slice = dcmread(write_series(tmp_path / "ct") / "3_002.dcm")

    with refuses("a data set in memory, expected a path; give the folder of the series"):
        reader_of(slice).voxels(1)
