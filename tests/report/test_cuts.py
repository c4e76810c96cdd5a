"""Planes go through the largest error, lie as radiologists view them, and are cropped without losing a label."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpt.report.cuts import cropped, cuts_at, largest_error, middle_of, worst_error

SHAPE = (6, 8, 10)


def empty() -> np.ndarray:
    return np.zeros(SHAPE, np.uint8)


def take(axis: int, index: int) -> np.ndarray:
    return np.take(np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE), index, axis)


def cuts(truth: np.ndarray | None = None, found: np.ndarray | None = None, place: tuple[int, int, int] = (1, 2, 3)):
    return cuts_at(place, take, truth, found, SHAPE, (3.0, 2.0, 1.0), "mm")


def test_the_largest_connected_error_counts_not_the_slice_with_most() -> None:
    truth, found = empty(), empty()
    truth[0, ::2, ::2] = 1  # twenty single voxels
    truth[3:6, 2:4, 5:7] = 2  # twelve together
    found[4, 2, 5] = 2
    error = largest_error(truth, found)
    assert error is not None
    assert error.voxels == 11
    assert truth[error.place] == 2


def test_a_label_taken_for_another_is_an_error_and_equal_masks_have_none() -> None:
    truth = empty()
    truth[2, 2:5, 2:5] = 1
    assert largest_error(truth, truth.copy()) is None
    error = largest_error(truth, 2 * truth)
    assert error is not None
    assert error.voxels == 9
    assert error.place == (2, 3, 3)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_the_place_is_always_one_where_they_differ(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, found = rng.integers(0, 3, (2, *SHAPE)) * (rng.random(SHAPE) < 0.2)
    error = largest_error(truth, found)
    if error is not None:
        assert truth[error.place] != found[error.place]


def test_a_missed_lesion_comes_before_the_border_of_an_organ() -> None:
    truth, found = empty(), empty()
    truth[:, :, :6], found[:, :, 1:7] = 1, 1  # Dice 0.83, 48 voxels at either side
    assert worst_error(truth, found, [1, 2]).voxels == 48
    truth[2, 3, 3] = 2  # in the organ, and taken for it
    error = worst_error(truth, found, [1, 2])
    assert (error.place, error.voxels, error.label) == ((2, 3, 3), 1, 2)
    truth[2, 3, 3], found[4, 7, 9] = 1, 2  # nothing is there
    assert worst_error(truth, found, [1, 2]).place == (4, 7, 9)
    assert worst_error(truth, truth.copy(), [1, 2]) is None


def test_of_labels_that_are_missed_alike_the_larger_one_is_shown() -> None:
    truth = empty()
    truth[0, 0, :2], truth[3, 3:5, 4:8] = 1, 2
    assert worst_error(truth, empty(), [1, 2]).label == 2


def test_the_middle_of_a_ring_is_on_the_ring() -> None:
    mask = empty().astype(bool)
    mask[1, 1:6, 1:6] = True
    mask[1, 2:5, 2:5] = False
    assert mask[middle_of(mask)]


def test_three_planes_with_the_head_up_and_the_patients_right_on_the_left() -> None:
    axial, coronal, sagittal = cuts()
    assert [cut.letters for cut in (axial, coronal, sagittal)] == [
        ("A", "L", "P", "R"),
        ("S", "L", "I", "R"),
        ("S", "P", "I", "A"),
    ]
    volume = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    np.testing.assert_array_equal(axial.image, volume[1])
    np.testing.assert_array_equal(coronal.image, volume[::-1, 2])  # slices go upwards, rows of a picture down
    np.testing.assert_array_equal(sagittal.image, volume[::-1, :, 3])
    assert [cut.pixel for cut in (axial, coronal, sagittal)] == [(2, 1), (3, 1), (3, 2)]
    assert axial.place == "slice 2 of 6"


def test_masks_are_turned_with_their_image() -> None:
    truth = empty()
    truth[5, 2, 3] = 1
    _, coronal, sagittal = cuts(truth, truth)
    assert coronal.truth[0, 3] == sagittal.truth[0, 2] == 1
    assert coronal.errors == 0


def test_an_image_is_shown_by_itself() -> None:
    image = np.zeros((7, 9, 3), np.float32)
    only = cuts_at((0, 1, 1), lambda axis, index: image, None, None, (1, 7, 9), (1.0, 1.0, 1.0), "px")
    assert [(cut.name, cut.letters) for cut in only] == [("image", None)]


@pytest.mark.parametrize("place", [(0, 0, 0), (5, 7, 9), (2, 4, 4)])
def test_cropping_loses_no_label(place: tuple[int, int, int]) -> None:
    truth = empty()
    truth[place] = 1
    for cut in cuts(truth, empty(), place):
        small = cropped(cut)
        assert small.truth.sum() == 1
        assert small.image.shape == small.truth.shape == small.found.shape
        at = np.argwhere(small.truth)[0]
        assert small.image[tuple(at)] == cut.image[tuple(np.argwhere(cut.truth)[0])]
        assert min(small.image.shape) >= 0.4 * min(cut.image.shape)


def test_without_a_label_nothing_is_cropped() -> None:
    assert cropped(cuts(empty(), empty())[0]).image.shape == SHAPE[1:]
