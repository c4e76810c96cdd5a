"""Whether groups are treated alike: scores that are scaled by equity, and differences of what is found and of alarms.

Equity-scaled scores: Tian et al. 2024 (FairSeg). Equal opportunity and equalised odds: Hardt, Price and Srebro 2016.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vpt.scores.bootstrap import bootstrap

Interval = tuple[float, float]


@dataclass(frozen=True)
class Scaled:
    """A score of all compared groups together, divided by 1 + the sum of their distances to it; 95 % interval."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class Odds:
    """Of one class against the rest, the largest minus the smallest group.

    opportunity: in sensitivity, `worst` being the group with the least; odds: in sensitivity or in the share of false
    alarms, whichever differs more.
    """

    opportunity: float
    opportunity_interval: Interval
    odds: float
    odds_interval: Interval
    worst: str


def equity_scaled(whole: np.ndarray, of_groups: np.ndarray) -> np.ndarray:
    """Scores of all (r,) and of each group (A, r) -> S / (1 + sum of |S - S_a|), NaN of fewer than two groups.

    Groups whose score is undefined, as in a resample without them, add nothing.
    """
    apart = np.nansum(np.abs(of_groups - whole), axis=0)
    scaled: np.ndarray = np.where(np.isfinite(of_groups).sum(0) > 1, whole / (1 + apart), math.nan)
    return scaled


def score_odds(
    decided: np.ndarray,
    truth: np.ndarray,
    classes: Sequence[str],
    members: Mapping[str, np.ndarray],
    patients: Sequence[str],
    looked: np.ndarray | None = None,
) -> dict[str, Odds]:
    """Answers and truth (N, K) bool, and the places of each group's cases -> of each class how they differ.

    Without classes that fewer than two groups have. patients: of every case, drawn together; looked: (N, K) bool,
    which classes somebody has looked for, in which cases alone each counts.
    """
    counted = np.ones_like(truth) if looked is None else looked

    def rates(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(groups, K, r) each: sensitivity, and the share of false alarms."""
        found = [
            _rates(decided[places], truth[places], weights[places], counted[places]) for places in members.values()
        ]
        return np.stack([hit for hit, _ in found]), np.stack([alarm for _, alarm in found])

    def differences(weights: np.ndarray) -> dict[str, np.ndarray]:
        hit, alarm = (_spread(each) for each in rates(weights))
        named = enumerate(classes)
        return {
            f"{kind} {name}": each[k] for k, name in named for kind, each in (("o", hit), ("e", np.fmax(hit, alarm)))
        }

    if len(members) < 2:
        return {}
    one = np.ones((len(decided), 1))
    values, intervals = differences(one), bootstrap(differences, len(decided), patients)
    hits = rates(one)[0][..., 0]
    found = {}
    for k, name in enumerate(classes):
        opportunity, odds = (float(values[f"{kind} {name}"][0]) for kind in "oe")
        if math.isfinite(opportunity):
            worst = list(members)[int(np.nanargmin(hits[:, k]))]
            found[name] = Odds(opportunity, intervals[f"o {name}"], odds, intervals[f"e {name}"], worst)
    return found


def _rates(
    decided: np.ndarray, truth: np.ndarray, weights: np.ndarray, counted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(n, K), (n, K), (n, r), (n, K) -> (K, r) each; NaN where a resample has no case to count."""

    def share(of: np.ndarray) -> np.ndarray:
        count = of.T.astype(float) @ weights
        there = (of & decided).T.astype(float) @ weights
        return np.divide(there, count, out=np.full(count.shape, math.nan), where=count > 0)

    return share(truth & counted), share(~truth & counted)


def _spread(values: np.ndarray) -> np.ndarray:
    """(groups, ...) -> the largest minus the smallest that is defined; NaN of fewer than two."""
    defined = np.isfinite(values)
    high, low = np.where(defined, values, -math.inf).max(0), np.where(defined, values, math.inf).min(0)
    return np.where(defined.sum(0) > 1, high - np.where(np.isfinite(low), low, 0), math.nan)
