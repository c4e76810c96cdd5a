"""Two evaluations of the same cases: how far one is ahead, and where.

What is compared is paired: only cases, and labels of them, that have a score in both count; the others are listed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from vpt.errors import VptError
from vpt.scores.bootstrap import bootstrap
from vpt.scores.classification import ClassificationScores
from vpt.scores.groups import SMALL
from vpt.scores.means import mean_defined
from vpt.scores.over_labels import lone_labels, of_one_owner, resampled_mean
from vpt.scores.segmentation import SegmentationScores
from vpt.words import listed

TIE = 0.001  # of a score, a distance or a probability: what differs less is no win
OTHERS = ("IoU", "precision", "recall", "NSD", "HD95", "ASSD")  # of masks, beside the Dice
_OfClasses = Callable[[np.ndarray], np.ndarray]  # weights (cases, r) -> (classes, r)
LESS_IS_BETTER = ("HD95", "ASSD")


@dataclass(frozen=True)
class Difference:
    """One score of both on the same cases, first minus second with its 95 % interval; cases: how many have it;
    patients: whose they are, None where that is not known; wins, losses: of cases, in which the first is better, or the
    second, by more than a TIE; None of a score that single cases do not have; why: what keeps
    it from having an interval.
    """

    score: str
    cases: int
    first: float
    second: float
    interval: tuple[float, float]
    patients: int | None = None
    wins: int | None = None
    losses: int | None = None
    why: str = ""

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
            return self.why or "unknown"
        if self.patients is not None and self.patients < SMALL:
            return "too few patients"
        return "within noise" if low <= 0 <= high else "more than noise"


@dataclass(frozen=True)
class CasePair:
    """One case: its score in both; labels: the same of each label by its name, NaN where the two are not compared."""

    name: str
    first: float
    second: float
    labels: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def size(self) -> float:
        return self.first - self.second

    @property
    def furthest(self) -> tuple[str, float]:
        """The label in which the two differ most, and the first minus the second there; ("", 0.0) without labels."""
        sizes = {name: a - b for name, (a, b) in self.labels.items() if math.isfinite(a - b)}
        return max(sizes.items(), key=lambda each: abs(each[1]), default=("", 0.0))


@dataclass(frozen=True)
class Paired:
    """Differences of means, and the cases, those that differ most first.

    only_first, only_second: cases that the other does not have; one_sided: (case, label) with a score in one alone,
    because the label is absent in the reference and only the other predicted it. Of masks, others: the differences in
    each of OTHERS that both have, as `differences` is of the Dice; halves: of how many labels of cases one alone has
    it, mostly because the other predicted nothing. Of classes, by_class: the differences of every class against the
    rest, in "recall" (its wins: the cases of that class which the first alone answers right) and "auroc".
    """

    differences: tuple[Difference, ...]
    cases: tuple[CasePair, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    one_sided: tuple[tuple[str, str], ...] = ()
    others: Mapping[str, tuple[Difference, ...]] = field(default_factory=dict)
    halves: Mapping[str, int] = field(default_factory=dict)
    by_class: Mapping[str, tuple[Difference, ...]] = field(default_factory=dict)

    @property
    def wins(self) -> int:
        return _wins([case.size for case in self.cases])[0]

    @property
    def losses(self) -> int:
        return _wins([case.size for case in self.cases])[1]

    @property
    def ties(self) -> int:
        return len(self.cases) - self.wins - self.losses


def pair_segmentations(first: SegmentationScores, second: SegmentationScores) -> Paired:
    """Two evaluations with the same labels on the same references; of a case the mean Dice over its labels counts.

    Raises VptError where labels or rules differ, or no case is in both.
    """
    if first.labels != second.labels:
        raise VptError(f"labels {first.labels} and {second.labels} differ; compare evaluations of the same labels")
    names, (mine, theirs), only = _common([[case.name for case in each.cases] for each in (first, second)])
    words, patients = list(first.labels.values()), _patients(first.groups, mine)

    def both(score: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(cases, labels) of each, NaN where one of the two is undefined, and where one alone is."""
        a, b = first.values(score)[mine], second.values(score)[theirs]
        there = np.isfinite(a) & np.isfinite(b)
        return np.where(there, a, np.nan), np.where(there, b, np.nan), np.isfinite(a) != np.isfinite(b)

    a, b, lonely = both("Dice")
    found = {score: both(score) for score in OTHERS}
    found = {score: each for score, each in found.items() if np.isfinite(each[0]).any()}
    return Paired(
        _differences(a, b, words, names, patients),
        _ranked(names, mean_defined(a, 1), mean_defined(b, 1), _by_label(words, a, b)),
        *only,
        tuple((names[row], words[column]) for row, column in np.argwhere(lonely)),
        {
            score: _differences(ours, others, words, names, patients, less=score in LESS_IS_BETTER)
            for score, (ours, others, _) in found.items()
        },
        {score: int(alone.sum()) for score, (*_, alone) in found.items()},
    )


