"""The page of a run or an evaluation: a headline, scores, charts, the worst cases, and how it all came about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vpt.report.charts import Chart
from vpt.report.class_view import ClassSection
from vpt.report.inlined import InlinedViewer
from vpt.report.mask_view import MaskSection
from vpt.report.pages import render
from vpt.report.parts import Tile


@dataclass(frozen=True)
class FactGroup:
    """Facts under a heading, (name, what is so); note: a sentence above them."""

    heading: str
    facts: tuple[tuple[str, str], ...]
    note: str = ""


def report_page(
    kind: str,
    title: str,
    section: MaskSection | ClassSection | None,
    training: Sequence[Chart],
    facts: Sequence[FactGroup],
    tiles: Sequence[Tile] = (),
    noun: str = "case",
    viewer: InlinedViewer | None = None,
    to_view: str = "",
) -> str:
    """One file of HTML.

    kind: "Training run", "Evaluation"; section: what was scored, None where nothing was; noun: what its cases are
    called in the headline; viewer: of volumes inside the page; to_view: the command that puts them there.
    """
    return render(
        "report.html",
        kind=kind,
        title=title,
        headline=section.headline(noun) if section else "Nothing was scored: no case validates.",
        tiles=[*(section.tiles() if section else []), *tiles],
        masks=section.view() if isinstance(section, MaskSection) else None,
        classes=section.view() if isinstance(section, ClassSection) else None,
        training=training,
        facts=facts,
        viewer=viewer,
        to_view=to_view if isinstance(section, MaskSection) else "",
    )
