"""What a page shows of a classification."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from vpt.report.class_summary import ClassCase, ClassSummary, reliability_charts
from vpt.report.classification import HEADLINES
from vpt.report.mask_charts import confusion_rows
from vpt.report.parts import MOST_CONFUSED, MOST_ROWS, Tile, digits, in_brackets, range_of
from vpt.scores.classification import PER_CLASS
from vpt.vocabulary import Target
from vpt.words import counted

CHOSEN: dict[Target, str] = {"classes": "balanced_accuracy", "labels": "auroc", "grades": "quadratic_kappa"}


@dataclass(frozen=True)
class Thumb:
    """A classified case with its picture, a data URI or "" where it cannot be read."""

    case: ClassCase
    picture: str


@dataclass(frozen=True)
class ClassSection:
    summary: ClassSummary
    thumbs: tuple[Thumb, ...]

    def headline(self, noun: str) -> str:
        """What came out, in one sentence; noun: what its cases are called."""
        found, key = self.summary, CHOSEN[self.summary.target]
        score = f"{self._score()} {digits(found.scores.get(key, math.nan), 3)}{in_brackets(found.intervals.get(key))}"
        right = sum(case.correct for case in found.cases)
        verb = "is" if right == 1 else "are"
        return f"{score} over {counted(len(found.cases), noun)}, of which {right} {verb} answered right."

    def _score(self) -> str:
        words = HEADLINES[CHOSEN[self.summary.target]]
        return words[0].upper() + words[1:]

    def tiles(self) -> list[Tile]:
        summary = self.summary
        key = CHOSEN[summary.target]
        wrong = sum(not case.correct for case in summary.cases)
        return [
            Tile(
                self._score(),
                digits(summary.scores.get(key, math.nan), 3),
                range_of(summary.intervals.get(key), 3),
            ),
            Tile("Wrong answers", str(wrong), f"of {counted(len(summary.cases), 'case')}"),
            Tile("Calibration error", digits(summary.scores.get("ece", math.nan), 3), "ECE, 0 is best"),
        ]

    def view(self) -> dict[str, object]:
        """What `classes.html` draws."""
        summary = self.summary
        several = summary.target == "labels"
        named = list(summary.classes)
        return {
            "summary": summary,
            "scores": [
                (HEADLINES[key], digits(value, 3), range_of(summary.intervals.get(key), 3))
                for key, value in summary.scores.items()
                if key in HEADLINES
            ],
            "per_class": [(name, _cells(each)) for name, each in summary.per_class.items()],
            "columns": list(PER_CLASS.values()),
            "confusion": None if several or len(named) > MOST_CONFUSED else confusion_rows(summary.counts, named),
            "names": named,
            "charts": reliability_charts(summary),
            "thumbs": self.thumbs,
            "cases": summary.worst_first()[:MOST_ROWS],
            "left_out": max(0, len(summary.cases) - MOST_ROWS),
        }


def _cells(found: Mapping[str, float]) -> list[str]:
    return [f"{found[key]:.0f}" if key == "n" else digits(found[key], 3) for key in PER_CLASS]
