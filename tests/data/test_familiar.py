"""Distances to the training cases, and what of them an artifact keeps."""

from __future__ import annotations

import numpy as np
import pytest
from plans import plan_with

from vpt.data.familiar import MOST_CASES, NEAREST, SLICES, WIDTH, Familiar, chosen_cases, looked_at


def features(cases: int = 20, width: int = 200, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(cases, width)).astype(np.float32)


def test_the_distance_is_that_to_the_nearest_in_what_is_usual_among_training_cases():
    known = features(width=10)  # few enough to be kept as they are
    familiar = Familiar.of(known)
    kept = known.astype(np.float16).astype(float)

    def near(case: np.ndarray, others: np.ndarray) -> float:
        return float(np.sort(np.linalg.norm(others - case, axis=1))[:NEAREST].mean())

    usual = np.median([near(each, np.delete(kept, k, 0)) for k, each in enumerate(kept)])
    new = features(1, 10, seed=9)[0]
    assert familiar.distance(new) == pytest.approx(near(new, kept) / usual, rel=1e-6)
    assert familiar.distance(new + 50) > 10 * familiar.distance(new)


def test_wide_features_are_projected_and_distances_stay_about_the_same():
    known, new = features(), features(1, seed=9)[0]
    familiar = Familiar.of(known)
    assert familiar.vectors.shape == (20, WIDTH)
    assert familiar.distance(new) == pytest.approx(1, abs=0.25)  # of the same kind as the training cases
    assert familiar.distance(new * 5) > 3


def test_an_artifact_keeps_a_few_kilobytes_that_say_the_same():
    familiar = Familiar.of(features(MOST_CASES, 1024))
    kept = familiar.to_header()
    assert len(kept["float16"]) < 12_000
    again = Familiar.from_header(kept)
    assert np.array_equal(again.vectors, familiar.vectors)
    assert again.usual == familiar.usual


@pytest.mark.parametrize(
    "found",
    [{}, {"width": 2}, {"width": 3, "float16": "AAAA"}, {"width": 1, "float16": "%"}, {"width": 1, "float16": "AAA="}],
)
def test_what_is_no_such_vectors_is_none(found):
    assert Familiar.from_header(found) is None


def test_one_case_or_features_without_bound_are_not_kept():
    assert Familiar.of(features(1)) is None
    assert Familiar.of(np.full((3, 4), 1e9, np.float32)) is None


def test_training_cases_that_are_all_alike_leave_plain_distances():
    familiar = Familiar.of(np.ones((4, 2), np.float32))
    assert familiar.distance(np.array([1, 4.0])) == pytest.approx(3)


def test_of_many_training_cases_some_are_chosen_evenly():
    assert chosen_cases(3) == [0, 1, 2]
    chosen = chosen_cases(1000)
    assert len(chosen) == MOST_CASES
    assert (chosen[0], chosen[-1]) == (0, 999)
    assert np.ptp(np.diff(chosen)) <= 1


@pytest.mark.parametrize(("depth", "expected"), [(1, 1), (5, 5), (100, SLICES)])
def test_slices_are_looked_at_evenly_each_once_and_whole(depth, expected):
    plan = plan_with(image_size=32, neighbours=True)
    slices = np.zeros((depth, 1, 40, 80), np.float16)
    slices[:, :, :, 60:] = np.linspace(0.1, 1, depth)[:, None, None, None]
    found = looked_at(slices, plan)
    assert found.shape == (expected, 3, 32, 32)
    assert found.dtype == np.float32
    assert (found.max((1, 2, 3)) > 0).all()  # the right end, which a crop would have left out


def test_neighbours_are_those_in_the_scan():
    plan = plan_with(image_size=8, neighbours=True)
    slices = np.tile(np.arange(16, dtype=np.float32)[:, None, None, None] / 16, (1, 1, 8, 8))
    found = looked_at(slices, plan)[:, :, 4, 4] * 16
    assert found.tolist() == [[max(k - 1, 0), k, min(k + 1, 15)] for k in range(1, 16, 2)]
