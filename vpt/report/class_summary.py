"""`summary.json` and `cases.csv` of a classification, as its page reads them, and their charts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vpt.report.blocks import Block
from vpt.report.charts import Axis, Bar, Chart, Dot, Line, axis_of
from vpt.report.mask_charts import UNITS
from vpt.report.stored_blocks import stored_blocks
from vpt.scores.classes import BINS, bins_of, counted_confidences
from vpt.vocabulary import Target


@dataclass(frozen=True)
class ClassCase:
    """A case: what it is, what it was taken for (labels joined by |), and the probability of what is true.

    looked_for: the labels by which it is judged, where these are not all.
    """

    name: str
    reference: str
    prediction: str
    correct: bool
    given: float
    looked_for: str = ""


@dataclass(frozen=True, eq=False)
class ClassSummary:
    """scores, intervals: by key; per_class: class -> key -> value; counts: (K, K), of labels (K, 2, 2).

    probabilities, truth: (N, K) of the cases in order; looked: (N, K) bool, which labels somebody has looked for;
    tables: of groups, with their headings; notes: what is to be said of all cases.
    """

    title: str
    target: Target
    classes: tuple[str, ...]
    scores: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    method: str
    per_class: Mapping[str, Mapping[str, float]]
    counts: np.ndarray
    cases: tuple[ClassCase, ...]
    probabilities: np.ndarray
    truth: np.ndarray
    looked: np.ndarray
    weights: str | None = None
    tables: tuple[tuple[str, Block], ...] = ()
    notes: tuple[str, ...] = ()

    def worst_first(self) -> list[ClassCase]:
        """The cases whose truth was given the least probability first."""
        return sorted(self.cases, key=lambda case: (case.given, case.name))


def read_class_summary(found: Mapping[str, Any], rows: Sequence[Mapping[str, str]]) -> ClassSummary:
    """summary.json, and the rows of cases.csv."""
    classes, target = tuple(found["confusion"]["classes"]), found["target"]
    probabilities = np.array([[float(row[f"p_{name}"]) for name in classes] for row in rows]).reshape(-1, len(classes))
    truth = np.array([[name in row["reference"].split("|") for name in classes] for row in rows], bool)
    truth = truth.reshape(-1, len(classes))
    looked = np.array([[_is_looked_for(name, row) for name in classes] for row in rows], bool).reshape(truth.shape)
    given = np.where(truth, probabilities, 1 - probabilities if target == "labels" else 1.0)
    given = np.where(looked, given, 1.0).min(1)
    cases = [
        ClassCase(row["name"], row["reference"], row["prediction"], row["correct"] == "1", float(each), words)
        for row, each, words in zip(rows, given, map(_looked_for, rows, looked), strict=True)
    ]
    intervals = found["intervals"]
    return ClassSummary(
        title=found["title"],
        target=target,
        classes=classes,
        scores={key: _number(value) for key, value in found["scores"].items()},
        intervals={key: (_number(ends[0]), _number(ends[1])) for key, ends in intervals.items() if _is_range(ends)},
        method=intervals["method"],
        per_class={
            name: {key: _number(value) for key, value in each.items()} for name, each in found["per_class"].items()
        },
        counts=np.array(found["confusion"]["counts"]),
        cases=tuple(cases),
        probabilities=probabilities,
        truth=truth,
        looked=looked,
        weights=found.get("weights"),
        tables=tuple(stored_blocks(found, "Scores")),
        notes=tuple(found.get("notes", ())),
    )


def _looked_for(row: Mapping[str, str], looked: np.ndarray) -> str:
    return "" if looked.all() else row["annotated"]


def _is_looked_for(name: str, row: Mapping[str, str]) -> bool:
    return "annotated" not in row or name in row["annotated"].split("|")


def reliability_charts(summary: ClassSummary) -> list[Chart]:
    """How often answers of a confidence are right, and how many there are."""
    if not len(summary.cases):
        return []
    sure, right = counted_confidences(summary.probabilities, summary.truth, summary.target, summary.looked)
    bins = bins_of(sure)
    count = np.bincount(bins, minlength=BINS)
    filled = np.flatnonzero(count).tolist()
    share = np.bincount(bins, weights=right, minlength=BINS)[filled] / count[filled]
    mean = np.bincount(bins, weights=sure, minlength=BINS)[filled] / count[filled]
    x = Axis(0, 1, UNITS, "probability of a label" if summary.target == "labels" else "confidence of the answer")
    observed = "share with the label" if summary.target == "labels" else "share that is right"
    bars = [
        Bar(
            (k / BINS, 0), ((k + 1) / BINS, value), f"{k / BINS:.2f} to {(k + 1) / BINS:.2f}: {value:.2f} of {count[k]}"
        )
        for k, value in zip(filled, share.tolist(), strict=True)
    ]
    dots = [
        Dot(at, value, f"mean {at:.2f}, observed {value:.2f}")
        for at, value in zip(mean.tolist(), share.tolist(), strict=True)
    ]
    ece = summary.scores.get("ece", math.nan)
    calibration = Chart(
        "Calibration",
        f"How often answers of a confidence are right; expected calibration error {ece:.3f}",
        x,
        Axis(0, 1.02, UNITS, observed),
        bars=tuple(bars),
        lines=(Line(((0, 0), (1, 1)), "perfect calibration", dashed=True),),
        dots=tuple(dots),
    )
    tall = [Bar((k / BINS, 0), ((k + 1) / BINS, int(count[k])), f"{count[k]}") for k in filled]
    often = Chart(
        "How sure it is",
        "How many answers have which confidence",
        x,
        axis_of(count.tolist(), "answers", least=(0,)),
        bars=tuple(tall),
        left=52,
    )
    return [calibration, often]


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _is_range(ends: Any) -> bool:
    return isinstance(ends, list) and len(ends) == 2
