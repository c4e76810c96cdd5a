"""Boxes and polygons in the files of the usual tools are refused by name, with the way out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vpt.data.check import check_dataset
from vpt.data.doubts.drawn import drawn_as
from vpt.data.layouts import survey
from vpt.errors import VptError

LABELME = {"version": "5", "shapes": [{"label": "a", "points": [[1, 1]]}], "imagePath": "0.jpg", "imageData": "A" * 99}
VIA = {"0.jpg9": {"filename": "0.jpg", "regions": [{"shape_attributes": {"name": "polygon"}}]}}
COCO = {"images": [{"id": 1}], "annotations": [{"segmentation": [[1, 1]] * 20_000}], "categories": [{"id": 1}]}
FILES = {  # what a set holds beside images in images/ -> whose it is
    "labels/train/0.txt": ("0 0.5 0.5 0.2 0.3\n1 0.1 1 0.25 0.5\n", "YOLO"),
    "labels/0.txt": ("0 0.5 0.5 0.2 0.3 0.4 0.25\n", "YOLO"),
    "labels/1.txt": ("0 0.5 0.5 2e-1 1.000001 0.4 0.25 2\n", "YOLO"),
    "images/0.json": (json.dumps(LABELME, indent=2), "LabelMe"),
    "annotations/0.json": (json.dumps(LABELME), "LabelMe"),
    "via_region_data.json": (json.dumps(VIA), "VIA"),
    "annotations.json": (json.dumps(COCO), "COCO"),
    "train/_annotations.coco.json": ("{}", "COCO"),
    "Annotations/0.xml": ("<annotation><filename>0.jpg</filename><object></object></annotation>", "Pascal VOC"),
    "Annotations/1.xml": ('<?xml version="1.0"?><Annotations><Annotation Id="1"><Vertex X="1"/>', "Aperio ImageScope"),
    "1.xml": ('<ASAP_Annotations><Annotations><Coordinate Order="0" X="1"/>', "ASAP"),
}


def pictures(root: Path, folder: str) -> Path:
    (root / folder).mkdir(parents=True, exist_ok=True)
    for k in range(3):
        Image.fromarray(np.full((9, 9), 50 * k, np.uint8)).save(root / folder / f"{k}.jpg")
    return root


def put(root: Path, file: str) -> str:
    text, whose = FILES[file]
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(text)
    return whose


@pytest.mark.parametrize("folder", ["images", "images/train", "JPEGImages"])
@pytest.mark.parametrize("file", FILES)
def test_a_set_that_has_them_in_the_place_of_masks_is_refused(file, folder, tmp_path):
    whose = put(pictures(tmp_path, folder), file)

    with pytest.raises(
        VptError, match=f"no masks.*1 file of boxes and polygons as {whose} has them not read: {file}; dr"
    ):
        survey(tmp_path)


def test_other_texts_are_none(tmp_path):
    for name, text in (
        ("a.txt", "0 0.5 0.5\n"),
        ("b.txt", "notes of 5 images\n"),
        ("c.txt", ""),
        ("bvals.txt", "0 1000 1000 2000 2000\n"),
        ("bvecs.txt", "0 0.5 -0.5 0.2 0.3\n0 0.1 0.1 0.1 -0.9\n0 0.8 0.8 0.1 0.1\n"),
        ("affine.txt", "1 0 0 0 -90 2 0 0\n"),
        ("d.json", json.dumps({"images": 3})),
        ("e.xml", "<data></data>"),
        ("f.csv", "0 0.5 0.5 0.2 0.3\n"),
    ):
        (tmp_path / name).write_text(text)
        assert drawn_as(tmp_path / name) == ""
    assert drawn_as(tmp_path / "gone.json") == ""


def test_beside_masks_they_are_told(make_images):
    root = make_images()
    put(root, "labels/0.txt")

    texts = [str(problem) for problem in check_dataset(root).problems]

    assert any("1 file of boxes and polygons as YOLO has them not read: labels/0.txt" in text for text in texts)


@pytest.mark.parametrize("folder", ["images", "ISIC2018_Task3_Training_Input"])
def test_a_list_beside_images_is_named(folder, tmp_path):
    pictures(tmp_path, folder)
    (tmp_path / "truth.csv").write_text("image,MEL,NV\n0,1,0\n1,0,1\n2,1,0\n")

    with pytest.raises(VptError, match=r"give the list in the place of the folder \(.*truth.csv\)"):
        survey(tmp_path)
