"""What an evaluation of a classification found, for people: a table, JSON, CSV, and two pictures."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vpt.errors import VptError
from vpt.files import atomic, make_folder, write_json, write_text
from vpt.scores import classes as class_metrics
from vpt.scores.classes import BINS, bins_of, checked_probabilities, confidences, decisions
from vpt.scores.report import LEVEL, RESAMPLES, SEED, _version
from vpt.vocabulary import Target

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
PER_CLASS = {  # key -> heading
    "n": "n",
    "recall": "sensitivity",
    "specificity": "specificity",
    "precision": "precision",
    "f1": "F1",
    "auroc": "AUROC",
}
MOST_CLASSES, WORST = 20, 10  # with more classes than this the table shows the worst, and the heat map no numbers
MOST_TICKS, LONGEST = 120, 28  # names beside a heat map, and characters of one
INK, BAR = "#3182bd", "#9ecae1"


@dataclass(frozen=True, eq=False)
class ClassReport:
    """Probabilities (N, K) and references (N, K), bool, of the named cases; `groups` names each case's patient.

    Raises:
        VptError: numbers of names, cases and classes do not agree, or a value cannot be a probability or a reference.
    """

    names: tuple[str, ...]
    probabilities: np.ndarray
    targets: np.ndarray
    classes: tuple[str, ...]
    target: Target
    title: str = "Evaluation"
    groups: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        probabilities, targets = class_metrics.checked(self.probabilities, self.targets, self.target)
        object.__setattr__(self, "probabilities", probabilities)
        object.__setattr__(self, "targets", targets)
        _check_names(self.names, self.classes, probabilities)
        if self.groups is not None and len(self.groups) != len(self.names):
            raise VptError(f"{len(self.groups)} groups for {len(self.names)} cases; name the patient of every case")

    def scores(self) -> dict[str, float]:
        """See `class_metrics.class_scores`; NaN is undefined."""
        return dict(self._scores)

    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % interval of every score: percentile bootstrap over cases, or patients if `groups` names them.

        Not of the calibration error: it grows with repeated cases, so that its interval may not even hold it.
        """
        return {name: self._intervals[name] for name in self._scores if name != "ece"}

    def per_class(self) -> dict[str, dict[str, float]]:
        """Class -> n, recall, specificity, precision, f1, auroc, each against the rest; NaN is undefined."""
        found = class_metrics.per_class_scores(self.probabilities, self.targets, self.target)
        return {name: {key: found[key][k].item() for key in PER_CLASS} for k, name in enumerate(self.classes)}

    def confusion(self) -> np.ndarray:
        """Counts (K, K), reference by prediction; of labels (K, 2, 2), absent and present by not and predicted."""
        return class_metrics.confusion(self.probabilities, self.targets, self.target)

    def summary(self) -> dict[str, Any]:
        """The content of `summary.json`; undefined scores are NaN here and null there."""
        return {
            "title": self.title,
            "target": self.target,
            "n": len(self.names),
            "scores": self.scores(),
            "intervals": {"level": LEVEL, "method": self._method(), **self.intervals()},
            "per_class": self.per_class(),
            "confusion": {
                "classes": list(self.classes),
                "axes": "label, reference, prediction" if self.target == "labels" else "reference, prediction",
                "counts": self.confusion().tolist(),
            },
            "settings": self._settings(),
        }

    def to_csv(self) -> str:
        """One row per case: reference and prediction (labels joined by |), whether all is right, probabilities."""
        decided = decisions(self.probabilities, self.target)
        right = (decided == self.targets).all(1)
        rows = zip(self.names, self.targets, decided, right, self.probabilities, strict=True)
        return _csv(
            ["name", "reference", "prediction", "correct", *_columns(self.classes)],
            (
                [name, _joined(true, self.classes), _joined(found, self.classes), int(is_right), *_digits(given)]
                for name, true, found, is_right, given in rows
            ),
        )

    def save(self, folder: str | Path) -> Path:
        """Write `summary.json`, `cases.csv`, `confusion.png`, `reliability.png` -> the path of `summary.json`.

        Raises VptError when the folder cannot be made or written.
        """
        folder = Path(folder)
        make_folder(folder, "choose another place")
        write_text(folder / "cases.csv", self.to_csv())
        if self.target == "labels":
            _draw_labels(folder / "confusion.png", self.confusion(), self.classes, self.title)
        else:
            _draw_confusion(folder / "confusion.png", self.confusion(), self.classes, self.title)
        sure, right = confidences(self.probabilities, self.targets, self.target)
        _draw_reliability(folder / "reliability.png", sure, right, self.target, self._scores["ece"], self.title)
        write_json(folder / "summary.json", self.summary())
        return folder / "summary.json"

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
            if key in self._scores:
                interval = _range(*intervals[key]) if key in intervals else "-"
                above.add_row(words, _cell(self._scores[key]), interval)
        below = Table(**look)
        for index, heading in enumerate((self._noun(), *PER_CLASS.values())):
            below.add_column(heading, justify="right" if index else "left", no_wrap=index > 0, overflow="fold")
        shown = self._shown()
        for name, values in shown.items():
            below.add_row(Text(name), *(_cell(values[key]) for key in PER_CLASS))
        return Group(above, Text(), below, Text("\n" + self._footer(len(shown))))

    @cached_property
    def _scores(self) -> dict[str, float]:
        return class_metrics.class_scores(self.probabilities, self.targets, self.target)

    @cached_property
    def _intervals(self) -> dict[str, tuple[float, float]]:
        given = (self.probabilities, self.targets, self.target, self.groups)
        return class_metrics.intervals(*given, level=LEVEL, resamples=RESAMPLES, seed=SEED)

    def _shown(self) -> dict[str, dict[str, float]]:
        """All classes, or of many those with the lowest F1 (classes without one, which never occur, last)."""
        found = self.per_class()
        if len(found) <= MOST_CLASSES:
            return found
        worst = sorted(found, key=lambda name: (math.isnan(found[name]["f1"]), found[name]["f1"]))[:WORST]
        return {name: found[name] for name in worst}

    def _footer(self, shown: int) -> str:
        patients = "" if self.groups is None else f" of {len(set(self.groups))} patients"
        lines = [f"{len(self.names)} cases{patients}, {len(self.classes)} {self.target}; intervals: {self._method()}"]
        if shown < len(self.classes):
            lines.append(
                f"shown: the {shown} {self.target} with the lowest F1; summary.json has all {len(self.classes)}"
            )
        return "\n".join(lines)

    def _noun(self) -> str:
        return {"classes": "class", "labels": "label", "grades": "grade"}[self.target]

    def _method(self) -> str:
        over = "cases" if self.groups is None else "patients"
        return f"percentile bootstrap over {over}, {RESAMPLES} resamples, seed {SEED}"

    def _settings(self) -> dict[str, Any]:
        what = "of each label's probability" if self.target == "labels" else "of the predicted class's probability"
        chosen = f"labels above {class_metrics.THRESHOLD:g}" if self.target == "labels" else "the most probable class"
        return {
            "prediction": chosen,
            "ece": f"{BINS} equal bins {what}, L1",
            "mean over classes": "of those where the score is defined",
            "smallest probability in nll": class_metrics.SMALLEST,
            "torchmetrics": _version("torchmetrics"),
            "vpt": _version("vpt"),
        }


