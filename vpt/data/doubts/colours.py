"""Colours that are not those of the training: any where all was grey, or red and blue in each other's place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from vpt.data.values import CaseValues, TrainingValues

GREY, COLOURED = 2.0, 12.0  # of 255, mean distance of the channels: grey JPEGs have less; marks drawn in have less
MIDDLE = slice(4, 7)  # of LEVELS: 25, 50 and 75 %
FEWEST = 40  # pictures: of less their colours are not known
TINTED = 120.0  # how far the training's red and blue lie apart, over MIDDLE, where their order can be told
OUTSIDE, AS_WELL = 20.0, 0.25  # of 255, over MIDDLE and the channels; of that the other order may, at most


def coloured(found: CaseValues, expected: TrainingValues) -> Iterator[tuple[str, str]]:
    """Colour where all was grey. Grey where there was colour is no fault: photographs of a set may be grey, too."""
    if expected.colour <= GREY and found.colour > COLOURED:
        yield "a colour picture, and those are grey", "convert it to grey"


def swapped(found: CaseValues, expected: TrainingValues) -> Iterator[tuple[str, str]]:
    """Of 8 bits: blue, green, red, only where they fit in that order as well as they do not in their own.

    And where the training's red and blue lie apart, as in tissue, and not as in all sorts of photographs.
    """
    if len(found.channels) != 3 or expected.cases < FEWEST:
        return
    spans = [np.array(channel.quantiles)[MIDDLE].T for channel in expected.channels]  # each (low, high)
    values = [channel.quantiles[MIDDLE] for channel in found.channels]
    if np.abs(spans[0] - spans[2]).sum() < TINTED:
        return
    own = _outside(values, spans)
    if own > OUTSIDE and _outside(values[::-1], spans) < AS_WELL * own:
        yield "with red and blue exchanged it fits", "give red, green, blue: OpenCV reads blue first, image[..., ::-1]"


def _outside(values: Sequence[np.ndarray], spans: Sequence[np.ndarray]) -> float:
    """How far they lie outside of their channels' spans, in all."""
    return float(
        sum(
            np.maximum(0, np.maximum(low - one, one - high)).sum()
            for one, (low, high) in zip(values, spans, strict=True)
        )
    )
