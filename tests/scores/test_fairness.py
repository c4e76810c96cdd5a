"""Differences between groups, against a plain recomputation, and a planted gap that is found."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vpt.report.classification import ClassReport
from vpt.scores.fairness import equity_scaled, score_odds
from vpt.scores.groups import Grouping

CLASSES = ("healthy", "ill")


def rate(decided: np.ndarray, cases: np.ndarray) -> float:
    return float(decided[cases].mean()) if cases.any() else math.nan


def gap(values: list[float]) -> float:
    defined = [value for value in values if math.isfinite(value)]
    return max(defined) - min(defined) if len(defined) > 1 else math.nan


@settings(max_examples=25, deadline=None)
@given(st.data(), st.integers(6, 30))
def test_differences_are_those_of_rates_counted_one_by_one(data, count):
    answers, truth, group = (data.draw(arrays(np.int8, count, elements=st.integers(0, most))) for most in (1, 1, 2))
    members = {str(g): np.flatnonzero(group == g) for g in range(3) if (group == g).any()}
    decided, true = (np.eye(2, dtype=bool)[each] for each in (answers, truth))
    found = score_odds(decided, true, CLASSES, members, [f"p{k}" for k in range(count)])
    for k, name in enumerate(CLASSES):
        hits = [rate(answers == k, (group == int(g)) & (truth == k)) for g in members]
        alarms = [rate(answers == k, (group == int(g)) & (truth != k)) for g in members]
        if math.isnan(gap(hits)):
            assert name not in found
            continue
        assert found[name].opportunity == pytest.approx(gap(hits))
        assert found[name].odds == pytest.approx(np.nanmax([gap(hits), gap(alarms)]))
        assert hits[list(members).index(found[name].worst)] == np.nanmin(hits)


def test_equity_by_hand_and_without_a_group_that_has_no_score():
    whole, groups = np.array([0.8, 0.8, 0.8]), np.array([[0.9, 0.8, 0.7], [0.6, 0.8, np.nan]])
    found = equity_scaled(whole, groups)
    assert found[:2].tolist() == pytest.approx([0.8 / 1.3, 0.8])
    assert math.isnan(found[2])  # of one group


def planted(missed: float) -> ClassReport:
    """Of group b this share of the ill is missed; of group a none. Half of each are ill."""
    rng = np.random.default_rng(0)
    ill = np.arange(400) % 2 == 0
    of_b = np.arange(400) >= 200
    found = np.where(ill & of_b & (rng.random(400) < missed), 0.1, np.where(ill, 0.9, 0.2))
    names = tuple(f"c{k}" for k in range(400))
    grouping = Grouping("sex", {name: "ab"[int(b)] for name, b in zip(names, of_b, strict=True)})
    probabilities, truth = np.stack([1 - found, found], 1), np.stack([~ill, ill], 1)
    return ClassReport(names, probabilities, truth, CLASSES, "classes", groupings=(grouping,))


@pytest.mark.slow
def test_a_planted_gap_is_found_and_none_where_none_is():
    [found] = planted(0.3).by_group
    odds = found.odds["ill"]
    assert odds.opportunity == pytest.approx(0.3, abs=0.08)
    assert odds.opportunity_interval[0] > 0.15
    assert odds.worst == "b"
    assert found.odds["healthy"].opportunity == 0
    assert found.odds["healthy"].odds == pytest.approx(odds.opportunity)  # the missed are its false alarms
    assert found.gaps["accuracy"].worst == "b"
    assert found.gaps["accuracy"].interval[0] > 0
    [fair] = planted(0).by_group
    assert (fair.odds["ill"].odds, fair.gaps["accuracy"].size, fair.equity["accuracy"].value) == (0, 0, 1)
    told = planted(0.3).markdown()
    assert "## Differences by sex" in told
    assert "the worst group is b" in told


def test_groups_that_are_too_small_to_compare_are_in_no_difference():
    whole = planted(0.3)
    of = dict(whole.groupings[0].of) | {f"c{k}": "few" for k in range(4)}
    [found] = ClassReport(
        whole.names, whole.probabilities, whole.targets, CLASSES, "classes", groupings=(Grouping("sex", of),)
    ).by_group
    assert {row.group for row in found.rows} == {"a", "b", "few"}
    assert found.odds["ill"].opportunity == pytest.approx(whole.by_group[0].odds["ill"].opportunity)
    alone = Grouping("sex", {f"c{k}": "a" for k in range(10)})
    [one] = ClassReport(
        whole.names, whole.probabilities, whole.targets, CLASSES, "classes", groupings=(alone,)
    ).by_group
    assert (one.odds, one.equity, one.gaps) == ({}, {}, {})
