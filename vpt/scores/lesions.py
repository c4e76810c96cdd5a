"""Lesion-wise detection: which connected parts of a reference a prediction found, which it missed, what it made up.

A lesion is a connected component: 26 neighbours of a voxel, 8 of a pixel. A predicted lesion and a true one are one if
their IoU reaches the threshold; each is matched once, the pairs with the highest IoU first (panoptica's
`NaiveThresholdMatching` at its default of 0.5). So of a lesion that was predicted in two pieces one at the most is its
match, and the other is false.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from vpt.errors import VptError
from vpt.scores.bootstrap import bootstrap
from vpt.scores.cases import voxel_ml, without_ignored
from vpt.scores.components import Components, alike, components_of, overlaps
from vpt.scores.surfaces import Spacing

OVERLAP = 0.5
SIZES = {"mm": (0.1, 1.0, 10.0), "px": (100.0, 1000.0, 10000.0)}  # where bins of lesion sizes meet, in ml or pixels


@dataclass(frozen=True)
class Lesion:
    """One of the reference: its size in ml (of images: pixels), IoU and Dice with its match, 0 where it was missed."""

    size: float
    iou: float = 0.0
    dice: float = 0.0

    @property
    def found(self) -> bool:
        return self.iou > 0


@dataclass(frozen=True)
class LesionScores:
    """One label of one case: the lesions of the reference, and the sizes of predicted ones that match none."""

    lesions: tuple[Lesion, ...]
    false: tuple[float, ...]

    @property
    def found(self) -> int:
        return sum(lesion.found for lesion in self.lesions)

    @property
    def missed(self) -> int:
        return len(self.lesions) - self.found


def score_lesions(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing: Spacing,
    labels: Iterable[int],
    *,
    overlap: float = OVERLAP,
    ignored: int | None = None,
) -> dict[int, LesionScores]:
    """Integer label volumes or images on one grid (as of `score_case`) -> the lesions of each label.

    Raises VptError for an overlap that is not in (0, 1].
    """
    check_overlap(overlap)
    labels = list(labels)
    prediction, _ = without_ignored(prediction, reference, ignored)
    unit = voxel_ml(spacing) if reference.ndim == 3 else 1.0
    theirs = components_of(reference, labels)
    mine = components_of(alike(reference, prediction), labels)
    return {label: _match(mine[label], theirs[label], unit, overlap) for label in labels}


def _match(mine: Components, theirs: Components, unit: float, overlap: float) -> LesionScores:
    pairs, shared = overlaps(theirs, mine)
    union = theirs.sizes[pairs[0]] + mine.sizes[pairs[1]] - shared
    lesions = [Lesion(float(size) * unit) for size in theirs.sizes]
    taken: set[int] = set()
    for k in np.argsort(-shared / union, kind="stable"):
        own, other, iou = int(pairs[0, k]), int(pairs[1, k]), float(shared[k] / union[k])
        if iou >= overlap and not lesions[own].found and other not in taken:
            lesions[own] = Lesion(lesions[own].size, iou, 2 * iou / (1 + iou))
            taken.add(other)
    return LesionScores(tuple(lesions), tuple(float(n) * unit for k, n in enumerate(mine.sizes) if k not in taken))


def check_overlap(overlap: float) -> None:
    if not 0 < overlap <= 1:
        raise VptError(f"lesion overlap: {overlap}, expected an IoU above 0 and up to 1, such as {OVERLAP}")


# --- over cases -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SizeBin:
    """Lesions from `low` up to (not including) `high`, in ml or pixels: how many there are, how many were found."""

    low: float
    high: float
    lesions: int
    found: int


@dataclass(frozen=True)
class LesionSummary:
    """One label over cases: counts, and scores with 95 % intervals (bootstrap over patients); NaN is undefined.

    scores: recall (found of all), precision (found of what was predicted), F1; Dice, the mean over found, missed (0)
    and false (0) lesions; Dice_found, the mean over those that were found.
    """

    found: int
    missed: int
    false: int
    scores: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    sizes: tuple[SizeBin, ...]


def sum_up(
    cases: Sequence[LesionScores], patients: Sequence[str] | None = None, edges: Sequence[float] = SIZES["mm"]
) -> LesionSummary:
    """One label's lesions of every case -> counts and scores; edges: where the bins of their sizes meet."""
    rows = np.array(
        [(case.found, case.missed, len(case.false), sum(lesion.dice for lesion in case.lesions)) for case in cases],
        float,
    ).reshape(-1, 4)
    found, missed, false = rows[:, :3].sum(0).astype(int).tolist()
    intervals = bootstrap(lambda weights: _scores(weights.T.astype(float) @ rows), len(rows), patients)
    scores = {name: float(values[0]) for name, values in _scores(rows.sum(0, keepdims=True)).items()}
    return LesionSummary(found, missed, false, scores, intervals, _by_size(cases, edges))


def _scores(sums: np.ndarray) -> dict[str, np.ndarray]:
    """(r, 4), sums of found, missed, false, Dice -> scores, each (r,)."""
    found, missed, false, dice = sums.T
    return {
        "recall": _ratio(found, found + missed),
        "precision": _ratio(found, found + false),
        "F1": _ratio(2 * found, 2 * found + missed + false),
        "Dice": _ratio(dice, found + missed + false),
        "Dice_found": _ratio(dice, found),
    }


def _by_size(cases: Sequence[LesionScores], edges: Sequence[float]) -> tuple[SizeBin, ...]:
    bounds = [0.0, *edges, math.inf]
    bins = []
    for low, high in pairwise(bounds):
        inside = [lesion for case in cases for lesion in case.lesions if low <= lesion.size < high]
        bins.append(SizeBin(low, high, len(inside), sum(lesion.found for lesion in inside)))
    return tuple(bins)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
