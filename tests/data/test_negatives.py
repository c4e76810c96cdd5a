"""A data set of which a part is negated is told by its two groups; one whose images are merely varied is not."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from vpt.data.cases import SegmentationSet
from vpt.data.check import check_dataset
from vpt.data.doubts.likeness import steps_of
from vpt.data.doubts.negatives import Seen, negatives
from vpt.data.doubts.said import doubts_of
from vpt.data.layouts import read_dataset
from vpt.data.splits import read_splits
from vpt.data.values import values_of
from vpt.readers import reader_of

Draw = Callable[[np.random.Generator], np.ndarray]
SIDE = 64


def chest(rng: np.random.Generator) -> np.ndarray:
    """Two dark lungs in light tissue, black around it, as radiographs are."""
    y, x = np.indices((SIDE, SIDE)) / SIDE + rng.normal(0, 0.02, (2, 1, 1))
    body = np.hypot((x - 0.5) / 0.5, (y - 0.55) / 0.6) < 1
    lungs = sum(np.hypot((x - at) / 0.15, (y - 0.5) / 0.3) < rng.uniform(0.8, 1.1) for at in (0.3, 0.7)) > 0
    image = 200.0 * body - 90.0 * lungs
    return np.clip(ndimage.gaussian_filter(image, 1.5) + rng.normal(0, 6, image.shape) + 8, 0, 255)


def lesion(rng: np.random.Generator) -> np.ndarray:
    """A dark spot anywhere on light skin."""
    y, x = np.indices((SIDE, SIDE))
    spot = np.hypot(y - rng.uniform(20, 44), x - rng.uniform(20, 44)) < rng.uniform(6, 12)
    image = 190 + 20 * rng.standard_normal() * 0.5 - rng.uniform(70, 120) * spot
    return np.clip(ndimage.gaussian_filter(image, 2) + rng.normal(0, 5, (SIDE, SIDE)), 0, 255)


def head(rng: np.random.Generator) -> np.ndarray:
    """Grey in a light skull, black around it."""
    y, x = np.indices((SIDE, SIDE)) / SIDE
    far = np.hypot((x - 0.5) / rng.uniform(0.3, 0.4), (y - 0.5) / rng.uniform(0.38, 0.45))
    return np.clip(90.0 * (far < 1) + 120.0 * ((far > 0.9) & (far < 1)) + rng.normal(0, 4, far.shape), 0, 255)


def anything(rng: np.random.Generator) -> np.ndarray:
    """Light and dark alike, as photographs of all kinds are."""
    image = ndimage.gaussian_filter(rng.normal(0, 1, (SIDE, SIDE)), rng.uniform(3, 12))
    return np.clip(rng.uniform(60, 200) + rng.uniform(30, 70) * image / image.std(), 0, 255)


def breast(rng: np.random.Generator) -> np.ndarray:
    """Tissue at the left or at the right, as mammograms of both sides."""
    y, x = np.indices((SIDE, SIDE)) / SIDE
    image = 150.0 * (np.hypot(x / rng.uniform(0.4, 0.7), (y - 0.5) / 0.45) < 1) + rng.normal(0, 5, x.shape)
    return np.clip(image[:, ::-1] if rng.random() < 0.5 else image, 0, 255)


def seen(draw: Draw, count: int, odd: int) -> list[Seen]:
    found = []
    for number in range(count):
        pixels = np.rint(draw(np.random.default_rng(number)))
        voxels = reader_of((255 - pixels if number < odd else pixels).astype(np.uint8)).voxels(1)
        found.append(Seen(f"images/c{number}.png", values_of(voxels), steps_of(voxels.values(), "images")))
    return found


@pytest.mark.parametrize("odd", [8, 16, 20])
@pytest.mark.parametrize("draw", [chest, lesion, head, breast])
def test_a_negated_part_is_told_with_its_files(draw: Draw, odd: int) -> None:
    ((file, text),) = negatives(seen(draw, 40, odd), "images")
    assert file == "images/c0.png"
    assert text.startswith(f"{odd} of 40 images (c0.png, c1.png, c2.png and {odd - 3} more) are light where the others")


@pytest.mark.parametrize("count", [20, 40, 100])
@pytest.mark.parametrize("draw", [chest, lesion, head, breast, anything])
def test_sound_sets_are_not_doubted(draw: Draw, count: int) -> None:
    assert negatives(seen(draw, count, 0), "images") == []


def test_two_kinds_of_images_are_no_negatives() -> None:
    assert negatives([*seen(chest, 20, 0), *seen(head, 20, 0)], "images") == []
    assert negatives([*seen(chest, 20, 0), *seen(anything, 20, 0)], "images") == []


def test_what_was_told_is_not_told_again_and_few_tell_nothing() -> None:
    assert negatives(seen(chest, 40, 8), "images", ["x: light where they are dark, and"]) == []
    assert negatives(seen(chest, 19, 9), "images") == []


@pytest.fixture
def half_negated(tmp_path: Path) -> Path:
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for number in range(24):
        pixels = np.rint(chest(np.random.default_rng(number))).astype(np.uint8)
        Image.fromarray(pixels if number % 2 else 255 - pixels).save(tmp_path / "images" / f"c{number:02}.png")
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[20:44, 14 : 24 + number % 5] = 255
        Image.fromarray(mask).save(tmp_path / "masks" / f"c{number:02}.png")
    return tmp_path


def test_check_and_training_say_it(half_negated: Path) -> None:
    said = "12 of 24 images (c00.png, c02.png, c04.png and 9 more) are light where the others are dark"
    found = [str(problem) for problem in check_dataset(half_negated).problems if "light where" in problem.text]
    assert len(found) == 1
    assert found[0].startswith(f"warning: images/c00.png: {said}")

    dataset = read_dataset(half_negated)
    (doubt,) = [text for text in doubts_of(dataset, read_splits(dataset)) if "light where" in text]
    assert doubt.startswith(f"{half_negated}: 12 of 24 images (")


# --- volumes ----------------------------------------------------------------------------------------------------------


def head_in_slices(seed: int) -> np.ndarray:
    """(X, Y, Z) of MR: a skull around grey, slice by slice."""
    rng = np.random.default_rng(seed)
    return np.stack([head(rng)[::2, ::2] for _ in range(6)], axis=2).astype(np.int16)


def head_set(root: Path, count: int, odd: Sequence[int], tested: Sequence[int] = ()) -> SegmentationSet:
    for folder in ("scans", "masks"):
        (root / folder).mkdir()
    for number in range(count):
        voxels = head_in_slices(number)
        label = np.zeros(voxels.shape, np.uint8)
        label[12:20, 12 : 18 + number % 3, 1:5] = 1
        for folder, array in (("scans", 255 - voxels if number in odd else voxels), ("masks", label)):
            nib.save(nib.Nifti1Image(array, np.eye(4)), root / folder / f"h{number:02}.nii.gz")
    names = [f"h{number:02}" for number in range(count)]
    test = [names[number] for number in tested]
    rest = [name for name in names if name not in test]
    (root / "split.json").write_text(json.dumps({"train": rest[2:], "val": rest[:2], "test": test}))
    return read_dataset(root)


def doubted(dataset: SegmentationSet) -> list[str]:
    return [text for text in doubts_of(dataset, read_splits(dataset)) if "light where" in text]


@pytest.mark.slow
@pytest.mark.parametrize("odd", [[3], [0, 5], range(0, 24, 3), range(12), range(0, 24, 2)])
def test_negated_volumes_are_told_before_training_too(tmp_path: Path, odd: Sequence[int]) -> None:
    dataset = head_set(tmp_path, 24, odd)
    checked = [problem for problem in check_dataset(tmp_path).problems if "light where" in problem.text]
    said = doubted(dataset)
    assert len(said) == len(checked) > 0
    assert all(problem.text in text for problem, text in zip(checked, said, strict=True))


@pytest.mark.parametrize(
    ("count", "odd", "tested"), [(24, [], []), (8, [], []), (24, range(6), range(6)), (4, [1], [])]
)
def test_sound_volumes_and_those_that_are_tested_are_not(
    tmp_path: Path, count: int, odd: Sequence[int], tested: Sequence[int]
) -> None:
    assert doubted(head_set(tmp_path, count, odd, tested)) == []


def test_volumes_that_would_take_long_are_not_all_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = head_set(tmp_path, 24, range(12))
    monkeypatch.setattr("vpt.data.doubts.said.MOST_VOXELS", 4 * 32 * 32 * 6)
    assert doubted(dataset) == []
