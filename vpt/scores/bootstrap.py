"""The percentile bootstrap (Efron 1979) of all intervals: cases, or patients with all their cases, drawn again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

LEVEL, RESAMPLES, SEED = 0.95, 2000, 0
ENOUGH = 0.5  # of the resamples have to have a score, else its interval would be that of a few odd ones
CHUNK = 500_000  # weights (cases x resamples) at once: 2 MB, which stay in the processor's cache

Statistic = Callable[[np.ndarray], dict[str, np.ndarray]]


def bootstrap(
    statistic: Statistic,
    cases: int,
    groups: Sequence[str] | None = None,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of scores; with `groups`, one name per case, a group's cases are drawn together.

    statistic: weights (cases, r), how often each of r resamples holds each case -> scores, each (r,).

    (NaN, NaN) for scores that fewer than half of the resamples have, and for all of fewer than two groups or cases.
    """
    owner = np.arange(cases) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1].ravel()
    units = int(owner.max()) + 1
    chunks = draws(np.random.default_rng(seed), units, resamples, at_once=CHUNK // cases)
    parts = [statistic(chunk.T.astype(np.float32)[owner]) for chunk in chunks]
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    no_interval = (math.nan, math.nan)
    return {
        name: no_interval if units < 2 or np.isfinite(values).mean() < ENOUGH else percentiles(values, level)
        for name, values in found.items()
    }


def draws(rng: np.random.Generator, units: int, resamples: int, at_once: int | None = None) -> Iterator[np.ndarray]:
    """How often each resample holds each unit, (r, units) at a time, each row's sum `units`; `at_once`: r at most.

    The rows do not depend on how many come at once.
    """
    step = max(1, min(resamples, CHUNK // units if at_once is None else at_once))
    chance = np.full(units, 1 / units)
    for start in range(0, resamples, step):
        yield rng.multinomial(units, chance, size=min(step, resamples - start))


def percentiles(values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """The interval that holds a share `level` of the defined values (r,); (NaN, NaN) where none is defined."""
    if np.isnan(values).all():
        return math.nan, math.nan
    low, high = np.nanpercentile(values, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)
