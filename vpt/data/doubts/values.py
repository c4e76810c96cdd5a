"""Values that are not those of the training: a scan that was read well, and would be answered wrongly.

CT and pictures of 8 bits have a unit, so that their values must lie where those of the training lay. Other scans (MR,
pictures of more bits) are scaled by their own percentiles, and only the shape of their distribution can be doubted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vpt.data.doubts.colours import coloured, swapped
from vpt.data.doubts.hu_modes import looks_like_hu, scaled_hu
from vpt.data.plan import Plan, Window
from vpt.data.values import (
    HIGHEST,
    LEVELS,
    LOWEST,
    SIGNED,
    CaseValues,
    ChannelValues,
    TrainingValues,
    ValueRange,
)
from vpt.readers import Kind

Unit = Literal["HU", "8 bits", "own", "none"]
"""Of a channel: CT's, a picture's 0 to 255, another that is the same in every scan, or none that two scans share."""

MARGIN, MARGIN_HU = 0.1, 100.0  # how far values may lie outside: of the training's width; of CT
SPARE, TIMES = 0.1, 3.0  # of a scan outside: this share, and so many times what the training had there
NARROW, NARROW_HU = 1 / 8, 1 / 40  # of the training's narrowest case; a CT may show a part of an organ only
TENTH = 1 / 7  # of it, where ten times the values would fit
AIR, LUNG, TISSUE, DENSE = -1100.0, -300.0, 150.0, 650.0  # HU: any part of a body has much between; contrast as well
FAT, SOME = -150.0, 0.05  # HU: what has nothing below fat has no so large share of dense bone
AIR_AT_MOST, FAR_BELOW = -800.0, 500.0  # HU, of a scan that may be CT
NEGATIVE = 0.1  # of a scan, where those of the training had nothing below 0
NEARLY_WHITE = 200  # of grey of 8 bits
INTERCEPTS = (-1024.0, -1000.0)
IDS, FEWER = 12, 4  # so few whole values look like labels where every case of the training had FEWER times as many
LIGHT = "light where they are dark"
INVERTED, COMPLEMENT = 0.7, 0.25  # how far a shape must lie outside, in all; of that its complement may, at most
APART = 0.3  # at least so far apart lie the usual shapes and their complements, or a negative cannot be told
SHAPED = (2, 3, 4, 5, 6, 7, 8, len(LEVELS))  # of a shape: 5 to 95 % and the frame
FEWEST = 5  # cases: of less no shape is known


@dataclass(frozen=True)
class Expected:
    """What values are compared with: those of the training, and the unit of each channel."""

    values: TrainingValues
    units: tuple[Unit, ...]

    @classmethod
    def by(cls, plan: Plan) -> Expected | None:
        """None of a plan that says nothing of values, as those of earlier versions."""
        if plan.values is None:
            return None
        fixed = [isinstance(intensity, Window) for intensity in plan.intensity]
        return cls(plan.values, units_of(plan.values, plan.channels, plan.kind, fixed))


def units_of(values: TrainingValues, names: Sequence[str], kind: Kind, fixed: Sequence[bool]) -> tuple[Unit, ...]:
    """Of every channel; fixed: whether its values mean the same in every scan, as CT does whatever it is called."""
    return tuple(
        _unit(channel, name, kind) if is_fixed or (kind == "volumes" and looks_like_hu(channel)) else "none"
        for channel, name, is_fixed in zip(values.channels, names, fixed, strict=True)
    )


def _unit(expected: ValueRange, name: str, kind: Kind) -> Unit:
    if kind == "images":
        return "8 bits" if expected.low >= 0 and expected.high <= 255 else "own"
    return "HU" if (is_ct(name) or looks_like_hu(expected)) and expected.low < -100 else "own"


def is_ct(channel: str) -> bool:
    return channel.strip().upper() in ("CT", "CBCT")


@dataclass(frozen=True)
class Doubt:
    """What is doubtful: the lowest and the highest value found and expected, why, and how to mend it."""

    found: tuple[float, float]
    expected: tuple[float, float]
    unit: Unit
    reason: str
    mend: str

    def sentence(self, of: str) -> str:
        """of: whose values are expected: "that the model was trained on", "of the other cases"."""
        (low, high), (lowest, highest) = self.found, self.expected
        what = {"HU": "HU", "8 bits": "8-bit values"}.get(self.unit, "values")
        return (
            f"values from {low:.5g} to {high:.5g} do not look like the {what} {of} ({lowest:.5g} to {highest:.5g}): "
            f"{self.reason}; {self.mend}"
        )


def doubt_of(found: CaseValues, expected: Expected) -> Doubt | None:
    """Whether a scan's values are others than those expected; None where nothing clear speaks against them."""
    return next(_doubts(found, expected), None)


