"""A folder of images and masks is a data set; what it does not say is read from the files."""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vpt.data.check import check_dataset
from vpt.data.doubts.mask_values import MANY
from vpt.data.layouts import read_dataset, survey
from vpt.data.scans import find_scans
from vpt.data.splits import read_splits
from vpt.engine.run import train
from vpt.errors import VptError


def mask(root: Path, name: str, values) -> None:
    """Values that are labels have areas of their own; of the background there is a row between any two."""
    pixels = np.zeros((max(24, 4 * len(values)), 20), np.uint8)
    for number, value in enumerate(values):
        pixels[4 * number : 4 * number + 3, 2:9] = value
    Image.fromarray(pixels).save(root / "masks" / name)


def problems(root: Path) -> list[str]:
    return [str(problem).replace(f"{root}/", "") for problem in survey(root)[1]]


def test_images_and_masks_are_paired_by_name(make_images):
    root = make_images(cases=3)
    Image.open(root / "images/case_01.png").convert("L").save(root / "images/case_01.JPG", quality=95)
    (root / "images/case_01.png").unlink()
    (root / "images/._case_00.png").write_bytes(b"left by macOS")
    (root / "images/notes.txt").touch()
    dataset = read_dataset(root)
    assert (dataset.kind, dataset.name, dataset.channels) == ("images", "images2d", ("grey",))
    assert dataset.labels == {0: "background", 255: "object"}
    assert [case.name for case in dataset.cases] == ["case_00", "case_01", "case_02"]
    assert dataset.case("case_01").images == (root / "images/case_01.JPG",)
    assert dataset.case("case_01").label == root / "masks/case_01.png"


def test_one_colour_image_makes_a_colour_data_set(make_images):
    root = make_images()
    pixels = np.array(Image.open(root / "images/case_03.png").convert("RGB"))
    Image.fromarray(pixels).save(root / "images/case_03.png")
    assert read_dataset(root).channels == ("grey",)
    pixels[5, 5] = (200, 30, 30)
    Image.fromarray(pixels).save(root / "images/case_03.png")
    assert read_dataset(root).channels == ("red", "green", "blue")


def test_several_values_are_labels_by_number(make_images):
    root = make_images(cases=3)
    for number, values in enumerate(([0, 2], [7], [0])):
        mask(root, f"case_{number:02d}.png", values)
    assert read_dataset(root).labels == {0: "background", 2: "label 2", 7: "label 7"}


def test_dataset_json_has_the_last_word_and_may_say_little(make_images):
    root = make_images()
    content = {
        "name": "Polyps",
        "labels": {"background": 0, "polyp": 255, "rare": 3},
        "patients": {"case_00.png": "p1", "case_01": "p1"},
        "channel_names": {"0": "red", "1": "green", "2": "blue"},
    }
    (root / "dataset.json").write_text(json.dumps(content))
    dataset = read_dataset(root)
    assert (dataset.name, dataset.channels) == ("Polyps", ("red", "green", "blue"))
    assert dataset.labels == {0: "background", 3: "rare", 255: "polyp"}
    assert [dataset.patient(f"case_0{k}") for k in range(3)] == ["p1", "p1", "case_02"]
    (root / "dataset.json").write_text("{}")
    assert read_dataset(root).labels == {0: "background", 255: "object"}
    (root / "dataset.json").write_text(json.dumps({"channel_names": {"0": "a", "1": "b"}}))
    with pytest.raises(VptError, match=r"dataset\.json: 2 channels, an image has 1 \(grey\) or 3"):
        read_dataset(root)


def test_every_file_without_its_partner_is_told(make_images, save):
    root = make_images(cases=5)
    (root / "masks/case_01.png").unlink()
    (root / "images/case_02.png").unlink()
    Image.new("L", (20, 24)).save(root / "images/case_00.bmp")
    save(root / "masks/case_04.nii.gz", np.zeros((2, 2, 2), np.uint8))
    assert sorted(problems(root)) == [
        "images/case_00.png: the second file called case_00; keep one of the two",
        "images/case_01.png: an image without a mask; add masks/case_01.png or remove the image",
        "masks/case_02.png: a mask without an image; add images/case_02.png or remove the mask",
        "masks/case_04.nii.gz: a volume among images; keep one kind, take the others out",
    ]
    with pytest.raises(VptError, match="3 more of this kind; `vpt check"):
        read_dataset(root)


