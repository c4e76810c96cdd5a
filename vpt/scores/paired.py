"""Two evaluations of the same cases: how far one is ahead, and where.

What is compared is paired: only cases, and labels of them, that have a score in both count; the others are listed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vpt.errors import VptError
from vpt.scores.bootstrap import bootstrap
from vpt.scores.classification import ClassificationScores
from vpt.scores.groups import SMALL
from vpt.scores.means import mean_defined, weighted_means
from vpt.scores.segmentation import SegmentationScores

TIE = 0.001  # of Dice, or of a probability: what differs less is no win


@dataclass(frozen=True)
class Difference:
    """One score of both on the same cases, first minus second with its 95 % interval; cases: how many have it;
    patients: whose they are, None where that is not known.
    """

    score: str
    cases: int
    first: float
    second: float
    interval: tuple[float, float]
    patients: int | None = None

    @property
    def size(self) -> float:
        return self.first - self.second

    @property
    def verdict(self) -> str:
        """Whether the interval holds 0. Of fewer than five patients it tells nothing: of three, all of whom one is
        better for, it never does, though that happens by chance in one of four comparisons.
        """
        low, high = self.interval
        if not math.isfinite(low):
            return "unknown"
        if self.patients is not None and self.patients < SMALL:
            return "too few patients"
        return "within noise" if low <= 0 <= high else "more than noise"


@dataclass(frozen=True)
class CasePair:
    """One case: its score in both."""

    name: str
    first: float
    second: float

    @property
    def size(self) -> float:
        return self.first - self.second


@dataclass(frozen=True)
class Paired:
    """Differences of means, and the cases, those that differ most first.

    only_first, only_second: cases that the other does not have; one_sided: (case, label) with a score in one alone,
    because the label is absent in the reference and only the other predicted it.
    """

    differences: tuple[Difference, ...]
    cases: tuple[CasePair, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    one_sided: tuple[tuple[str, str], ...] = ()

    @property
    def wins(self) -> int:
        return sum(case.size >= TIE for case in self.cases)

    @property
    def losses(self) -> int:
        return sum(case.size <= -TIE for case in self.cases)

    @property
    def ties(self) -> int:
        return len(self.cases) - self.wins - self.losses


def pair_segmentations(first: SegmentationScores, second: SegmentationScores, score: str = "Dice") -> Paired:
    """Two evaluations with the same labels on the same references; of a case the mean over its labels counts.

    Raises VptError where labels or rules differ, or no case is in both.
    """
    if first.labels != second.labels:
        raise VptError(f"labels {first.labels} and {second.labels} differ; compare evaluations of the same labels")
    names, (mine, theirs), only = _common([[case.name for case in each.cases] for each in (first, second)])
    a, b = first.values(score)[mine], second.values(score)[theirs]
    both = np.isfinite(a) & np.isfinite(b)
    lonely = np.argwhere(np.isfinite(a) != np.isfinite(b))
    words = list(first.labels.values())
    a, b = np.where(both, a, np.nan), np.where(both, b, np.nan)
    columns = {"foreground": slice(None), **{name: slice(k, k + 1) for k, name in enumerate(words)}}

    def difference(weights: np.ndarray) -> dict[str, np.ndarray]:
        drawn = np.ascontiguousarray(weights.T, dtype=float)
        means = weighted_means(drawn, a) - weighted_means(drawn, b)
        return {name: mean_defined(means[:, place], 1) for name, place in columns.items()}

    patients = _patients(first.groups, mine)
    intervals = bootstrap(difference, len(names), patients)
    differences = []
    for name, place in columns.items():
        ours, others = (float(mean_defined(mean_defined(each[:, place], 0), 0)) for each in (a, b))
        scored = np.flatnonzero(both[:, place].any(1)).tolist()
        whose = {patients[row] if patients else names[row] for row in scored}
        differences.append(Difference(name, len(scored), ours, others, intervals[name], len(whose)))
    return Paired(
        tuple(differences),
        _ranked(names, mean_defined(a, 1), mean_defined(b, 1)),
        *only,
        tuple((names[row], words[column]) for row, column in lonely),
    )


def pair_classifications(first: ClassificationScores, second: ClassificationScores) -> Paired:
    """Two evaluations of the same examples; of a case the probability of what is true counts (of labels: their mean).

    Raises VptError where classes or references differ, or no case is in both.
    """
    if (first.target, first.classes) != (second.target, second.classes):
        raise VptError("the classes of the two differ; compare runs that were trained on the same data set")
    names, (mine, theirs), only = _common([first.names, second.names])
    told = ((first.targets, second.targets), (first.looked, second.looked))
    if not all(np.array_equal(a[mine], b[theirs]) for a, b in told):
        raise VptError("the references of the two differ; compare runs on the same data set")
    parts = [(each, each.restricted(rows)) for each, rows in ((first, mine), (second, theirs))]
    statistics = [part.statistic() for _, part in parts]

    def difference(weights: np.ndarray) -> dict[str, np.ndarray]:
        a, b = (statistic(weights) for statistic in statistics)
        return {name: a[name] - b[name] for name in a}

    patients = _patients(first.groups, mine)
    intervals = bootstrap(difference, len(names), patients)
    found = [part.scores() for _, part in parts]
    sure = [np.where(part.targets, part.probabilities, 1 - part.probabilities) for _, part in parts]
    truth = parts[0][1].targets
    weight = parts[0][1].looked if first.target == "labels" else truth
    a, b = ((each * weight).sum(1) / weight.sum(1) for each in sure)
    differences = tuple(
        Difference(name, len(names), found[0][name], found[1][name], intervals[name], len({*(patients or names)}))
        for name in intervals
    )
    return Paired(differences, _ranked(names, a, b), *only)


def _common(
    names: Sequence[Sequence[str]],
) -> tuple[list[str], tuple[list[int], list[int]], tuple[tuple[str, ...], tuple[str, ...]]]:
    """The names that both have, where they stand in each, and the names that one alone has."""
    first, second = ({name: k for k, name in enumerate(each)} for each in names)
    both = [name for name in first if name in second]
    if not both:
        raise VptError("no case is in both; compare evaluations of the same cases")
    alone = tuple(name for name in first if name not in second), tuple(name for name in second if name not in first)
    return both, ([first[name] for name in both], [second[name] for name in both]), alone


def _patients(groups: Sequence[str] | None, rows: Sequence[int]) -> list[str] | None:
    return None if groups is None else [groups[row] for row in rows]


def _ranked(names: Sequence[str], first: np.ndarray, second: np.ndarray) -> tuple[CasePair, ...]:
    pairs = [CasePair(*row) for row in zip(names, first.tolist(), second.tolist(), strict=True)]
    return tuple(sorted((pair for pair in pairs if math.isfinite(pair.size)), key=lambda pair: -abs(pair.size)))
