"""Charts as a template draws them in SVG: axes with round ticks, and marks at values. Colours follow the page's own."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

APART = 12  # px, between words one below the other
GLYPH = 6.5  # px, of a letter
COLUMN = 70  # px, of a name below it


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`; ticks: (value, words); title: what the values are."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    title: str = ""

    def share(self, value: float) -> float:
        """Where a value lies, 0 at `low`, 1 at `high`."""
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    words: str
    colour: str = ""
    open: bool = False


@dataclass(frozen=True)
class Line:
    """Through points (x, y); drawn: solid, or dashed; keyed: in the legend."""

    points: tuple[tuple[float, float], ...]
    words: str = ""
    colour: str = ""
    dashed: bool = False
    keyed: bool = True


@dataclass(frozen=True)
class Rule:
    """A line across the chart at a value of an axis, with words at its end."""

    value: float
    words: str = ""
    along: Literal["x", "y"] = "x"
    dashed: bool = False


@dataclass(frozen=True)
class Bar:
    """A rectangle between two corners: (x, y) and (x, y)."""

    start: tuple[float, float]
    end: tuple[float, float]
    words: str
    colour: str = ""


@dataclass(frozen=True)
class Chart:
    """What is drawn, from behind to the front: bars, rules, lines, dots.

    alt: what it shows, in a sentence; left (at least), bottom, top, right: of the marks; legend: of the lines.
    """

    title: str
    alt: str
    x: Axis
    y: Axis
    bars: tuple[Bar, ...] = ()
    rules: tuple[Rule, ...] = ()
    lines: tuple[Line, ...] = ()
    dots: tuple[Dot, ...] = ()
    width: float = 380
    height: float = 230
    left: float = 46
    bottom: float = 38
    top: float = 10
    right: float = 12
    legend: bool = False

    @property
    def start(self) -> float:
        """Where the marks begin: right of the title of the axis and of its longest number."""
        longest = max((len(words) for _, words in self.y.ticks), default=0)
        return max(self.left, 10 + 6.2 * longest + (16 if self.y.title else 0))

    def px(self, x: float) -> float:
        return round(self.start + self.x.share(x) * (self.width - self.start - self.right), 1)

    def py(self, y: float) -> float:
        return round(self.height - self.bottom - self.y.share(y) * (self.height - self.top - self.bottom), 1)

    @property
    def rule_words(self) -> tuple[tuple[float, str], ...]:
        """The words at the ends of rules across, and how far down each stands: where rules lie close, apart."""
        told = sorted((self.py(rule.value), rule.words) for rule in self.rules if rule.along == "x" and rule.words)
        places = [y for y, _ in told]
        for k in range(1, len(places)):
            places[k] = max(places[k], places[k - 1] + APART)
        moved = sum(place - y for place, (y, _) in zip(places, told, strict=True)) / max(len(told), 1)
        return tuple((round(place - moved, 1), words) for place, (_, words) in zip(places, told, strict=True))

    def path(self, line: Line) -> str:
        return "M" + "L".join(f"{self.px(x)} {self.py(y)}" for x, y in line.points)


def axis_of(values: Iterable[float], title: str = "", *, least: Sequence[float] = (), most_ticks: int = 6) -> Axis:
    """An axis that holds the finite values and `least`, with round ticks inside it."""
    held = [value for value in (*values, *least) if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(held), max(held)
    if low == high:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    step = _round_step((high - low) / max(1, most_ticks - 1))
    first, last = (_whole(end / step, turn) for end, turn in ((low, math.floor), (high, math.ceil)))
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    ticks = tuple((k * step, f"{k * step:,.{digits}f}") for k in range(first, last + 1))
    return Axis(first * step, last * step, ticks, title)


def columns_width(count: int) -> int:
    """Of a chart with so many named columns, px."""
    return max(380, 60 + COLUMN * count)


def named_axis(names: Sequence[str], width: float = math.inf) -> Axis:
    """The names in order along the axis, at 0, 1, 2, ...; in a chart so wide long ones lose the words that all of them
    begin with, then their ends.
    """
    room = (width - 60) / max(len(names), 1) / GLYPH - 1
    if len(names) > 1 and max(map(len, names)) > room:
        same = "".join(
            letters[0] for letters in takewhile(lambda letters: len({*letters}) == 1, zip(*names, strict=False))
        )
        alike = re.match(r".*[\W_]", same, re.DOTALL)
        names = [f"…{name[alike.end() :]}" if alike else name for name in names]
    names = [name if len(name) <= room else f"{name[: int(room) - 1]}…" for name in names]
    return Axis(-0.6, len(names) - 0.4, tuple((k, name) for k, name in enumerate(names)))


def _whole(number: float, turn: Callable[[float], int]) -> int:
    """Itself where rounding alone keeps it from a whole number, else the one below or above."""
    near = round(number)
    return near if math.isclose(number, near) else turn(number)


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))
