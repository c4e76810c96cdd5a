"""Risk against coverage as a table."""

from __future__ import annotations

import math
from collections.abc import Iterator

from vpt.report.blocks import Block
from vpt.report.group_blocks import MOST_COLUMNS, range_of, shown
from vpt.scores.bootstrap import LEVEL
from vpt.scores.trust import SHARE, TRUST
from vpt.scores.trust_scores import TrustScores
from vpt.words import counted

TITLE = "Which cases to trust"


def trust_blocks(found: TrustScores | None) -> Iterator[Block]:
    """AURC of every score, whether they differ, and what the limits flag."""
    if found is None:
        return
    labels = list(found.by_label)[:MOST_COLUMNS] if len(found.by_label) > 1 else []
    rows = [
        [
            score,
            shown(curve.aurc),
            range_of(curve.interval),
            *(shown(found.by_label[name].get(score, math.nan)) for name in labels),
        ]
        for score, curve in found.curves.items()
    ]
    head = ["cases in order of", "AURC", f"{LEVEL:.0%} interval", *labels]
    yield Block(TITLE, head, rows, [*_said(found)], last=2)


def _said(found: TrustScores) -> Iterator[str]:
    yield f"AURC: area under risk (1 - Dice) against coverage, {counted(found.cases, 'case')}; less is a better order"
    for each in found.differences:
        interval = f" ({range_of(each.interval, signed=True)})" if math.isfinite(each.interval[0]) else ""
        yield f"{each.first} - {each.second} = {each.size:+z.3f}{interval}"
    if missing := [score for score in TRUST if score not in found.curves]:
        yield "; ".join(f"no {score}: {WHY_MISSING[score]}" for score in missing)
    yield _flagged(found)


WHY_MISSING = {
    "agreement": "takes several models (--mean), and cases in which one of them finds something",
    "entropy": "nothing was found in any case",
    "distance": "the model keeps no training cases; those of version 0.5 and later do",
}


def _flagged(found: TrustScores) -> str:
    if found.limits is None or found.flagged is None:
        return "nothing is flagged: the run has no validation cases to choose limits by"
    flagged, limits = found.flagged, found.limits
    dice = f", mean Dice {shown(flagged.dice)} against {shown(flagged.dice_of_others)}" if flagged.count else ""
    return (
        f"flagged: {counted(flagged.count, 'case')} beyond a limit that holds {SHARE:.0%} of "
        f"{counted(limits.cases, 'validation case')}{dice}"
    )
