"""Risk against coverage: whether the cases that a score trusts most are the better ones (AURC, Geifman et al. 2019).

Risk is 1 - Dice. Cases are taken in the order of a score, the most trusted first; at every coverage stands the mean
risk of those that were taken. The area under it is the less, the better the order; at random it is the mean risk.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vpt.scores.bootstrap import bootstrap
from vpt.scores.means import mean_defined
from vpt.scores.trust import TRUST, Limits, Quality, doubt_of

RANDOM, BEST = "random", "best possible"
MOST_POINTS = 200  # of a curve that are kept
Interval = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """Of one score: aurc with its 95 % interval; points: (coverage, risk), MOST_POINTS at most."""

    aurc: float
    interval: Interval
    points: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Difference:
    """One score's AURC minus another's, on the same cases; below 0 the first is better."""

    first: str
    second: str
    size: float
    interval: Interval


@dataclass(frozen=True)
class Flagged:
    """What the limits of whole cases say: how many cases are beyond, and the mean Dice of these and of the others."""

    count: int
    dice: float
    dice_of_others: float


@dataclass(frozen=True)
class TrustScores:
    """cases: with a Dice; curves: of whole cases by score, RANDOM and BEST among them; by_label: AURC, name -> score.

    limits: of validation cases, None where there are none.
    """

    cases: int
    curves: Mapping[str, Curve]
    by_label: Mapping[str, Mapping[str, float]]
    differences: tuple[Difference, ...]
    limits: Limits | None = None
    flagged: Flagged | None = None


def score_trust(
    dice: np.ndarray,
    names: Sequence[str],
    qualities: Sequence[Quality],
    limits: Limits | None = None,
    patients: Sequence[str] | None = None,
) -> TrustScores | None:
    """Dice (N, labels) of cases, NaN where undefined, the labels' names, and the cases' qualities; None without Dice.

    patients: whose each case is, whose cases are drawn together.
    """
    risk = 1 - mean_defined(dice, 1)
    defined = np.flatnonzero(np.isfinite(risk)).tolist()
    if not defined:
        return None
    risk = risk[defined]
    doubts = _doubts([qualities[k].of_case() for k in defined], risk)
    pairs = [(a, b) for k, a in enumerate(TRUST) for b in TRUST[k + 1 :] if a in doubts and b in doubts]

    def areas(weights: np.ndarray) -> dict[str, np.ndarray]:
        with np.errstate(invalid="ignore", divide="ignore"):  # a resample without any of these cases
            found = {score: aurc(risk, doubt, weights[defined]) for score, doubt in doubts.items()}
        return found | {f"{a} - {b}": found[a] - found[b] for a, b in pairs}

    whole = {key: float(value[0]) for key, value in areas(np.ones((len(dice), 1))).items()}
    intervals = bootstrap(areas, len(dice), patients)
    return TrustScores(
        len(defined),
        {score: Curve(whole[score], intervals[score], _points(risk, doubt)) for score, doubt in doubts.items()},
        {name: _of_label(dice[:, k], [q.of_structure(name) for q in qualities]) for k, name in enumerate(names)},
        tuple(Difference(a, b, whole[f"{a} - {b}"], intervals[f"{a} - {b}"]) for a, b in pairs),
        limits,
        None if limits is None else _flagged(dice, qualities, limits),
    )


def _doubts(values: Sequence[Mapping[str, float]], risk: np.ndarray) -> dict[str, np.ndarray]:
    """Score -> doubts (N,) of cases; a case without a value is doubted most, a score that none has is left out."""
    found = {}
    for score in TRUST:
        doubts = np.array([doubt_of(score, each[score]) for each in values])
        if not np.isnan(doubts).all():
            found[score] = np.where(np.isnan(doubts), math.inf, doubts)
    return found | {RANDOM: np.zeros(len(risk)), BEST: risk}


def _of_label(dice: np.ndarray, values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    defined = np.flatnonzero(np.isfinite(dice)).tolist()
    if not defined:
        return {}
    risk, one = 1 - dice[defined], np.ones((len(defined), 1))
    doubts = _doubts([values[k] for k in defined], risk)
    return {score: float(aurc(risk, doubt, one)[0]) for score, doubt in doubts.items()}


def _flagged(dice: np.ndarray, qualities: Sequence[Quality], limits: Limits) -> Flagged:
    beyond = np.array([bool(limits.of_case(quality)) for quality in qualities])
    of_cases = mean_defined(dice, 1)[:, None]
    inside, outside = (float(mean_defined(of_cases[which], 0)[0]) for which in (~beyond, beyond))
    return Flagged(int(beyond.sum()), outside, inside)


def _points(risk: np.ndarray, doubt: np.ndarray) -> tuple[tuple[float, float], ...]:
    found, count = risk_at_coverage(risk, doubt), len(risk)
    kept = np.unique(np.linspace(1, count, min(count, MOST_POINTS)).round().astype(int))
    return tuple((float(k / count), float(found[k - 1])) for k in kept)


def risk_at_coverage(risk: np.ndarray, doubt: np.ndarray) -> np.ndarray:
    """Risks (N,) and doubts (N,) -> the mean risk of the 1, 2, ... N least doubtful cases.

    Among equally doubtful ones the mean over all their orders, so that it depends on none.
    """
    _, block, sizes = np.unique(doubt, return_inverse=True, return_counts=True)
    means = np.bincount(block, weights=risk) / sizes
    found: np.ndarray = np.cumsum(np.repeat(means, sizes)) / np.arange(1, len(risk) + 1)
    return found


def aurc(risk: np.ndarray, doubt: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean of `risk_at_coverage` where case i stands weights[i, r] times in sample r: (N,), (N,), (N, r) -> (r,).

    A block of m cases of one doubt and the mean risk b, after n cases with risks S in sum, adds the sum over j = 1..m
    of (S + j b) / (n + j), which is m b + (S - n b) (H(n + m) - H(n)) with the harmonic numbers H.
    """
    order = np.argsort(doubt, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], doubt[order][1:] != doubt[order][:-1]]))
    drawn = weights[order].astype(float)
    count, total = (np.add.reduceat(each, starts, axis=0) for each in (drawn, risk[order, None] * drawn))
    before, summed = np.cumsum(count, 0) - count, np.cumsum(total, 0) - total
    mean = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, int(count.sum(0).max()) + 1))])
    passed = harmonic[(before + count).round().astype(int)] - harmonic[before.round().astype(int)]
    area: np.ndarray = (total + (summed - before * mean) * passed).sum(0) / count.sum(0)
    return area
