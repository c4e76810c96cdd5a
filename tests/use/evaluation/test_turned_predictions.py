"""Predictions that lie mirrored or turned on their references are told, and poor ones are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from vpt.use.evaluation.scoring import evaluate
from vpt.use.evaluation.turned_predictions import SIDE, agreements, turned_predictions

SHAPES = {"volumes": (24, 24, 24), "images": (64, 64, 1)}


def ball(seed: int, shape: tuple[int, ...], off: int = 0) -> np.ndarray:
    """Two labels, somewhere else in each case; off: by so many voxels."""
    rng = np.random.default_rng(seed)
    places = np.indices(shape)
    radius = max(shape) / 5
    found = np.zeros(shape, np.uint8)
    for label in (1, 2):
        centre = [0 if side == 1 else rng.uniform(radius, side - radius) + off for side in shape]
        found[sum((place - c) ** 2 for place, c in zip(places, centre, strict=True)) < radius**2] = label
    return found


def saved(folder: Path, kind: str, change: Callable[[np.ndarray], np.ndarray], off: int = 0, count: int = 6) -> Path:
    folder.mkdir()
    for seed in range(count):
        labels = np.ascontiguousarray(change(ball(seed, SHAPES[kind], off)))
        if kind == "images":
            Image.fromarray(labels[..., 0].T * np.uint8(100)).save(folder / f"c{seed}.png")
        else:
            nib.save(nib.Nifti1Image(labels, np.eye(4)), folder / f"c{seed}.nii.gz")
    return folder


WAYS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "x": (lambda labels: labels[::-1], "reversed along the first axis|mirrored left to right"),
    "y": (lambda labels: labels[:, ::-1], "reversed along the second axis|mirrored top to bottom"),
    "turned": (lambda labels: labels.swapaxes(0, 1)[::-1], "turned by 90 degrees to the left"),
    "transposed": (lambda labels: labels.swapaxes(0, 1), "transposed"),
    "z": (lambda labels: labels[..., ::-1], "reversed along the third axis"),
    "zyx": (lambda labels: labels.transpose(2, 1, 0), "with the axes in the order z, y, x"),
    "zxy": (lambda labels: labels.transpose(2, 0, 1), "with the axes in the order y, z, x"),
}


@pytest.mark.parametrize(
    ("kind", "way"), [(kind, way) for kind in SHAPES for way in WAYS if kind == "volumes" or "z" not in way]
)
def test_the_way_in_which_predictions_lie_is_told(tmp_path, kind: str, way: str) -> None:
    change, said = WAYS[way]
    truth, found = saved(tmp_path / "truth", kind, lambda labels: labels), saved(tmp_path / "found", kind, change, 1)
    told = [doubt for doubt in evaluate(found, truth).doubts if "agree far better" in doubt.text]

    assert [doubt.side for doubt in told] == ["predictions"]
    assert any(
        f"6 of 6 masks agree far better with the references {each} (" in told[0].text for each in said.split("|")
    )


@pytest.mark.parametrize("kind", SHAPES)
def test_sound_poor_and_few_predictions_are_not(tmp_path, kind: str) -> None:
    def told(change: Callable[[np.ndarray], np.ndarray], off: int, count: int = 6) -> bool:
        here = tmp_path / f"{off}{count}"
        here.mkdir()
        truth = saved(here / "truth", kind, lambda labels: labels, count=count)
        found = saved(here / "found", kind, change, off, count)
        return any("agree far better" in doubt.text for doubt in evaluate(found, truth).doubts)

    assert not told(lambda labels: labels, 1)
    assert not told(lambda labels: labels, 7)
    assert not told(lambda labels: labels[::-1], 0, count=2)


@pytest.mark.parametrize("side", [1, 5, SIDE, 200, 2 * SIDE, 3 * SIDE, 3 * SIDE + 1, 517])
def test_large_maps_are_thinned_alike_from_both_ends(side: int) -> None:
    labels = np.zeros((side, 4, 2), np.uint8)
    labels[: side // 2 + 1, 1] = 1

    assert agreements(labels[::-1], labels, "volumes")["mirrored left to right"] == 1


def test_empty_masks_say_nothing() -> None:
    empty = np.zeros((6, 6, 6), np.uint8)
    assert agreements(empty, ball(0, (6, 6, 6)), "volumes") == {}
    assert turned_predictions([{}] * 5, "volumes") == []


def test_poor_predictions_that_are_better_so_by_chance_are_not_told() -> None:
    poor = [{"": 0.4, "transposed": 0.65}, {"": 0.5, "transposed": 0.7}, {"": 0.45, "transposed": 0.6}]
    assert turned_predictions(poor, "volumes") == []
    turned = [each | {"transposed": 0.8} for each in poor]
    assert "3 of 3 masks agree far better" in turned_predictions(turned, "volumes")[0]