def test_a_folder_without_masks_is_told(make_images):
    root = make_images()
    for path in (root / "masks").iterdir():
        path.unlink()
    (root / "masks").rmdir()
    with pytest.raises(VptError, match="images/ but no masks/; put a mask of the same name there for every image"):
        read_dataset(root)


@pytest.mark.parametrize(
    ("inner", "said"),
    [
        (
            ("leftMask", "rightMask"),
            r"lie in 2 folders inside \(leftMask, rightMask\), .*; move them up.*; where .* merge",
        ),
        (
            ("png",),
            r"lie in 1 folder inside \(png\), expected in masks/ itself; move them up, each called as its image",
        ),
    ],
)
def test_masks_in_folders_of_their_own_are_told_as_such(make_images, inner, said):
    root = make_images()
    for folder in inner:
        shutil.copytree(root / "masks", root / "moved" / folder)
    shutil.rmtree(root / "masks")
    (root / "moved").rename(root / "masks")
    with pytest.raises(VptError, match=said) as caught:
        read_dataset(root)
    assert "not read" not in str(caught.value)


def test_soft_masks_are_told_with_what_to_do(make_images):
    root = make_images(cases=3)
    mask(root, "case_01.png", range(0, 80, 4))
    assert len(read_dataset(root).labels) == 21
    mask(root, "case_02.png", range(100, 112))
    with pytest.raises(VptError, match=r"case_02\.png: with it the masks hold more than 30 values.*threshold soft"):
        read_dataset(root)


def test_masks_without_any_label_are_told(make_images):
    root = make_images(cases=2)
    mask(root, "case_00.png", [0])
    with pytest.raises(VptError, match="masks: no mask holds a value above 0, so nothing can be learned"):
        read_dataset(root)


def test_an_unreadable_mask_stops_no_survey_but_nothing_else_to_read_does(make_images):
    root = make_images(cases=2)
    (root / "masks/case_01.png").write_bytes(b"")
    assert read_dataset(root).labels == {0: "background", 255: "object"}
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 20, 3), np.uint8)).save(root / "masks/case_00.png")
    with pytest.raises(VptError, match=r"case_00\.png: a colour picture, expected one label id"):
        read_dataset(root)


@pytest.mark.parametrize("ending", ["", ".png"])
def test_split_json_may_name_files_or_cases(make_images, ending):
    root = make_images(cases=3)
    sides = {"train": [f"case_00{ending}"], "val": [f"case_01{ending}"], "test": [f"case_02{ending}"]}
    (root / "split.json").write_text(json.dumps(sides))
    assert read_splits(read_dataset(root)).to_dict() == {"train": ["case_00"], "val": ["case_01"], "test": ["case_02"]}
    (root / "split.json").write_text(json.dumps(sides | {"val": ["case_00.png"]}))
    with pytest.raises(VptError, match="case_00 is in train and in val"):
        read_splits(read_dataset(root))


def test_slices_of_one_patient_stay_together(make_images):
    root = make_images(cases=8)
    for number in range(8):
        for folder in ("images", "masks"):
            name = f"p{number // 2}_s{number:03d}" if number < 4 else f"p{number // 2}-slice{number}"
            (root / folder / f"case_{number:02d}.png").rename(root / folder / f"{name}.png")
    dataset = read_dataset(root)
    assert {dataset.patient(case.name) for case in dataset.cases} == {"p0", "p1", "p2", "p3"}
    for fold in range(4):
        splits = read_splits(dataset, fold)
        assert len({dataset.patient(name) for name in splits.val}) == 1
        assert not {*map(dataset.patient, splits.val)} & {*map(dataset.patient, splits.train)}


# --- EXIF -------------------------------------------------------------------------------------------------------------


