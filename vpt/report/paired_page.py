"""The page of two runs or two folders of masks: how far one is ahead, and the cases in which they differ most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vpt.palette import colours_of
from vpt.report.classification import HEADLINES
from vpt.report.inlined import InlinedViewer
from vpt.report.mask_charts import confusion_rows
from vpt.report.overlays import Panel
from vpt.report.pages import render
from vpt.report.paired import PairedReport, furthest, signed
from vpt.report.paired_charts import cases_chart, difference_chart
from vpt.report.parts import MOST_CONFUSED, MOST_ROWS, Tile, digits
from vpt.report.report_page import FactGroup
from vpt.scores.paired import TIE, CasePair
from vpt.words import counted

MOST_LABELS = 4  # of a case


@dataclass(frozen=True)
class PairedCard:
    """A case with its masks in both. difference: where these differ most; empty: which of them is; note: why there is
    no picture.
    """

    case: CasePair
    first: tuple[Panel, ...] = ()
    second: tuple[Panel, ...] = ()
    difference: str = ""
    empty: tuple[bool, bool] = (False, False)
    note: str = ""

    @property
    def standing(self) -> str:
        if abs(self.case.size) < TIE:
            return "alike in both"
        return f"{'A' if self.case.size > 0 else 'B'} is better by {abs(self.case.size):.3f}"


@dataclass(frozen=True)
class PairedThumb:
    """A case that was classified twice: its picture as a data URI, "" where there is none; the truth, both answers."""

    case: CasePair
    picture: str
    reference: str
    first: str
    second: str


def paired_page(
    report: PairedReport,
    cards: Sequence[PairedCard],
    thumbs: Sequence[PairedThumb] = (),
    facts: Sequence[FactGroup] = (),
    viewer: InlinedViewer | None = None,
    to_view: str = "",
) -> str:
    """One file of HTML. cards, of classes thumbs: of the cases that differ most, in order; facts: how to repeat it;
    to_view: the command that puts volumes inside the page.
    """
    found = report.found
    means, *others = report.blocks()[:-1]
    named = [replace(each, score=HEADLINES.get(each.score, each.score)) for each in found.differences]
    charts = [difference_chart(named), cases_chart(found.cases, report.of_case)]
    return render(
        "paired.html",
        title=" and ".join(_short_names(report.first, report.second)),
        report=report,
        headline=_headline(report),
        tiles=_tiles(report),
        means=means,
        others=others,
        columns=_columns(report),
        furthest=furthest,
        of_labels=_of_labels,
        signed=signed,
        notes=[note for note in report.said() if note != report.by_label()],
        charts=[chart for chart in charts if chart is not None],
        cards=cards,
        thumbs=thumbs,
        confusion=_confusion(report),
        classes=report.classes.names if report.classes else (),
        colours={name: colours_of(report.labels)[label] for label, name in report.labels.items()},
        cases=found.cases[:MOST_ROWS],
        left_out=max(0, len(found.cases) - MOST_ROWS),
        digits=digits,
        facts=facts,
        viewer=viewer,
        to_view="" if report.classes else to_view,
    )


def _columns(report: PairedReport) -> list[str]:
    """Labels that have a column of their own in the table of all cases; of many the one that differs most is named."""
    names = list(report.labels.values())
    return names if 1 < len(names) <= MOST_LABELS else []


def _of_labels(case: CasePair) -> list[tuple[str, float, float]]:
    """The labels that differ most, name and both scores, as many as a card has room for; none of a single label."""
    there = [(name, a, b) for name, (a, b) in case.labels.items() if math.isfinite(a - b)]
    if len(case.labels) < 2:
        return []
    return sorted(there, key=lambda each: -abs(each[1] - each[2]))[:MOST_LABELS]


def _confusion(report: PairedReport) -> list[tuple[str, list[tuple[str, list[tuple[int, float]]]]]]:
    """The matrix of each of the two with its name; none of masks, of labels, of many classes."""
    found = report.classes
    if found is None or len(found.names) > MOST_CONFUSED:
        return []
    named = zip(("A", "B"), found.counts, strict=False)  # of labels there are none
    return [(name, confusion_rows(counts, found.names)) for name, counts in named]


def _short_names(first: str, second: str) -> tuple[str, str]:
    """The folders' names; where these are alike, the paths."""
    names = Path(first).name, Path(second).name
    return names if names[0] != names[1] and all(names) else (first, second)


def _headline(report: PairedReport) -> str:
    wanted = report.classes.main if report.classes else "foreground"
    differences = report.found.differences
    main = next((each for each in differences if each.score == wanted), differences[0])
    score = "Mean Dice" if main.score == "foreground" else HEADLINES.get(main.score, main.score)
    score = score[0].upper() + score[1:]
    if not math.isfinite(main.size):
        return f"{score} is undefined in one of the two, so they cannot be compared by it."
    low, high = main.interval
    if not math.isfinite(low):
        few = main.verdict == "unknown"
        judged = "; too few patients for an interval" if few else f"; no interval ({main.verdict})"
    else:
        few = main.verdict == "too few patients"
        noise = (
            f"; {counted(main.patients or 0, 'patient')} are too few to tell that from noise"
            if few
            else f", {main.verdict}"
        )
        judged = f" (95 % interval {low:+z.3f} to {high:+z.3f}){noise}"
    by_label = report.by_label()
    return (
        f"{score} {main.first:.3f} in A and {main.second:.3f} in B over {counted(main.cases, 'case')}: "
        f"A - B is {main.size:+z.3f}{judged}." + (f" {by_label[0].upper()}{by_label[1:]}." if by_label else "")
    )


def _tiles(report: PairedReport) -> list[Tile]:
    found = report.found
    total = f"of {counted(len(found.cases), 'case')}"
    return [
        Tile("A is better in", str(found.wins), total),
        Tile("B is better in", str(found.losses), total),
        Tile("Alike", str(found.ties), f"within {TIE:g}"),
    ]
