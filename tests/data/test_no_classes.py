"""Folders that are parts of a set, patients or sides are refused as classes; folders of classes are read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vpt.data.check import check_dataset
from vpt.data.layouts import is_labelled, read_labelled
from vpt.errors import VptError

COLUMNS = "labels.csv with the columns path and label"


def fill(root: Path, names: Sequence[str]) -> Path:
    """Images, and without an ending folders of a few of these."""
    rng = np.random.default_rng(0)
    for name in names:
        inside = [root / name / f"{Path(name).name}_{k}.png" for k in "abc"]
        for path in [root / name] if name.endswith(".png") else inside:
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 250, (8, 8)).astype(np.uint8)).save(path)
    return root


def table(path: Path, header: str, lines: Sequence[str]) -> None:
    path.write_text("\n".join([header, *lines, ""]))


def refusal(root: Path) -> str:
    """In one sentence, the same by `vpt check` and of a training."""
    assert is_labelled(root)
    with pytest.raises(VptError) as caught:
        read_labelled(root)
    text = str(caught.value).removeprefix(f"{root}: ")
    assert check_dataset(root).errors[0].text == text.replace(f"{root}/", "")
    return text


def ham(root: Path) -> None:
    fill(root, [f"HAM10000_images_part_{1 + k // 6}/ISIC_{k}.png" for k in range(12)])
    lines = [f"L{k // 2},ISIC_{k},{('nv', 'mel', 'bcc')[k % 3]},80.0" for k in range(12)]
    table(root / "HAM10000_metadata.csv", "lesion_id,image_id,dx,age", lines)


def isic(root: Path) -> None:
    """A column of 0 and 1 for each class in the place of one with its name."""
    fill(root, [f"images_part_{1 + k // 6}/ISIC_{k}.png" for k in range(12)])
    lines = [f"ISIC_{k},{('1.0,0.0,0.0', '0.0,1.0,0.0', '0.0,0.0,1.0')[k % 3]}" for k in range(12)]
    table(root / "GroundTruth.csv", "image,MEL,NV,BCC", lines)


def nih(root: Path) -> None:
    fill(root, [f"images_{1 + k // 6:03}/images/{k:08}_000.png" for k in range(12)])
    lines = [f"{k:08}_000.png,{('Mass|Edema', 'No Finding')[k % 2]},{k},0.1,0.1," for k in range(12)]
    table(root / "Data_Entry_2017.csv", "Image Index,Finding Labels,Patient ID,Spacing[x,y],", lines)


def chexpert(root: Path) -> None:
    names = [f"train/patient0000{k}/study1/view1_frontal.png" for k in range(6)]
    names += [f"valid/patient0001{k}/study1/view1_frontal.png" for k in range(2)]
    fill(root, names)
    table(root / "train.csv", "Path,Sex,Edema", [f"CheXpert-v1.0-small/{name},Male,1.0" for name in names[:6]])


def coco(root: Path) -> None:
    fill(root, ["train2017", "val2017"])
    (root / "annotations").mkdir()
    (root / "annotations/instances_train2017.json").write_text(json.dumps({"images": [], "annotations": []}))


def ircadb(root: Path) -> None:
    for k in range(1, 4):
        fill(root, [f"3Dircadb1.{k}/PATIENT_DICOM", f"3Dircadb1.{k}/MASKS_DICOM/bone"])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (ham, "HAM10000_images_part_1, HAM10000_images_part_2 are called as parts of a set are, not as classes; give "),
        (ham, "give the list of the labels in the place of the folder ({root}/HAM10000_metadata.csv)"),
        (isic, "give the list of the labels in the place of the folder ({root}/GroundTruth.csv)"),
        (nih, "images_001, images_002 are called as parts of a set are"),
        (nih, "give the list of the labels in the place of the folder ({root}/Data_Entry_2017.csv)"),
        (chexpert, "patient00000, patient00001, patient00002 and 5 more are called as patients or their scans are"),
        (chexpert, f"train.csv names the images, so write {COLUMNS} by it"),
        (coco, "train2017, val2017 are called as sides of the split are"),
        (coco, "draw the boxes and polygons of annotations/instances_train2017.json as masks"),
        (ircadb, "3Dircadb1.1, 3Dircadb1.2, 3Dircadb1.3 each hold a folder of masks (MASKS_DICOM) beside others"),
    ],
)
def test_sets_whose_labels_stand_in_a_list(tmp_path: Path, make, said: str) -> None:
    root = tmp_path / "d"
    make(root)
    text = refusal(root)
    assert said.format(root=root) in text
    assert text.endswith("; or name them in data.classes, if they are classes all the same")


@pytest.mark.parametrize("make", [ham, isic, nih])
def test_the_list_that_is_named_can_be_read(tmp_path: Path, make) -> None:
    make(tmp_path / "d")
    named = Path(refusal(tmp_path / "d").partition("folder (")[2].partition(")")[0])
    assert len(read_labelled(named).cases) == 12


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["part_1", "part_2"], "parts of a set"),
        (["batch1", "batch2", "batch3"], "parts of a set"),
        (["Patient_01", "Patient_02"], "patients or their scans"),
        (["train/case1", "train/case2", "val/case3"], "patients or their scans"),
        (["Subject 7", "Subject 8"], "patients or their scans"),
        (["set-a-slide-07", "set-a-slide-08"], "patients or their scans"),
        (["001_patient", "002_patient"], "patients or their scans"),
        (["study1", "study2", "notes"], "patients or their scans"),
        (["train_images", "test_images"], "sides of the split"),
        (["a. Training Set", "b. Testing Set"], "sides of the split"),
        (["ISIC2018_Task3_Training_Input", "ISIC2018_Task3_Validation_Input"], "sides of the split"),
        (["MoNuSeg 2018 Training Data", "MoNuSegTestData"], "sides of the split"),
    ],
)
def test_names_of_parts_patients_and_sides(tmp_path: Path, names: list[str], what: str) -> None:
    text = refusal(fill(tmp_path / "d", names))
    assert f"are called as {what} are, not as classes; to classify, write {COLUMNS}" in text


@pytest.mark.parametrize(
    "names", [("PNG/Original", "PNG/Ground Truth"), ("Lung Mask/T/images", "Lung Mask/T/lung masks")]
)
def test_sets_to_segment_are_no_classes(tmp_path: Path, names: tuple[str, str]) -> None:
    """Their masks were trained as images of the classes."""
    root, other = tmp_path / "d", {"PNG": "TIF", "Lung Mask": "Infections"}[names[0].split("/")[0]]
    for name in names:
        for each in (name, name.replace(name.split("/")[0], other)):
            fill(root, [f"{each}/{k}.png" for k in range(3)])
    text = refusal(root)
    assert f"each hold a folder of masks ({names[1].split('/')[-1]}) beside others, as sets to segment do, not " in text
    assert "; to segment, name images and masks by `pairs` in dataset.json" in text


def test_sides_that_something_else_lies_beside(tmp_path: Path) -> None:
    root = fill(tmp_path / "d", ["train/cat", "train/dog", "val/cat", "val/dog", "chest_xray"])
    text = "train, val are called as sides of the split are, not as classes, which they are where chest_xray is not"
    assert f"{text} beside them" in refusal(root)


CLASSES = [
    ["01_TUMOR", "02_STROMA", "03_COMPLEX"],
    ["0", "1", "2", "3", "4"],
    ["grade_1", "grade_2"],
    ["level2", "level3"],
    ["class0", "class1"],
    ["stage 1", "stage 2"],
    ["scan_stage_1", "scan_stage_2"],
    ["kl_0", "kl_1"],
    ["birads_2", "birads_3"],
    ["images_10x", "images_40x"],
    ["glioma", "meningioma", "notumor", "pituitary"],
    ["with_mask", "without_mask"],
    ["patients", "controls"],
    ["patient", "control"],
    ["test_positive", "test_negative"],
    ["valid", "invalid"],
    ["train", "bus"],
    ["Training400", "Annotation-Training400"],
    ["train/cat", "train/dog", "val/cat", "val/dog", "test/cat", "test/dog"],
    ["cat/p1", "cat/p2", "dog/p3"],
    ["male/with_mask", "male/without_mask", "female/with_mask", "female/without_mask"],
    ["cat", "dog", "part_1", "bird", "horse"],
    ["Normal", "normal", "sick"],
    ["train/NORMAL", "train/PNEUMONIA", "test/Normal", "test/Pneumonia"],
    ["trainval/cat", "trainval/dog", "test/cat", "test/dog"],
]


@pytest.mark.parametrize("names", CLASSES, ids=lambda names: names[0])
def test_classes_are_read(tmp_path: Path, names: list[str]) -> None:
    root = fill(tmp_path / "d", names)
    sides = ("train/", "val/", "test/", "trainval/")
    expected = {name.split("/")[1 if name.startswith(sides) else 0] for name in names}
    assert {*read_labelled(root).classes} == expected


def test_numbered_classes_with_masks_of_the_same_names_are_read(tmp_path: Path) -> None:
    names = [f"grade_{g}/{part}/x{k}.png" for g in (1, 2) for part in ("images", "masks") for k in range(3)]
    found = read_labelled(fill(tmp_path / "d", names))
    assert (found.classes, len(found.cases), len(found.masks)) == (("grade_1", "grade_2"), 6, 6)


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ("image,age,sex", "im{k}.png,{k},F"),  # nothing of classes
        ("image,label", "im{k}.png,{folder}"),  # the folders' own
        ("image,label", "im{k}.png,{number}"),  # written as numbers
        ("image,label", "im{k}.png,{folder} {odd}"),  # finer
        ("image,label", "im{k}.png,1"),
        ("image,label", "other{k}.png,{odd}"),  # of other images
        ("image,label,group", "im{k}.png,b{odd},{folder}{odd}"),
        ("image,label", "im{k}.png,M{odd}"),  # of something else, such as sex
        ("filename,label,diagnosis", "im{k}.png,{odd},{folder}"),
    ],
)
def test_a_list_beside_classes_that_fits_them_or_says_nothing(tmp_path: Path, header: str, line: str) -> None:
    root = fill(tmp_path / "d", [f"{'ab'[k // 6]}/im{k}.png" for k in range(12)])
    lines = [line.format(k=k, folder="ab"[k // 6], number=k // 6, odd=k % 2) for k in range(12)]
    if header.endswith("group"):
        lines = [text.replace(",b", ",a" if int(text[2 : text.index(".")]) < 6 else ",b") for text in lines]
    table(root / "list.csv", header, lines)
    assert read_labelled(root).classes == ("a", "b")


@pytest.mark.parametrize("content", ["", "image,label\n", '"image,label\na', "a;b;c\n1\n"])
def test_a_file_that_is_no_list_says_nothing(tmp_path: Path, content: str) -> None:
    root = fill(tmp_path / "d", ["cat", "dog"])
    (root / "odd.csv").write_text(content)
    assert read_labelled(root).classes == ("cat", "dog")


def test_classes_that_are_named_are_classes(tmp_path: Path) -> None:
    root = fill(tmp_path / "d", ["batch1", "batch2", "batch3"])
    assert read_labelled(root, classes=["batch1", "batch2", "batch3"]).classes == ("batch1", "batch2", "batch3")
    assert read_labelled(root, only=["batch1", "batch3"]).classes == ("batch1", "batch3")
    table(root / "labels.csv", "path,label", [f"batch{k}/batch{k}_a.png,batch{k}" for k in (1, 2)])
    assert read_labelled(root).classes == ("batch1", "batch2")


def test_what_lies_in_trainval_beside_train_and_val_is_no_case_twice(tmp_path: Path) -> None:
    sides = {"train": (1, 2), "val": (3,), "trainval": (1, 2, 3), "test": (4,)}
    names = [f"{side}/{name}/im{k}.png" for side, numbers in sides.items() for name in ("cat", "dog") for k in numbers]
    found = read_labelled(fill(tmp_path / "d", names))
    assert not [case.name for case in found.cases if "trainval" in case.name]
    assert len(found.cases) == 8


def test_the_set_once_more_in_one_of_its_folders_is_no_class(tmp_path: Path) -> None:
    fill(tmp_path, ["yes", "no", "brain_tumor_dataset/yes", "brain_tumor_dataset/no"])

    assert refusal(tmp_path) == (
        "the folder brain_tumor_dataset holds folders called as those beside it (no, yes), as the set once more; take "
        "it out; or name them in data.classes, if they are classes all the same"
    )
    shutil.rmtree(tmp_path / "brain_tumor_dataset")
    assert read_labelled(tmp_path).classes == ("no", "yes")


def test_the_set_with_its_sides_once_more_is_no_class(tmp_path: Path) -> None:
    sides = [f"{side}/{name}" for side in ("train", "val", "test") for name in ("NORMAL", "PNEUMONIA")]
    fill(tmp_path, [*sides, *(f"chest_xray/{each}" for each in sides)])

    assert "chest_xray holds folders called as those beside it (test, train, val)" in refusal(tmp_path)
    shutil.rmtree(tmp_path / "chest_xray")
    assert read_labelled(tmp_path).classes == ("NORMAL", "PNEUMONIA")


def test_numbered_patients_in_numbered_classes_are_no_set_once_more(tmp_path: Path) -> None:
    fill(tmp_path, [f"{grade}/{patient}" for grade in range(3) for patient in range(1, 5)])

    assert read_labelled(tmp_path).classes == ("0", "1", "2")
    shutil.copytree(tmp_path, tmp_path / "data")
    assert "the folder data holds folders called as those beside it (0, 1, 2)" in refusal(tmp_path)


def test_a_list_that_names_the_images_beside_an_id_of_its_own_is_named(tmp_path: Path) -> None:
    fill(tmp_path, [f"part_{1 + k // 6}/a{k}.png" for k in range(12)])
    table(
        tmp_path / "list.csv",
        "image_id,filepath,label",
        [f"x{k},part_{1 + k // 6}/a{k}.png,{k % 2}" for k in range(12)],
    )

    assert f"give the list of the labels in the place of the folder ({tmp_path / 'list.csv'})" in refusal(tmp_path)
    assert read_labelled(tmp_path / "list.csv").classes == ("0", "1")


@pytest.mark.parametrize("header", ["image,mask,patient", "Scan;Segmentation;age"])
def test_folders_of_images_and_of_the_masks_of_a_list_are_no_classes(tmp_path: Path, header: str) -> None:
    fill(tmp_path, ["pictures", "outlines"])
    sign = ";" if ";" in header else ","
    lines = [sign.join((f"pictures/pictures_{k}.png", f"outlines/outlines_{k}.png", k)) for k in "abc"]
    table(tmp_path / "cases.csv", header, lines)

    assert refusal(tmp_path) == (
        "cases.csv lists images of these folders as masks of others, so that the folders are no classes; give the list "
        f"in the place of the folder ({tmp_path}/cases.csv); or name them in data.classes, if they are classes all the "
        "same"
    )
    assert not is_labelled(tmp_path / "cases.csv")
    assert read_labelled(tmp_path, classes=["outlines", "pictures"]).classes == ("outlines", "pictures")


def test_classes_with_a_list_of_masks_elsewhere_are_classes(tmp_path: Path) -> None:
    fill(tmp_path, ["ill", "well"])
    fill(tmp_path / ".masks", [f"{k}.png" for k in "abc"])
    table(tmp_path / "cases.csv", "image,mask", [f"ill/ill_{k}.png,.masks/{k}.png" for k in "abc"])

    assert read_labelled(tmp_path).classes == ("ill", "well")


def test_images_without_a_label_are_no_class(tmp_path: Path) -> None:
    fill(tmp_path, ["labeled-images/lower/cecum", "labeled-images/upper/z-line", "unlabeled-images/images"])

    assert refusal(tmp_path) == (
        "the folder unlabeled-images is called as images without a label are, not as a class; take it out, or give the "
        "folder of the labelled ones in the place of this one; or name them in data.classes, if they are classes all "
        "the same"
    )
    assert read_labelled(tmp_path / "labeled-images").classes == ("lower", "upper")


@pytest.mark.parametrize("names", [["a", "b/a"], ["a", "b", "c/a"], ["labelled", "other"]])
def test_a_folder_called_as_another_class_is_no_set_once_more(tmp_path: Path, names: list[str]) -> None:
    assert len(read_labelled(fill(tmp_path, names)).classes) == len(names)
