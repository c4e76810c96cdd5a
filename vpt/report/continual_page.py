"""The page of `vpt continual`: what each method still knows after each task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vpt.palette import LABELS
from vpt.report.charts import Axis, Chart, Dot, Line, axis_of
from vpt.report.pages import render
from vpt.report.parts import digits, range_of
from vpt.report.report_page import FactGroup
from vpt.scores.continual import Order, average_accuracy
from vpt.words import counted

COLOURS = tuple(colour for colour in LABELS if colour != "#ffffff")  # seen on white paper too


@dataclass(frozen=True)
class MethodRow:
    """A method in the table, its scores averaged over the orders of the tasks; None of what it does not have.

    chosen: the share of cases whose task was chosen rightly, of masks.
    """

    shown: str
    orders: Sequence[Order]
    final: float
    interval: tuple[float, float]
    told: float
    incremental: float | None
    forgetting: float | None
    seconds: float
    chosen: float | None = None


def continual_page(
    title: str, rows: Sequence[MethodRow], score: str = "accuracy", facts: Sequence[FactGroup] = ()
) -> str:
    """One file of HTML; the methods in their order.

    score: what is between 0 and 1, "accuracy" or "Dice"; facts: how to repeat it.
    """
    best = max(rows, key=lambda row: row.final)
    count = len(rows[0].orders[0].tasks)
    return render(
        "continual.html",
        title=f"{title}: {counted(count, 'task')}, one after another",
        best=f"After the last task {best.shown} is best: {best.final:.3f} ({range_of(best.interval, 3)}).",
        orders=len(rows[0].orders),
        score=score,
        of_masks=score == "Dice",
        rows=[
            (
                row.shown,
                digits(row.final, 3),
                range_of(row.interval, 3),
                _said(row.incremental),
                _said(row.forgetting),
                digits(row.told, 3),
                _said(row.chosen),
                f"{row.seconds:.0f}",
            )
            for row in rows
        ],
        chart=_chart(rows, score),
        facts=facts,
        matrices=[_matrix(row) for row in rows if row.orders[0].matrix is not None],
    )


def _said(value: float | None) -> str:
    return "-" if value is None else digits(value, 3)


def _chart(rows: Sequence[MethodRow], score: str) -> Chart:
    """The mean score on the tasks so far, after each task, a line for each method."""
    lines, dots = [], []
    for row, colour in zip(rows, COLOURS * len(rows), strict=False):
        points = _curve(row)
        last = f"{row.shown}: {points[-1][1]:.3f}"
        lines.append(Line(tuple(points), last, colour))
        dots += [Dot(x, y, f"{row.shown} after task {x:.0f}: {y:.3f}", colour) for x, y in points]
    count = len(rows[0].orders[0].tasks)
    x = Axis(0.7, count + 0.3, tuple((k, str(k)) for k in range(1, count + 1)), "tasks learned")
    y = axis_of([dot.y for dot in dots], f"mean {score}", least=(0.0, 1.0))
    alt = f"Mean {score} on the tasks learned so far; after the last: " + ", ".join(line.words for line in lines)
    return Chart(
        f"{score[0].upper()}{score[1:]} on all tasks so far",
        alt,
        x,
        y,
        lines=tuple(lines),
        dots=tuple(dots),
        width=420,
        height=240,
        legend=True,
    )


def _curve(row: MethodRow) -> list[tuple[float, float]]:
    curves = [average_accuracy(order.matrix) for order in row.orders if order.matrix is not None]
    if not curves:
        return [(float(len(row.orders[0].tasks)), row.final)]
    return [(float(k + 1), sum(each) / len(each)) for k, each in enumerate(zip(*curves, strict=True))]


@dataclass(frozen=True)
class MatrixView:
    """Of the first order: the score on each task (a column) after each (a row), with the share that colours it."""

    shown: str
    tasks: tuple[str, ...]
    rows: list[tuple[str, list[tuple[str, float]]]]


def _matrix(row: MethodRow) -> MatrixView:
    order = row.orders[0]
    assert order.matrix is not None
    cells = [
        (
            name,
            [
                (f"{share:.2f}", share) if j < len(shares) else ("", 0.0)
                for j, share in enumerate(_padded(shares, len(order.tasks)))
            ],
        )
        for name, shares in zip(order.tasks, order.matrix, strict=True)
    ]
    return MatrixView(row.shown, order.tasks, cells)


def _padded(shares: Sequence[float], count: int) -> list[float]:
    return [*shares, *[math.nan] * (count - len(shares))]
