"""What an evaluation of masks found: scores per case and label -> means, intervals and counts, as JSON and CSV.

Means are nnU-Net's: per label over the cases that have a score, then over the labels. Never over slices.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from vpt.errors import VptError
from vpt.scores.bootstrap import LEVEL, RESAMPLES, SEED, bootstrap
from vpt.scores.cases import CaseScores, Empty, LabelScores
from vpt.versions import version_of

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
        monai = f"MONAI {version_of('monai') or 'unknown'}"
        hd95 = f"{monai}, compute_hausdorff_distance, percentile 95, larger of both directions, {self.unit}"
        nsd = f"{monai}, compute_surface_dice, tolerance {self.tolerance:g} {self.unit}, surface voxels counted"
        return {
            "title": self.title,
            "empty": self.empty,
            f"tolerance_{self.unit}": self.tolerance,
            "HD95": hd95 if self.distances else "not computed",
            "NSD": nsd if self.distances else "not computed",
            "mean": "per label over cases without undefined ones, then over labels",
            "vpt": version_of("vpt") or "unknown",
        }


@dataclass(frozen=True)
class SegmentationScores:
    """Scores of some cases on some labels (`labels`: id -> name). In every method `label=None` is the foreground.

    missing: the references that had no prediction and so are in no score; groups: names each case's patient;
    weights: whose the encoder's are, and their licence.

    Raises:
        VptError: another number of groups than of cases.
    """

    cases: tuple[CaseResult, ...]
    labels: dict[int, str]
    settings: Settings = field(default_factory=Settings)
    missing: tuple[str, ...] = ()
    groups: tuple[str, ...] | None = None
    weights: str | None = None

    def __post_init__(self) -> None:
        if self.groups is not None and len(self.groups) != len(self.cases):
            raise VptError(f"{len(self.groups)} groups for {len(self.cases)} cases; name the patient of every case")

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
        """95 % interval of the mean: percentile bootstrap over cases, or patients if `groups` names them, the same at
        every call.

        (NaN, NaN) when fewer than two cases, or patients, have the score. Without `groups` cases count as
        independent: several scans of one patient make the interval too narrow.
        """
        values = self.values(score, label)
        with_score = np.flatnonzero(np.isfinite(values).any(axis=1))
        if len({self.groups[k] for k in with_score} if self.groups else with_score) < 2:
            return math.nan, math.nan
        if score not in self._known:
            self._known[score] = self._intervals(score)
        return self._known[score]["foreground" if label is None else str(label)]

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
        over = "cases" if self._units is None else "patients"
        return {
            "foreground_mean": self._means(None),
            "mean": {str(label): self._means(label) for label in self.labels},
            "confidence_intervals": {
                "level": LEVEL,
                "method": f"percentile bootstrap over {over}, {RESAMPLES} resamples, seed {SEED}",
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
            **({"weights": self.weights} if self.weights else {}),
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

    @cached_property
    def _known(self) -> dict[str, dict[str, tuple[float, float]]]:
        """Score -> intervals that were asked for already."""
        return {}

    @cached_property
    def _units(self) -> tuple[str, ...] | None:
        """`groups` where they say more than the cases do: one scan per patient is drawn as a case."""
        return None if self.groups is None or len(set(self.groups)) == len(self.groups) else self.groups

    def _intervals(self, score: str) -> dict[str, tuple[float, float]]:
        """One score's intervals, of the foreground and of each label, from the same resamples."""
        values = self.values(score)
        columns = {"foreground": values} | {str(label): values[:, [k]] for k, label in enumerate(self.labels)}

        def means(weights: np.ndarray) -> dict[str, np.ndarray]:
            drawn = np.ascontiguousarray(weights.T, dtype=float)
            return {key: _mean(_weighted_means(drawn, each), axis=1) for key, each in columns.items()}

        return bootstrap(means, len(values), self._units)

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


def _weighted_means(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(r, cases), how often each resample holds each case, and (cases, labels) -> (r, labels), without NaN."""
    defined = np.isfinite(values)
    count = weights @ defined
    return np.where(count > 0, weights @ np.where(defined, values, 0) / np.maximum(count, 1), np.nan)


def _json(value: Any) -> Any:
    return value if math.isfinite(value) else None
