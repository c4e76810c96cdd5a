"""Risk against coverage, held to a plain recomputation over all orders."""

from __future__ import annotations

import math
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpt.scores.trust import Quality, StructureQuality, choose_limits
from vpt.scores.trust_scores import BEST, RANDOM, aurc, risk_at_coverage, score_trust

CASES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 2)), min_size=1, max_size=6)
ONE = np.ones


def by_hand(risk: list[float], doubt: list[float]) -> float:
    """The mean over all orders that the doubts allow of the mean risk of the first 1, 2, ... N."""
    areas = [
        np.mean([np.mean([risk[k] for k in order[:n]]) for n in range(1, len(order) + 1)])
        for order in permutations(range(len(risk)))
        if all(doubt[a] <= doubt[b] for a, b in pairwise(order))
    ]
    return float(np.mean(areas))


@settings(max_examples=40, deadline=None)
@given(CASES)
def test_aurc_is_the_mean_over_all_orders_of_equally_doubtful_cases(cases):
    risk, doubt = (np.array(each, float) for each in zip(*cases, strict=True))
    found = aurc(risk, doubt, ONE((len(risk), 1)))[0]
    assert found == pytest.approx(by_hand(list(risk), list(doubt)))
    assert found == pytest.approx(risk_at_coverage(risk, doubt).mean())


@settings(max_examples=30, deadline=None)
@given(CASES, st.data())
def test_a_weight_counts_as_so_many_cases_and_no_order_matters(cases, data):
    risk, doubt = (np.array(each, float) for each in zip(*cases, strict=True))
    weights = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(risk), max_size=len(risk))))
    weights[0] += 1
    repeated = aurc(np.repeat(risk, weights), np.repeat(doubt, weights), ONE((weights.sum(), 1)))
    assert aurc(risk, doubt, weights[:, None]) == pytest.approx(repeated)
    order = np.array(data.draw(st.permutations(range(len(risk)))))
    assert aurc(risk[order], doubt[order], weights[order, None]) == pytest.approx(repeated)


def test_at_random_it_is_the_mean_risk_and_no_order_is_better_than_by_risk():
    risk = np.random.default_rng(0).random(50)
    one = ONE((50, 1))
    best = aurc(risk, risk, one)[0]
    assert aurc(risk, np.zeros(50), one)[0] == pytest.approx(risk.mean())
    assert best < aurc(risk, np.random.default_rng(1).random(50), one)[0] < aurc(risk, -risk, one)[0]
    assert aurc(risk, np.exp(risk), one)[0] == pytest.approx(best)  # the order alone counts


def judged(agreement: float, entropy: float, distance: float = math.nan) -> Quality:
    found = StructureQuality(10, agreement, entropy)
    return Quality(found, {"a": found, "b": StructureQuality(5, 1 - agreement, entropy)}, distance)


@pytest.fixture(scope="module")
def scored():
    """Forty cases: agreement follows Dice closely, entropy hardly, no distance; one case has no Dice."""
    rng = np.random.default_rng(0)
    dice = rng.random((40, 2))
    mean = dice.mean(1)
    qualities = [judged(m + 0.02 * rng.normal(), rng.random()) for m in mean]
    dice[7] = math.nan
    limits = choose_limits([judged(0.5, 0.99), judged(0.9, 0.2)])
    return dice, score_trust(dice, ["a", "b"], qualities, limits), qualities


def test_the_score_that_follows_dice_has_the_smaller_area(scored):
    dice, found, _ = scored
    areas = {score: curve.aurc for score, curve in found.curves.items()}
    assert list(areas) == ["agreement", "entropy", RANDOM, BEST]  # no case has a distance
    assert areas[BEST] < areas["agreement"] < 0.5 * (areas[BEST] + areas["entropy"])
    risk = 1 - dice[np.isfinite(dice).all(1)].mean(1)
    assert areas[RANDOM] == pytest.approx(risk.mean())
    assert found.cases == 39
    [difference] = found.differences
    assert (difference.first, difference.second) == ("agreement", "entropy")
    assert difference.size == pytest.approx(areas["agreement"] - areas["entropy"])
    assert difference.interval[1] < 0
    for curve in found.curves.values():
        assert curve.interval[0] < curve.aurc < curve.interval[1]
        assert curve.points[-1] == (1.0, pytest.approx(risk.mean()))


def test_labels_have_areas_of_their_own_scores(scored):
    _, found, _ = scored
    assert set(found.by_label) == {"a", "b"}
    assert found.by_label["a"]["agreement"] < found.by_label["a"][RANDOM] < found.by_label["b"]["agreement"]


def test_flagged_cases_are_counted_with_their_dice(scored):
    dice, found, qualities = scored
    beyond = [bool(found.limits.of_case(each)) for each in qualities]
    mean = np.nanmean(dice[[k for k, each in enumerate(beyond) if each and k != 7]])
    assert found.flagged.count == sum(beyond)
    assert found.flagged.dice == pytest.approx(mean)
    assert found.flagged.dice < found.flagged.dice_of_others


def test_a_case_without_a_value_is_trusted_least():
    dice = np.array([[0.9], [0.1], [0.8]])
    quality = [Quality(s, {"a": s}) for s in (StructureQuality(1, 1.0, e) for e in (0.2, math.nan, 0.1))]
    found = score_trust(dice, ["a"], quality)
    assert found.curves["entropy"].aurc == pytest.approx(np.mean([0.2, 0.15, 0.4]))


def test_cases_without_any_dice_have_no_curves():
    assert score_trust(np.full((2, 1), math.nan), ["a"], [judged(1, 0)] * 2) is None
