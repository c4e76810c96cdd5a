"""Probabilities -> one mask: that of the highest expected Dice, by what chance says of every voxel."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vpt.tasks.deciding import classes_of_most_dice
from vpt.tasks.segmentation import likeliest_classes


def of_one_label(foreground: np.ndarray) -> list[Tensor]:
    """Slices (rows, columns) of p -> their probabilities (2, rows, columns)."""
    found = torch.from_numpy(np.asarray(foreground, np.float32))
    return [torch.stack((1 - each, each)) for each in found]


def decided(foreground: np.ndarray) -> np.ndarray:
    return classes_of_most_dice(of_one_label(foreground), np.shape(foreground), 2)


def expected_dice(mask: np.ndarray, p: np.ndarray) -> float:
    """The mean over 400 truths, each voxel of which is drawn with its chance."""
    truths = np.random.default_rng(0).random((400, len(p))) < p
    return float(np.mean(2 * (truths & mask).sum(1) / (truths.sum(1) + mask.sum())))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0.02, 0.1, 0.2, 0.3, 0.4, 0.45, 0.55, 0.7, 0.9, 0.98]), min_size=5, max_size=7))
def test_no_mask_is_expected_to_have_a_higher_dice(values: list[float]) -> None:
    p = np.repeat(values, 50)
    likeliest = p > 0.5
    found = decided(p[None, None])[0, 0] == 1

    if not likeliest.any():
        assert not found.any()  # no false alarm that the likeliest labels do not have
        return
    every = [np.repeat(mask, 50) for mask in product((False, True), repeat=len(values)) if any(mask)]
    assert expected_dice(found, p) >= max(expected_dice(mask, p) for mask in every) - 0.003


def test_doubt_makes_the_mask_wider_and_sure_masks_stay() -> None:
    rng = np.random.default_rng(0)
    sure = np.where(rng.random((3, 16, 16)) < 0.3, 0.999, 0.001)
    doubtful = np.full((1, 10, 10), 0.02)
    doubtful[0, 2:8, 2:8] = 0.35
    doubtful[0, 4:6, 4:6] = 0.6

    np.testing.assert_array_equal(decided(sure), sure > 0.5)
    np.testing.assert_array_equal(decided(doubtful), doubtful > 0.3)
    assert (doubtful > 0.5).sum() == 4


def test_a_volume_is_decided_as_a_whole() -> None:
    p = np.full((40, 8, 8), 0.001)
    p[:30, 2:6, 2:6] = 0.99
    p[35, 2:6, 2:6] = 0.4  # alone it were in, beside thirty sure slices it is out
    alone = p[35:36].copy()
    alone[0, 3, 3] = 0.6

    assert decided(alone)[0, 2:6, 2:6].all()
    np.testing.assert_array_equal(decided(p), p > 0.5)


def test_labels_are_decided_each_by_itself_and_none_appears() -> None:
    p = np.zeros((4, 1, 30), np.float32)
    p[0] = 1
    for label, place, value in ((1, slice(0, 4), 0.6), (1, slice(4, 12), 0.4), (2, slice(14, 20), 0.99)):
        p[label, 0, place], p[0, 0, place] = value, 1 - value
    p[3, 0, 22:28], p[0, 0, 22:28] = 0.45, 0.55  # nowhere the likeliest

    found = classes_of_most_dice([torch.from_numpy(p), None], (2, 1, 30), 4)

    expected = np.zeros((2, 1, 30))
    expected[0, 0, :12], expected[0, 0, 14:20] = 1, 2
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.uint8


@pytest.mark.parametrize("classes", [2, 3, 300])
def test_what_is_background_everywhere_stays_so(classes: int) -> None:
    background = torch.zeros(classes, 4, 5)
    background[0] = 1

    told: list[int] = []
    found = classes_of_most_dice([background, None], (2, 4, 5), classes, lambda done, *_: told.append(done))

    np.testing.assert_array_equal(found, likeliest_classes([background, None], (2, 4, 5), classes))
    assert found.dtype == likeliest_classes([background], (1, 4, 5), classes).dtype
    assert told == [1, 2]
