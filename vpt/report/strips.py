"""Scores of many methods below each other: a line of dots each, on one axis, as `strips.html` draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vpt.report.charts import Axis, axis_of


@dataclass(frozen=True)
class Strip:
    """A method: its name, what is said beside it, a score for each seed, their mean, and its interval, if any."""

    name: str
    more: str
    seeds: tuple[float, ...]
    mean: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Strips:
    """alt: what they show, in a sentence; axis: of all; mark: where a rule goes through all."""

    alt: str
    axis: Axis
    strips: tuple[Strip, ...]
    mark: float

    def at(self, value: float) -> str:
        """Where a value lies, in percent of the width."""
        return f"{100 * self.axis.share(value):.2f}%"


def strips_of(strips: Sequence[Strip], title: str, alt: str) -> Strips:
    """The first is the best, through whose mean the rule goes."""
    values = [value for each in strips for value in (*each.seeds, *(each.interval or ()))]
    return Strips(alt, axis_of(values, title), tuple(strips), strips[0].mean)
