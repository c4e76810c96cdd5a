"""A soft mask that was dithered to 1 bit is told by the single pixels at its edges; thin masks are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from vpt.data.check import check_dataset
from vpt.data.doubts.mask_looks import look_at, mask_doubts
from vpt.data.doubts.scattered import dithered, scatter_of

BAYER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]) * 16 + 8


def disc(number: int, side: int = 96, radius: int = 24) -> np.ndarray:
    """(side, side) of False and True."""
    rng = np.random.default_rng(number)
    y, x = np.indices((side, side))
    centre = rng.integers(radius, side - radius, 2)
    return np.asarray(np.hypot(y - centre[0], x - centre[1]) < radius * rng.uniform(0.7, 1))


def soft(number: int, blur: float) -> np.ndarray:
    return ndimage.gaussian_filter(disc(number).astype(float), blur) * 255


def diffused(number: int, blur: float) -> np.ndarray:
    """Floyd and Steinberg's error diffusion, which Pillow does wherever it makes 1 bit of grey."""
    return np.array(Image.fromarray(soft(number, blur).astype(np.uint8)).convert("1"))


DITHERED: dict[str, Callable[[int], np.ndarray]] = {
    "diffused, sharp": lambda k: diffused(k, 1.0),
    "diffused": lambda k: diffused(k, 2.0),
    "diffused, soft": lambda k: diffused(k, 5.0),
    "ordered": lambda k: soft(k, 3) > np.tile(BAYER, (24, 24)),
    "at random": lambda k: soft(k, 3) > np.random.default_rng(k).integers(0, 255, (96, 96)),
}
SOUND: dict[str, Callable[[int], np.ndarray]] = {
    "discs": disc,
    "thresholded": lambda k: soft(k, 3) > 127,
    "boxes": lambda k: np.pad(np.ones((20 + k, 30), bool), ((10, 66 - k), (10, 56))),
    "vessels": lambda k: np.indices((96, 96)).sum(0) % 24 == 0,
    "dots": lambda k: np.random.default_rng(k).random((96, 96)) < 0.01,
    "a rough outline": lambda k: soft(k, 3) + ndimage.gaussian_filter(
        np.random.default_rng(k).normal(0, 200, (96, 96)), 1.5) > 127,
    "nothing": lambda k: np.zeros((96, 96), bool),
}  # fmt: skip


def doubts(draw: Callable[[int], np.ndarray]) -> list[str]:
    return dithered([scatter_of(f"c{k}", draw(k).astype(np.uint8)[..., None] * 255) for k in range(4)])


@pytest.mark.parametrize("how", DITHERED)
def test_dithering_leaves_single_pixels(how: str) -> None:
    (found,) = doubts(DITHERED[how])
    assert found.startswith("4 of 4 masks (c0, c1, c2 and 1 more) have edges strewn with single pixels (")
    assert found.endswith("threshold the soft mask instead, without dithering")


@pytest.mark.parametrize("how", SOUND)
def test_sound_masks_have_none(how: str) -> None:
    assert doubts(SOUND[how]) == []


@pytest.mark.parametrize(("same", "said"), [(10, True), (8, True), (7, False), (0, False)])
def test_one_mask_for_many_cases(same: int, said: bool) -> None:
    masks = [disc(0 if number < same else number).astype(np.uint8)[..., None] for number in range(10)]
    looks = [look_at(f"c{number}", mask, {0, 1}) for number, mask in enumerate(masks)]
    empty = [look_at(f"e{number}", np.zeros((96, 96, 1), np.uint8), {0}) for number in range(6)]

    found = mask_doubts([*looks, *empty], {0: "background", 1: "object"}, "images")

    listed = f"c0, c1, c2 and {same - 3} more"
    assert found == [f"{same} of 16 masks ({listed}) are the same, pixel for pixel; is that so?"] * said


def test_check_tells_images_that_are_their_masks(tmp_path: Path) -> None:
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
        for number in range(6):
            drawn = disc(number).astype(np.uint8) * np.uint8(255 if part == "masks" else 90)
            if part == "images" and number > 1:
                drawn = drawn + np.random.default_rng(number).integers(0, 90, drawn.shape).astype(np.uint8)
            Image.fromarray(drawn).save(tmp_path / part / f"c{number}.png")

    told = [problem for problem in check_dataset(tmp_path).problems if "the same as its mask" in problem.text]

    assert [Path(problem.file).name for problem in told] == ["c0.png", "c1.png"]


@pytest.mark.parametrize("odd", [0, 2])
def test_check_names_the_dithered_masks(tmp_path: Path, odd: int) -> None:
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for number in range(6):
        mask = diffused(number, 2.0) if number < odd else disc(number)
        image = np.random.default_rng(number).integers(40, 90, mask.shape) + 100 * disc(number)
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / "images" / f"c{number}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "masks" / f"c{number}.png")

    found = [str(problem) for problem in check_dataset(tmp_path).problems if "single pixels" in problem.text]

    assert len(found) == (odd > 0)
    assert all("warning: masks: 2 of 6 masks (c0, c1) have edges" in text for text in found)
