"""Pictures of a classification: which classes are taken for which, and whether its confidence can be believed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vpt.files import atomic
from vpt.scores.classes import BINS, bins_of
from vpt.vocabulary import Target

MOST_CLASSES = 20  # with more classes than this the heat map has no numbers
MOST_TICKS, LONGEST = 120, 28  # names beside a heat map, and characters of one
INK, BAR = "#3182bd", "#9ecae1"


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}\u2026"


def draw_confusion(path: Path, counts: np.ndarray, classes: Sequence[str], title: str) -> None:
    """Counts (K, K) -> a heat map, each row by its sum; a class without cases is a grey row."""
    sums = counts.sum(1, keepdims=True)
    shares = np.ma.masked_where(np.broadcast_to(sums == 0, counts.shape), counts / np.maximum(sums, 1))
    side = 3.4 + np.interp(len(classes), [2, MOST_CLASSES, 100], [2, 8, 11])
    heads = [_short(name) for name in classes]
    names = [f"{name}  (n={n})" for name, n in zip(heads, sums.ravel(), strict=True)]
    _draw_heat(path, counts, shares, names, heads, (side + 1, side), title, "prediction")


def draw_labels(path: Path, counts: np.ndarray, labels: Sequence[str], title: str) -> None:
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


def draw_reliability(path: Path, sure: np.ndarray, right: np.ndarray, target: Target, ece: float, title: str) -> None:
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
