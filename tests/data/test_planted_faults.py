"""Forty and more faults, each planted into a sound data set: `vpt check --json` names its file and says how to mend it.

What a kind of fault looks like in all its variants is tested beside the module that finds it.
"""

from __future__ import annotations

import gzip
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from values import body, xray

from vpt.cli import main

Plant = Callable[[Path], None]
SCAN, LABEL = "imagesTr/case_02_0000.nii.gz", "labelsTr/case_02.nii.gz"
CASES = [f"case_{number:02d}" for number in range(6)]
LPS = np.diag([-1.0, -1.5, 3.0, 1.0])


@dataclass(frozen=True)
class Fault:
    """What is planted into a sound set, the file that must be named, and words of what is found and of its fix."""

    severity: str
    file: str
    words: tuple[str, ...]
    plant: Plant
    sound: str = "volumes"


FAULTS: dict[str, Fault] = {}


def fault(severity: str, file: str, *words: str, sound: str = "volumes") -> Callable[[Plant], Plant]:
    def add(plant: Plant) -> Plant:
        FAULTS[plant.__name__.replace("_", " ")] = Fault(severity, file, words, plant, sound)
        return plant

    return add


# --- sound sets -------------------------------------------------------------------------------------------------------


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def rewrite(path: Path, array: np.ndarray, affine: np.ndarray | None = None, **header: Any) -> None:
    """The same file with other voxels, another place, other fields of the header."""
    image = nib.Nifti1Image(array, nib.load(path).affine if affine is None else affine)
    for name, value in header.items():
        image.header[name] = value
    nib.save(image, path)


def edit(root: Path, **changes: Any) -> None:
    source = root / "dataset.json"
    source.write_text(json.dumps((json.loads(source.read_text()) if source.exists() else {}) | changes))


def split(root: Path, train: list[str], val: list[str]) -> None:
    (root / "split.json").write_text(json.dumps({"train": train, "val": val, "test": []}))


def ct(root: Path) -> None:
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    for number, name in enumerate(CASES):
        hu = body(number).astype(np.float32)
        nib.save(nib.Nifti1Image(hu, LPS), root / f"imagesTr/{name}_0000.nii.gz")
        nib.save(nib.Nifti1Image((hu > 50).astype(np.uint8), LPS), root / f"labelsTr/{name}.nii.gz")
    edit(root, channel_names={"0": "CT"}, labels={"background": 0, "organ": 1})


