"""A check of a labelled set reads every image, finds everything at once and says it in a line of a kind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from values import xray

from vpt.data import reading
from vpt.data.check import Check, check_dataset
from vpt.data.check_labelled import check_labelled
from vpt.errors import VptError

SIZES = (20, 24)
PARTS = {"train": slice(0, 12), "val": slice(12, 16), "test": slice(16, 20)}


def said(check: Check, severity: str) -> list[str]:
    return [f"{problem.file}: {problem.text}" for problem in check.problems if problem.severity == severity]


def noise(path: Path, seed: int, shape: tuple[int, ...] = SIZES) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8)).save(path)


def folders(root: Path, **classes: int) -> Path:
    seed = 0
    for name, count in classes.items():
        for number in range(count):
            noise(root / name / f"i{number:02d}.png", seed := seed + 1)
    return root


def split(root: Path, **sides: list[str]) -> None:
    (root / "split.json").write_text(json.dumps(sides))


def spread(name: str, count: int) -> dict[str, list[str]]:
    """Two for val, one for test, the rest for train."""
    names = [f"{name}/i{number:02d}.png" for number in range(count)]
    return {"train": names[3:], "val": names[:2], "test": names[2:3]}


def both(*parts: dict[str, list[str]]) -> dict[str, list[str]]:
    return {side: [name for part in parts for name in part[side]] for side in ("train", "val", "test")}


def test_a_sound_set_is_summed_up(tmp_path):
    root, seen = folders(tmp_path / "zoo", cat=6, dog=8), []
    split(root, **both(spread("cat", 6), spread("dog", 8)))
    check = check_dataset(root, progress=lambda *step: seen.append(step))
    assert check.problems == ()
    assert seen[0] == (1, 14, "cat/i00")
    assert seen[-1] == (14, 14, "dog/i07")
    assert [" ".join(line.split()) for line in check.plain().splitlines()] == [
        f"data set zoo ({root})",
        "images 14",
        "channels grey: 0 to 255",
        "size 24x20 px (columns x rows)",
        "class cat 6 images: train 3, val 2, test 1",
        "class dog 8 images: train 5, val 2, test 1",
        "split train 8, val 4, test 2 (split.json)",
        "ready to train: 0 errors, 0 warnings",
    ]


def test_every_unusable_image_is_named(tmp_path):
    root = folders(tmp_path, cat=8, dog=8)
    whole = (root / "cat/i00.png").read_bytes()
    (root / "cat/i00.png").write_bytes(whole[:200])
    (root / "cat/i01.png").write_bytes(b"")
    (root / "dog/i02.png").write_bytes(b"<html>not found</html>")
    (root / "dog/i03.jpg").write_bytes(b"x")
    split(root, train=[f"{name}/i{k:02d}" for name in ("cat", "dog") for k in range(7)], val=["dog/i07", "dog/i77"])
    check = check_dataset(root)
    errors = said(check, "error")
    for expected in [
        "dog/i03.png: the second image called dog/i03; keep one of the two or rename it",
        "split.json: val names 'dog/i77', which is no case",
        "cat/i00.png: truncated or damaged",
        "cat/i01.png: an empty file",
        "dog/i02.png: a web page, as a failed download leaves it",
        "dog/i03.jpg: not an image, or damaged in its header",
    ]:
        assert sum(error.startswith(expected) for error in errors) == 1, (expected, errors)
    assert len(errors) == 6
    assert said(check, "warning") == ["split.json: 1 image on no side (cat/i07); add to train, or leave out"]
    assert check.verdict() == "not ready: 6 errors, 1 warning"


def test_colour_where_dataset_json_says_grey(tmp_path):
    root = folders(tmp_path, cat=6, dog=6)
    (root / "dataset.json").write_text('{"channel_names": {"0": "grey"}}')
    noise(root / "cat/i03.png", 99, (*SIZES, 3))
    assert said(check_dataset(root), "error") == [
        "cat/i03.png: a colour image among grey ones; convert it to grey, or write dataset.json with "
        '"channel_names": {"0": "red", "1": "green", "2": "blue"}'
    ]
    (root / "dataset.json").write_text('{"channel_names": {"0": "red", "1": "green", "2": "blue"}}')
    assert check_dataset(root).ok


def test_copies_on_two_sides_or_under_two_labels_are_warned_of(tmp_path):
    root = folders(tmp_path, cat=6, dog=6)
    shutil.copy(root / "cat/i05.png", root / "cat/i00.png")
    shutil.copy(root / "cat/i04.png", root / "dog/i05.png")
    shutil.copy(root / "dog/i03.png", root / "dog/i04.png")
    split(root, **both(spread("cat", 6), spread("dog", 6)))
    check = check_dataset(root)
    assert check.ok
    assert said(check, "warning") == [
        "split.json: 1 image with the same pixels on two sides (cat/i00 in val = cat/i05 in train); scores are then "
        "too good: keep one of each, or all on one side",
        f"{root}: 1 image with the same pixels under different labels (cat/i04 of cat = dog/i05 of dog); "
        "keep the right one",
    ]


def test_near_copies_on_two_sides_or_under_two_labels_are_warned_of(tmp_path):
    root = folders(tmp_path, cat=6, dog=6)
    lighter = Image.open(root / "cat/i05.png").point(lambda value: value * 0.8 + 20)
    lighter.save(root / "cat/i00.png")
    Image.open(root / "cat/i04.png").save(root / "dog/i05.jpg", quality=95)
    (root / "dog/i05.png").unlink()
    Image.open(root / "dog/i03.png").save(root / "dog/i04.jpg", quality=95)
    (root / "dog/i04.png").unlink()
    dogs = spread("dog", 4)
    dogs["train"] += ["dog/i04.jpg", "dog/i05.jpg"]
    split(root, **both(spread("cat", 6), dogs))
    check = check_dataset(root)
    assert check.ok
    assert said(check, "warning") == [
        "split.json: 1 pair of nearly the same image on two sides (cat/i00 in val = cat/i05 in train); scores are then "
        "too good: put both on one side, or say in `patients` that they are one patient's",
        f"{root}: 1 pair of nearly the same image under different labels (cat/i04 of cat = dog/i05 of dog); "
        "are both right?",
    ]


def test_classes_without_enough_examples_are_warned_of(tmp_path):
    root = folders(tmp_path, cat=64, dog=3, owl=5)
    owls = {"train": [], "val": [f"owl/i{k:02d}" for k in range(5)], "test": []}
    split(root, **both(spread("cat", 64), spread("dog", 3), owls))
    check = check_labelled(root, classes=["cat", "dog", "owl", "yak"])
    assert check.ok
    assert said(check, "warning") == [
        f"{root}: no example of yak; add some, or leave out the class",
        "split.json: no training example of dog, owl; put some on the side train, or leave out the class",
        f"{root}: fewer than 5 examples of dog (3); add some, or join classes",
        f"{root}: 64 examples of cat, but 3 of dog; weigh the classes, and look at each one's score",
    ]
    assert [str(each) for each in check.classes[1:]] == [
        "3 images: train 0, val 2, test 1",
        "5 images: train 0, val 5, test 0",
        "0 images: train 0, val 0, test 0",
    ]


def test_images_of_one_value_and_folders_inside_a_class(tmp_path):
    root = folders(tmp_path, cat=5, dog=5)
    Image.new("L", SIZES, 7).save(root / "cat/i00.png")
    for number in range(2):
        noise(root / f"dog/p1/i{number}.png", 80 + number)
    assert said(check_dataset(root), "warning") == [
        f"{root}: 1 image of one value only (cat/i00); is the export complete?",
        f"{root}: 2 images in folders inside a class (dog/p1), each taken for a patient of its own; if the folders are "
        "patients, say so in labels.csv, or as `patients` in dataset.json",
    ]
    (root / "dataset.json").write_text(json.dumps({"patients": {"dog/p1/i0": "p1", "dog/p1/i1": "p1"}}))
    assert len(check_dataset(root).warnings) == 1


def test_folders_that_hold_all_of_a_class_may_be_the_classes(tmp_path):
    for number in range(12):
        folder = f"lung/kind_{'ab'[number // 2 % 2]}" if number % 2 else "colon"
        noise(tmp_path / folder / f"i{number}.png", 80 + number)

    (text,) = [each for each in said(check_dataset(tmp_path), "warning") if "inside a class" in each]

    assert text.endswith("; if they are the classes, list all in labels.csv with the columns path and label")


def test_folders_inside_classes_that_are_called_as_patients_are_not_doubted(tmp_path):
    for number in range(24):
        name = ("benign", "malignant")[number // 2 % 2]
        noise(tmp_path / name / f"patient{number // 2}" / f"i{number}.png", 80 + number)

    check = check_dataset(tmp_path)

    assert check.patients.startswith("12 patients in 24 cases")
    assert not said(check, "warning")


def test_slides_of_several_magnifications_are_no_patients_of_their_own(tmp_path):
    for number in range(24):
        slide = tmp_path / ("benign", "malignant")[number % 2] / f"SOB_14-{number // 4}"
        noise(slide / f"{(40, 100)[number // 2 % 2]}X" / f"{number}.png", 80 + number)

    check = check_dataset(tmp_path)

    assert check.patients.startswith("6 patients in 24 cases")
    (text,) = [text for text in said(check, "warning") if "inside a class" in text]
    assert "patient" not in text


def test_a_csv_is_checked_line_by_line(tmp_path):
    folders(tmp_path, cat=6, dog=6)
    lines = ["path,label,split,patient"]
    for name in ("cat", "dog"):
        lines += [f"{name}/i{k:02d}.png,{name},{'val' if k < 2 else 'train'},{name}{k}" for k in range(6)]
    lines += ["gone.png,cat,train,", "cat/i05.png,cat,val,"]
    lines[3] = "cat/i02.png,cat,train,cat0"
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    check = check_dataset(tmp_path / "labels.csv")
    assert said(check, "error") == [
        "labels.csv: line 14: no such file: gone.png, nor images/gone.png; add it, or remove the line",
        "labels.csv: line 15: cat/i05.png is already on line 7; keep one of the two",
        "labels.csv: line 4: patient cat0 is in train here and in val (line 2); keep a patient on one side",
    ]
    assert check.split_source == "labels.csv"
    assert check_dataset(tmp_path).problems == check.problems


def test_drawn_folds_are_said_to_be_drawn(tmp_path):
    check = check_dataset(folders(tmp_path, cat=10, dog=10))
    assert (check.splits, check.split_source) == (
        {"train": 16, "val": 4, "test": 0},
        "fold 0 of 5, drawn by patient, each with its share of every class",
    )
    shutil.copy(tmp_path / "cat/i05.png", tmp_path / "dog/i03.png")
    assert len(check_dataset(tmp_path).warnings) == 2


@pytest.mark.parametrize("shape", [(8, 8), (4, 8, 8)])
def test_an_npz_is_checked_in_memory(tmp_path, shape):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, *shape), np.uint8)
    images[3] = images[12]
    content = {f"{side}_images": images[part] for side, part in PARTS.items()}
    content |= {f"{side}_labels": np.arange(20)[part, None] % 2 for side, part in PARTS.items()}
    np.savez(tmp_path / "m.npz", **content)
    check = check_dataset(tmp_path / "m.npz")
    assert check.ok
    assert (check.splits, check.split_source) == ({"train": 12, "val": 4, "test": 4}, "m.npz")
    same = f"m.npz: 1 image with the same {'pixels' if len(shape) == 2 else 'voxels'}"
    assert [text.split(";")[0] for text in said(check, "warning")] == [
        f"{same} on two sides (train_00003 in train = val_00000 in val)",
        f"{same} under different labels (train_00003 of class 1 = val_00000 of class 0)",
    ]


def test_volumes_are_checked_with_their_geometry(tmp_path, save):
    rng = np.random.default_rng(0)
    for name in ("ill", "well"):
        for number in range(5):
            save(tmp_path / f"{name}/v{number}.nii.gz", rng.integers(0, 99, (4, 5, 6), np.uint8))
    (tmp_path / "ill/v0.nii.gz").write_bytes((tmp_path / "ill/v0.nii.gz").read_bytes()[:90])
    check = check_dataset(tmp_path)
    assert [problem.file for problem in check.errors] == ["ill/v0.nii.gz"]
    assert (check.kind, str(check.shape), check.orientations) == ("volumes", "4x5x6", {"RAS": 9})


def test_what_cannot_be_checked_is_raised(tmp_path):
    with pytest.raises(VptError, match=r"neither labels\.csv nor two folders of images"):
        check_labelled(tmp_path)
    with pytest.raises(VptError, match="no such file"):
        check_dataset(tmp_path / "gone.csv")


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", ["cxr_pneumonia", "busi"])
def test_real_sets_pass(data_root, name):
    check = check_labelled(data_root / name)
    assert check.problems == ()
    assert sum(each.examples for each in check.classes) == check.cases


@pytest.mark.parametrize("name", ["12 bits", "16 bits", "negative", "mask", "dark"])
def test_a_picture_whose_values_are_unlike_the_others(tmp_path, name):
    change = {
        "12 bits": lambda grey: grey.astype(np.uint16) * 16,
        "16 bits": lambda grey: grey.astype(np.uint16) * 256,
        "negative": lambda grey: 255 - grey,
        "mask": lambda grey: np.where(grey > 99, 255, 0).astype(np.uint8),
        "dark": lambda grey: grey // 100,
    }[name]
    for number in range(12):
        folder = tmp_path / ("a" if number % 2 else "b")
        folder.mkdir(exist_ok=True)
        picture = xray(number)
        Image.fromarray(change(picture) if number == 4 else picture).save(folder / f"im{number}.png")

    doubts = [each for each in check_labelled(tmp_path).warnings if "do not look like" in each.text]

    assert [each.file for each in doubts] == ["b/im4.png"]


def test_an_image_broken_in_an_unforeseen_way_hides_no_other(tmp_path, monkeypatch):
    root = folders(tmp_path / "zoo", cat=6, dog=8)
    values_of = reading.values_of

    def failing(voxels):
        if voxels.name.endswith("cat/i02.png"):
            raise KeyError("orientation")
        return values_of(voxels)

    monkeypatch.setattr(reading, "values_of", failing)
    noise(root / "dog" / "i07.png", 0, (4, 4))
    (root / "dog" / "i06.png").write_bytes(b"no image")

    errors = said(check_labelled(root), "error")

    assert errors[0] == "cat/i02.png: cannot be read (KeyError: 'orientation'); export it again"
    assert errors[1].startswith("dog/i06.png: not an image")


def test_a_class_in_one_fold_alone_is_said_of_the_folds(tmp_path):
    root = folders(tmp_path / "zoo", cat=6, dog=6, emu=1)
    assert any(
        "no training example of emu in some of 5 folds;" in text for text in said(check_dataset(root), "warning")
    )
    split(root, train=[f"cat/i{k:02d}" for k in range(4)], val=["dog/i00", "cat/i04"], test=["dog/i01"])
    assert any("no training example of dog, emu;" in text for text in said(check_dataset(root), "warning"))


@pytest.mark.parametrize(
    ("outer", "inner", "is_said"),
    [
        (["fold1", "fold2", "fold3"], ["cat", "dog"], True),
        (["cat", "dog"], ["train", "test"], True),
        (["cat", "dog"], ["train"], True),
        (["cat", "dog"], ["P1", "P2"], False),
        (["cat", "dog"], ["near"], False),
    ],
)
def test_folders_that_are_alike_in_every_class_are_said(tmp_path, outer, inner, is_said):
    for k, (name, part) in enumerate((name, part) for name in outer for part in inner):
        for number in range(3):
            noise(tmp_path / "zoo" / name / part / f"{name}{part}{number}.png", 10 * k + number)
    texts = said(check_dataset(tmp_path / "zoo"), "warning")
    assert (
        any(f"holds the folders {', '.join(sorted(inner))}: are these the classes" in text for text in texts) == is_said
    )
