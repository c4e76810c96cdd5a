"""CT whose zero is right and whose scale is not: air and fat do not lie where they do in HU.

Air is -1000 HU by definition, fat about -100 in every body, and most of what is denser than fat is soft tissue, within
200 of water. So a CT at half its values has its air at -500 and its fat at -50, which no width or limit tells.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vpt.data.values import HIGHEST, LEVELS, LOWEST, ChannelValues, ValueRange

AIR, FAT = -1000.0, -100.0  # HU
DENSER, SOFT = -300.0, 200.0  # HU: above lung; soft tissue lies within so much of 0
SOFTEST, CUT = 0.28, 0.005  # a body of less soft tissue, that much of which was cut off, is stretched
SHRUNK, STRETCHED = (0.2, 0.72), (1.6, 2.8)  # of HU, as far as fat and its neighbours keep apart
AGREE = 0.2  # air and fat say the same scale up to this share of it
REACH, STEP, FOUND = 12.0, 3.0, 0.03  # HU: of a bin to both sides, between bins; the least share of fat in one
EMPTY, THICK = (-720.0, -350.0), 60.0  # HU: where no lowest values pile up within so much, neither of air nor of lungs
LUNGS, SHARP = -880.0, 1.5  # HU: from here to EMPTY those of lungs rise; they do not pile up, with half as many in the
# next SHARP times THICK, as air does
VALLEY = 0.8  # of the peak of fat: what lies beside it on both sides at most
AIRED = -850.0  # HU: the training had air
WATERY = 300.0  # HU: and no median above it
NOISY = (-1150.0, -850.0)  # HU: where air lies, with its noise
LIGHT, DARK = 400.0, -150.0  # HU: half of no scan lies above it where nothing is below fat


def looks_like_hu(expected: ValueRange) -> bool:
    """Whether every case has its lowest values, without padding, where air is, and its median where a body's may be."""
    return all(map(is_air, expected.quantiles[LOWEST])) and expected.quantiles[LEVELS.index(0.5)][1] < WATERY


def is_air(value: float) -> bool:
    return NOISY[0] <= value <= NOISY[1]


def is_cut_at_air(found: ChannelValues) -> bool:
    """Whether all that is not denser than air was written as air, and the median lies where a body's may."""
    return is_air(found.floor) and found.quantiles[LEVELS.index(0.5)] < WATERY


def is_negated(found: ChannelValues) -> bool:
    """Whether what lies along the outer frame is as far above 0 as air lies below it, and nothing is air."""
    frame = found.floor + float(found.shape[-1]) * (float(found.quantiles[HIGHEST]) - found.floor)
    return is_air(-frame) and found.floor > NOISY[1]


def scaled_hu(found: ChannelValues, expected: ValueRange) -> Iterator[str]:
    """Reasons why a CT's numbers are a multiple of HU; only where those of the training lay as HU do."""
    if expected.quantiles[LOWEST][0] > AIRED or expected.quantiles[LEVELS.index(0.5)][1] > WATERY:
        return
    fat = fat_of(found)
    lowest = min(found.floor, float(found.quantiles[LOWEST]))
    for air in {lowest, float(found.quantiles[LOWEST])}:
        if fat and _within(air / AIR, SHRUNK) and abs(fat / FAT - air / AIR) < AGREE * air / AIR:
            yield f"air lies at {air:.0f} and fat at {fat:.0f}, which are {AIR:.0f} and {FAT:.0f} in HU"
            return
    if _is_raised(found):
        yield f"nearly none lies below {lowest:.0f}, where many lie, and air and lungs lie at {AIR:.0f} to -700 in HU"
    elif _is_air(found):
        yield f"many lie at {lowest:.0f} and nearly none below, as air does, which is {AIR:.0f} in HU"
    elif fat and _within(fat / FAT, STRETCHED):
        yield f"fat lies at {fat:.0f}, which is {FAT:.0f} in HU"
    elif _is_stretched(found):
        yield f"less than {SOFTEST:.0%} of the body lies within {SOFT:g} of 0, as soft tissue does"
    elif found.quantiles[LEVELS.index(0.01)] > DARK and found.quantiles[LEVELS.index(0.5)] > LIGHT:
        yield f"half lies above {LIGHT:g} and nearly none below {DARK:g}"


def fat_of(found: ChannelValues) -> float | None:
    """Where the peak of fat lies below that of other tissues; None where there is little or none of its own."""
    bins = np.arange(FAT * STRETCHED[1], FAT * SHRUNK[0] + STEP, STEP)
    shares = _shares(found.body, bins)
    k = int(np.argmax(shares))
    beside = _shares(found.body, np.arange(bins[k], -bins[k] / 2, STEP))
    if shares[k] < FOUND or beside.min() > VALLEY * shares[k] or shares[: k + 1].min() > VALLEY * shares[k]:
        return None
    return float(bins[k])


def _shares(ordered: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Of sorted values, within REACH of each centre."""
    return (np.searchsorted(ordered, centres + REACH) - np.searchsorted(ordered, centres - REACH)) / ordered.size


def _is_raised(found: ChannelValues) -> bool:
    """Many of the lowest values in a place between air or lungs and fat, where they were not cut off."""
    return EMPTY[0] < found.quantiles[LOWEST] < EMPTY[1] and _piled(found) > FOUND


def _is_air(found: ChannelValues) -> bool:
    """Many of the lowest values close together where lungs lie, whose own are spread, and nothing below them."""
    low = float(found.quantiles[LOWEST])
    above = found.below(low + (1 + SHARP) * THICK) - found.below(low + THICK)
    return LUNGS < low <= EMPTY[0] and _piled(found) > max(FOUND, 2 * above)


def _piled(found: ChannelValues) -> float:
    """The share of the lowest values within THICK; none where they were cut off."""
    low = float(found.quantiles[LOWEST])
    return found.below(low + THICK) - found.below(low) if found.floor > found.low else 0.0


def _is_stretched(found: ChannelValues) -> bool:
    """Little soft tissue in a body whose densest or lightest parts are all of one value."""
    body = found.body[found.body > DENSER]
    cut = float(np.mean(found.body >= found.high)) > CUT or found.floor == found.low
    return bool(body.size) and cut and float(np.mean(np.abs(body) < SOFT)) < SOFTEST


def _within(scale: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= scale <= limits[1]