def _doubts(found: CaseValues, expected: Expected) -> Iterator[Doubt]:
    channels = list(zip(found.channels, expected.values.channels, expected.units, strict=True))
    for values, known, unit in channels:
        for reason, mend in _off(values, known, unit):
            yield Doubt((values.low, values.high), (known.low, known.high), unit, reason, mend)
    values, known, unit = channels[0]
    eight = set(expected.units) == {"8 bits"}
    shape = () if "HU" in expected.units else _inverted(found, expected.values)
    for reason, mend in (
        *coloured(found, expected.values),
        *(swapped(found, expected.values) if eight else ()),
        *shape,
    ):
        yield Doubt((values.low, values.high), (known.low, known.high), unit, reason, mend)
    for values, known, unit in channels:
        for reason, mend in _below_zero(values, known) if unit == "none" else ():
            yield Doubt((values.low, values.high), (known.low, known.high), unit, reason, mend)


def _off(found: ChannelValues, expected: ValueRange, unit: Unit) -> Iterator[tuple[str, str]]:
    """Reasons to doubt one channel, and how to mend them."""
    if found.low == found.high:  # blank, in whatever unit
        return
    if 1 < found.distinct <= IDS and found.whole and expected.distinct >= FEWER * found.distinct:
        reason = f"only {found.distinct} different whole values, as a label map has"
        yield reason, "give the scan itself"
    if unit == "8 bits":
        yield from _not_8_bits(found, expected)
    elif unit == "none" and found.is_wrapped:
        yield (
            "many lie just below 65536 and none halfway, as what was below 0 and is read as unsigned",
            "save it signed",
        )
    elif unit != "none":
        for reason in _misplaced(found, expected, unit):
            yield reason, _mend_hu(found, expected) if unit == "HU" else "save it as those were saved"
    if unit == "HU" and found.low < 0 < found.high and found.zeros > SPARE + TIMES * expected.zeros:
        reason = f"{found.zeros:.0%} are just 0, which is water and tissue, of those at most {expected.zeros:.1%}"
        yield reason, "if that is padding, or what was masked out, write air there, which is -1000"


# --- pictures of 8 bits -----------------------------------------------------------------------------------------------


def _not_8_bits(found: ChannelValues, expected: ValueRange) -> Iterator[tuple[str, str]]:
    if found.low < 0 or found.high > 255:
        yield "more than 8 bits", "save it with 8 bits, scaled as those were"
    elif found.high <= 1:
        yield "nothing is above 1", "scale it to 0 to 255, and save it as 8 bits"
    elif _is_narrow(found, expected, NARROW):
        yield _narrow(found, expected), "scale it to 0 to 255, and save it as 8 bits"


def _is_narrow(found: ChannelValues, expected: ValueRange, share: float) -> bool:
    return 0 < found.width < expected.width * share


def _narrow(found: ChannelValues, expected: ValueRange) -> str:
    return f"99 % lie within {found.width:.3g}, of those over {expected.width:.3g} at least"


# --- CT, and what else has a unit -------------------------------------------------------------------------------------


def _misplaced(found: ChannelValues, expected: ValueRange, unit: Unit) -> Iterator[str]:
    """Reasons why values are in another unit, or start from another zero."""
    limits = _Limits.of(expected, unit)
    for level, low, high in zip(LEVELS, limits.lows, limits.highs, strict=True):
        if (share := found.above(high)) > SPARE + TIMES * (1 - level):
            yield f"{share:.0%} lie above {high:.5g}, of those at most {1 - level:.1%}"
        if (share := found.below(low)) > SPARE + TIMES * level:
            yield f"{share:.0%} lie below {low:.5g}, of those at most {level:.1%}"
    if found.quantiles[HIGHEST] < limits.least:
        yield f"nearly none lies above {limits.least:.5g}, as a tenth of those does"
    if found.quantiles[LOWEST] > limits.most:
        yield f"nearly none lies below {limits.most:.5g}, as half of those does"
    if unit == "HU":
        yield from _no_hu(found, expected)
    elif _is_narrow(found, expected, NARROW):
        yield _narrow(found, expected)