def write_probabilities(
    path: str | Path, names: Sequence[str], probabilities: np.ndarray, classes: Sequence[str], target: Target
) -> None:
    """Predictions (N, K) of cases without references, a CSV: name, prediction (labels joined by |), p_CLASS..."""
    probabilities = checked_probabilities(probabilities, target)
    _check_names(names, classes, probabilities)
    rows = zip(names, decisions(probabilities, target), probabilities, strict=True)
    text = _csv(
        ["name", "prediction", *_columns(classes)],
        ([name, _joined(found, classes), *_digits(given)] for name, found, given in rows),
    )
    write_text(path, text)


def _check_names(names: Sequence[str], classes: Sequence[str], probabilities: np.ndarray) -> None:
    if (len(names), len(classes)) != probabilities.shape:
        raise VptError(
            f"{len(names)} names and {len(classes)} classes do not fit probabilities of shape {probabilities.shape}; "
            "give one name per row and one class per column"
        )
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if list(classes).count(name) > 1)
        raise VptError(f"class {twice!r} is there twice; give every column a name of its own")


def _csv(head: list[str], rows: Any) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return out.getvalue()


def _columns(classes: Sequence[str]) -> list[str]:
    return [f"p_{name}" for name in classes]


def _joined(chosen: np.ndarray, classes: Sequence[str]) -> str:
    return "|".join(name for name, is_chosen in zip(classes, chosen, strict=True) if is_chosen)


def _digits(values: np.ndarray) -> list[str]:
    return [f"{value:.6g}" for value in values]


def _cell(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}" if math.isfinite(value) else "-"


def _range(low: float, high: float) -> str:
    return f"{low:.3f} to {high:.3f}" if math.isfinite(low) else "-"


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}\u2026"


def _draw_confusion(path: Path, counts: np.ndarray, classes: Sequence[str], title: str) -> None:
    """Counts (K, K) -> a heat map, each row by its sum; a class without cases is a grey row."""
    sums = counts.sum(1, keepdims=True)
    shares = np.ma.masked_where(np.broadcast_to(sums == 0, counts.shape), counts / np.maximum(sums, 1))
    side = 3.4 + np.interp(len(classes), [2, MOST_CLASSES, 100], [2, 8, 11])
    heads = [_short(name) for name in classes]
    names = [f"{name}  (n={n})" for name, n in zip(heads, sums.ravel(), strict=True)]
    _draw_heat(path, counts, shares, names, heads, (side + 1, side), title, "prediction")


