"""What differs between two runs or two folders of masks, for people: tables, and a folder of JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vpt.files import make_folder, write_json, write_text
from vpt.report.blocks import Block
from vpt.report.classification import HEADLINES
from vpt.report.group_blocks import range_of, shown
from vpt.scores.bootstrap import LEVEL
from vpt.scores.paired import TIE, Difference, Paired
from vpt.scores.plain import plain
from vpt.words import counted, listed

MOST = 10  # cases that are shown


@dataclass(frozen=True)
class PairedFiles:
    """Of a case: the mask of each of the two, and the reference, as paths."""

    first: str
    second: str
    reference: str


@dataclass(frozen=True, eq=False)
class PairedClasses:
    """Of two classifications of the same cases. main: the score that is told first; counts: (K, K) of each, reference
    by answer, none of labels; answers: of a case the reference, and what each answered.
    """

    names: tuple[str, ...]
    main: str
    counts: tuple[np.ndarray, ...]
    answers: Mapping[str, tuple[str, str, str]]


@dataclass(frozen=True)
class PairedReport:
    """What two evaluations of the same cases differ in; first, second: what was evaluated; of_case: a case's score;
    method: of the intervals; notes: how cases were paired with their references.

    Of masks, labels: id -> name; files: by the case's name. Of classes, classes.
    """

    found: Paired
    first: str
    second: str
    of_case: str
    method: str
    notes: tuple[str, ...] = ()
    labels: Mapping[int, str] = field(default_factory=dict)
    files: Mapping[str, PairedFiles] = field(default_factory=dict)
    classes: PairedClasses | None = None

    def save(self, folder: str | Path) -> Path:
        """Write `comparison.json`, `comparison.csv` (the cases, those that differ most first) and `comparison.md` ->
        the path of the first.
        """
        folder = Path(folder)
        make_folder(folder, "choose another place")
        write_text(folder / "comparison.csv", self.to_csv())
        write_text(folder / "comparison.md", self.markdown())
        write_json(folder / "comparison.json", self.summary())
        return folder / "comparison.json"

    def summary(self) -> dict[str, Any]:
        """The content of `comparison.json`: A is the first, B the second; None where something is undefined."""
        found = self.found
        return {
            "A": self.first,
            "B": self.second,
            "differences": [plain(each) | {"size": plain(each.size)} for each in found.differences],
            "intervals": {"level": LEVEL, "method": f"{self.method}, paired"},
            "cases": {
                "score": self.of_case,
                "wins": found.wins,
                "losses": found.losses,
                "ties": found.ties,
                "tie": TIE,
            },
            "only_in_A": list(found.only_first),
            "only_in_B": list(found.only_second),
            "scored_in_one": [list(each) for each in found.one_sided],
            "per_case": [plain(each) | {"size": plain(each.size)} for each in found.cases],
            "notes": list(self.notes),
        }

    def to_csv(self) -> str:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["case", f"A {self.of_case}", f"B {self.of_case}", "A - B"])
        writer.writerows([case.name, case.first, case.second, case.size] for case in self.found.cases)
        return out.getvalue()

    def table(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        means, cases = (block.table() for block in self.blocks())
        return Group(means, Text(), cases)

    def text(self) -> str:
        return "\n".join(block.text() for block in self.blocks())

    def markdown(self) -> str:
        means, cases = self.blocks()
        return f"{means.markdown(1)}\n\n{cases.markdown(2)}\n"

    def blocks(self) -> tuple[Block, Block]:
        """The differences of means, and the cases that differ most."""
        head = ["", "cases", "A", "B", "A - B", f"{LEVEL:.0%} interval", "difference"]
        means = Block(f"A: {self.first}\nB: {self.second}", head, [_row(each) for each in self.found.differences])
        worst = self.found.cases[:MOST]
        rows = [[case.name, shown(case.first), shown(case.second), f"{case.size:+z.3f}"] for case in worst]
        title = f"Cases that differ most ({self.of_case})"
        return means, Block(title, ["case", "A", "B", "A - B"], rows, self.said())

    def said(self) -> list[str]:
        """How many cases each of them wins, what is not compared, and whence the intervals."""
        return [*self._sentences()]

    def _sentences(self) -> Iterator[str]:
        found = self.found
        cases = counted(len(found.cases), "case")
        yield f"of {cases} A is better in {found.wins}, B in {found.losses}; {found.ties} within {TIE:g}"
        for name, only in (("A", found.only_first), ("B", found.only_second)):
            if only:
                yield f"{counted(len(only), 'case')} only in {name}, not compared: {listed(only)}"
        if found.one_sided:
            named = listed(f"{case} ({label})" for case, label in found.one_sided)
            yield (
                f"{len(found.one_sided)} not compared, since one of the two rightly predicted nothing and so has no "
                f"score: {named}; --empty one counts them"
            )
        yield f"intervals: {self.method}, paired"
        yield from self.notes


def _row(found: Difference) -> list[str]:
    size = f"{found.size:+z.3f}" if math.isfinite(found.size) else "-"
    means = (shown(found.first), shown(found.second))
    return [
        HEADLINES.get(found.score, found.score),
        str(found.cases),
        *means,
        size,
        range_of(found.interval, signed=True),
        found.verdict,
    ]
