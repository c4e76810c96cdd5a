"""Scores of tasks learned one after another, against sums by hand."""

from __future__ import annotations

import math

import pytest

from vpt.scores.continual import (
    Order,
    average_accuracy,
    average_incremental_accuracy,
    final_interval,
    forgetting,
)

MATRIX = ((0.7,), (0.9, 0.8), (0.75, 0.5, 0.6))  # the first task is best after the second


def test_averages_and_forgetting_by_hand() -> None:
    assert average_accuracy(MATRIX) == pytest.approx([0.7, 0.85, (0.75 + 0.5 + 0.6) / 3])
    assert average_incremental_accuracy(MATRIX) == pytest.approx((0.7 + 0.85 + 1.85 / 3) / 3)
    assert forgetting(MATRIX) == pytest.approx(((0.9 - 0.75) + (0.8 - 0.5)) / 2)
    assert forgetting(((0.5,), (0.6, 0.5))) == pytest.approx(-0.1)
    assert math.isnan(forgetting(((0.5,),)))


def order_of(right: list[bool], tasks: list[int]) -> Order:
    names = [f"c{k}" for k in range(len(right))]
    answers = dict(zip(names, right, strict=True))
    return Order(("a", "b"), None, answers, answers, dict(zip(names, tasks, strict=True)))


def test_the_final_score_weighs_tasks_alike_whatever_their_size() -> None:
    order = order_of([True, True, False, False, False, False], [0, 0, 1, 1, 1, 1])
    assert order.final == order.final_told == 0.5


def test_the_interval_is_of_cases_and_of_patients_together() -> None:
    right = [k % 3 > 0 for k in range(60)]
    order = order_of(right, [k // 30 for k in range(60)])
    low, high = final_interval([order, order], {f"c{k}": f"c{k}" for k in range(60)})
    assert low < order.final < high
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(2 / 9 / 60), rel=0.2)
    of_pairs = final_interval(
        [order_of([k // 10 % 2 > 0 for k in range(60)], [0] * 60)], {f"c{k}": str(k // 10) for k in range(60)}
    )
    assert of_pairs[1] - of_pairs[0] > 0.5
