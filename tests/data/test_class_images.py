"""Folders of masks that count as a class, and classes that their files alone tell apart, are told; others are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vpt.data.check_labelled import check_labelled
from vpt.data.doubts.class_names import class_doubts
from vpt.data.doubts.said import doubts_of
from vpt.data.layouts import read_labelled
from vpt.data.splits import read_splits

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
    ],
)
def test_sound_names(names: list[str]) -> None:
    assert class_doubts(names) == []
