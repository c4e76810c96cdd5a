"""Scores by group as a table, and how scores and intervals are written."""

from __future__ import annotations

import math
from collections.abc import Iterator

from vpt.report.blocks import Block
from vpt.scores.bootstrap import LEVEL
from vpt.scores.groups import SMALL, GroupScores
from vpt.words import counted, listed

MOST_COLUMNS = 4  # scores beside the first; summary.json has all


def group_blocks(found: GroupScores, what: str) -> Iterator[Block]:
    """A table with a row per group, the gap between best and worst, what is not in it; of classes a table of odds."""
    first, *others = found.rows[0].scores
    others = others[:MOST_COLUMNS] if len(others) > 1 else []
    rows = [
        [
            row.group + (" *" if row.is_small else ""),
            str(row.cases),
            str(row.patients),
            shown(row.scores[first]),
            range_of(row.intervals[first]),
            *(shown(row.scores[score]) for score in others),
        ]
        for row in found.rows
    ]
    column = found.grouping.column
    title = f"{what + ' ' if what else ''}by {column}"
    head = [column, "cases", "patients", first, f"{LEVEL:.0%} interval", *others]
    notes = [*_gap(found, first), *_lacking(found, first), *_without_interval(found, first), *_equity(found, first)]
    yield Block(title, head, rows, [*notes, *_said(found)])
    if found.odds:
        yield _odds(found)


def _odds(found: GroupScores) -> Block:
    rows = [
        [
            name,
            shown(each.opportunity),
            range_of(each.opportunity_interval),
            each.worst,
            shown(each.odds),
            range_of(each.odds_interval),
        ]
        for name, each in found.odds.items()
    ]
    interval = f"{LEVEL:.0%} interval"
    head = ["against the rest", "equal opportunity", interval, "found least", "equalised odds", f"{interval} of it"]
    notes = [
        "equal opportunity: the largest minus the smallest sensitivity of a group; equalised odds: the same, or that "
        "of the share of false alarms where it is larger; 0 is fair, and chance alone lies above it"
    ]
    return Block(f"Differences by {found.grouping.column}", head, rows, notes)


def _equity(found: GroupScores, score: str) -> Iterator[str]:
    if fair := found.equity.get(score):
        interval = f" ({range_of(fair.interval)})" if math.isfinite(fair.interval[0]) else ""
        yield f"equity-scaled {score}: {fair.value:.3f}{interval}, its value over 1 + the groups' distances to it"


def _gap(found: GroupScores, score: str) -> Iterator[str]:
    if gap := found.gaps.get(score):
        interval = f" ({range_of(gap.interval, signed=True)})" if math.isfinite(gap.interval[0]) else ""
        yield f"gap ({score}): {gap.best} - {gap.worst} = {gap.size:+z.3f}{interval}; the worst group is {gap.worst}"
    else:
        yield f"no gap: fewer than two groups of {SMALL} patients or more"


def _lacking(found: GroupScores, score: str) -> Iterator[str]:
    """Groups whose mean is of other classes or labels than that of the others, so that part of a gap may be that."""
    counted_so = " (F1 counts as 0 what was answered all the same)" if score == "macro_f1" else ""
    compared = {row.group for row in found.rows if not row.is_small} if score in found.gaps else set[str]()
    for group, names in found.lacking.items():
        if group in compared:
            yield f"{group} has no {listed(names)}, so its {score} is of other things than the others'{counted_so}"


def _without_interval(found: GroupScores, score: str) -> Iterator[str]:
    for group, why in found.without_interval.items():
        yield f"no interval of the {score} of {group}, nor of what is made of it: {why}"


def _said(found: GroupScores) -> Iterator[str]:
    if any(row.is_small for row in found.rows):
        yield f"* fewer than {SMALL} patients: too few to compare, not in the gap"
    if without := found.grouping.without:
        yield f"{counted(len(without), 'case')} without {found.grouping.column}, in no group: {listed(without)}"


def shown(value: float, form: str = ".3f") -> str:
    """A score in words; "-" where it is undefined."""
    return format(value, form) if math.isfinite(value) else "-"


def range_of(interval: tuple[float, float], signed: bool = False) -> str:
    low, high = interval
    form = "+z.3f" if signed else "z.3f"
    return f"{low:{form}} to {high:{form}}" if math.isfinite(low) else "-"
