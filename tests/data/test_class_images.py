"""Folders of masks that count as a class, and classes that their files alone tell apart, are told; others are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vpt.config import load_config
from vpt.data.check_labelled import check_labelled
from vpt.data.doubts.class_names import class_doubts
from vpt.data.doubts.said import doubts_of, require_no_masks
from vpt.data.layouts import read_labelled
from vpt.data.splits import read_splits
from vpt.engine.setup import prepare_setup
from vpt.errors import VptError

Draw = Callable[[int], Image.Image]


def picture(number: int, side: int = 40) -> Image.Image:
    rng = np.random.default_rng(number)
    return Image.fromarray(rng.integers(0, 250, (side, side)).astype(np.uint8))


def mask(number: int) -> Image.Image:
    y, x = np.indices((40, 40))
    return Image.fromarray((np.hypot(y - 15 - number, x - 20) < 9).astype(np.uint8) * np.uint8(255))


def coloured(number: int) -> Image.Image:
    grey = np.array(picture(number))
    return Image.fromarray(np.dstack([grey, grey // 2, grey // 3]))


def folders(root: Path, draw: dict[str, Draw], ending: dict[str, str] | None = None, count: int = 8) -> Path:
    for place, (name, make) in enumerate(draw.items()):
        (root / name).mkdir(parents=True)
        for number in range(count):
            make(number + 100 * place).save(root / name / f"c{number}{(ending or {}).get(name, '.png')}")
    return root


def said(root: Path) -> list[str]:
    words = ("if these are masks", "may learn that alone")
    return [problem.text for problem in check_labelled(root).problems if any(word in problem.text for word in words)]


@pytest.mark.parametrize("names", [("JPEGImages", "SegmentationClass"), ("input", "output"), ("x", "y"), ("b", "a")])
def test_a_folder_of_masks_is_no_class(tmp_path: Path, names: tuple[str, str]) -> None:
    root = folders(tmp_path / "d", {names[0]: picture, names[1]: lambda k: mask(k - 100)})
    text = f"every image of '{names[1]}' has 2 values at most, as masks have, and is called as one of '{names[0]}'"

    (found,) = said(root)
    assert found.startswith(text)
    dataset = read_labelled(root)
    assert any(text in doubt for doubt in doubts_of(dataset, read_splits(dataset)))


@pytest.mark.parametrize(
    ("draw", "ending", "text"),
    [
        ({"neg": picture, "pos": lambda k: picture(k, 56)}, {}, "another size (40x40) than all 8 others (56x56)"),
        ({"neg": picture, "pos": picture}, {"pos": ".bmp"}, "another format (.png) than all 8 others (.bmp)"),
        ({"neg": picture, "pos": coloured}, {}, "another colour (grey) than all 8 others (colour)"),
        ({"a": picture, "b": lambda k: picture(k, 56), "c": picture}, {}, "another size (56x56) than all 16 others"),
    ],
)
def test_classes_that_their_files_tell_apart(
    tmp_path: Path, draw: dict[str, Draw], ending: dict[str, str], text: str
) -> None:
    (found,) = said(folders(tmp_path / "d", draw, ending))
    assert text in found


@pytest.mark.parametrize(
    "draw",
    [
        {"neg": picture, "pos": picture},
        {"neg": mask, "pos": mask},  # silhouettes
        {"neg": picture, "pos": lambda k: picture(k, 40 + k % 7)},
        {"neg": lambda k: picture(k, 40 + 8 * (k % 2)), "pos": lambda k: picture(k, 40 + 8 * (k % 2))},
        {"neg": coloured, "pos": coloured},
        {"artefact": lambda k: Image.fromarray(np.full((40, 40), 90, np.uint8)), "ok": picture},
    ],
)
def test_other_classes_are_not_doubted(tmp_path: Path, draw: dict[str, Draw]) -> None:
    assert said(folders(tmp_path / "d", draw)) == []


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["neg", "pos", "test"], "'test' is a class here, beside neg, pos, but called as a side of the split is"),
        (["train2017", "val2017"], "'train2017', 'val2017' are classes here, but called as a side of the split is"),
        (["a", "b", "Train", "Val"], "'Train', 'Val' are classes here, beside a, b"),
        (["a", "a;b"], "classes 'a;b' join names that are classes too"),
        (["['a']", "['b']", "['a', 'b']"], "join names that are classes too"),
        (["0,1", "0,25", "0,5", "0,75", "1,5"], "classes '0,1', '0,25', '0,5' and 2 more are numbers with fractions"),
        (
            ["0.1", "0.25", "1", "1.5", "2.75", "3.1"],
            "classes '0.1', '0.25', '1.5' and 2 more are numbers with fractions",
        ),
        (["a", "b", "a, b"], "write them with | between (a|b)"),
        (["edema", "mass", "edema+mass"], "classes 'edema+mass' join"),
        (["neg", "pos", "unlabelled"], "classes hold 'unlabelled', with which tables mark what is not known"),
        (["0", "1", "-1"], "classes hold '-1'"),
    ],
)
def test_names_that_are_likely_no_classes(names: list[str], text: str) -> None:
    (found,) = class_doubts(names)
    assert text in found


@pytest.mark.parametrize(
    "names",
    [
        ["neg", "pos"],
        ["train", "test"],
        ["train", "bus", "car"][1:],
        ["a/b", "c"],
        ["T1+C", "T2"],
        ["-2", "-1", "1"],
        ["test01", "test02"],
        ["0", "1", "2", "3", "4", "5"],
        ["0", "0.5", "1", "2", "3"],  # CDR
        ["1.0", "2.0", "3.0", "4.1", "4.2", "4.3", "5.0"],  # BI-RADS
        ["174.1", "174.2", "174.3", "174.4", "174.5", "C50", "C51", "C52", "C53", "C54", "C55"],
    ],
)
def test_sound_names(names: list[str]) -> None:
    assert class_doubts(names) == []


def jpeg(root: Path, name: str) -> None:
    for path in sorted((root / name).iterdir()):
        with Image.open(path) as image:
            image.save(path.with_suffix(".jpg"), quality=60)
        path.unlink()


def refused(root: Path) -> str:
    """What ends a training and is an error of `vpt check`, "" where nothing does and is."""
    dataset = read_labelled(root)
    errors = [problem.text for problem in check_labelled(root).errors]
    try:
        require_no_masks(dataset, read_splits(dataset))
    except VptError as error:
        text = str(error).removeprefix(f"{root}: ")
        assert errors == [text]
        return text
    assert errors == []
    return ""


def binary(number: int) -> Image.Image:
    return mask(number % 100)


@pytest.mark.parametrize(
    ("images", "masks", "added", "count"),
    [
        ("CXR_png", "ManualMask/leftMask", "", 8),  # Montgomery
        ("Training400", "Annotation-Training400/Disc", "", 8),  # REFUGE
        ("1. Original Images/a", "2. All Segmentation Groundtruths/a/1. MA", "_MA", 8),  # IDRiD
        ("pictures", "GT", "", 5),  # few
        ("pictures", "regions", "", 8),  # by the images and their names alone
        ("pictures", "regions", "_lesion", 8),
    ],
)
def test_folders_of_images_and_masks_are_refused(
    tmp_path: Path, images: str, masks: str, added: str, count: int
) -> None:
    root = folders(tmp_path / "d", {images: picture, masks: binary}, {masks: f"{added}.png"}, count)
    text = refused(root)
    of, name = (repr(each.partition("/")[0]) for each in (masks, images))
    assert text.startswith(f"every image of {of} has 2 values at most, as masks have, and is called as one of {name}; ")
    assert "call the folders images and masks, and the set is segmented, or list image and mask in cases.csv" in text


def test_a_folder_of_masks_of_other_names_is_refused_by_its_own(tmp_path: Path) -> None:
    root = folders(tmp_path / "d", {"pictures": picture, "groundtruth": binary}, count=4)
    for path in (root / "groundtruth").iterdir():
        path.rename(path.with_name(f"drawn by hand {path.name}"))
    assert "2 values at most, as masks have, and 'pictures' holds pictures" in refused(root)


def test_masks_that_were_saved_as_jpeg_are_refused(tmp_path: Path) -> None:
    root = folders(tmp_path / "d", {"pictures": picture, "lesion masks": binary})
    jpeg(root, "lesion masks")
    assert "has little but its darkest and lightest values, as masks saved as JPEG have, and is called" in refused(root)


def test_masks_of_volumes_are_refused(tmp_path: Path, save) -> None:
    rng = np.random.default_rng(0)
    for k in range(4):
        save(tmp_path / f"scanned/v{k}.nii.gz", rng.normal(100, 30, (8, 8, 8)).astype(np.float32))
        save(tmp_path / f"liver labels/v{k} drawn.nii.gz", (rng.random((8, 8, 8)) > 0.5).astype(np.uint8))
    assert "every image of 'liver labels' has 2 values at most" in refused(tmp_path)


@pytest.mark.parametrize(
    "draw",
    [
        {"with_mask": picture, "without_mask": picture},
        {"mask": picture, "no_mask": picture},
        {"mask": picture, "face": coloured},
        {"with_mask": binary, "without_mask": binary},
        {"0": binary, "1": binary},  # drawings
        {"circle": binary, "square": binary, "mask": binary},
        {"label": picture, "manual": coloured},
    ],
)
def test_classes_with_a_word_for_masks_and_drawings_are_classes(tmp_path: Path, draw: dict[str, Draw]) -> None:
    root = folders(tmp_path / "d", draw)
    assert refused(root) == ""
    assert read_labelled(root).masks == ()


def test_drawings_of_names_of_their_own_are_a_class(tmp_path: Path) -> None:
    root = folders(tmp_path / "d", {"photo": picture, "sketch": binary})
    for path in (root / "sketch").iterdir():
        path.rename(path.with_name(f"s{path.name}"))
    assert refused(root) == ""


def test_a_list_that_calls_them_classes_is_warned_of(tmp_path: Path) -> None:
    root = folders(tmp_path / "d", {"pictures": picture, "regions": binary})
    lines = ["path,label", *(f"{path.parent.name}/{path.name},{path.parent.name}" for path in root.rglob("*.png"))]
    (root / "labels.csv").write_text("\n".join(lines))
    assert refused(root) == ""
    assert [problem.severity for problem in check_labelled(root).problems if "if these are masks" in problem.text] == [
        "warning"
    ]


def test_a_training_ends_with_it_before_anything_is_planned(tmp_path: Path) -> None:
    root = folders(tmp_path / "d", {"pictures": picture, "regions": binary})
    with pytest.raises(VptError, match="every image of 'regions' has 2 values at most"):
        prepare_setup(load_config(root))
    named = {"data.classes": ["pictures", "regions"], "plan.image_size": 32}
    assert prepare_setup(load_config(root, named)).dataset.labels == {0: "pictures", 1: "regions"}


def test_a_list_that_says_otherwise_than_the_folders_is_told(tmp_path: Path) -> None:
    root = folders(tmp_path / "d", {"neg": picture, "pos": picture, "2": picture})
    lines = [f"{folder}/c{k}.png,{folder}\n" for folder in ("neg", "pos") for k in range(8)]
    lines += [f"2/c{k}.png,{k % 2 + 1}\n" for k in range(8)]  # a patient's number
    source = root / "labels.csv"
    source.write_text("path,label\n" + "".join(lines))
    assert not [problem.text for problem in check_labelled(source).problems if "called as another" in problem.text]
    source.write_text("path,label\n" + "".join(lines).replace("neg/c3.png,neg", "neg/c3.png,Pos"))
    text = "of 1 image the folder is called as another class (neg/c3 in neg is Pos); correct what is wrong"
    assert text in [problem.text for problem in check_labelled(source).problems]
    dataset = read_labelled(source)
    assert text in doubts_of(dataset, read_splits(dataset))  # of a training
