"""Scans whose mm are no mm are told from those that are cropped, coarser or finer than the training's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import plan_with

from vpt.data.doubts.headers import another_size, unlike_the_plan
from vpt.data.fingerprint import Fingerprint
from vpt.data.sizes import TrainingSizes
from vpt.readers import Grid

HIPPOCAMPUS = plan_with(sizes=TrainingSizes(pixel=(1.0, 1.0), side=(40.0, 59.0)))
ABDOMEN = plan_with(sizes=TrainingSizes(pixel=(0.6, 0.98), side=(300.0, 500.0)))


def grid(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Grid:
    return Grid(shape, np.diag([*spacing, 1.0]))


@pytest.mark.parametrize("factor", [0.001, 0.01, 0.1, 10, 100, 1000])
@pytest.mark.parametrize(
    ("plan", "shape", "mm"),
    [(HIPPOCAMPUS, (35, 50, 36), 1.0), (ABDOMEN, (512, 512, 80), 0.7), (ABDOMEN, (512, 512, 80), 0.9)],
)
def test_mm_that_are_another_unit_are_doubted(plan, shape, mm, factor):
    found = grid(shape, (mm * factor,) * 3)

    said = another_size(found, plan)

    assert said
    assert ("larger" if factor > 1 else "smaller") in said
    assert list(unlike_the_plan("a.nii.gz", found, plan)) == []  # once is enough


@pytest.mark.parametrize(
    ("plan", "shape", "spacing"),
    [
        (HIPPOCAMPUS, (117, 91, 20), (3.0, 3.0, 3.0)),
        (HIPPOCAMPUS, (64, 64, 35), (3.25, 3.25, 3.6)),
        (HIPPOCAMPUS, (384, 384, 19), (0.5, 0.5, 3.0)),
        (HIPPOCAMPUS, (40, 40, 5), (0.844, 0.844, 17.0)),
        (ABDOMEN, (512, 512, 60), (0.2, 0.2, 0.4)),  # an ear
        (ABDOMEN, (122, 101, 30), (3.0, 3.0, 3.0)),
        (ABDOMEN, (60, 60, 20), (0.7, 0.7, 5.0)),  # a crop
        (ABDOMEN, (168, 168, 300), (4.07, 4.07, 3.0)),  # as PET
    ],
)
def test_other_scanners_crops_and_resolutions_are_not(plan, shape, spacing):
    assert another_size(grid(shape, spacing), plan) is None


@settings(max_examples=30, deadline=None)
@given(
    mm=st.floats(0.3, 1.5),
    sides=st.tuples(*[st.integers(8, 600)] * 3),
    turn=st.permutations(range(3)),
    factor=st.sampled_from([0.01, 0.1, 1, 10, 100]),
)
def test_a_scan_like_the_training_is_never_doubted_and_always_in_another_unit(mm, sides, turn, factor):
    sizes = Fingerprint((grid(sides, (mm,) * 3),)).sizes("axial")
    axes = np.eye(4)[:, [*turn, 3]] * mm * factor
    shape = tuple(sides[k] for k in turn)

    said = another_size(Grid(shape, axes), plan_with(sizes=sizes))

    assert (said is None) == (factor == 1)


def test_a_twentieth_of_the_training_may_be_a_mistake_itself():
    usual, odd = grid((50, 50, 50), (1.0,) * 3), grid((50, 50, 50), (0.1,) * 3)

    assert Fingerprint((*[usual] * 21, odd)).sizes("axial").pixel == (1.0, 1.0)
    assert Fingerprint((usual, odd)).sizes("axial").pixel == (0.1, 1.0)


def test_plans_without_sizes_doubt_none():
    assert another_size(grid((5, 5, 5), (1e-3,) * 3), plan_with()) is None
