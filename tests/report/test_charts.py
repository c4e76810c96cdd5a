"""Axes hold their values between round ticks; charts put marks where their values are."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpt.report.charts import APART, Axis, Chart, Line, Rule, axis_of, named_axis
from vpt.report.training_charts import training_charts

NAN = math.nan
VALUES = st.floats(-1e9, 1e9).filter(lambda value: value == 0 or abs(value) > 1e-6)


@given(st.lists(VALUES, min_size=1, max_size=8))
def test_an_axis_holds_its_values_and_has_few_ticks(values: list[float]) -> None:
    axis = axis_of(values)
    assert axis.low <= min(values) + 1e-9 * abs(axis.low)
    assert max(values) <= axis.high + 1e-9 * abs(axis.high)
    assert 2 <= len(axis.ticks) <= 9


def test_ticks_are_round_and_written_as_short_as_they_can_be() -> None:
    assert [words for _, words in axis_of([0.81, 0.93]).ticks] == ["0.80", "0.85", "0.90", "0.95"]
    assert [words for _, words in axis_of([0, 21_000]).ticks] == ["0", "5,000", "10,000", "15,000", "20,000", "25,000"]


@pytest.mark.parametrize("values", [[], [NAN], [3.0, 3.0], [0.0]])
def test_no_value_or_one_has_an_axis_too(values: list[float]) -> None:
    axis = axis_of(values)
    assert axis.low < axis.high


def test_marks_lie_where_their_values_are() -> None:
    chart = Chart("T", "A", Axis(0, 10, ()), Axis(0, 1, ()), width=120, height=60, left=10, right=10, top=5, bottom=5)
    assert (chart.px(0), chart.px(10), chart.py(0), chart.py(1)) == (10, 110, 55, 5)
    assert chart.path(Line(((0, 0), (5, 0.5)))) == "M10.0 55.0L60.0 30.0"
    assert named_axis(["a", "b"]).share(0.5) == pytest.approx(0.5)


def test_curves_leave_out_epochs_that_did_not_validate() -> None:
    rows = [
        {"epoch": 1.0, "loss": 1.0, "lr": 0.1, "dice": NAN, "dice_a": NAN},
        {"epoch": 2.0, "loss": 0.5, "lr": 0.2, "dice": 0.7, "dice_a": 0.6},
        {"epoch": 3.0, "loss": 0.4, "lr": 0.1, "dice": 0.6, "dice_a": 0.5},
    ]
    loss, scores, rate = training_charts(rows, {"dice_a": "A"}, "dice")
    assert len(loss.lines[0].points) == len(rate.lines[0].points) == 3
    assert [line.points for line in scores.lines] == [((2.0, 0.6), (3.0, 0.5)), ((2.0, 0.7), (3.0, 0.6))]
    assert "best mean Dice, 0.700, is epoch 2" in scores.alt


def test_a_training_without_validation_has_no_scores_chart() -> None:
    rows = [{"epoch": 1.0, "loss": 1.0, "lr": 0.1}]
    assert [chart.title for chart in training_charts(rows, {}, "dice")] == ["Training loss", "Learning rate"]
    assert training_charts([], {}, "dice") == []


def test_of_more_labels_than_colours_the_legend_names_none() -> None:
    shown = {f"dice_{k}": f"label {k}" for k in range(40)}
    rows = [{"epoch": 1.0, "loss": 1.0, "lr": 0.1, "dice": 0.5, **dict.fromkeys(shown, 0.5)}]
    scores = training_charts(rows, shown, "dice")[1]
    assert [line.words for line in scores.lines if line.keyed] == ["mean Dice (chooses); thin: each of 40 labels"]
    assert all(line.keyed for line in training_charts(rows, dict(list(shown.items())[:8]), "dice")[1].lines)


def test_long_names_below_columns_keep_what_tells_them_apart() -> None:
    names = [f"vertebra number {k} of the spi…" for k in range(10, 13)]
    assert [words for _, words in named_axis(names, 380).ticks] == [f"…{k} of the spi…" for k in range(10, 13)]
    assert [words for _, words in named_axis(["liver", "liver tumour"], 380).ticks] == ["liver", "liver tumour"]


def test_words_of_rules_that_lie_close_stand_apart() -> None:
    rules = (Rule(0.0), Rule(5.1, "mean"), Rule(5.0, "low"), Rule(5.2, "high"))
    chart = Chart("T", "A", Axis(0, 1, ()), Axis(0, 10, ()), rules=rules)
    (high, _), (mean, middle), (low, _) = chart.rule_words
    assert (mean - high, low - mean, middle) == (APART, APART, "mean")
    assert mean == pytest.approx(chart.py(5.1), abs=0.5)
