"""A list that gives an image the mask of another is told by the names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vpt.data.cases import Case
from vpt.data.check import check_dataset
from vpt.data.doubts.crossed_names import crossed_names
from vpt.data.doubts.said import doubts_of
from vpt.data.layouts import read_dataset
from vpt.data.splits import read_splits


def cases(*pairs: tuple[str, str]) -> list[Case]:
    return [Case(str(k), (Path(image),), Path(mask)) for k, (image, mask) in enumerate(pairs)]


@pytest.mark.parametrize(
    ("pairs", "count"),
    [
        ([("im/a.png", "ma/b.png"), ("im/b.png", "ma/a.png"), ("im/c.png", "ma/c.png")], 2),
        ([("im/img_1.png", "ma/mask_2.png"), ("im/img_2.png", "ma/mask_3.png"), ("im/img_3.png", "ma/mask_4.png")], 2),
        ([("p1/imaging.nii.gz", "p2/segmentation.nii.gz"), ("p2/imaging.nii.gz", "p1/segmentation.nii.gz")], 2),
    ],
)
def test_masks_that_are_called_as_other_images_are_told(pairs: list[tuple[str, str]], count: int) -> None:
    said = crossed_names(cases(*pairs))

    image, mask = pairs[0]
    assert said.startswith(f"{count} of {len(pairs)} images have masks called as other images ({image} has {mask}")


@pytest.mark.parametrize(
    "pairs",
    [
        [("im/a.png", "ma/a.png"), ("im/b.png", "ma/b.png")],
        [("im/a.png", "ma/x1.png"), ("im/b.png", "ma/x2.png")],
        [("im/a.png", "ma/a.png"), ("im/b.png", "ma/a.png")],
        [("p1/ct.nii.gz", "p1/seg.nii.gz"), ("p2/ct.nii.gz", "p2/seg.nii.gz")],
        [("s1/p1/ct.nii.gz", "s1/p1/seg.nii.gz"), ("s2/p1/ct.nii.gz", "s2/p1/seg.nii.gz")],
        [],
    ],
)
def test_other_names_say_nothing(pairs: list[tuple[str, str]]) -> None:
    assert crossed_names(cases(*pairs)) == ""


def test_check_and_training_say_it_of_a_list(make_dataset) -> None:
    root = make_dataset("msd")
    content = json.loads((root / "dataset.json").read_text())
    first, second, *_ = content["training"]
    first["label"], second["label"] = second["label"], first["label"]
    (root / "dataset.json").write_text(json.dumps(content))
    said = "2 of 4 images have masks called as other images (imagesTr/case_00.nii.gz has labelsTr/case_01.nii.gz"

    dataset = read_dataset(root)
    assert any(said in text for text in doubts_of(dataset, read_splits(dataset)))
    assert any(said in each.text for each in check_dataset(root).warnings)
