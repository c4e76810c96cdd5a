"""Grids are equal within a hundredth of a voxel, and say in words what they are and what differs."""

from __future__ import annotations

import numpy as np
import pytest

from vpt.errors import VptError
from vpt.readers.grid import Grid, by, picture_grid, some
from vpt.readers.volumes import placed

LPS = np.diag([-1.0, -1.5, 3.0, 1.0])


@pytest.mark.parametrize(("shift", "same"), [(0.009, True), (0.011, False)])
def test_grids_match_within_a_hundredth_of_the_smallest_spacing(shift, same):
    moved = LPS.copy()
    moved[2, 3] = shift
    assert Grid((4, 5, 6), LPS).matches(Grid((4, 5, 6), moved)) is same


def test_grid_in_words_and_numbers():
    grid = Grid((4, 5, 6), LPS)
    assert str(grid) == "4x5x6 voxels of 1x1.5x3 mm, LPS"
    assert grid.voxel_ml == pytest.approx(0.0045)
    assert grid.corners().min(0).tolist() == [-3, -6, 0]
    assert grid.corners().max(0).tolist() == [0, 0, 15]


def test_the_difference_names_all_that_is_not_the_same():
    grid, moved = Grid((4, 5, 6), LPS), LPS.copy()
    moved[:3, 3] = 0, 0, 12
    assert grid.difference(grid) == ""
    assert grid.difference(Grid((4, 5, 6), moved)) == "origin (0 0 0) against (0 0 12) mm, voxels up to 12 mm apart"
    assert grid.difference(Grid((3, 5, 6), np.eye(4))) == (
        "shape 4x5x6 against 3x5x6, spacing 1x1.5x3 against 1x1x1 mm, axes LPS against RAS"
    )


def test_a_picture_is_one_slice_of_pixels_of_a_millimetre():
    grid = picture_grid(rows=20, columns=30)
    assert (grid.shape, grid.spacing, grid.axcodes) == ((30, 20, 1), (1, 1, 1), "LPS")


def test_headers_are_flat_or_volumes_and_have_a_place_in_space():
    assert placed((4, 5), LPS, "a").shape == (4, 5, 1)
    assert placed((4, 5, 6, 2), LPS, "a").shape == (4, 5, 6)
    for shape in [(4,), (4, 5, 0), (4, 5, 6, 1, 3)]:
        with pytest.raises(VptError, match=r"a: shape .*, expected a volume"):
            placed(shape, LPS, "a")
    for broken in (np.zeros((4, 4)), np.full((4, 4), np.nan), np.ones((4, 4))):
        with pytest.raises(VptError, match=r"a: its affine .* is singular, .*; write valid directions and sizes"):
            placed((4, 5, 6), broken, "a")


def test_numbers_in_words():
    assert by((4, 1.5, 3.0)) == "4x1.5x3"
    assert some((0, 1, 2)) == "0, 1, 2"
    assert some(range(118)) == "0, 1, 2, 3, 4, 5, 6, 7 ... 117 (118 values)"