def turn(root: Path, folder: str, orientation: int, ending: str = "png", numbers=range(4)) -> None:
    """Mark files as to be turned; their pixels stay as stored."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    for number in numbers:
        path = root / folder / f"case_{number:02d}.png"
        image = Image.open(path).copy()
        path.unlink()
        image.save(path.with_suffix(f".{ending}"), exif=exif)


@pytest.mark.parametrize(
    ("orientation", "size", "ending"),
    [(2, (24, 20), "jpg"), (3, (24, 20), "tif"), (4, (24, 20), "png"), (5, (24, 24), "webp"), (6, (24, 24), "jpg")],
)
def test_images_that_exif_turns_beside_masks_that_it_does_not_are_refused(make_images, orientation, size, ending):
    root = make_images(cases=4, size=size)
    turn(root, "images", orientation, ending)
    assert problems(root) == [
        f"images: 4 of 4 images (case_00.{ending}, case_01.{ending}, case_02.{ending} and 1 more) are turned by EXIF, "
        f"and the masks have no such mark (orientation {orientation} against 1), so that they may not lie on each "
        "other; if the masks were drawn on the pixels as stored, take the mark off the images (exiftool -Orientation= "
        "images), if on the images as seen, turn their pixels (mogrify -auto-orient images/*)"
    ]
    with pytest.raises(VptError, match="are turned by EXIF, and the masks have no such mark"):
        read_dataset(root)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("ending", ["jpg", "tif"])
def test_where_exif_changes_the_size_it_is_named_and_nothing_is_resized(make_images, orientation, ending):
    root = make_images(cases=4)
    turn(root, "images", orientation, ending)
    errors = check_dataset(root).errors
    assert len(errors) == 4
    for error in errors:
        assert f"because EXIF turns the image (orientation {orientation}) and not the mask" in error.text
        assert "resize" not in error.text


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_and_masks_with_one_mark_are_turned_together(make_images, orientation):
    root = make_images(cases=4)
    for folder in ("images", "masks"):
        turn(root, folder, orientation, "tif" if folder == "masks" else "png")
    assert problems(root) == []
    assert check_dataset(root).ok


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
def test_of_masks_that_alone_are_marked_it_is_their_mark_that_is_to_go(make_images, orientation):
    root = make_images(cases=4)
    turn(root, "masks", orientation)

    found = " ".join(problems(root) if orientation < 5 else map(str, check_dataset(root).problems))

    assert "take the mark off the masks (exiftool -Orientation= masks)" in found
    assert "-Orientation= images" not in found


def test_masks_that_alone_are_marked_or_marked_otherwise_are_refused(make_images):
    root = make_images(cases=4)
    turn(root, "masks", 3)
    assert "have no mark of EXIF, and their masks are turned by one (orientation 1 against 3)" in problems(root)[0]
    turn(root, "images", 4)
    assert "(orientation 4 against 3)" in problems(root)[0]


def test_masks_drawn_on_the_images_as_seen_are_believed(make_images):
    root = make_images(cases=4)
    turn(root, "images", 6, numbers=(0, 1))
    turn(root, "images", 3, numbers=(2,))
    for number in (0, 1):
        path = root / f"masks/case_{number:02d}.png"
        Image.open(path).transpose(Image.Transpose.ROTATE_270).save(path)
    assert problems(root) == []


# --- images to predict ------------------------------------------------------------------------------------------------


def test_images_to_predict_are_cases_by_name(make_images, save):
    folder = make_images(cases=2) / "images"
    Image.new("L", (4, 4)).save(folder / "case_0000.jpg")
    assert [case.name for case in find_scans(folder, 3)] == ["case_00", "case_0000", "case_01"]
    assert [case.images for case in find_scans(folder / "case_00.png", 1)] == [(folder / "case_00.png",)]
    with pytest.raises(VptError, match=r"no scans found, supported are .*; did you mean .*images2d/images"):
        find_scans(folder.parent, 1)
    Image.new("L", (4, 4)).save(folder / "case_01.bmp")
    with pytest.raises(VptError, match=r"case_01\.png: the second image called case_01"):
        find_scans(folder, 1)
    save(folder / "scan.nii.gz", np.zeros((2, 2, 2), np.uint8))
    with pytest.raises(VptError, match=r"case_00\.png is an image and scan\.nii\.gz a NIfTI; give one kind at a time"):
        find_scans(folder, 1)


def test_an_umlaut_is_the_same_however_it_is_written(make_images):
    root = make_images()
    for folder, form in (("images", "NFC"), ("masks", "NFD")):
        path = next(iter(sorted((root / folder).iterdir())))
        path.rename(path.with_name(unicodedata.normalize(form, "für.png")))
    assert "für" in [case.name for case in read_dataset(root).cases]


@pytest.mark.slow
def test_many_masks_are_looked_at_in_processes_to_the_same_end(tmp_path: Path, monkeypatch) -> None:
    """Some of 1 beside some of 255, one that cannot be read, and an image that EXIF turns beside its mask."""
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    turned = Image.Exif()
    turned[0x0112] = 3
    for number in range(MANY + 10):
        pixels = np.zeros((9, 9), np.uint8)
        pixels[2:7, 2:7] = 1 if number % 3 else 255
        Image.fromarray(pixels).save(tmp_path / f"masks/{number:03d}.png")
        Image.fromarray(pixels + number % 7).save(
            tmp_path / f"images/{number:03d}.png", **({"exif": turned} if number == 77 else {})
        )
    (tmp_path / "masks/005.png").write_bytes(b"\x89PNG damaged")
    in_processes = problems(tmp_path)
    monkeypatch.setattr("vpt.data.layouts.image_folders.MANY", 10**6)
    monkeypatch.setattr("vpt.data.mask_colours.MANY", 10**6)
    assert in_processes == problems(tmp_path)
    assert any("written in two ways" in text for text in in_processes)
    assert any("077.png) are turned by EXIF" in text for text in in_processes)


@pytest.mark.parametrize("called", ["{}_mask", "{}_seg", "mask_{}", "{}-label", "{}_segmentation"])
def test_masks_that_are_called_otherwise_than_their_images_are_paired_by_words(make_images, called):
    root = make_images(cases=4)
    plain = check_dataset(root)
    for path in list((root / "masks").iterdir()):
        path.rename(path.with_stem(called.format(path.stem)))
    check = check_dataset(root)
    assert check.ok
    assert (check.cases, check.labels) == (4, plain.labels)
    assert "guessed from the names: 4 cases" in check.guess


@pytest.mark.parametrize("name", ["{}.jpg.png", "{}.png.png", "{}_jpg.png", "{}.jpg_mask.png"])
def test_the_ending_of_the_image_in_a_mask_s_name_is_no_label(tmp_path, name):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for case in ("a", "b", "c"):
        Image.fromarray(np.arange(480, dtype=np.uint8).reshape(24, 20)).save(tmp_path / "images" / f"{case}.jpg")
        mask(tmp_path, name.format(case), [1, 2])
    found = read_dataset(tmp_path)
    assert sorted(case.name for case in found.cases) == ["a", "b", "c"]
    assert found.labels == {0: "background", 1: "label 1", 2: "label 2"}


def test_ids_that_no_png_holds_are_refused_before_a_training(make_images, tmp_path):
    root = make_images()
    for path in sorted((root / "masks").iterdir()):
        deep = (np.array(Image.open(path)) > 0).astype(np.float32) * 70_000
        Image.fromarray(deep).save(path.with_suffix(".tif"))
        path.unlink()
    said = "label 70000, but masks of images are written as PNGs, which hold ids up to 65535"
    assert [each.text for each in check_dataset(root).errors if said in each.text]
    with pytest.raises(VptError, match=said):
        train(root, tmp_path / "run")


def test_one_mask_below_0_is_told_among_the_rest(make_images):
    root = make_images()
    first = sorted((root / "masks").iterdir())[0]
    below = np.where(np.array(Image.open(first)) > 0, -1, 0).astype(np.int32)
    Image.fromarray(below).save(first.with_suffix(".tif"))
    first.unlink()
    said = [each.text for each in check_dataset(root).errors]
    assert len([text for text in said if "holds -1, expected label ids of 0 and above" in text]) == 1
