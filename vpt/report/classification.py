"""The report of a classification, for people: a table for a terminal, and a folder of JSON, CSV and two pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vpt.files import make_folder, write_json, write_text
from vpt.report.blocks import Block
from vpt.report.class_pictures import MOST_CLASSES, draw_confusion, draw_labels, draw_reliability
from vpt.report.group_blocks import group_blocks
from vpt.report.own_results import PICTURES, QUALITY, RESULTS, saving
from vpt.scores.bootstrap import LEVEL
from vpt.scores.classes import counted_confidences
from vpt.scores.classification import PER_CLASS, ClassificationScores, probabilities_csv
from vpt.vocabulary import Target
from vpt.words import counted

HEADLINES = {
    "accuracy": "accuracy",
    "exact_match": "exact match",
    "balanced_accuracy": "balanced accuracy",
    "auroc": "AUROC (mean over classes)",
    "mean_average_precision": "mean average precision",
    "macro_f1": "F1 (mean over classes)",
    "quadratic_kappa": "quadratic kappa",
    "mae": "mean error in grades",
    "ece": "calibration error (ECE)",
    "nll": "negative log-likelihood",
}
WORST = 10  # of more than MOST_CLASSES the table shows those


class ClassReport(ClassificationScores):
    """Probabilities (N, K) and references (N, K), bool, of the named cases; `groups` names each case's patient.

    Raises:
        VptError: numbers of names, cases and classes do not agree, or a value cannot be a probability or a reference.
    """

    def save(self, folder: str | Path) -> Path:
        """Write `summary.json`, `cases.csv`, `evaluation.md`, `confusion.png`, `reliability.png` -> the path of
        `summary.json`.

        Raises VptError when the folder cannot be made or written, or holds such files that are not of an evaluation.
        """
        folder = Path(folder)
        make_folder(folder, "choose another place")
        with saving(folder, *RESULTS, *PICTURES, without=[QUALITY]):
            write_text(folder / "cases.csv", self.to_csv())
            write_text(folder / "evaluation.md", self.markdown())
            if self.target == "labels":
                draw_labels(folder / "confusion.png", self.confusion(), self.classes, self.title)
            else:
                draw_confusion(folder / "confusion.png", self.confusion(), self.classes, self.title)
            sure, right = counted_confidences(self.probabilities, self.targets, self.target, self.annotated)
            draw_reliability(folder / "reliability.png", sure, right, self.target, self.scores()["ece"], self.title)
            write_json(folder / "summary.json", self.summary())
        return folder / "summary.json"

    def markdown(self) -> str:
        """The tables as a page in Markdown."""
        intervals = self.intervals()
        scores = [
            [words, _cell(self.scores()[key]), _range(*intervals[key]) if key in intervals else "-"]
            for key, words in HEADLINES.items()
            if key in self.scores()
        ]
        classes = [[name, *(_cell(values[key]) for key in PER_CLASS)] for name, values in self.per_class().items()]
        blocks = [
            Block(f"By {self._noun()}", [self._noun(), *PER_CLASS.values()], classes),
            *self._groups(),
            Block("How", notes=self._footer(len(self.classes)).splitlines()),
        ]
        first = Block(self.title, ["score", "value", f"{LEVEL:.0%} interval"], scores)
        return "\n\n".join([first.markdown(1), *(block.markdown(2) for block in blocks)]) + "\n"

    def table(self) -> Any:
        """For a terminal: a rich renderable, scores with intervals above, classes below (the worst of many)."""
        from rich.box import SIMPLE_HEAD
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        look: dict[str, Any] = {"title_justify": "left", "box": SIMPLE_HEAD, "show_edge": False, "pad_edge": False}
        above = Table(title=Text(self.title), **look)
        for index, heading in enumerate(("score", "value", f"{LEVEL:.0%} interval")):
            above.add_column(heading, justify="right" if index else "left", no_wrap=index > 0)
        intervals = self.intervals()
        for key, words in HEADLINES.items():
            if key in self.scores():
                interval = _range(*intervals[key]) if key in intervals else "-"
                above.add_row(words, _cell(self.scores()[key]), interval)
        below = Table(**look)
        for index, heading in enumerate((self._noun(), *PER_CLASS.values())):
            below.add_column(heading, justify="right" if index else "left", no_wrap=index > 0, overflow="fold")
        shown = self._shown()
        for name, values in shown.items():
            below.add_row(Text(name), *(_cell(values[key]) for key in PER_CLASS))
        groups = [part for block in self._groups() for part in (Text(), block.table())]
        return Group(above, Text(), below, *groups, Text("\n" + self._footer(len(shown))))

    def _groups(self) -> list[Block]:
        return [block for found in self.by_group for block in group_blocks(found, "Scores")]

    def _shown(self) -> dict[str, dict[str, float]]:
        """All classes, or of many those with the lowest F1 (classes without one, which never occur, last)."""
        found = self.per_class()
        if len(found) <= MOST_CLASSES:
            return found
        worst = sorted(found, key=lambda name: (math.isnan(found[name]["f1"]), found[name]["f1"]))[:WORST]
        return {name: found[name] for name in worst}

    def _footer(self, shown: int) -> str:
        patients = "" if self.groups is None else f" of {counted(len(set(self.groups)), 'patient')}"
        lines = [
            f"{counted(len(self.names), 'case')}{patients}, {len(self.classes)} {self.target}; intervals: "
            f"{self.method()}"
        ]
        if shown < len(self.classes):
            lines.append(
                f"shown: the {shown} {self.target} with the lowest F1; summary.json has all {len(self.classes)}"
            )
        lines += filter(None, [self.annotated_in_words()])
        return "\n".join([*lines, *([f"encoder: {self.weights}"] if self.weights else [])])

    def _noun(self) -> str:
        return {"classes": "class", "labels": "label", "grades": "grade"}[self.target]


def write_probabilities(
    path: str | Path, names: Sequence[str], probabilities: np.ndarray, classes: Sequence[str], target: Target
) -> None:
    """Predictions (N, K) of cases without references, a CSV: name, prediction (labels joined by |), p_CLASS..."""
    write_text(path, probabilities_csv(names, probabilities, classes, target))


def _cell(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}" if math.isfinite(value) else "-"


def _range(low: float, high: float) -> str:
    return f"{low:.3f} to {high:.3f}" if math.isfinite(low) else "-"