def pictures(root: Path) -> None:
    """X-rays of 8 bits with masks of 0 and 255."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number, name in enumerate(CASES):
        grey = xray(number)
        Image.fromarray(grey).save(root / f"images/{name}.png")
        Image.fromarray(binary(number)).save(root / f"masks/{name}.png")


def binary(number: int = 2) -> np.ndarray:
    mask = np.zeros((40, 48), np.uint8)
    mask[10 + number : 26 + number, 12:30] = 255
    return mask


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sound set of each kind; read only."""
    root = tmp_path_factory.mktemp("sound")
    ct(root / "ct")
    pictures(root / "pictures")
    for folder in ("imagesTr", "labelsTr"):
        (root / "volumes" / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in CASES:
        label = np.zeros((12, 10, 6), np.uint8)
        label[3:8, 2:7, 1:5] = 1
        label[5:7, 4:6, 2:4] = 2
        image = (rng.normal(100, 20, label.shape) + 50 * label).astype(np.float32)
        nib.save(nib.Nifti1Image(image, LPS), root / f"volumes/imagesTr/{name}_0000.nii.gz")
        nib.save(nib.Nifti1Image(label, LPS), root / f"volumes/labelsTr/{name}.nii.gz")
    edit(root / "volumes", channel_names={"0": "MR"}, labels={"background": 0, "rim": 1, "core": 2})
    return root


# --- files ------------------------------------------------------------------------------------------------------------


@fault("error", SCAN, "truncated or damaged", "copy or download the file again")
def a_truncated_scan(root: Path) -> None:
    (root / SCAN).write_bytes((root / SCAN).read_bytes()[:-300])


@fault("error", LABEL, "truncated or damaged", "copy or download the file again")
def a_truncated_label(root: Path) -> None:
    (root / LABEL).write_bytes((root / LABEL).read_bytes()[:-20])


@fault("error", SCAN, "an empty file", "again")
def an_empty_file(root: Path) -> None:
    (root / SCAN).write_bytes(b"")


@fault("error", SCAN, "not", "NIfTI")
def a_text_that_is_called_nifti(root: Path) -> None:
    (root / SCAN).write_bytes(gzip.compress(b"no scan at all" * 99))


@fault("error", SCAN, "an image without a label", "add labelsTr/case_02.nii.gz")
def a_scan_without_a_label(root: Path) -> None:
    (root / LABEL).unlink()


@fault("error", LABEL, "a label without an image", "remove the label")
def a_label_without_a_scan(root: Path) -> None:
    (root / SCAN).unlink()


@fault("warning", "", "1 .mgz file is not read", "convert")
def a_format_that_is_not_read(root: Path) -> None:
    (root / "imagesTr/case_06.mgz").write_bytes(b"voxels")


@fault("error", SCAN, "has the channel files 0000, expected 0000 0001", "complete")
def a_channel_that_is_missing(root: Path) -> None:
    edit(root, channel_names={"0": "T1", "1": "T2"})
    for name in set(CASES) - {"case_02"}:
        path = root / f"imagesTr/{name}_0000.nii.gz"
        rewrite(shutil.copy(path, path.with_name(f"{name}_0001.nii.gz")), voxels(path) ** 2)


# --- places -----------------------------------------------------------------------------------------------------------


@fault("error", LABEL, "shape 12x10x5 against 12x10x6", "export the mask on the scan's own grid")
def a_label_of_another_shape(root: Path) -> None:
    rewrite(root / LABEL, voxels(root / LABEL)[..., :5])


@fault("error", LABEL, "not on the grid of", "export the mask on the scan's own grid")
def a_label_with_another_origin(root: Path) -> None:
    moved = LPS.copy()
    moved[0, 3] = 4
    rewrite(root / LABEL, voxels(root / LABEL), moved)


@fault("error", LABEL, "not on the grid of", "resample it with nearest neighbour")
def a_label_that_is_mirrored(root: Path) -> None:
    rewrite(root / LABEL, voxels(root / LABEL), np.diag([1.0, 1.5, 3.0, 1.0]))


@fault("warning", SCAN, "voxels of 17x25.5x51 mm", "correct the spacing")
def a_spacing_of_17_mm(root: Path) -> None:
    for path in (root / SCAN, root / LABEL):
        rewrite(path, voxels(path), LPS @ np.diag([17.0, 17, 17, 1]))


@fault("warning", SCAN, "usual in this set", "correct the spacing")
def slices_that_are_17_times_as_thick(root: Path) -> None:
    for path in (root / SCAN, root / LABEL):
        rewrite(path, voxels(path), np.diag([-17.0, -17.0, 3.0, 1.0]))


@fault("warning", SCAN, "its header says microns", "are they really in microns?")
def microns(root: Path) -> None:
    for path in (root / SCAN, root / LABEL):
        rewrite(path, voxels(path), LPS @ np.diag([1000.0, 1000, 1000, 1]), xyzt_units=3)


@fault("warning", SCAN, "a single slice", "is the export complete?")
def a_single_slice(root: Path) -> None:
    for path in (root / SCAN, root / LABEL):
        rewrite(path, voxels(path)[..., 2:3])


@fault("warning", SCAN, "sheared by 0.5 degrees", "resample it to straight axes")
def a_sheared_scan(root: Path) -> None:
    sheared = LPS.copy()
    sheared[0, 1] = 1.5 * np.tan(np.radians(0.5))
    for path in (root / SCAN, root / LABEL):
        image = nib.Nifti1Image(voxels(path), None)
        image.set_sform(sheared, 1)
        image.set_qform(None, 0)
        nib.save(image, path)


@fault("warning", SCAN, "sform and qform are", "mm apart")
def two_places_for_one_scan(root: Path) -> None:
    image = nib.load(root / SCAN)
    moved = LPS.copy()
    moved[:3, 3] = 12
    image = nib.Nifti1Image(np.asarray(image.dataobj), LPS)
    image.set_sform(LPS, 2)
    image.set_qform(moved, 1)
    nib.save(image, root / SCAN)


@fault("warning", SCAN, "neither sform nor qform", "save it with an affine")
def a_scan_without_a_place(root: Path) -> None:
    for path in (root / SCAN, root / LABEL):
        image = nib.Nifti1Image(voxels(path), None)
        image.header["pixdim"][1:4] = (1, 1.5, 3)
        image.header["sform_code"] = image.header["qform_code"] = 0
        nib.save(image, path)


@fault("warning", SCAN, "its qform is unreadable", "the sform")
def a_quaternion_that_is_too_long(root: Path) -> None:
    path = root / SCAN
    data = bytearray(gzip.decompress(path.read_bytes()))
    data[252:256] = np.array([1, 2], np.int16).tobytes()  # qform_code, sform_code
    data[256:268] = np.array([0.8, 0.7, 0.1], np.float32).tobytes()
    path.write_bytes(gzip.compress(bytes(data)))


# --- values -----------------------------------------------------------------------------------------------------------


@fault("error", SCAN, "1 of 720 voxels are not finite", "NaN")
def a_voxel_that_is_nan(root: Path) -> None:
    array = voxels(root / SCAN).copy()
    array[1, 2, 3] = np.nan
    rewrite(root / SCAN, array)


@fault("error", SCAN, "720 of 720 voxels are not finite")
def a_scan_that_is_infinite(root: Path) -> None:
    rewrite(root / SCAN, np.full((12, 10, 6), np.inf, np.float32))


@fault("warning", SCAN, "all voxels of MR are 7", "is the export complete?")
def a_constant_scan(root: Path) -> None:
    rewrite(root / SCAN, np.full((12, 10, 6), 7, np.int16))


@fault("error", SCAN, "4-D with 3 volumes in steps of 2 s", "or their mean")
def a_series_in_time(root: Path) -> None:
    rewrite(root / SCAN, np.stack([voxels(root / SCAN)] * 3, -1), xyzt_units=2 | 8, pixdim=[1, 1, 1.5, 3, 2, 0, 0, 0])


@fault("error", SCAN, "2 channels", "expected 1")
def a_4_d_scan_with_too_many_channels(root: Path) -> None:
    rewrite(root / SCAN, np.stack([voxels(root / SCAN)] * 2, -1))


@fault("warning", SCAN, "a statistical map by its header (intent 3)", "is it the right file?")
def a_statistical_map(root: Path) -> None:
    rewrite(root / SCAN, voxels(root / SCAN), intent_code=3)


@fault("warning", SCAN, "do not look like the HU of most other cases", sound="ct")
def a_ct_without_its_intercept(root: Path) -> None:
    rewrite(root / SCAN, voxels(root / SCAN) + 1024)


@fault("warning", SCAN, "do not look like the HU of most other cases", sound="ct")
def a_ct_as_a_grey_picture(root: Path) -> None:
    rewrite(root / SCAN, (np.clip((voxels(root / SCAN) + 160) / 400, 0, 1) * 255).astype(np.uint8))


@fault("warning", SCAN, "its slope is 0", "write a slope of 1")
def an_intercept_without_a_slope(root: Path) -> None:
    data = bytearray(gzip.decompress((root / SCAN).read_bytes()))
    data[112:120] = np.array([0, -1024], np.float32).tobytes()  # scl_slope, scl_inter
    (root / SCAN).write_bytes(gzip.compress(bytes(data)))


# --- labels -----------------------------------------------------------------------------------------------------------


@fault("error", LABEL, "label 7 not in 0, 1, 2", "add it to `labels`")
def a_label_that_nobody_named(root: Path) -> None:
    rewrite(root / LABEL, np.where(voxels(root / LABEL) == 2, np.uint8(7), voxels(root / LABEL)))


@fault("error", LABEL, "whole numbers", "nearest neighbour")
def a_label_between_whole_numbers(root: Path) -> None:
    rewrite(root / LABEL, voxels(root / LABEL) * np.float32(0.5))


@fault("error", LABEL, "-1", "the background as 0")
def a_label_below_zero(root: Path) -> None:
    rewrite(root / LABEL, voxels(root / LABEL).astype(np.int16) - 1)


@fault("warning", LABEL, "an empty label", "annotate it")
def an_empty_label(root: Path) -> None:
    rewrite(root / LABEL, voxels(root / LABEL) * 0)


@fault("warning", LABEL, "label 3 (node) is in this case only", "add more cases")
def a_label_in_one_case_only(root: Path) -> None:
    edit(root, labels={"background": 0, "rim": 1, "core": 2, "node": 3})
    array = voxels(root / LABEL).copy()
    array[0, 0, 0] = 3
    rewrite(root / LABEL, array)


@fault("warning", "dataset.json", "label 3 (node) is in no case", "remove it from `labels`")
def a_label_in_no_case(root: Path) -> None:
    edit(root, labels={"background": 0, "rim": 1, "core": 2, "node": 3})


@fault("warning", "dataset.json", "label 9 (both) is in no file", "correct `labels`")
def a_merged_label_that_no_file_has(root: Path) -> None:
    edit(root, labels={"background": 0, "both": [1, 2, 9]})


@fault("warning", "", "no voxel is 0", "write the background as 0")
def a_background_that_is_not_0(root: Path) -> None:
    edit(root, labels={"background": 0, "rim": 1, "core": 2, "air": 3})
    for name in CASES:
        path = root / f"labelsTr/{name}.nii.gz"
        rewrite(path, np.where(voxels(path) == 0, np.uint8(3), voxels(path)))


# --- sides ------------------------------------------------------------------------------------------------------------


@fault("error", "imagesTr/case_05_0000.nii.gz", "the same voxels as case_02_0000.nii.gz", "remove one")
def one_scan_under_two_names(root: Path) -> None:
    path = root / "imagesTr/case_05_0000.nii.gz"
    rewrite(path, voxels(root / SCAN).astype(np.float64))  # the same values in another file


@fault("error", "imagesTr/case_05_0000.nii.gz", "train and val then hold the same patient", "put both on one side")
def one_scan_on_two_sides(root: Path) -> None:
    one_scan_under_two_names(root)
    split(root, CASES[:4], CASES[4:])


@fault("warning", "imagesTr/case_05_0000.nii.gz", "nearly the same image as case_02_0000.nii.gz", "put both on one")
def nearly_the_same_scan_on_two_sides(root: Path) -> None:
    rng = np.random.default_rng(9)
    rewrite(root / "imagesTr/case_05_0000.nii.gz", 3 * voxels(root / SCAN) + 40 + rng.normal(0, 0.2, (12, 10, 6)))
    split(root, CASES[:4], CASES[4:])


@fault("error", "split.json", "case_02 in train and case_05 in val are one patient's (anna)")
def a_patient_on_two_sides(root: Path) -> None:
    edit(root, patients={name: "anna" if name in ("case_02", "case_05") else name for name in CASES})
    split(root, CASES[:4], CASES[4:])


@fault("error", "split.json", "case_02 is in train and in val")
def a_case_on_two_sides(root: Path) -> None:
    split(root, CASES[:4], ["case_02", *CASES[4:]])


@fault("error", "split.json", "'case_22', which is no case", "did you mean case_02")
def a_split_that_names_no_case(root: Path) -> None:
    split(root, ["case_22", *CASES[:4]], CASES[4:])


@fault("warning", "split.json", "1 patient may be on two sides, by a guess from the names", "patients")
def two_visits_on_two_sides(root: Path) -> None:
    names = ["anna_s01", "anna_s02", *CASES[2:]]
    for old, new in zip(CASES[:2], names[:2], strict=True):
        (root / f"imagesTr/{old}_0000.nii.gz").rename(root / f"imagesTr/{new}_0000.nii.gz")
        (root / f"labelsTr/{old}.nii.gz").rename(root / f"labelsTr/{new}.nii.gz")
    split(root, names[1:], names[:1])


# --- pictures ---------------------------------------------------------------------------------------------------------


@fault("error", "images/case_02.png", "truncated or damaged", sound="pictures")
def a_truncated_picture(root: Path) -> None:
    path = root / "images/case_02.png"
    path.write_bytes(path.read_bytes()[:-400])


@fault("error", "masks/case_02.png", "24x20 pixels", "export the mask at the image's own size", sound="pictures")
def a_mask_of_another_size(root: Path) -> None:
    Image.fromarray(binary()[::2, ::2]).save(root / "masks/case_02.png")


@fault("error", "images/case_02.png", "an image without a mask", "add masks/case_02.png", sound="pictures")
def a_picture_without_a_mask(root: Path) -> None:
    (root / "masks/case_02.png").unlink()


@fault("error", "masks", "lie at the edges of other labels", "nearest neighbour", sound="pictures")
def an_interpolated_mask(root: Path) -> None:
    for number, name in enumerate(CASES):
        small = Image.fromarray(binary(number)).resize((23, 19), Image.Resampling.BILINEAR)
        small.resize((48, 40), Image.Resampling.BILINEAR).quantize(9).convert("L").save(root / f"masks/{name}.png")


@fault("error", "masks/case_02.png", "JPEG by its content", "PNG", sound="pictures")
def a_jpeg_that_is_called_png(root: Path) -> None:
    Image.fromarray(binary()).save(root / "masks/case_02.png", format="JPEG")


@fault("error", "masks", "likely the same labels, written in two ways", "alike", sound="pictures")
def masks_of_0_and_1_among_others(root: Path) -> None:
    for number in (1, 2, 3):
        Image.fromarray(binary(number) // 255).save(root / f"masks/{CASES[number]}.png")


@fault("error", "masks", "the palettes differ between files", "one palette", sound="pictures")
def palettes_that_differ(root: Path) -> None:
    for number, name in enumerate(CASES):
        image = Image.fromarray(binary(number) // 255, mode="P")
        image.putpalette([0, 0, 0, *((255, 0, 0) if number % 2 else (255, 255, 255))])
        image.save(root / f"masks/{name}.png")


@fault("error", "images", "are turned by EXIF, and the masks have no such mark", "exiftool", sound="pictures")
def pictures_that_exif_turns(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    for name in CASES:
        path = root / f"images/{name}.png"
        Image.open(path).copy().save(path, exif=exif)


@fault("warning", "images/case_02.png", "do not look like", sound="pictures")
def a_negative(root: Path) -> None:
    path = root / "images/case_02.png"
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)


@fault("warning", "images/case_02.png", "do not look like", sound="pictures")
def a_picture_of_16_bits_among_others(root: Path) -> None:
    path = root / "images/case_02.png"
    Image.fromarray(np.asarray(Image.open(path)).astype(np.uint16) * 16).save(path)


@fault("warning", "images/case_05.jpg", "nearly the same image as case_02.png", "put both on one", sound="pictures")
def a_picture_that_was_saved_again(root: Path) -> None:
    (root / "images/case_05.png").unlink()
    Image.open(root / "images/case_02.png").save(root / "images/case_05.jpg", quality=95)
    split(root, CASES[:4], CASES[4:])


@fault("warning", "masks", "1 of 6 masks is on more than 99% of the image", "inverted?", sound="pictures")
def a_mask_that_is_full(root: Path) -> None:
    Image.fromarray(np.full((40, 48), 255, np.uint8)).save(root / "masks/case_02.png")


@fault("warning", "", "1 of 6 masks is on more than 99% of the volume (case_02)", "inverted?")
def a_label_map_that_is_full(root: Path) -> None:
    rewrite(root / LABEL, np.ones_like(voxels(root / LABEL)))


@fault("error", "masks/case_02.png", "several channels of more than 8 bits", "16-bit grey", sound="pictures")
def a_mask_of_16_bit_colour(root: Path) -> None:
    import cv2

    cv2.imwrite(str(root / "masks/case_02.png"), np.dstack([binary().astype(np.uint16) * 257] * 3))


@fault("warning", "", "1 .heic file is not read", "convert", sound="pictures")
def a_photograph_that_is_not_read(root: Path) -> None:
    (root / "images/case_07.heic").write_bytes(b"pixels")


@fault("warning", "labels.csv", "classes 'Pos' and 'pos' may be one, written in 2 ways", sound="pictures")
def a_class_that_is_written_in_two_ways(root: Path) -> None:
    shutil.rmtree(root / "masks")
    classes = ("pos", "Pos", "neg", "neg", "pos", "Pos")
    lines = [f"images/{name}.png,{its}" for name, its in zip(CASES, classes, strict=True)]
    (root / "labels.csv").write_text("\n".join(["path,label", *lines]))


# --- what check says --------------------------------------------------------------------------------------------------


def checked(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict]:
    """The exit code of `vpt check --json`, and what it prints."""
    monkeypatch.setattr(sys, "argv", ["vpt", "check", str(root), "--json"])
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0), json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("kind", ["volumes", "ct", "pictures"])
def test_nothing_is_said_of_the_sound_sets(sound, kind, monkeypatch, capsys):
    code, found = checked(sound / kind, monkeypatch, capsys)
    assert (code, found["ok"], found["problems"]) == (0, True, [])


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_named_with_its_file_and_its_fix(name, sound, tmp_path, monkeypatch, capsys):
    planted = FAULTS[name]
    root = shutil.copytree(sound / planted.sound, tmp_path / "set")
    planted.plant(root)
    code, found = checked(root, monkeypatch, capsys)
    told = [f"{each['severity']}: {each['file']}: {each['text']}" for each in found["problems"]]
    expected = f"{planted.severity}: {planted.file or root}: "
    assert any(line.startswith(expected) and all(word in line for word in planted.words) for line in told), told
    assert all(line.startswith((expected, "warning: ")) for line in told)  # no other file is refused
    assert code == (1 if planted.severity == "error" else 0)
    assert found["ok"] == (code == 0)


def test_forty_faults_and_more_are_planted():
    assert len(FAULTS) >= 40
