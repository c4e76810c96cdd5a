"""Photographs in few colours in the place of masks are told of; labels in colours are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from vpt.data.check import check_dataset
from vpt.data.doubts import pictures_as_masks
from vpt.data.doubts.said import doubts_of
from vpt.data.layouts import read_dataset
from vpt.data.splits import read_splits

TOLD = "look like these in few colours, so that shades would count as labels"
COLOURS = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128]  # those of Pascal VOC


@pytest.fixture
def lay(tmp_path: Path) -> Callable[..., Path]:
    """lay(mask): photographs, and masks that are made of each, and of all beside each other."""

    def lay(mask: Callable[[Image.Image, Image.Image], Image.Image]) -> Path:
        rng = np.random.default_rng(0)
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir()
        images = []
        for _ in range(6):
            own = np.stack([gaussian_filter(rng.normal(size=(48, 56)), 4) for _ in range(3)], -1)
            common = gaussian_filter(rng.normal(size=(48, 56)), 8)[..., None]
            seen = 110 + 20 * own / own.std() + 40 * common / common.std()
            images.append(np.clip(seen, 0, 255).astype(np.uint8))
        for k, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / "images" / f"{k}.png")
            mask(Image.fromarray(image), Image.fromarray(np.hstack(images))).save(tmp_path / "masks" / f"{k}.png")
        return tmp_path

    return lay


def told(root: Path) -> list[bool]:
    """By `vpt check`, and by `vpt train`."""
    dataset = read_dataset(root)
    checked = [str(problem) for problem in check_dataset(root).problems]
    return [any(TOLD in text for text in texts) for texts in (checked, doubts_of(dataset, read_splits(dataset)))]


@pytest.mark.slow
@pytest.mark.parametrize("colours", [4, 8, 20])
def test_pictures_with_one_palette_of_few_colours_are_no_masks(lay, colours):
    def few(image: Image.Image, every: Image.Image) -> Image.Image:
        return image.quantize(palette=every.quantize(colours), dither=Image.Dither.NONE)

    assert told(lay(few)) == [True, True]


@pytest.mark.parametrize("grey", [True, False])
def test_labels_that_follow_the_picture_are_masks(lay, grey):
    """Tissues by their brightness, in grey or in colours that mean nothing."""

    def labels(image: Image.Image, every: Image.Image) -> Image.Image:
        ids = np.digitize(np.asarray(image.convert("L")), [70, 110, 150]).astype(np.uint8)
        if grey:
            return Image.fromarray(ids * 85)
        mask = Image.fromarray(ids).convert("P")
        mask.putpalette(COLOURS)
        return mask

    assert told(lay(labels)) == [False, False]


def test_colours_of_masks_that_are_unlike_the_pictures_are_not_counted(lay, monkeypatch):
    """Which takes seconds of a large one."""

    def labels(image: Image.Image, every: Image.Image) -> Image.Image:
        mask = Image.fromarray(np.digitize(np.asarray(image.convert("L")), [70, 110, 150]).astype(np.uint8), "P")
        mask.putpalette(COLOURS)
        return mask

    counted: list[int] = []
    monkeypatch.setattr(pictures_as_masks, "_count_colours", lambda seen: counted.append(1) or 9)
    assert told(lay(labels)) == [False, False]
    assert counted == []
