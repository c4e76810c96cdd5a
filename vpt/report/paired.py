"""What differs between two runs or two folders of masks, for people: tables, and a folder of JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vpt.files import make_folder, write_json, write_text
from vpt.report.blocks import Block
from vpt.report.classification import HEADLINES
from vpt.report.group_blocks import range_of, shown
from vpt.report.own_results import COMPARISON, saving
from vpt.scores.bootstrap import LEVEL
from vpt.scores.classification import PER_CLASS
from vpt.scores.paired import LESS_IS_BETTER, TIE, CasePair, Difference, Paired
from vpt.scores.plain import plain
from vpt.words import counted, listed

MOST = 10  # cases that are shown
MOST_CLASSES = 20  # with a row each
MANY = 4  # labels of which more are said to differ by chance
WINS = ("A better", "B better")
_HEAD = ("A", "B", "A - B", f"{LEVEL:.0%} interval", "difference")


@dataclass(frozen=True)
class PairedFiles:
    """The files of a case: the mask of each of the two, and the reference."""

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
    method: of the intervals; notes: how cases were paired with their references; missing: references that neither of
    the two has a prediction for.

    Of masks, labels: id -> name; files: by the case's name; unit: of distances, mm or px. Of classes, classes.
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
    unit: str = "mm"
    missing: tuple[str, ...] = ()

    def save(self, folder: str | Path) -> Path:
        """Write `comparison.json`, `comparison.csv` (the cases, those that differ most first) and `comparison.md` ->
        the path of the first.

        Raises VptError when the folder cannot be made or written, or holds such files that are not of a comparison.
        """
        folder = Path(folder)
        make_folder(folder, "choose another place")
        with saving(folder, *COMPARISON):
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
            "differences": _sized(found.differences),
            **({"other_scores": {score: _sized(each) for score, each in found.others.items()}} if found.others else {}),
            **({"by_class": {key: _sized(each) for key, each in found.by_class.items()}} if found.by_class else {}),
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
            **({"in_neither": list(self.missing)} if self.missing else {}),
            "scored_in_one": [list(each) for each in found.one_sided],
            "per_case": _sized(found.cases),
            "notes": list(self.notes),
        }

    def to_csv(self) -> str:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        labels = [*self.labels.values()]
        by_label = [f"{column} {label}" for label in labels for column in ("A", "B", "A - B")]
        writer.writerow(["case", f"A {self.of_case}", f"B {self.of_case}", "A - B", *by_label])
        for case in self.found.cases:
            pairs = [case.labels[label] for label in labels]
            cells = [value for a, b in pairs for value in ((a, b, a - b) if math.isfinite(a - b) else ("", "", ""))]
            writer.writerow([case.name, case.first, case.second, case.size, *cells])
        return out.getvalue()

    def table(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        first, *more = (block.table() for block in self.blocks())
        return Group(first, *(part for block in more for part in (Text(), block)))

    def text(self) -> str:
        return "\n".join(block.text() for block in self.blocks())

    def markdown(self) -> str:
        first, *more = self.blocks()
        return "\n\n".join([first.markdown(1), *(block.markdown(2) for block in more)]) + "\n"

    def blocks(self) -> list[Block]:
        """The differences of means, of masks in other scores, of every class, and the cases that differ most."""
        means = Block(f"A: {self.first}\nB: {self.second}", *self._of_differences(), last=1 if self.labels else 0)
        others = [self._others()] if self.found.others else []
        classes = [self._of_classes(score, found) for score, found in self.found.by_class.items()]
        return [means, *others, *classes, self._cases()]

    def _of_differences(self) -> tuple[list[str], list[list[str]]]:
        """Heading and rows; of masks the labels, with how many cases each of the two wins, and the foreground last."""
        named = [(HEADLINES.get(each.score, each.score), each) for each in self.found.differences]
        return _table(
            [self.of_case if self.labels else "", "cases", *_HEAD], named[1:] + named[:1] if self.labels else named
        )

    def _others(self) -> Block:
        """The foreground in the other scores of masks."""
        rows = [(self.named(score), foreground) for score, (foreground, *_) in self.found.others.items()]
        notes = [f"{listed(self.named(each) for each in less)}: less is better"] if (less := self._less) else []
        if halves := [f"{score} in {count}" for score, count in self.found.halves.items() if count]:
            notes.append(f"labels of cases left out, since one of the two has no such score there: {', '.join(halves)}")
        return Block("Other scores, mean over the labels", *_table(["", "cases", *_HEAD], rows), notes)

    def _of_classes(self, score: str, found: Sequence[Difference]) -> Block:
        """Every class in one score; of many those that differ most."""
        shown = found
        if len(found) > MOST_CLASSES:
            shown = sorted(found, key=lambda each: (not math.isfinite(each.size), -abs(each.size)))[:MOST]
        left = f"shown: the {len(shown)} of {len(found)} that differ most; comparison.json has all"
        notes = [left] if len(shown) < len(found) else []
        heading = PER_CLASS[score]
        title = f"{heading[0].upper()}{heading[1:]} of every class"
        return Block(title, *_table(["class", "cases", *_HEAD], [(each.score, each) for each in shown]), notes)

    @property
    def _less(self) -> list[str]:
        return [score for score in self.found.others if score in LESS_IS_BETTER]

    def named(self, score: str) -> str:
        """A score with its unit."""
        return f"{score} ({self.unit})" if score in LESS_IS_BETTER else score

    def _cases(self) -> Block:
        head = ["case", "A", "B", "A - B"]
        rows = [[case.name, shown(case.first), shown(case.second), signed(case.size)] for case in self.shown_cases]
        if self.has_labels:
            head = [*head, "most in"]
            rows = [[*row, furthest(case)] for row, case in zip(rows, self.shown_cases, strict=True)]
        return Block(f"Cases that differ most ({self.of_case})", head, rows, self.said())

    @property
    def shown_cases(self) -> Sequence[CasePair]:
        return self.found.cases[:MOST]

    def by_label(self) -> str:
        """In which of several labels, or classes by their sensitivity, the two differ by more than noise; "" of one."""
        each = self.found.differences[1:] if self.labels else self.found.by_class.get("recall", ())
        one, many = ("label", "labels") if self.labels else ("class", "classes")
        if len(each) < 2:
            return ""
        found = [difference for difference in each if difference.verdict == "more than noise"]
        if not found:
            return f"no {one} by itself differs by more than noise" + ("" if self.labels else " in its sensitivity")
        chance = f"; of {len(each)} {many} that are alike, one in twenty does so by chance"
        said = ", ".join(_ahead("A", found) + _ahead("B", found))
        where = "" if self.labels else "in sensitivity to a class "
        return f"by more than noise {where}{said}{chance if len(each) > MANY else ''}"

    @property
    def has_labels(self) -> bool:
        """Whether a case has more to say than its mean."""
        return len(self.labels) > 1

    def said(self) -> list[str]:
        """How many cases each of them wins, what is not compared, and whence the intervals."""
        return [*self._sentences()]

    def _sentences(self) -> Iterator[str]:
        found = self.found
        cases = counted(len(found.cases), "case")
        yield f"of {cases} A is better in {found.wins}, B in {found.losses}; {found.ties} within {TIE:g}"
        yield from filter(None, [self.by_label()])
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


def _ahead(name: str, differences: Sequence[Difference]) -> list[str]:
    """ "A is ahead in liver and 2 more", or nothing."""
    labels = [each.score for each in differences if (each.size > 0) == (name == "A")]
    return [f"{name} is ahead in {listed(labels)}"] if labels else []


def _sized(found: Iterable[Difference | CasePair]) -> list[dict[str, Any]]:
    return [plain(each) | {"size": plain(each.size)} for each in found]


def _table(head: list[str], named: Sequence[tuple[str, Difference]]) -> tuple[list[str], list[list[str]]]:
    """Heading and rows of differences; with wins and losses where they have them."""
    has_wins = any(each.wins is not None for _, each in named)
    return [*head, *(WINS if has_wins else ())], [_row(name, each, has_wins) for name, each in named]


def _row(name: str, found: Difference, has_wins: bool) -> list[str]:
    wins = ["-" if count is None else str(count) for count in (found.wins, found.losses)]
    return [
        name,
        str(found.cases),
        shown(found.first),
        shown(found.second),
        signed(found.size),
        range_of(found.interval, signed=True),
        found.verdict,
        *(wins if has_wins else ()),
    ]


def signed(difference: float) -> str:
    return shown(difference, "+z.3f")


def furthest(case: CasePair) -> str:
    """The label in which a case differs most, and by how much."""
    name, size = case.furthest
    return f"{name} {signed(size)}" if name else "-"
