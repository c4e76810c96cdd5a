"""A radiograph in DICOM is a picture as people see it; what should have a place in space and has none is no picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_series import SHAPE, header, numbers, put_pixels, write_series
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
)

from vpt.data.cases import kind_of
from vpt.data.check import check_dataset
from vpt.data.scans import find_scans
from vpt.errors import VptError
from vpt.readers import reader_of

PIXELS = numbers(SHAPE[1:]).astype(np.uint16)


def write_radiograph(path: Path, pixels: np.ndarray = PIXELS, modality: str = "DX", **changes: Any) -> Path:
    """12 bits of 16, MONOCHROME2, without a place in space."""
    kind = UltrasoundImageStorage if modality == "US" else ComputedRadiographyImageStorage
    data = header(kind)
    data.Modality = modality
    put_pixels(data, pixels)
    data.BitsStored, data.HighBit = 12, 11
    for keyword, value in changes.items():
        if keyword != "packed":
            setattr(data, keyword, value)
    if "packed" in changes:
        data.compress(changes["packed"], generate_instance_uid=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def seen(path: Path) -> np.ndarray:
    """(rows, columns) of a grey picture."""
    return reader_of(path).voxels(1).values()[0, :, :, 0].T


@pytest.mark.parametrize("packed", [None, RLELossless, JPEGLSLossless])
def test_a_radiograph_is_a_picture_of_12_bits(tmp_path, packed):
    path = write_radiograph(tmp_path / "a.dcm", **({"packed": packed} if packed else {}))
    reader = reader_of(path)
    assert (kind_of(path), reader.unit, reader.is_deep(), reader.count_channels()) == ("images", "px", True, 1)
    assert np.array_equal(seen(path), PIXELS)
    assert reader.grid().shape == (SHAPE[2], SHAPE[1], 1)
    assert np.array_equal(reader.mask(np.ones(reader.grid().shape, np.uint8)), np.ones(SHAPE[1:]))


def test_the_least_number_is_black_as_people_see_it(tmp_path):
    path = write_radiograph(tmp_path / "a.dcm", PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(seen(path), 4095 - PIXELS.astype(int))


def test_raw_values_of_the_detector_are_told(tmp_path):
    raw = write_radiograph(tmp_path / "raw.dcm", PresentationIntentType="FOR PROCESSING")
    made = write_radiograph(tmp_path / "made.dcm", PresentationIntentType="FOR PRESENTATION")
    assert [text[:27] for text in reader_of(raw).doubts()] == ["the detector's own values, "]
    assert reader_of(made).doubts() == reader_of(write_radiograph(tmp_path / "a.dcm")).doubts() == []


def test_slope_and_intercept_give_values_and_colours_are_colours(tmp_path):
    path = write_radiograph(tmp_path / "a.dcm", RescaleSlope=0.5, RescaleIntercept=-10)
    assert np.allclose(seen(path), PIXELS * 0.5 - 10)
    colours = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    eight = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "SamplesPerPixel": 3, "PlanarConfiguration": 0}
    for planar in (0, 1):
        stored = colours.transpose(2, 0, 1) if planar else colours
        more = {"PhotometricInterpretation": "RGB", "PlanarConfiguration": planar, "PixelData": stored.tobytes()}
        path = write_radiograph(tmp_path / "us.dcm", modality="US", **{**eight, **more})
        reader = reader_of(path)
        assert (reader.kind, reader.count_channels(), reader.is_deep()) == ("images", 3, False)
        assert np.array_equal(reader.voxels(3).values()[..., 0].transpose(2, 1, 0), colours)


def of_colours(path: Path, pixels: np.ndarray, **changes: Any) -> np.ndarray:
    """(rows, columns, 3) that is seen of an ultrasound image of 8 bits."""
    eight = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelData": pixels.tobytes()}
    reader = reader_of(write_radiograph(path, modality="US", **{**eight, **changes}))
    assert (reader.kind, reader.count_channels(), reader.is_deep()) == ("images", 3, False)
    return reader.voxels(3).values()[..., 0].transpose(2, 1, 0)


@pytest.mark.parametrize("times", [257, 256, 1])
def test_numbers_of_a_palette_are_its_colours(tmp_path, times):
    pixels = np.arange(48, dtype=np.uint8).reshape(6, 8)
    palette = np.random.default_rng(0).integers(0, 256, (256, 3)).astype("<u2")
    said = {"PhotometricInterpretation": "PALETTE COLOR"}
    for k, colour in enumerate(("Red", "Green", "Blue")):
        said[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        said[f"{colour}PaletteColorLookupTableData"] = (palette[:, k] * times).astype("<u2").tobytes()

    assert np.array_equal(of_colours(tmp_path / "us.dcm", pixels, **said), palette[pixels])
    with pytest.raises(VptError, match=r"us\.dcm: its pixels are numbers of colours, and the colours are missing"):
        of_colours(tmp_path / "us.dcm", pixels, PhotometricInterpretation="PALETTE COLOR")


def test_the_dark_end_of_a_palette_of_16_bits_is_dark(tmp_path):
    """What its colours are in is said by the palette, and not by those that a picture happens to have."""
    said = {"PhotometricInterpretation": "PALETTE COLOR", "PixelData": bytes(48)}
    for colour in ("Red", "Green", "Blue"):
        said[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        said[f"{colour}PaletteColorLookupTableData"] = (200 + 255 * np.arange(256)).astype("<u2").tobytes()
    path = write_radiograph(tmp_path / "us.dcm", modality="US", BitsAllocated=8, BitsStored=8, HighBit=7, **said)

    assert not seen(path).any()


def test_pixels_that_share_their_colour_are_read(tmp_path):
    grey = np.arange(100, 124, dtype=np.uint8).reshape(6, 4)
    pairs = np.stack([grey, grey, np.full_like(grey, 128), np.full_like(grey, 200)], axis=-1)  # Y, Y, Cb, Cr
    said = {"PhotometricInterpretation": "YBR_FULL_422", "SamplesPerPixel": 3, "PlanarConfiguration": 0}

    seen = of_colours(tmp_path / "us.dcm", pairs, **said)
    assert seen.shape == (6, 8, 3)
    expected = np.repeat(grey, 2, axis=1)[..., None] + np.array([1.402, -0.714136, 0]) * (200 - 128)
    assert np.abs(seen - expected).max() <= 1


@pytest.mark.parametrize("more", [0, 2])
def test_pixels_that_share_no_colour_though_their_header_says_so_are_refused(tmp_path, more):
    said = {"PhotometricInterpretation": "YBR_FULL_422", "SamplesPerPixel": 3, "PlanarConfiguration": 0}
    with pytest.raises(
        VptError, match=r"us\.dcm: its header says that two pixels share their colour .*, 96 bytes\), but"
    ):
        of_colours(tmp_path / "us.dcm", np.full((6, 8, 3), 90, np.uint8), PixelData=bytes([90] * (144 + more)), **said)


def test_three_numbers_that_are_no_known_colours_are_refused(tmp_path):
    said = {"PhotometricInterpretation": "HSV", "SamplesPerPixel": 3, "PlanarConfiguration": 0}
    with pytest.raises(
        VptError, match=r"us\.dcm: its colours are HSV \(PhotometricInterpretation\), expected RGB, YBR"
    ):
        of_colours(tmp_path / "us.dcm", np.zeros((6, 8, 3), np.uint8), **said)


def test_zeros_behind_the_pixels_are_no_further_pictures(tmp_path):
    padded = write_radiograph(tmp_path / "dx.dcm", PixelData=PIXELS.tobytes() + bytes(3 * PIXELS.nbytes))
    assert np.array_equal(seen(padded), seen(write_radiograph(tmp_path / "plain.dcm")))


def test_a_folder_of_radiographs_holds_many_and_a_folder_of_slices_is_one_scan(tmp_path):
    for number in range(3):
        write_radiograph(tmp_path / "cr" / f"{number}.dcm")
    assert [case.name for case in find_scans(tmp_path / "cr", 1)] == ["0", "1", "2"]
    assert [case.name for case in find_scans(write_series(tmp_path / "ct"), 1)] == ["ct"]


def test_a_screenshot_of_a_ct_is_no_picture(tmp_path):
    def spoil(k: int, data: Any) -> None:
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
        del data.ImagePositionPatient

    folder = write_series(tmp_path / "ct", change=spoil, kind=CTImageStorage)
    with pytest.raises(VptError, match="no place in space"):
        reader_of(folder).voxels(1)
    with pytest.raises(VptError, match="no place in space"):
        reader_of(next(folder.iterdir())).voxels(1)


@pytest.mark.slow
def test_class_folders_hold_radiographs_or_a_folder_for_each_series(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(12):
        kind = "ill" if number % 2 else "well"
        write_radiograph(tmp_path / "cr" / kind / f"{number}.dcm", rng.integers(0, 4096, (8, 9)).astype(np.uint16))
        volume = rng.integers(0, 2000, SHAPE).astype(np.int16)
        write_series(tmp_path / "ct" / kind / f"s{number}", volume, series=number)
    check = check_dataset(tmp_path / "cr")
    assert (check.ok, check.kind, check.cases, len(check.warnings)) == (True, "images", 12, 0)
    check = check_dataset(tmp_path / "ct")
    assert (check.ok, check.kind, check.cases) == (True, "volumes", 12)
    assert check.dataset.cases[0].name == "ill/s1"
    (warned,) = check.warnings
    assert warned.text.startswith("cases of 1 DICOM examination (frame of reference) are on two sides (")


@pytest.mark.slow
def test_a_list_of_labels_names_the_folders_of_series(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(12):
        write_series(
            tmp_path / f"train/{number:05}/FLAIR", rng.integers(0, 2000, SHAPE).astype(np.int16), series=number
        )
    lines = ["path,patient,label", *(f"train/{number:05}/FLAIR,{number},{number % 2}" for number in range(12))]
    (tmp_path / "labels.csv").write_text("\n".join(lines))

    check = check_dataset(tmp_path)

    assert (check.ok, check.kind, check.cases) == (True, "volumes", 12)
    assert check.dataset.cases[0].name == "train/00000/FLAIR"
    assert not [each.text for each in check.warnings if "not read" in each.text]


@pytest.mark.parametrize(("ids", "is_said"), [(["A", "B", "C"], True), (["ANON"], False), ([""], False)])
def test_a_patient_of_the_headers_on_two_sides_is_said(tmp_path, ids, is_said):
    rng = np.random.default_rng(0)
    for number in range(12):
        path = tmp_path / "cr" / ("ill" if number % 2 else "well") / f"{number}.dcm"
        write_radiograph(path, rng.integers(0, 4096, (8, 9)).astype(np.uint16), PatientID=ids[number % len(ids)])
    texts = [problem.text for problem in check_dataset(tmp_path / "cr").warnings]
    said = [text for text in texts if text.startswith("cases of 3 patients by their DICOM headers (PatientID) are on")]
    assert len(said) == is_said

    names = [case.name for case in check_dataset(tmp_path / "cr").dataset.cases]
    (tmp_path / "cr/dataset.json").write_text(json.dumps({"patients": {name: name for name in names}}))
    settled = [problem.text for problem in check_dataset(tmp_path / "cr").warnings]
    assert not any("PatientID" in text for text in settled)
