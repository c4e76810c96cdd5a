"""Charts of an evaluation of masks: Dice of every case per label, how far volumes are off, risk against coverage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from vpt.report.charts import Axis, Bar, Chart, Dot, Line, Rule, axis_of, columns_width, named_axis
from vpt.report.mask_summary import MaskCase, MaskSummary
from vpt.report.parts import amount, amounts
from vpt.scores.trust_scores import BEST, RANDOM, TrustScores
from vpt.words import counted

MOST_DOTS = 400  # of a label; of more cases every so many in order of their score
MOST_LABELS = 12  # in one chart, the lowest Dice first where there are more
MOST_PLOTS = 6
UNITS = tuple((k / 5, f"{k / 5:.1f}") for k in range(6))
TRUST_COLOURS = {"agreement": "#0a7d5a", "entropy": "#b4560b", "distance": "#5b4bb5", BEST: "#9aa0a6"}


def shown_labels(summary: MaskSummary, most: int) -> list[int]:
    """The labels of a chart: of many those with the lowest mean Dice."""
    labels = list(summary.labels)
    if len(labels) <= most:
        return labels
    return sorted(labels, key=lambda label: _or_last(summary.dice(str(label))))[:most]


def dice_chart(summary: MaskSummary, colours: Mapping[int, str]) -> Chart:
    """A column per label: a dot for every case, the middle half as a bar, the median as a line."""
    labels = shown_labels(summary, MOST_LABELS)
    dots: list[Dot] = []
    bars: list[Bar] = []
    lines: list[Line] = []
    for place, label in enumerate(labels):
        scored = sorted(
            ((value, case.name) for case in summary.cases if math.isfinite(value := case.scores[label]["Dice"])),
        )
        if not scored:
            continue
        low, middle, high = np.percentile([value for value, _ in scored], (25, 50, 75)).tolist()
        bars.append(Bar((place - 0.28, low), (place + 0.28, high), f"middle half: {low:.3f} to {high:.3f}"))
        lines.append(Line(((place - 0.28, middle), (place + 0.28, middle)), f"median {middle:.3f}"))
        dots += [
            Dot(place + _aside(k), value, f"{name}: {value:.3f}", colours[label])
            for k, (value, name) in enumerate(scored[:: 1 + len(scored) // MOST_DOTS])
        ]
    alt = f"Dice of every case, per label{_lowest(summary, labels)}; " + "; ".join(
        f"{summary.labels[label]}: mean {summary.means[str(label)].get('Dice', math.nan):.3f}" for label in labels
    )
    width = columns_width(len(labels))
    x = named_axis([summary.labels[label] for label in labels], width)
    y = axis_of([dot.y for dot in dots], "Dice", least=(1.0,))
    marks = tuple(bars), (), tuple(lines), tuple(dots)
    return Chart("Dice by label", alt, x, y, *marks, width, 260, bottom=26)


def volume_charts(summary: MaskSummary, colours: Mapping[int, str]) -> list[Chart]:
    """Bland-Altman, one chart per label: the mean of both sizes across, prediction minus truth upwards."""
    charts = [_bland_altman(summary, label, colours[label]) for label in shown_labels(summary, MOST_PLOTS)]
    return [chart for chart in charts if chart is not None]


def trust_chart(found: TrustScores) -> Chart:
    """Risk against coverage, a line for each score."""
    lines = [
        Line(
            curve.points,
            f"{score}: AURC {curve.aurc:.3f}",
            TRUST_COLOURS.get(score, ""),
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


def _bland_altman(summary: MaskSummary, label: int, colour: str) -> Chart | None:
    unit, name = summary.size_unit, summary.labels[label]
    sizes = [(case, *_sizes(case, label, summary.unit)) for case in summary.cases]
    there = [(case, true, found) for case, true, found in sizes if true + found > 0]
    if len(there) < 2:
        return None
    differences = np.array([found - true for _, true, found in there])
    bias, spread = float(differences.mean()), 1.96 * float(differences.std(ddof=1))
    ends = (bias - spread, bias + spread)
    words = dict(zip(("bias", "low", "high"), amounts((bias, *ends)), strict=True))
    means = [(true + found) / 2 for _, true, found in there]
    dots = [
        Dot(mean, found - true, f"{case.name}: {amount(found)} {unit} predicted, {amount(true)} {unit} true", colour)
        for mean, (case, true, found) in list(zip(means, there, strict=True))[:: 1 + len(there) // MOST_DOTS]
    ]
    rules = [
        Rule(0.0, "", "x"),
        Rule(bias, f"mean {words['bias']}", "x", dashed=True),
        *(
            Rule(end, words[which], "x", dashed=True)
            for which, end in zip(("low", "high"), ends, strict=True)
            if spread > 0
        ),
    ]
    absent = sum(true + found == 0 for _, true, found in sizes)
    alone = f"; {counted(absent, 'case')} without it in truth and prediction left out" if absent else ""
    alt = (
        f"{name} is off by {words['bias']} {unit} on average, 95 % of the cases between "
        f"{words['low']} and {words['high']} {unit}{alone}"
    )
    x = axis_of(means, f"mean of truth and prediction, {unit}", most_ticks=5)
    y = axis_of([*differences.tolist(), *ends, 0.0], f"prediction - truth, {unit}", most_ticks=5)
    title = f"{'Volume' if summary.unit == 'mm' else 'Area'} of {name}"
    return Chart(title, alt, x, y, rules=tuple(rules), dots=tuple(dots), left=60, right=90)


def _lowest(summary: MaskSummary, shown: Sequence[int]) -> str:
    """Which labels a chart shows, where these are not all."""
    return f", the lowest {len(shown)} of {len(summary.labels)}" if len(shown) < len(summary.labels) else ""


def _sizes(case: MaskCase, label: int, unit: str) -> tuple[float, float]:
    return case.size(label, "ref", unit), case.size(label, "pred", unit)


def confusion_rows(counts: np.ndarray, names: Sequence[str]) -> list[tuple[str, list[tuple[int, float]]]]:
    """Voxel counts (K, K), truth by prediction -> a row per label: its name, and count and share of every column."""
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return [
        (name, list(zip(map(int, row), map(float, share), strict=True)))
        for name, row, share in zip(names, counts, shares, strict=True)
    ]


def _aside(k: int) -> float:
    """A place beside the column's middle for the k-th dot, so that equal ones lie beside each other."""
    return ((k * 0.618034) % 1 - 0.5) * 0.5


def _or_last(value: float) -> float:
    return math.inf if math.isnan(value) else value
