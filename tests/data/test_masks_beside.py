"""Masks among the images of class folders are no cases: they are left out by their names, and that is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vpt.data.check_labelled import check_labelled
from vpt.data.doubts.said import doubts_of
from vpt.data.layouts import read_labelled
from vpt.data.splits import read_splits


def picture(path: Path, seed: int, is_mask: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 250, (32, 32)).astype(np.uint8)
    Image.fromarray(np.where(pixels > 125, 255, 0).astype(np.uint8) if is_mask else pixels).save(path)


def pictures(root: Path, names: list[str], per_class: int = 6) -> Path:
    """names: with `{c}` for the class and `{k}` for the number of an image."""
    seed = 0
    for name in ("benign", "malignant"):
        for k in range(per_class):
            for each in names:
                picture(root / name / f"{each.format(c=name, k=k)}.png", seed := seed + 1, "mask" in each.lower())
    return root


@pytest.mark.parametrize(
    ("image", "masks"),
    [
        ("{c} ({k})", ["{c} ({k})_mask"]),  # BUSI
        ("{c} ({k})", ["{c} ({k})_mask", "{c} ({k})_mask_1"]),
        ("p{k}_image", ["p{k}_mask"]),
        ("P{k}", ["P{k}Mask"]),
        ("p{k}", ["masks/p{k}"]),
        ("images/p{k}", ["masks/p{k}"]),
        ("pat{k}/scan", ["pat{k}/mask"]),
        ("pat{k}/a.jpg", ["pat{k}/a.jpg_mask"]),
    ],
)
def test_masks_are_no_cases(tmp_path: Path, image: str, masks: list[str]) -> None:
    root = pictures(tmp_path / "d", [image, *masks])
    found = read_labelled(root)
    assert [case.name for case in found.cases] == sorted(
        f"{name}/{image.format(c=name, k=k)}" for name in ("benign", "malignant") for k in range(6)
    )
    assert len(found.masks) == 12 * len(masks)
    text = f"{12 * len(masks)} files are masks of images beside by name and left out (benign/"
    (said,) = [doubt for doubt in doubts_of(found, read_splits(found)) if "left out" in doubt]
    assert said.startswith(text)
    texts = [each.text for each in check_labelled(root).problems if "left out" in each.text or "not read" in each.text]
    assert texts == [said]


@pytest.mark.parametrize("side", ["", "train/", "val/"])
def test_in_folders_of_sides_too(tmp_path: Path, side: str) -> None:
    for name in ("a", "b"):
        for each in ("train/", "val/") if side else ("",):
            picture(tmp_path / f"{each}{name}/1.png", 1), picture(tmp_path / f"{each}{name}/1_mask.png", 2, True)
    found = read_labelled(tmp_path)
    assert [case.name for case in found.cases] == [
        f"{each}{name}/1" for each in (("train/", "val/") if side else ("",)) for name in ("a", "b")
    ]


def test_a_split_that_lists_them_is_read(tmp_path: Path) -> None:
    root = pictures(tmp_path / "d", ["{k}", "{k}_mask"])
    names = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*.png"))]
    (root / "split.json").write_text(json.dumps({"train": names[4:], "val": names[:4]}))
    splits = read_splits(read_labelled(root))
    assert not any("mask" in name for name in (*splits.train, *splits.val))
    assert len(splits.val) == 2


@pytest.mark.parametrize(
    "names",
    [
        {"with_mask": "with_mask_{}", "without_mask": "without_mask_{}"},
        {"mask": "{}", "no_mask": "{}"},
        {"faces": "face_mask_{}", "others": "mask {}"},
        {"male": "mask/{}", "female": "no_mask/{}"},
        {"labels_read": "{}_label", "blank": "{}"},
        {"people": "seg", "cars": "mask"},
    ],
)
def test_images_that_have_a_word_for_masks_alone_are_images(tmp_path: Path, names: dict[str, str]) -> None:
    for folder, name in names.items():
        for k in range(3):
            picture(tmp_path / folder / f"{name.format(k)}.png", k), picture(tmp_path / folder / f"x{k}.png", k + 50)
    found = read_labelled(tmp_path)
    assert found.masks == ()
    assert len(found.cases) == sum(1 for _ in tmp_path.rglob("*.png"))
