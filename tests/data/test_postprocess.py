"""Masks are tidied label by label, and nothing else of them changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vpt.data.postprocess import agreed, holes_of, in_words, tidied


def ball() -> np.ndarray:
    """Label 1 with a hole in it and a spot beside it, label 2 elsewhere, in two pieces."""
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[1:6, 1:6, 1:6], labels[3, 3, 3], labels[8, 8, 8] = 1, 0, 1
    labels[7, 1, 1] = labels[7, 5, 5] = 2
    return labels


def test_only_the_largest_component_of_that_label_stays() -> None:
    expected = ball()
    expected[8, 8, 8] = 0
    np.testing.assert_array_equal(tidied(ball(), {1: ("largest",)}), expected)


def test_holes_are_filled_and_other_labels_in_them_stay() -> None:
    expected = ball()
    expected[3, 3, 3] = 1
    np.testing.assert_array_equal(tidied(ball(), {1: ("fill",)}), expected)
    nested = ball()
    nested[3, 3, 3] = 2
    np.testing.assert_array_equal(tidied(nested.copy(), {1: ("fill",)}), nested)


def test_voxels_that_touch_at_a_corner_are_one_component() -> None:
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[0, 0, 0] = labels[1, 1, 1] = 1
    np.testing.assert_array_equal(tidied(labels.copy(), {1: ("largest",)}), labels)


@pytest.mark.parametrize("shape", [(7, 7), (7, 7, 1), (1, 7, 7)])
def test_a_hole_of_an_image_is_one_in_its_plane(shape) -> None:
    ring = np.zeros((7, 7), np.uint8)
    ring[1:6, 1:6], ring[2:5, 2:5] = 3, 0
    found = tidied(ring.reshape(shape).copy(), {3: ("largest", "fill")}).reshape(7, 7)
    assert (found[1:6, 1:6] == 3).all()
    assert found.sum() == 25 * 3


def test_a_ring_in_one_slice_of_a_volume_encloses_nothing() -> None:
    labels = np.zeros((5, 7, 7), np.uint8)
    labels[2, 1:6, 1:6], labels[2, 2:5, 2:5] = 1, 0
    np.testing.assert_array_equal(tidied(labels.copy(), {1: ("fill",)}), labels)


def test_a_label_that_is_absent_or_large_is_no_matter() -> None:
    labels = np.zeros((3, 3, 3), np.uint16)
    labels[0, 0, 0] = labels[2, 2, 2] = 60000
    found = tidied(labels, {5: ("largest", "fill"), 60000: ("largest",)})
    assert np.count_nonzero(found) == 1


@settings(max_examples=25)
@given(arrays(np.uint8, (4, 5, 3), elements=st.integers(0, 2)))
def test_tidying_twice_is_tidying_once_and_no_label_vanishes(labels) -> None:
    steps = {1: ("largest", "fill"), 2: ("largest",)}
    once = tidied(labels.copy(), steps)
    np.testing.assert_array_equal(tidied(once.copy(), steps), once)
    assert set(np.unique(once)) | {0} == set(np.unique(labels)) | {0}
    assert not (holes_of(once == 1) & (once == 0)).any()


def test_of_averaged_models_more_than_half_decide() -> None:
    members = [{1: ("largest", "fill")}, {1: ("largest",), 2: ("fill",)}, {}]
    assert agreed(members) == {1: ("largest",)}
    assert agreed(members[:2]) == {1: ("largest",)}
    assert agreed([{}, {}]) == {}


def test_it_is_said_in_words() -> None:
    names = {0: "background", 1: "liver", 2: "tumour"}
    assert in_words({1: ("largest", "fill")}, names) == "only the largest component of liver, holes in liver filled"
    assert in_words({}, names) == "none"
