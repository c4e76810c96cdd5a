"""Risk against coverage as a chart."""

from __future__ import annotations

from vpt.report.charts import Axis, Chart, Line, axis_of
from vpt.report.mask_charts import UNITS
from vpt.scores.trust_scores import BEST, RANDOM, TrustScores

COLOURS = {"agreement": "#0a7d5a", "entropy": "#b4560b", "distance": "#5b4bb5", BEST: "#9aa0a6"}


def trust_chart(found: TrustScores) -> Chart:
    """Risk against coverage, a line for each score."""
    lines = [
        Line(
            curve.points,
            f"{score}: AURC {curve.aurc:.3f}",
            COLOURS.get(score, ""),
            dashed=score == RANDOM,
        )
        for score, curve in found.curves.items()
    ]
    alt = "Risk against coverage; area under it: " + ", ".join(
        f"{score} {curve.aurc:.3f}" for score, curve in found.curves.items()
    )
    y = axis_of([risk for curve in found.curves.values() for _, risk in curve.points], "1 - Dice", least=(0,))
    x = Axis(0, 1, UNITS, "share of the cases, the most trusted first")
    return Chart("Risk against coverage", alt, x, y, lines=tuple(lines), legend=True)
