"""Charts of a training: loss and validation scores over the epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vpt.palette import LABELS
from vpt.report.charts import Axis, Chart, Dot, Line, Rule, axis_of
from vpt.report.mask_charts import UNITS
from vpt.words import counted


def training_charts(rows: Sequence[Mapping[str, float]], shown: Mapping[str, str], score: str) -> list[Chart]:
    """rows: of metrics.csv; shown: key of a validation score -> name; score: the key that chose the best epoch."""
    if not rows:
        return []
    scored = [row for row in rows if math.isfinite(row.get(score, math.nan))]
    return [
        _curve("Training loss", rows, "loss"),
        *([_scores(rows, scored, shown, score)] if scored else []),
        _curve("Learning rate", rows, "lr"),
    ]


def _curve(title: str, rows: Sequence[Mapping[str, float]], key: str) -> Chart:
    points = tuple((row["epoch"], row[key]) for row in rows if math.isfinite(row.get(key, math.nan)))
    values = [value for _, value in points]
    alt = f"{title} over {counted(len(rows), 'epoch')}" + (
        f", from {values[0]:.3g} to {values[-1]:.3g}" if values else ""
    )
    y = axis_of(values, least=(0.0,), most_ticks=5)
    dots = tuple(Dot(x, y_, f"epoch {x:.0f}: {y_:.4g}") for x, y_ in points) if len(points) < 40 else ()
    return Chart(title, alt, _epochs(rows), y, lines=(Line(points, title),) if points else (), dots=dots, left=56)


def _scores(
    rows: Sequence[Mapping[str, float]], scored: Sequence[Mapping[str, float]], shown: Mapping[str, str], score: str
) -> Chart:
    best = max(scored, key=lambda row: row[score])
    labels = [pair for pair in shown.items() if pair[0] != score]
    told = len(labels) <= len(LABELS)  # of more, colours say nothing
    lines = [
        Line(_points(scored, key), name, LABELS[k % len(LABELS)], keyed=told) for k, (key, name) in enumerate(labels)
    ]
    name = shown.get(score, "mean Dice" if score == "dice" else score)
    lines.append(
        Line(_points(scored, score), f"{name} (chooses)" + ("" if told else f"; thin: each of {len(labels)} labels"))
    )
    words = f"best {best[score]:.3f}, epoch {best['epoch']:.0f}"
    alt = f"Validation scores over the epochs; the best {name}, {best[score]:.3f}, is epoch {best['epoch']:.0f}'s"
    dots = [Dot(best["epoch"], best[score], words, open=True)]
    lowest = min((y for line in lines for _, y in line.points), default=0.0)
    y = Axis(0, 1.02, UNITS) if lowest >= 0 else axis_of([lowest, 1.0])
    lines = [line for line in lines if line.points]
    rule = Rule(best["epoch"], words, "y", dashed=True)
    marks: dict[str, Any] = {"rules": (rule,), "lines": tuple(lines), "dots": tuple(dots)}
    return Chart("Validation scores", alt, _epochs(rows), y, **marks, legend=True)


def _points(rows: Sequence[Mapping[str, float]], key: str) -> tuple[tuple[float, float], ...]:
    return tuple((row["epoch"], row[key]) for row in rows if math.isfinite(row.get(key, math.nan)))


def _epochs(rows: Sequence[Mapping[str, float]]) -> Axis:
    last = int(rows[-1]["epoch"])
    step = max(1, round(last / 6))
    ticks = tuple((float(k), str(k)) for k in range(step, last + 1, step))
    return Axis(min(1.0, float(last) - 1), float(max(last, 2)), ticks, "epoch")
