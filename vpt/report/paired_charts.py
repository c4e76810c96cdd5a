"""Charts of two that were compared: differences with their intervals, and every case's two scores."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vpt.report.charts import Chart, Dot, Line, Rule, axis_of, columns_width, named_axis
from vpt.scores.paired import TIE, CasePair, Difference

MOST_COLUMNS = 12
MOST_DOTS = 1000  # those that differ most


def difference_chart(differences: Sequence[Difference]) -> Chart | None:
    """A column per score: A minus B as a dot, its 95 % interval as a line; None where nothing can be drawn."""
    finite = [each for each in differences if math.isfinite(each.size)]
    drawn = finite[:MOST_COLUMNS]
    if not drawn:
        return None
    lines, dots, words = [], [], []
    for place, each in enumerate(drawn):
        low, high = each.interval
        told = f"{each.score}: {each.size:+z.3f}"
        if math.isfinite(low):
            told += f" ({low:+z.3f} to {high:+z.3f})"
            lines.append(Line(((place, low), (place, high)), told))
        dots.append(Dot(place, each.size, told))
        words.append(told)
    heights = [y for line in lines for _, y in line.points] + [dot.y for dot in dots]
    width = columns_width(len(drawn))
    shown = f", the first {len(drawn)} of {len(finite)}" if len(drawn) < len(finite) else ""
    return Chart(
        "A minus B",
        f"A minus B with 95 % intervals{shown}; {'; '.join(words)}",
        named_axis([each.score.split(" (")[0] for each in drawn], width),
        axis_of(heights, "above 0 A is higher", least=(0.0,)),
        rules=(Rule(0.0, "", "x", dashed=True),),
        lines=tuple(lines),
        dots=tuple(dots),
        width=width,
        height=260,
        left=56,
        bottom=26,
    )


def cases_chart(cases: Sequence[CasePair], score: str) -> Chart | None:
    """A dot per case, its score in A across and in B upwards; on the diagonal both are alike."""
    if len(cases) < 2:
        return None
    shown = cases[:MOST_DOTS]
    values = [value for case in shown for value in (case.first, case.second)]
    axis = axis_of(values, f"A: {score}", most_ticks=5)
    dots = [Dot(case.first, case.second, f"{case.name}: A {case.first:.3f}, B {case.second:.3f}") for case in shown]
    wins = sum(case.size >= TIE for case in cases)
    losses = sum(case.size <= -TIE for case in cases)
    return Chart(
        "Every case in both",
        f"{score} of every case in A and in B: A is better in {wins}, below the diagonal, B in {losses}, above it",
        axis,
        axis_of(values, f"B: {score}", most_ticks=5),
        lines=(Line(((axis.low, axis.low), (axis.high, axis.high)), "alike in both", dashed=True),),
        dots=tuple(dots),
        height=300,
        left=56,
    )
