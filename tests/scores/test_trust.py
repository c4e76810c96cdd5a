"""Scores of quality against a plain recomputation, and the limits that flag."""

from __future__ import annotations

import csv
import io
import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vpt.scores.trust import (
    EMPTY,
    Quality,
    StructureQuality,
    choose_limits,
    described,
    flags_told,
    pairwise_dice,
    quality_csv,
)

MASKS = arrays(np.int8, st.tuples(st.integers(1, 4), st.integers(1, 12)), elements=st.integers(0, 2))


def quality(agreement: float, entropy: float, distance: float = 1.0, voxels: int = 10) -> Quality:
    found = StructureQuality(voxels, agreement, entropy)
    return Quality(found, {"liver": found}, distance)


@settings(max_examples=40, deadline=None)
@given(MASKS)
def test_pairwise_dice_is_the_mean_over_pairs_of_masks(masks):
    labels = (1, 2)
    sizes = np.array([[(mask == k).sum() for k in labels] for mask in masks])
    pairs = list(combinations(masks, 2))
    shared = np.array([[((a == k) & (b == k)).sum() for k in labels] for a, b in pairs]).reshape(-1, 2)
    found = pairwise_dice(sizes, shared)
    if len(masks) == 1:
        assert np.isnan(found).all()
        return
    for place, k in enumerate(labels):
        each = []
        for a, b in pairs:
            both = (a == k).sum() + (b == k).sum()
            each += [2 * ((a == k) & (b == k)).sum() / both] if both else []
        assert found[place] == pytest.approx(np.mean(each) if each else np.nan, nan_ok=True)


def test_empty_masks_have_nothing_to_agree_on_and_an_empty_one_agrees_with_no_other():
    """Three models that miss a tumour are not to be trusted for that they miss it together."""
    assert np.isnan(pairwise_dice(np.zeros((3, 1)), np.zeros((3, 1)))).all()
    assert pairwise_dice(np.array([[0], [0], [5]]), np.zeros((3, 1))).tolist() == [0]
    assert pairwise_dice(np.array([[0], [5]]), np.zeros((1, 1))).tolist() == [0]


def test_limits_hold_the_share_of_validation_cases_and_flag_what_lies_beyond():
    usual = [quality(0.9 - k / 1000, 0.1 + k / 1000, 1 + k / 100) for k in range(100)]
    limits = choose_limits(usual)
    assert limits.case == pytest.approx({"agreement": 0.9 - 0.095, "entropy": 0.195, "distance": 1.95})
    assert [k for k, each in enumerate(usual) if limits.of_case(each)] == [96, 97, 98, 99]
    assert limits.flagged == pytest.approx(0.04)
    assert limits.cases == 100
    assert limits.of_case(quality(0.5, 0.1)) == ("agreement",)
    assert limits.of_case(quality(0.9, 0.3, 9)) == ("entropy", "distance")
    assert limits.of_structure(quality(0.5, 0.1, 9), "liver") == ("agreement",)  # the distance is the case's


def test_of_few_cases_the_worst_is_the_limit_and_flags_none_of_them():
    usual = [quality(0.9, 0.1), quality(0.4, 0.5)]
    limits = choose_limits(usual)
    assert limits.case["agreement"] == 0.4
    assert not any(map(limits.of_case, usual))


def test_an_empty_mask_is_flagged_unless_some_validation_case_had_one():
    nothing = quality(1.0, math.nan, voxels=0)
    full = [quality(0.9, 0.1)] * 5
    assert choose_limits(full).of_case(nothing) == (EMPTY,)
    assert choose_limits(full).of_structure(nothing, "liver") == (EMPTY,)
    assert choose_limits([*full, nothing]).of_case(nothing) == ()


def test_a_single_model_has_no_agreement_and_no_limit_of_it():
    alone = [quality(math.nan, 0.1 + k / 10) for k in range(5)]
    limits = choose_limits(alone)
    assert set(limits.case) == {"entropy", "distance"}
    assert limits.of_case(quality(math.nan, 0.9)) == ("entropy",)


def test_rows_of_cases_and_structures_say_what_is_flagged_and_leave_the_unknown_empty():
    limits = choose_limits([quality(0.9, 0.1)] * 5)
    found = {
        "a": described(quality(0.2, 0.05), limits),
        "b": described(quality(math.nan, 0.05, math.nan), None),
        "c": described(quality(0.9, 0.1), limits),
    }
    rows = list(csv.DictReader(io.StringIO(quality_csv(found))))
    assert [(row["case"], row["structure"], row["flag"], row["beyond"]) for row in rows] == [
        ("a", "(case)", "yes", "agreement"),
        ("a", "liver", "yes", "agreement"),
        ("b", "(case)", "", ""),
        ("b", "liver", "", ""),
        ("c", "(case)", "no", ""),
        ("c", "liver", "no", ""),
    ]
    assert (rows[0]["agreement"], rows[0]["distance"]) == ("0.2", "1")
    assert (rows[2]["agreement"], rows[2]["distance"]) == ("", "")
    assert found["a"]["limits"] == limits.mark
    assert choose_limits([quality(0.8, 0.1)] * 5).mark != limits.mark


def test_flags_are_told_in_words() -> None:
    head, rest = "case,structure,voxels,agreement,entropy,distance,flag,beyond", "9,,0.5,1"
    rows = [f"a,(case),{rest},yes,entropy", f"a,rim,{rest},yes,entropy", f"b,(case),{rest},no,", f"b,rim,{rest},yes,x"]
    assert flags_told("\n".join([head, *rows])) == "1 scan flagged, and of 1 more a label alone"
    assert flags_told("\n".join([head, rows[2]])) == "0 scans flagged"
    assert flags_told(f"{head}\na,(case),{rest},,") == ""  # without limits