def _draw_labels(path: Path, counts: np.ndarray, labels: Sequence[str], title: str) -> None:
    """Counts (K, 2, 2) -> one row per label: the share of its cases found and missed, of the others spared or not."""
    (spared, alarms), (missed, found) = counts.transpose(1, 2, 0)
    table = np.stack([found, missed, spared, alarms], 1)
    sums = np.stack([found + missed] * 2 + [spared + alarms] * 2, 1)
    shares = np.ma.masked_where(sums == 0, table / np.maximum(sums, 1))
    names = [f"{_short(name)}  (n={n})" for name, n in zip(labels, found + missed, strict=True)]
    heads = ["present:\nfound", "present:\nmissed", "absent:\nnot predicted", "absent:\nfalse alarm"]
    size = (8.5, 2.6 + np.interp(len(labels), [1, MOST_CLASSES, 100], [0.6, 8, 12]))
    _draw_heat(path, table, shares, names, heads, size, title, "label by label")


def _draw_heat(
    path: Path,
    counts: np.ndarray,
    shares: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    size: tuple[float, float],
    title: str,
    axis: str,
) -> None:
    """Counts and their shares in [0, 1], (rows, columns) -> a picture, with numbers unless the rows are many."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("#e0e0e0")
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the reference", ticks=[0, 0.25, 0.5, 0.75, 1])
    small = 9 if len(rows) <= MOST_CLASSES else 6
    axes.set(xlabel=axis, ylabel="reference (n cases)")
    axes.set_title(title, loc="left", fontsize=11, wrap=True)
    axes.set_yticks(range(len(rows)) if len(rows) <= MOST_TICKS else [], rows if len(rows) <= MOST_TICKS else None)
    axes.set_xticks(range(len(columns)) if len(columns) <= MOST_TICKS else [])
    if len(columns) <= MOST_TICKS:
        longest = max(len(line) for name in columns for line in name.split("\n"))
        turn = 0 if len(columns) <= 4 and longest <= 14 else 45 if len(columns) <= MOST_CLASSES else 90
        slanted: dict[str, Any] = {"ha": "right", "rotation_mode": "anchor"} if turn == 45 else {}
        axes.set_xticklabels(columns, rotation=turn, **slanted)
    axes.tick_params(labelsize=small, length=2)
    if len(rows) <= MOST_CLASSES:
        _write_numbers(axes, counts, shares, size=10 if len(columns) <= 8 else 7)
    with atomic(path) as part:
        figure.savefig(part, dpi=130, format="png")


def _write_numbers(axes: Any, counts: np.ndarray, shares: np.ndarray, size: int) -> None:
    masked = np.ma.getmaskarray(shares)
    for (i, j), count in np.ndenumerate(counts):
        if not masked[i, j] and (count or len(counts) <= 8):
            words = f"{count}\n{shares[i, j]:.0%}" if len(counts) <= 12 else str(count)
            axes.text(
                j, i, words, ha="center", va="center", size=size, color="white" if shares[i, j] > 0.55 else "black"
            )


def _draw_reliability(path: Path, sure: np.ndarray, right: np.ndarray, target: Target, ece: float, title: str) -> None:
    """Confidences in [0, 1] and whether right, bool -> share right per bin above, how many decisions below."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    bins = bins_of(sure).ravel()
    count = np.bincount(bins, minlength=BINS)
    filled = np.flatnonzero(count)
    share = np.bincount(bins, weights=right.ravel(), minlength=BINS)[filled] / count[filled]
    confidence = np.bincount(bins, weights=sure.ravel(), minlength=BINS)[filled] / count[filled]
    labels = target == "labels"
    figure = Figure(figsize=(6, 7), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.plot([0, 1], [0, 1], color="grey", ls="--", lw=1, label="perfect calibration")
    above.bar((filled + 0.5) / BINS, share, width=0.94 / BINS, color=BAR, label="observed, per bin")
    above.plot(confidence, share, color=INK, marker="o", ms=5, label="observed, at the mean confidence")
    above.set(ylabel="share of cases with the label" if labels else "accuracy", xlim=(0, 1), ylim=(0, 1.02))
    above.set_title(f"{title}\ncalibration error (ECE) {ece:.3f}", loc="left", fontsize=11, wrap=True)
    figure.legend(loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    below.bar((np.arange(BINS) + 0.5) / BINS, count, width=0.94 / BINS, color=INK)
    below.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    words = (
        "probability given to a label (all cases, all labels)"
        if labels
        else "confidence (probability of the prediction)"
    )
    below.set(xlabel=words, ylabel="decisions" if labels else "cases")
    for axes in (above, below):
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    with atomic(path) as part:
        figure.savefig(part, dpi=110, format="png")