def _differences(
    a: np.ndarray,
    b: np.ndarray,
    words: Sequence[str],
    names: Sequence[str],
    patients: Sequence[str] | None,
    less: bool = False,
) -> tuple[Difference, ...]:
    """One score of both, (cases, labels), undefined in the same places: of the foreground and of each label; less: of
    which less is better.
    """
    columns = {"foreground": slice(None), **{name: slice(k, k + 1) for k, name in enumerate(words)}}

    owners = patients or names
    means = {
        name: (resampled_mean(a[:, place], owners), resampled_mean(b[:, place], owners))
        for name, place in columns.items()
    }

    def difference(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {name: ours(weights) - others(weights) for name, (ours, others) in means.items()}

    intervals = bootstrap(difference, len(names), patients)
    found = []
    for name, place in columns.items():
        ours, others = (float(mean_defined(mean_defined(each[:, place], 0), 0)) for each in (a, b))
        scored = np.flatnonzero(np.isfinite(a[:, place]).any(1)).tolist()
        whose = {owners[row] for row in scored}
        wins = _wins((mean_defined(a[:, place], 1) - mean_defined(b[:, place], 1)).tolist())
        wins = wins[::-1] if less else wins
        why = _why(a[:, place], owners, words[place]) if math.isnan(intervals[name][0]) else ""
        found.append(Difference(name, len(scored), ours, others, intervals[name], len(whose), *wins, why))
    return tuple(found)


def _why(values: np.ndarray, owners: Sequence[str], words: Sequence[str]) -> str:
    """What is to be read in place of a verdict where there is no interval; "" where there is no score."""
    if lone := lone_labels(values, owners, words):
        return f"{listed(lone, 1)} of one patient"
    if not np.isfinite(values).any():
        return ""
    return "of one patient" if of_one_owner(values, owners).all() else "labels too rare"


def _by_label(words: Sequence[str], a: np.ndarray, b: np.ndarray) -> list[dict[str, tuple[float, float]]]:
    """For each case, what both have of each label."""
    return [dict(zip(words, zip(*rows, strict=True), strict=True)) for rows in zip(a.tolist(), b.tolist(), strict=True)]


def _wins(sizes: Sequence[float]) -> tuple[int, int]:
    """How many differences are above 0, and how many below, by a TIE or more."""
    return sum(size >= TIE for size in sizes), sum(size <= -TIE for size in sizes)


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
    of_classes = _by_class(parts[0][1], parts[1][1], names, patients)
    return Paired(differences, _ranked(names, a, b), *only, by_class=of_classes)


def _by_class(
    first: ClassificationScores, second: ClassificationScores, names: Sequence[str], patients: Sequence[str] | None
) -> dict[str, tuple[Difference, ...]]:
    """How each class's scores differ, of the same cases in the same order."""
    truth, owner = first.targets, patients or names
    right = [truth & each.decided for each in (first, second)]
    wins = [_wins(sizes) for sizes in (right[0].astype(float) - right[1]).T.tolist()]
    whose = [{owner[row] for row in np.flatnonzero(has).tolist()} for has in truth.T]
    found = {}
    statistics = first.statistic_by_class(), second.statistic_by_class()
    for score in statistics[0]:
        a, b = (each[score] for each in statistics)
        intervals = bootstrap(partial(_apart, first.classes, a, b), len(names), patients)
        ours, others = (of_classes(np.ones((len(names), 1)))[:, 0].tolist() for of_classes in (a, b))
        found[score] = tuple(
            Difference(
                name,
                int(truth[:, k].sum()),
                ours[k],
                others[k],
                intervals[name],
                len(whose[k]),
                *(wins[k] if score == "recall" else ()),
            )
            for k, name in enumerate(first.classes)
        )
    return found


def _apart(classes: Sequence[str], first: _OfClasses, second: _OfClasses, weights: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(classes, first(weights) - second(weights), strict=True))


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


def _ranked(
    names: Sequence[str],
    first: np.ndarray,
    second: np.ndarray,
    labels: Sequence[Mapping[str, tuple[float, float]]] | None = None,
) -> tuple[CasePair, ...]:
    """Those that differ most first; labels: of each case, see `CasePair`."""
    of_labels = labels or [{}] * len(names)
    pairs = [CasePair(*row) for row in zip(names, first.tolist(), second.tolist(), of_labels, strict=True)]
    return tuple(sorted((pair for pair in pairs if math.isfinite(pair.size)), key=lambda pair: -abs(pair.size)))
