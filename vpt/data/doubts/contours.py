"""Masks that are outlines: a closed line around what was meant, which nobody filled.

An outline is thin everywhere, each of its pieces encloses one place, and that is much larger than the line. Vessels are
thin and branch, with ends; membranes enclose many places with one piece; a wall is thicker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vpt.data.doubts.mask_values import some_slices
from vpt.words import counted, listed

THIN = 5  # pixels: a square of so many fits into no outline
FEWEST, FEWEST_CASES = 40, 3  # pixels of a mask, and masks; of fewer nothing is told
LARGER = 2  # times the line: what it encloses
ONE_EACH = 1.5  # places that a piece encloses, on average
NEARLY_ALL = 0.8  # of the masks


@dataclass(frozen=True)
class Hollow:
    """Of one case's mask: its pixels in some slices, those enclosed by it, its pieces and the places that they enclose.

    enclosed is 0 where it is not thin everywhere.
    """

    case: str
    pixels: int = 0
    enclosed: int = 0
    pieces: int = 0
    places: int = 0

    @property
    def is_outline(self) -> bool:
        closed = self.pieces <= ONE_EACH * self.places and self.places <= ONE_EACH * self.pieces
        return self.pixels >= FEWEST and self.enclosed >= LARGER * self.pixels and closed


def hollow_of(case: str, labels: np.ndarray) -> Hollow:
    """A label map (X, Y, Z), of which some slices are looked at."""
    pixels = enclosed = pieces = places = 0
    for k in some_slices(labels):
        inside = labels[..., k] > 0
        pixels += int(np.count_nonzero(inside))
        if _is_thick(inside):
            return Hollow(case, pixels)
        here = _enclosed(inside)
        enclosed, pieces, places = enclosed + here[0], pieces + here[1], places + here[2]
    return Hollow(case, pixels, enclosed, pieces, places)


def outlines(masks: Sequence[Hollow]) -> list[str]:
    """What is doubtful in the masks of a data set, in one sentence."""
    drawn = [mask for mask in masks if mask.pixels]
    odd = [mask for mask in drawn if mask.is_outline]
    if len(odd) < max(FEWEST_CASES, NEARLY_ALL * len(drawn)):
        return []
    times = sum(mask.enclosed for mask in odd) / sum(mask.pixels for mask in odd)
    some = f"{len(odd)} of {counted(len(drawn), 'mask')} ({listed((mask.case for mask in odd), 3)})"
    return [
        f"{some} are closed thin lines around {times:.0f} times as many pixels as they have themselves; are they "
        "outlines of what is meant? Then fill them (scipy.ndimage.binary_fill_holes); if the line is meant, they are "
        "right"
    ]


def _is_thick(inside: np.ndarray) -> bool:
    """Whether a square of THIN pixels fits into it."""
    for axis in (0, 1):
        size = inside.shape[axis]
        if size < THIN:
            return False
        whole: list[slice] = [slice(None), slice(None)]
        parts = []
        for k in range(THIN):
            whole[axis] = slice(k, size - THIN + 1 + k)
            parts.append(inside[tuple(whole)])
        inside = np.logical_and.reduce(parts)
    return bool(inside.any())


def _enclosed(inside: np.ndarray) -> tuple[int, int, int]:
    """Pixels that a thin line encloses; its pieces (joined at corners too), and the places that these enclose."""
    from scipy.ndimage import label

    around, places = label(np.pad(~inside, 1, constant_values=True))
    _, pieces = label(inside, np.ones((3, 3)))
    return int(np.count_nonzero((around > 0) & (around != around[0, 0]))), int(pieces), int(places) - 1
