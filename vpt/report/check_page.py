"""The page of `vpt check`: facts, findings, and a small picture of every case, the doubtful ones first."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vpt.report.pages import render
from vpt.report.report_page import FactGroup


@dataclass(frozen=True)
class Card:
    """A case: its name, what is said of it, its findings as (severity, text), and a JPEG where it could be read."""

    name: str
    said: str
    findings: tuple[tuple[str, str], ...]
    picture: bytes | None

    @property
    def encoded(self) -> str:
        return base64.b64encode(self.picture).decode() if self.picture else ""


def check_page(
    title: str,
    verdict: str,
    facts: Sequence[tuple[str, str]],
    findings: Sequence[tuple[str, str, str]],
    cards: Sequence[Card],
    unshown: int,
    legend: Mapping[str, tuple[int, int, int]],
    repeat: Sequence[FactGroup] = (),
) -> str:
    """One file of HTML.

    findings: (severity, file, text); unshown: cases without a card; legend: label -> RGB; repeat: how it was made.
    """
    return render(
        "check.html",
        title=title,
        verdict=verdict,
        holds=facts,
        findings=findings,
        cards=cards,
        unshown=unshown,
        facts=repeat,
        legend={name: "#{:02x}{:02x}{:02x}".format(*colour) for name, colour in legend.items()},
    )