def _no_hu(found: ChannelValues, expected: ValueRange) -> Iterator[str]:
    darkest = expected.quantiles[LEVELS.index(0.05)][1]
    if found.low >= 0 > darkest:
        yield "none is below 0, as 5 % of those are at least"
    if found.quantiles[LEVELS.index(0.01)] > FAT > darkest and (share := found.above(DENSE)) > SOME:
        yield f"{share:.0%} lie above {DENSE:g} and nearly none below {FAT:g}, as 5 % of those do at least"
    if found.low == 0 and NEARLY_WHITE <= found.high <= 255 and found.whole:
        yield "whole values from 0 on, as grey of 8 bits has"
    if SIGNED < found.high < 2 * (SIGNED + 1):
        yield "values that were below 0 are read as unsigned"
    yield from scaled_hu(found, expected)
    if _is_narrow(found, expected, NARROW_HU):
        yield _narrow(found, expected)
    elif _is_narrow(found, expected, TENTH) and not any(_misplaced(found.turned_into(10.0, 0.0), expected, "HU")):
        yield f"{_narrow(found, expected)}, and ten times as large they would fit"


@dataclass(frozen=True)
class _Limits:
    """The limits between which values may lie.

    lows, highs: at LEVELS, below and above which only few may lie; least: some must lie above it; most: and below it.
    """

    lows: tuple[float, ...]
    highs: tuple[float, ...]
    least: float
    most: float

    @classmethod
    def of(cls, expected: ValueRange, unit: Unit) -> _Limits:
        width = expected.quantiles[HIGHEST][1] - expected.quantiles[LOWEST][0]
        margin = MARGIN_HU if unit == "HU" else MARGIN * width
        lows = [low - margin for low, _ in expected.quantiles]
        highs = [high + margin for _, high in expected.quantiles]
        least, most = lows[LEVELS.index(0.9)], highs[LEVELS.index(0.5)]
        if unit == "HU":  # another part of the body, or a smaller field of view, is no fault
            lows, highs = [min(low, AIR) for low in lows], [max(high, DENSE) for high in highs]
            least, most = min(least, LUNG), max(most, TISSUE)
        return cls(tuple(lows), tuple(highs), least, most)


def _below_zero(found: ChannelValues, expected: ValueRange) -> Iterator[tuple[str, str]]:
    """Of scans scaled by their own percentiles, which leave out what is 0: CT, or one that was scaled before."""
    share = found.below(0.0)
    if found.low >= 0 and expected.quantiles[LEVELS.index(0.1)][1] < 0:
        yield "none is below 0, where a tenth of those is at least", "scale it as those were scaled"
    if expected.low < 0:
        return
    if share == 0 and found.floor < 0:
        yield f"its padding is {found.low:.5g}, and those have nothing below 0", "write 0 around it"
    elif share > NEGATIVE:
        reason = f"{share:.0%} lie below 0, and none of those"
        if found.low <= AIR_AT_MOST and found.below(-FAR_BELOW) > SOME:
            yield f"{reason}; it looks like CT, in HU", "give a scan of the kind that those are"
        else:
            yield reason, "give the scan as the scanner wrote it, not normalised, its background 0"


def _mend_hu(found: ChannelValues, expected: ValueRange) -> str:
    for intercept in INTERCEPTS:
        if not any(_misplaced(found.turned_into(1.0, intercept), expected, "HU")):
            return (
                f"with {-intercept:g} less they would fit, so its intercept may be lost: "
                "convert it again with the slope and intercept of its DICOM header"
            )
    return "save it in HU: neither scaled to grey values, nor without the slope and intercept of its DICOM header"


# --- the shape of a distribution --------------------------------------------------------------------------------------


def _inverted(found: CaseValues, expected: TrainingValues) -> Iterator[tuple[str, str]]:
    """Light where the training was dark: only where the complement fits as well as the values do not."""
    if expected.cases < FEWEST or any(values.width == 0 for values in found.channels):
        return
    pairs = list(zip(found.channels, expected.channels, strict=True))
    if np.mean([_apart(known) for known in expected.channels]) < APART:
        return
    outside = np.mean([_outside(values.shape, known) for values, known in pairs])
    turned = np.mean([_outside(complement(values.shape), known) for values, known in pairs])
    if outside > INVERTED and turned < COMPLEMENT * outside:
        yield f"{LIGHT}, and the other way round", "invert it, if it is a negative"


def _outside(shape: np.ndarray, expected: ValueRange) -> float:
    """How far a shape lies outside those of the training, summed over its numbers."""
    low, high = np.array(expected.shape).T
    return _summed(shape - high, low - shape)


def _apart(expected: ValueRange) -> float:
    """How far the training's shapes lie from their own complements."""
    low, high = np.array(expected.shape).T
    return _summed(low - complement(low), complement(high) - high)


def _summed(above: np.ndarray, below: np.ndarray) -> float:
    return float(np.maximum(0, np.maximum(above, below))[list(SHAPED)].sum())


def complement(shape: np.ndarray) -> np.ndarray:
    """Of a negative. Low and high change places, so do those of a range."""
    return np.append(1 - shape[-2::-1], 1 - shape[-1])
