"""Scores by group (sex, scanner, hospital): a row for each, and how far the worst is behind the best.

Groups of fewer than SMALL patients are shown and take no part in the gap: its interval would be that of a few scans.
The pair is chosen after the scores were seen, so among many groups the gap is larger than between two drawn at random.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vpt.scores.bootstrap import Statistic, bootstrap
from vpt.scores.fairness import Odds, Scaled, equity_scaled

SMALL = 5  # patients
Interval = tuple[float, float]
_ByGroup = dict[tuple[str, str], np.ndarray]  # (group, score) -> (r,)


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
    """Rows in order of the groups' names; of those that are not small, where two have a score: gaps, and equity, by
    score (errors, of which less is better, have none); odds: by class, see `Odds`; lacking: group -> the classes or
    labels that it has no case of, where others have, so that its means over them are not of the same ones;
    without_interval: group -> why its mean over labels has no interval, though labels have.
    """

    grouping: Grouping
    rows: tuple[GroupRow, ...]
    gaps: Mapping[str, Gap]
    equity: Mapping[str, Scaled] = field(default_factory=dict)
    odds: Mapping[str, Odds] = field(default_factory=dict)
    lacking: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    without_interval: Mapping[str, str] = field(default_factory=dict)


def score_groups(
    names: Sequence[str],
    grouping: Grouping,
    statistic_of: Callable[[np.ndarray], Statistic],
    patients: Sequence[str] | None = None,
    lower_is_better: frozenset[str] = frozenset(),
    resampled_of: Callable[[np.ndarray], Statistic] | None = None,
) -> GroupScores:
    """Scores of every group of the named cases, and their gaps.

    statistic_of: positions of some cases -> a function of how often each of r resamples holds each of them (cases, r)
    that gives their scores, each (r,); patients: of every case, drawn together; lower_is_better: of errors;
    resampled_of: the same for intervals, where some have none.
    """
    owner = list(patients or names)
    members = members_of(names, grouping)
    large = large_of(members, owner)
    plain = _Statistics(statistic_of, members, large, lower_is_better)
    resampled = _Statistics(resampled_of, members, large, lower_is_better) if resampled_of else plain
    once = np.ones((len(names), 1), np.float32)
    single = plain.scores(once)
    means = {key: float(values[0]) for key, values in single.items()}
    scaled = {score: float(values[0]) for score, values in plain.equity(once, single).items()}
    pairs = _pairs(means, large, lower_is_better)

    def drawn(weights: np.ndarray) -> dict[str, np.ndarray]:
        found = resampled.scores(weights)
        gaps = {f"gap {score}": found[best, score] - found[worst, score] for score, (best, worst) in pairs.items()}
        fair = {f"equity {score}": values for score, values in resampled.equity(weights, found).items()}
        return {f"{group} {score}": values for (group, score), values in found.items()} | gaps | fair

    intervals = bootstrap(drawn, len(names), owner)
    rows = []
    for group, places in members.items():
        of_patients = len({owner[k] for k in places})
        own = {score: value for (each, score), value in means.items() if each == group}
        one_patient = (math.nan, math.nan)
        ranges = {score: intervals[f"{group} {score}"] if of_patients > 1 else one_patient for score in own}
        rows.append(GroupRow(group, len(places), of_patients, own, ranges))
    gaps = {
        score: Gap(best, worst, means[best, score] - means[worst, score], intervals[f"gap {score}"])
        for score, (best, worst) in pairs.items()
    }
    fair = {s: Scaled(value, intervals[f"equity {s}"]) for s, value in scaled.items() if math.isfinite(value)}
    return GroupScores(grouping, tuple(rows), gaps, fair)


class _Statistics:
    """The scores of each group, and of all that are large together; see `score_groups`."""

    def __init__(
        self,
        statistic_of: Callable[[np.ndarray], Statistic],
        members: Mapping[str, np.ndarray],
        large: Sequence[str],
        lower_is_better: frozenset[str],
    ):
        self.members, self.large, self.lower_is_better = members, large, lower_is_better
        self.of_group = {group: statistic_of(places) for group, places in members.items()}
        if len(large) > 1:
            self.together = np.concatenate([members[group] for group in large])
            self.of_all = statistic_of(self.together)

    def scores(self, weights: np.ndarray) -> _ByGroup:
        """weights (cases, r): how often each of r resamples holds each case."""
        with np.errstate(invalid="ignore", divide="ignore"):  # a group that a resample lacks
            found = {group: statistic(weights[self.members[group]]) for group, statistic in self.of_group.items()}
        return {(group, score): values for group, each in found.items() for score, values in each.items()}

    def equity(self, weights: np.ndarray, found: _ByGroup) -> dict[str, np.ndarray]:
        """Score -> (r,), scaled by how far the large groups lie apart; found: what `scores` gave."""
        if len(self.large) < 2:
            return {}
        return {
            score: equity_scaled(values, np.stack([found[group, score] for group in self.large]))
            for score, values in self.of_all(weights[self.together]).items()
            if score not in self.lower_is_better
        }


def members_of(names: Sequence[str], grouping: Grouping) -> dict[str, np.ndarray]:
    """The places of each group's cases among the named ones, groups in order, none of them empty."""
    found = {
        group: np.array([k for k, name in enumerate(names) if grouping.of.get(name) == group])
        for group in sorted(set(grouping.of.values()), key=_in_order)
    }
    return {group: places for group, places in found.items() if len(places)}


def large_of(members: Mapping[str, np.ndarray], owner: Sequence[str]) -> list[str]:
    """The groups of SMALL patients or more; owner: the patient of every case."""
    return [group for group, places in members.items() if len({owner[k] for k in places}) >= SMALL]


def lacking_of(
    there: np.ndarray, classes: Sequence[str], members: Mapping[str, np.ndarray]
) -> dict[str, tuple[str, ...]]:
    """(N, K) bool, which cases have each of the classes or labels -> see `GroupScores.lacking`."""
    has = {group: there[places].any(0) for group, places in members.items()}
    some = np.any(list(has.values()), axis=0)
    lacking = {group: tuple(np.asarray(classes)[some & ~own].tolist()) for group, own in has.items()}
    return {group: names for group, names in lacking.items() if names}


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
