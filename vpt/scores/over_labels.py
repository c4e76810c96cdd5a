"""Means over labels in resamples, and why there may be no interval of them: the one rule of all of these intervals.

A label that one patient alone has would be the same in every resample that holds it, so that its interval, and that of
the foreground, would look as if it were sure. A resample that lacks a label would be a mean of other labels; where most
resamples lack one, those that are left are no sample of anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from vpt.scores.means import weighted_means
from vpt.words import agreeing, listed

TOO_RARE = "fewer than half of the resamples hold all labels"


def resampled_mean(values: np.ndarray, owners: Sequence[object]) -> Callable[[np.ndarray], np.ndarray]:
    """Scores (cases, labels) -> a function of how often each of r resamples holds each case (cases, r), that gives the
    mean over the labels that some case has, of each over cases: (r,).

    NaN of a resample that lacks one of them, and of all where one is of a single owner. owners: of every case.
    """
    there = values[:, np.isfinite(values).any(0)]
    if not there.size or of_one_owner(values, owners).any():
        return lambda weights: np.full(weights.shape[1], np.nan)
    return lambda weights: weighted_means(np.ascontiguousarray(weights.T, dtype=float), there).mean(1)


def of_one_owner(values: np.ndarray, owners: Sequence[object]) -> np.ndarray:
    """(cases, labels) -> (labels,), which of them have scores in cases of one owner alone."""
    return np.array(
        [len({owners[k] for k in np.flatnonzero(has).tolist()}) == 1 for has in np.isfinite(values).T], bool
    )


def lone_labels(values: np.ndarray, owners: Sequence[object], names: Sequence[str]) -> list[str]:
    """The names of labels that are scored in one owner alone, where others are not."""
    lone, some = of_one_owner(values, owners), np.isfinite(values).any(0)
    return [name for name, is_lone in zip(names, lone, strict=True) if is_lone] if (some & ~lone).any() else []


def why_no_interval(values: np.ndarray, owners: Sequence[object], names: Sequence[str], owner: str) -> str:
    """Why the mean over labels has no interval, though labels have; "" where none has. owner: what one is called."""
    if lone := lone_labels(values, owners, names):
        return f"{listed(lone)} {agreeing(len(lone), 'are')} scored in one {owner} alone"
    return TOO_RARE if not of_one_owner(values, owners).all() and np.isfinite(values).any() else ""
