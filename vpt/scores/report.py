"""What an evaluation found: scores per case and label -> means, intervals and counts, as JSON, CSV and a table.

Means are nnU-Net's: per label over the cases that have a score, then over the labels. Never over slices.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vpt.errors import VptError
from vpt.files import make_folder, write_json, write_text
from vpt.scores.cases import CaseScores, Empty, LabelScores
from vpt.words import listed

# nnU-Net's names, and ours after them -> the attribute of LabelScores.
SCORES = {
    "Dice": "dice",
    "IoU": "iou",
    "HD95": "hd95",
    "NSD": "nsd",
    "volume_pred_ml": "volume_pred_ml",
    "volume_ref_ml": "volume_ref_ml",
    "TP": "tp",
    "FP": "fp",
    "FN": "fn",
    "TN": "tn",
    "n_pred": "n_pred",
    "n_ref": "n_ref",
}
VOLUMES = ("volume_pred_ml", "volume_ref_ml")  # of scans; the areas of images are n_pred and n_ref
WITH_INTERVALS = ("Dice", "IoU", "HD95", "NSD")
EMPTY_WORDS = {"nan": "left out of means", "one": "scored 1", "zero": "scored 0"}
LEVEL, RESAMPLES, SEED = 0.95, 2000, 0

# How often, over cases, something happened that a mean alone would hide.
COUNTS: dict[str, Callable[[LabelScores], bool]] = {
    "both_empty": lambda score: score.n_pred == 0 and score.n_ref == 0,
    "false_positives": lambda score: score.n_pred > 0 and score.n_ref == 0,
    "missed": lambda score: score.n_pred == 0 and score.n_ref > 0,
    "hd95_undefined": lambda score: (score.n_pred == 0) != (score.n_ref == 0),
}


@dataclass(frozen=True)
class CaseResult:
    """One case: its name, where its volumes came from, and its scores per label."""

    name: str
    prediction_file: str
    reference_file: str
    scores: CaseScores


@dataclass(frozen=True)
class Settings:
    """How the scores were made; two reports with equal settings can be compared. `tolerance` and HD95 in `unit`."""

    title: str = "Evaluation"
    empty: Empty = "nan"
    tolerance: float = 1.0
    distances: bool = True
    unit: Literal["mm", "px"] = "mm"

    def to_dict(self) -> dict[str, Any]:
        monai = f"MONAI {_version('monai')}"
        hd95 = f"{monai}, compute_hausdorff_distance, percentile 95, larger of both directions, {self.unit}"
        nsd = f"{monai}, compute_surface_dice, tolerance {self.tolerance:g} {self.unit}, surface voxels counted"
        return {
            "title": self.title,
            "empty": self.empty,
            f"tolerance_{self.unit}": self.tolerance,
            "HD95": hd95 if self.distances else "not computed",
            "NSD": nsd if self.distances else "not computed",
            "mean": "per label over cases without undefined ones, then over labels",
            "vpt": _version("vpt"),
        }


@dataclass(frozen=True)
class Report:
    """Scores of some cases on some labels (`labels`: id -> name). In every method `label=None` is the foreground.

    missing: the references that had no prediction and so are in no score.
    """

    cases: tuple[CaseResult, ...]
    labels: dict[int, str]
    settings: Settings = field(default_factory=Settings)
    missing: tuple[str, ...] = ()

    @property
    def scores(self) -> tuple[str, ...]:
        """The keys of SCORES that the cases have: images have no volume in ml."""
        return tuple(score for score in SCORES if self.settings.unit == "mm" or score not in VOLUMES)

    def values(self, score: str = "Dice", label: int | None = None) -> np.ndarray:
        """One score (a key of SCORES) of every case: (cases, labels), or (cases, 1) of one label; NaN is undefined."""
        if score not in self.scores:
            raise VptError(f"score: {score!r} is not one of {', '.join(self.scores)}")
        labels = self._chosen(label)
        rows = [[getattr(case.scores[each], SCORES[score]) for each in labels] for case in self.cases]
        return np.array(rows, dtype=float).reshape(len(self.cases), len(labels))

    def mean(self, score: str = "Dice", label: int | None = None) -> float:
        """Over cases, then (without `label`) over labels; NaN when no case has this score."""
        return _mean(_mean(self.values(score, label), axis=0), axis=0).item()

    def interval(self, score: str = "Dice", label: int | None = None) -> tuple[float, float]:
        """95 % interval of the mean: percentile bootstrap over cases, the same at every call.

        (NaN, NaN) when fewer than two cases have the score. Cases count as independent: several scans of one patient
        make the interval too narrow.
        """
        values = self.values(score, label)
        if np.count_nonzero(np.isfinite(values).any(axis=1)) < 2:
            return math.nan, math.nan
        means = _mean(_resampled_means(values), axis=1)
        low, high = np.nanpercentile(means, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
        return float(low), float(high)

    def counts(self, label: int | None = None) -> dict[str, int]:
        """`cases`, and how many of them are `both_empty`, `false_positives` (on an empty reference), `missed` (an
        empty prediction), `hd95_undefined` (one side empty). For the foreground the latter are sums over the labels.
        """
        scores = [case.scores[each] for case in self.cases for each in self._chosen(label)]
        return {"cases": len(self.cases)} | {name: sum(map(test, scores)) for name, test in COUNTS.items()}

    def summary(self) -> dict[str, Any]:
        """The content of `summary.json`: nnU-Net's keys and ours; None where a score is undefined."""
        everything: list[tuple[str, int | None]] = [
            ("foreground", None),
            *((str(label), label) for label in self.labels),
        ]
        return {
            "foreground_mean": self._means(None),
            "mean": {str(label): self._means(label) for label in self.labels},
            "confidence_intervals": {
                "level": LEVEL,
                "method": f"percentile bootstrap over cases, {RESAMPLES} resamples, seed {SEED}",
                **{
                    key: {score: [_json(end) for end in self.interval(score, label)] for score in WITH_INTERVALS}
                    for key, label in everything
                },
            },
            "counts": {
                "missing_predictions": len(self.missing),
                **{key: self.counts(label) for key, label in everything},
            },
            "missing_predictions": list(self.missing),
            "labels": {str(label): name for label, name in self.labels.items()},
            "settings": self.settings.to_dict(),
            "metric_per_case": [
                {
                    "metrics": {str(label): self._scores_of(case, label) for label in self.labels},
                    "prediction_file": case.prediction_file,
                    "reference_file": case.reference_file,
                }
                for case in self.cases
            ],
        }

    def to_json(self) -> str:
        return json.dumps(self.summary(), indent=2, allow_nan=False)

    def to_csv(self) -> str:
        """One row per case and label; an undefined score is an empty cell."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["case", "label", "name", *self.scores, "prediction_file", "reference_file"])
        for case in self.cases:
            for label, name in self.labels.items():
                scores = ["" if value is None else value for value in self._scores_of(case, label).values()]
                writer.writerow([case.name, label, name, *scores, case.prediction_file, case.reference_file])
        return out.getvalue()

    def save(self, folder: str | Path) -> Path:
        """Write `summary.json` and `cases.csv` into the folder, made if missing -> the path of `summary.json`.

        Raises VptError when the folder cannot be made or written.
        """
        folder = Path(folder)
        make_folder(folder, "choose another place")
        write_text(folder / "cases.csv", self.to_csv())
        write_json(folder / "summary.json", self.summary())
        return folder / "summary.json"

    def table(self) -> Any:
        """For a terminal: a rich renderable, one row per label, the foreground last, the counts below."""
        from rich.box import SIMPLE_HEAD
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        head, *rows = self._rows()
        title = Text(self.settings.title)
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for index, name in enumerate(head):
            table.add_column(name, justify="left" if index == 0 else "right", no_wrap=index == 2, overflow="fold")
        for index, row in enumerate(rows):
            table.add_row(*map(Text, row), end_section=index == len(rows) - 2)
        return Group(
            table, Text("\n" + self._footer()), *([Text(self._gap(), style="bold yellow")] if self.missing else [])
        )

    def text(self) -> str:
        """The same as plain text, for logs and files."""
        rows = self._rows()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        aligned = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]
        return "\n".join([self.settings.title, *aligned, self._footer(), *([self._gap()] if self.missing else [])])

    def _rows(self) -> list[list[str]]:
        named: list[tuple[str, int | None]] = [(name, label) for label, name in self.labels.items()]
        unit = self.settings.unit
        size = "volume error ml" if unit == "mm" else "area error px"
        head = ["label", "Dice", f"{LEVEL:.0%} interval", "IoU", f"HD95 {unit}", "NSD", size]
        return [head, *([name, *self._cells(label)] for name, label in [*named, ("foreground", None)])]

    def _cells(self, label: int | None) -> list[str]:
        low, high = self.interval("Dice", label)
        return [
            _cell(self.mean("Dice", label), ".3f"),
            f"{low:.3f} to {high:.3f}" if math.isfinite(low) else "-",
            _cell(self.mean("IoU", label), ".3f"),
            _cell(self.mean("HD95", label), ".2f"),
            _cell(self.mean("NSD", label), ".3f"),
            self._size_error(label),
        ]

    def _size_error(self, label: int | None) -> str:
        """Predicted minus reference: ml of scans, pixels of images."""
        if self.settings.unit == "mm":
            return _cell(self.mean("volume_pred_ml", label) - self.mean("volume_ref_ml", label), "+z.3f")
        return _cell(self.mean("n_pred", label) - self.mean("n_ref", label), "+z.1f")

    def _footer(self) -> str:
        """How many scores the means are of and what happened to the others; how distances were computed."""
        counts, settings = self.counts(), self.settings
        happened = [
            f"{counts[key]} {words}"
            for key, words in {
                "both_empty": f"empty in both ({EMPTY_WORDS[settings.empty]})",
                "missed": "missed",
                "false_positives": "predicted on an empty reference",
                "hd95_undefined": "without HD95",
            }.items()
            if counts[key]
        ]
        scored = f"{_number(len(self.cases), 'case')} x {_number(len(self.labels), 'label')}"
        surfaces = f"HD95 and NSD (at {settings.tolerance:g} {settings.unit}) by MONAI {_version('monai')}"
        return (
            f"{scored}: {', '.join(happened) or 'each present in prediction and reference'}\n"
            f"{surfaces if settings.distances else 'HD95 and NSD not computed'}; "
            f"{'volume' if settings.unit == 'mm' else 'area'} error: predicted - reference"
        )

    def _gap(self) -> str:
        """What a reader must not overlook: the scores are of a part of the references."""
        return (
            f"{len(self.missing)} of {len(self.cases) + len(self.missing)} references have no prediction and are not "
            f"scored: {listed(self.missing, 3)} (--strict makes this an error)"
        )

    def _means(self, label: int | None) -> dict[str, float | None]:
        return {score: _json(self.mean(score, label)) for score in self.scores}

    def _scores_of(self, case: CaseResult, label: int) -> dict[str, Any]:
        return {score: _json(getattr(case.scores[label], SCORES[score])) for score in self.scores}

    def _chosen(self, label: int | None) -> list[int]:
        if label is not None and label not in self.labels:
            raise VptError(f"label {label} is not in {list(self.labels)}, the labels of this report")
        return list(self.labels) if label is None else [label]


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean without NaN; NaN where nothing is left, and no warning about it."""
    defined = np.isfinite(values)
    total, count = np.where(defined, values, 0).sum(axis), defined.sum(axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _resampled_means(values: np.ndarray) -> np.ndarray:
    """(cases, labels) -> (RESAMPLES, labels): means over cases drawn with replacement, a case's labels together."""
    defined, draws = np.isfinite(values), _draws(len(values))
    count = draws @ defined
    return np.where(count > 0, draws @ np.where(defined, values, 0) / np.maximum(count, 1), np.nan)


@lru_cache(maxsize=1)
def _draws(cases: int) -> np.ndarray:
    """How often each resample draws each case: (RESAMPLES, cases). As weights they make every mean a matrix product."""
    return np.random.default_rng(SEED).multinomial(cases, np.full(cases, 1 / cases), size=RESAMPLES).astype(float)


def _json(value: Any) -> Any:
    return value if math.isfinite(value) else None


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _cell(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "-"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
