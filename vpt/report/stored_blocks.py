"""Tables of lesions, groups and trust from the `summary.json` that holds them, for the page of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from vpt.report.blocks import Block
from vpt.report.group_blocks import group_blocks
from vpt.report.lesion_blocks import lesion_block
from vpt.report.trust_blocks import trust_blocks
from vpt.scores.fairness import Odds, Scaled
from vpt.scores.groups import Gap, Grouping, GroupRow, GroupScores
from vpt.scores.lesions import OVERLAP, LesionSummary, SizeBin
from vpt.scores.trust import Limits
from vpt.scores.trust_scores import Curve, Difference, Flagged, TrustScores


def stored_blocks(found: Mapping[str, Any], score: str) -> Iterator[tuple[str, Block]]:
    """The content of `summary.json` -> (heading, table); score: what groups are told apart in."""
    if lesions := found.get("lesions"):
        named = [(str(found["labels"][label]), _lesions(each)) for label, each in lesions.items()]
        settings = found["settings"]
        unit = "px" if "tolerance_px" in settings else "mm"
        yield "Lesions", lesion_block(named, unit, settings.get("lesion_overlap", OVERLAP))
    stored = found.get("by_group", [])
    for groups in [stored] if isinstance(stored, dict) else stored:  # of one column, as before version 0.5
        for block in group_blocks(_groups(groups), score):
            yield block.title, block
    for block in trust_blocks(stored_trust(found)):
        yield block.title, block


def stored_trust(found: Mapping[str, Any]) -> TrustScores | None:
    """What the content of `summary.json` says of which cases to trust."""
    quality = found.get("quality")
    if quality is None:
        return None
    curves = {
        score: Curve(_number(each["aurc"]), _interval(each["interval"]), tuple(map(_interval, each["points"])))
        for score, each in quality["curves"].items()
    }
    differences = tuple(
        Difference(each["first"], each["second"], _number(each["size"]), _interval(each["interval"]))
        for each in quality["differences"]
    )
    limits, flagged = quality["limits"], quality["flagged"]
    return TrustScores(
        quality["cases"],
        curves,
        {name: _numbers(each) for name, each in quality["by_label"].items()},
        differences,
        limits and Limits(**limits),
        flagged and Flagged(flagged["count"], _number(flagged["dice"]), _number(flagged["dice_of_others"])),
    )


def _lesions(found: Mapping[str, Any]) -> LesionSummary:
    return LesionSummary(
        found["found"],
        found["missed"],
        found["false"],
        _numbers(found["scores"]),
        _intervals(found["intervals"]),
        tuple(
            SizeBin(each["low"], math.inf if each["high"] is None else each["high"], each["lesions"], each["found"])
            for each in found["sizes"]
        ),
    )


def _groups(found: Mapping[str, Any]) -> GroupScores:
    grouping = found["grouping"]
    rows = [
        GroupRow(
            each["group"], each["cases"], each["patients"], _numbers(each["scores"]), _intervals(each["intervals"])
        )
        for each in found["rows"]
    ]
    gaps = {
        score: Gap(gap["best"], gap["worst"], _number(gap["size"]), _interval(gap["interval"]))
        for score, gap in found["gaps"].items()
    }
    equity = {
        score: Scaled(_number(fair["value"]), _interval(fair["interval"]))
        for score, fair in found.get("equity", {}).items()
    }
    odds = {
        name: Odds(
            _number(each["opportunity"]),
            _interval(each["opportunity_interval"]),
            _number(each["odds"]),
            _interval(each["odds_interval"]),
            each["worst"],
        )
        for name, each in found.get("odds", {}).items()
    }
    told = Grouping(grouping["column"], grouping["of"], tuple(grouping["without"]))
    return GroupScores(told, tuple(rows), gaps, equity, odds)


def _numbers(found: Mapping[str, Any]) -> dict[str, float]:
    return {name: _number(value) for name, value in found.items()}


def _intervals(found: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    return {name: _interval(ends) for name, ends in found.items()}


def _interval(ends: Any) -> tuple[float, float]:
    return _number(ends[0]), _number(ends[1])


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
