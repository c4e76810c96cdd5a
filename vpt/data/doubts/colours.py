"""Colours that are not those of the training: any where all was grey, or red and blue in each other's place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vpt.data.values import CaseValues, TrainingValues
from vpt.words import agreeing, listed

GREY, COLOURED = 2.0, 12.0  # of 255, mean distance of the channels: grey JPEGs have less; marks drawn in have less
MIDDLE = slice(4, 7)  # of LEVELS: 25, 50 and 75 %
FEWEST = 40  # pictures: of less their colours are not known
TINTED = 120.0  # how far the training's red and blue lie apart, over MIDDLE, where their order can be told
FEWEST_IN_TWO, IN_PART = 20, 0.1  # pictures, and the smaller part of them, where some are in another order
CLEAR, BETWEEN = 15.0, 0.05  # of 255, mean red less mean blue; the share of pictures that may have less
ALIKE = 0.35  # of that difference: how far the two parts may differ once they are exchanged
WHITE = 255  # of 8 bits
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


def of_two_orders(cases: Sequence[tuple[str, CaseValues]]) -> Iterator[tuple[str, str]]:
    """Colour pictures of 8 bits of which a part is bluish by as much as the others are reddish, or the other way round.

    Only where nearly none lies between, as of tissue, and where exchanging the two makes both groups alike.
    """
    read = [(file, values.channels) for file, values in cases if _is_tinted(values)]
    if len(read) < FEWEST_IN_TWO or len(read) < len(cases):
        return
    means = np.array([[channel.body.mean() for channel in channels] for _, channels in read])
    tint, green = means[:, 0] - means[:, 2], means[:, 1] - (means[:, 0] + means[:, 2]) / 2
    if (np.abs(tint) < CLEAR).mean() > BETWEEN:
        return
    fewer = tint < 0 if (tint < 0).sum() <= len(tint) / 2 else tint > 0
    if fewer.sum() < max(2, IN_PART * len(tint)):
        return
    theirs, others = np.abs(tint[fewer]).mean(), np.abs(tint[~fewer]).mean()
    unlike = max(abs(theirs - others), abs(green[fewer].mean() - green[~fewer].mean()))
    if unlike <= ALIKE * others:
        odd = [Path(file).name for (file, _), is_odd in zip(read, fewer, strict=True) if is_odd]
        tints = ("bluish", "reddish") if tint[fewer].mean() < 0 else ("reddish", "bluish")
        yield (
            next(file for (file, _), is_odd in zip(read, fewer, strict=True) if is_odd),
            f"{len(odd)} of {len(read)} pictures ({listed(odd, 3)}) {agreeing(len(odd), 'are')} as {tints[0]} as the "
            f"others are {tints[1]}; "
            "are red and blue exchanged in them? OpenCV reads and writes blue first: image[..., ::-1]",
        )


def _is_tinted(values: CaseValues) -> bool:
    return len(values.channels) == 3 and 1 < max(channel.high for channel in values.channels) <= WHITE


def _outside(values: Sequence[np.ndarray], spans: Sequence[np.ndarray]) -> float:
    """How far they lie outside of their channels' spans, in all."""
    return float(
        sum(
            np.maximum(0, np.maximum(low - one, one - high)).sum()
            for one, (low, high) in zip(values, spans, strict=True)
        )
    )
