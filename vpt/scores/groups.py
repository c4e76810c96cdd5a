"""Scores by group (sex, scanner, hospital): a row for each, and how far the worst is behind the best.

Groups of fewer than SMALL patients are shown and take no part in the gap: its interval would be that of a few scans.
The pair is chosen after the scores were seen, so among many groups the gap is larger than between two drawn at random.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vpt.scores.bootstrap import Statistic, bootstrap

SMALL = 5  # patients
Interval = tuple[float, float]


@dataclass(frozen=True)
class Grouping:
    """What a column says of the cases; without: those of which it says nothing, which are in no group."""

    column: str
    of: Mapping[str, str]
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class GroupRow:
    """A group's size, and its scores with 95 % intervals; NaN is undefined."""

    group: str
    cases: int
    patients: int
    scores: Mapping[str, float]
    intervals: Mapping[str, Interval]

    @property
    def is_small(self) -> bool:
        return self.patients < SMALL


@dataclass(frozen=True)
class Gap:
    """Best minus worst of the groups that are not small, and the 95 % interval of this difference."""

    best: str
    worst: str
    size: float
    interval: Interval


@dataclass(frozen=True)
class GroupScores:
    """Rows in order of the groups' names; gaps: score -> its gap, where two groups that are not small have it."""

    grouping: Grouping
    rows: tuple[GroupRow, ...]
    gaps: Mapping[str, Gap]


def score_groups(
    names: Sequence[str],
    grouping: Grouping,
    statistic_of: Callable[[np.ndarray], Statistic],
    patients: Sequence[str] | None = None,
    lower_is_better: frozenset[str] = frozenset(),
) -> GroupScores:
    """Scores of every group of the named cases, and their gaps.

    statistic_of: positions of some cases -> a function of how often each of r resamples holds each of them (cases, r)
    that gives their scores, each (r,); patients: of every case, drawn together; lower_is_better: of errors.
    """
    owner = list(patients or names)
    members = {
        group: np.array([k for k, name in enumerate(names) if grouping.of.get(name) == group])
        for group in sorted(set(grouping.of.values()), key=_in_order)
    }
    members = {group: places for group, places in members.items() if len(places)}
    of_group = {group: statistic_of(places) for group, places in members.items()}

    def scores(weights: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
        with np.errstate(invalid="ignore", divide="ignore"):  # a group that a resample lacks
            found = {group: statistic(weights[members[group]]) for group, statistic in of_group.items()}
        return {(group, score): values for group, each in found.items() for score, values in each.items()}

    means = {key: float(values[0]) for key, values in scores(np.ones((len(names), 1), np.float32)).items()}
    large = [group for group, places in members.items() if len({owner[k] for k in places}) >= SMALL]
    pairs = _pairs(means, large, lower_is_better)

    def drawn(weights: np.ndarray) -> dict[str, np.ndarray]:
        found = scores(weights)
        gaps = {f"gap {score}": found[best, score] - found[worst, score] for score, (best, worst) in pairs.items()}
        return {f"{group} {score}": values for (group, score), values in found.items()} | gaps

    intervals = bootstrap(drawn, len(names), owner)
    rows = []
    for group, places in members.items():
        of_patients = len({owner[k] for k in places})
        own = {score: value for (each, score), value in means.items() if each == group}
        one = (math.nan, math.nan)
        ranges = {score: intervals[f"{group} {score}"] if of_patients > 1 else one for score in own}
        rows.append(GroupRow(group, len(places), of_patients, own, ranges))
    gaps = {
        score: Gap(best, worst, means[best, score] - means[worst, score], intervals[f"gap {score}"])
        for score, (best, worst) in pairs.items()
    }
    return GroupScores(grouping, tuple(rows), gaps)


def _pairs(
    means: Mapping[tuple[str, str], float], large: Sequence[str], lower_is_better: frozenset[str]
) -> dict[str, tuple[str, str]]:
    """Score -> its best and its worst group."""
    pairs = {}
    for score in dict.fromkeys(score for _, score in means):
        sign = -1 if score in lower_is_better else 1
        defined = [group for group in large if math.isfinite(means[group, score])]
        if len(defined) > 1:
            ordered = sorted(defined, key=lambda group: sign * means[group, score])
            pairs[score] = ordered[-1], ordered[0]
    return pairs


def _in_order(group: str) -> tuple[float, str]:
    """Numbers by their value, ranges by where they begin, then names."""
    number = re.match(r"[+-]?\d+(\.\d+)?", group)
    return (float(number.group()) if number else math.inf), group
