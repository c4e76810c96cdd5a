"""What the views of a page share: a tile of its head, numbers and intervals in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WORST, BEST = 12, 4  # cases with pictures
MOST_ROWS = 1000  # of the table of all cases
MOST_CONFUSED = 20  # labels or classes of a matrix
EMPTY_WORDS = {"nan": "left out of means", "one": "scored 1", "zero": "scored 0"}  # absent in truth and prediction


@dataclass(frozen=True)
class Tile:
    """A number in the head of a page."""

    name: str
    value: str
    more: str = ""


def digits(value: float, count: int, sign: str = "") -> str:
    """sign: "+" where it is a difference."""
    return f"{value:{sign}z,.{count}f}" if math.isfinite(value) else "-"


def range_of(ends: tuple[float, float] | None, count: int) -> str:
    """ "0.81 to 0.86", or "" where there is none."""
    return "" if ends is None or not math.isfinite(ends[0]) else f"{ends[0]:.{count}f} to {ends[1]:.{count}f}"


def in_brackets(ends: tuple[float, float] | None) -> str:
    """An interval behind its score, in a sentence."""
    found = range_of(ends, 3)
    return f" (95 % interval {found})" if found else ""


def amount(value: float) -> str:
    """Millilitres or pixels: three digits, large numbers whole."""
    if not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.{_places(value)}f}"


def amounts(values: Sequence[float]) -> list[str]:
    """Differences that stand together, with as many decimals each as the largest of them has."""
    places = _places(max((abs(value) for value in values if math.isfinite(value)), default=0.0))
    return [digits(value, places, "+") for value in values]


def _places(value: float) -> int:
    """Decimals that leave three digits of a number, none of 100 and more."""
    return max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
