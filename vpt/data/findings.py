"""What a check finds, as facts, problems and a verdict; the reading is done in `check.py` and `check_labelled.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vpt.data.cases import SegmentationSet
from vpt.data.labelled import LabelledSet
from vpt.errors import VptError
from vpt.readers import Grid, Kind
from vpt.words import counted

if TYPE_CHECKING:
    from rich.console import RenderableType

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Problem:
    """One thing to mend. An error stops training; a warning is something to know."""

    severity: Literal["error", "warning"]
    file: str
    text: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.file}: {self.text}"


@dataclass(frozen=True)
class LabelSummary:
    """A label over the data set: in how many cases, voxels in all, mean volume where it is present (else 0).

    The volume is in ml, and as a share of the scan or image.
    """

    id: int
    name: str
    cases: int
    voxels: int
    mean_ml: float
    mean_share: float


@dataclass(frozen=True)
class ClassSummary:
    """A class of images: how many examples in all, and on each side."""

    name: str
    examples: int
    sides: dict[str, int]

    def __str__(self) -> str:
        sides = ", ".join(f"{side} {number}" for side, number in self.sides.items())
        return f"{counted(self.examples, 'image')}{f': {sides}' if sides else ''}"


@dataclass(frozen=True)
class Spread:
    """Smallest, median and largest per axis."""

    low: Triple
    median: Triple
    high: Triple

    def __str__(self) -> str:
        return self._in_words(3)

    def flat(self) -> str:
        """The spread of the first two axes, as images have them."""
        return self._in_words(2)

    def _in_words(self, axes: int) -> str:
        low, median, high = (
            "x".join(f"{value:.4g}" for value in each[:axes]) for each in (self.low, self.median, self.high)
        )
        return low if low == high else f"{low} to {high}, median {median}"


@dataclass(frozen=True)
class Check:
    """What a data set holds and all its problems; `shape` (voxels) and `spacing` (mm) are None if no image was read.

    labels: of a data set for segmentation; classes: of one for classification.
    intensity: lowest and highest value per channel; orientations: axis codes and how many cases have them;
    splits: the number of cases on each side; split_source: where these come from; guess: what was taken from the
    files' names alone, in words; patients: what was guessed of whose the cases are, "" for nothing; label_values: what
    the masks' values stand for where it is not their own number, in words; annotated: how many cases were annotated for
    each label, "" where all were for all; dataset: what was checked; sides: case -> train, val or test, of folds the
    first's.
    """

    root: Path
    name: str
    cases: int
    channels: tuple[str, ...]
    labels: tuple[LabelSummary, ...]
    shape: Spread | None
    spacing: Spread | None
    orientations: dict[str, int]
    intensity: tuple[tuple[float, float], ...]
    splits: dict[str, int]
    split_source: str
    problems: tuple[Problem, ...]
    dataset: SegmentationSet | LabelledSet = field(repr=False, compare=False)
    sides: dict[str, str] = field(repr=False)
    kind: Kind = "volumes"
    classes: tuple[ClassSummary, ...] = ()
    guess: str = ""
    patients: str = ""
    label_values: str = ""
    annotated: str = ""

    @property
    def errors(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.severity == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.severity == "warning")

    @property
    def ok(self) -> bool:
        return not self.errors

    def verdict(self) -> str:
        found = f"{counted(len(self.errors), 'error')}, {counted(len(self.warnings), 'warning')}"
        return f"{'ready to train' if self.ok else 'not ready'}: {found}"

    def facts(self) -> list[tuple[str, str]]:
        """The summary as (name, value) lines."""
        ranges = zip(self.channels, self.intensity, strict=False)
        return [
            ("data set", f"{self.name} ({self.root})"),
            *([("layout", self.guess)] if self.guess else []),
            ("cases" if self.kind == "volumes" else "images", str(self.cases)),
            ("channels", ", ".join(f"{name}: {low:.5g} to {high:.5g}" for name, (low, high) in ranges) or "-"),
            *self._geometry(),
            *([("label values", self.label_values)] if self.label_values else []),
            *((f"label {label.id}", _describe(label, self.cases, self.kind)) for label in self.labels),
            *([("annotated", self.annotated)] if self.annotated else []),
            *((f"class {each.name}", str(each)) for each in self.classes),
            ("split", self._sides()),
            *([("patients", self.patients)] if self.patients else []),
        ]

    def _sides(self) -> str:
        """How many cases each side has; "none" where no split can be made."""
        sides = ", ".join(f"{side} {number}" for side, number in self.splits.items())
        return f"{sides} ({self.split_source})" if sides else "none"

    def _geometry(self) -> list[tuple[str, str]]:
        if self.kind == "images":
            return [("size", f"{self.shape.flat() if self.shape else '-'} px (columns x rows)")]
        return [
            ("shape", f"{self.shape or '-'} voxels"),
            ("spacing", f"{self.spacing or '-'} mm"),
            ("orientation", ", ".join(f"{axes} ({count})" for axes, count in self.orientations.items()) or "-"),
        ]

    def plain(self) -> str:
        """Facts, problems and the verdict as lines of text."""
        width = max(len(name) for name, _ in self.facts())
        lines = [f"{name:<{width}}  {value}" for name, value in self.facts()]
        return "\n".join([*lines, *map(str, self.problems), self.verdict()])

    def to_dict(self) -> dict[str, Any]:
        """The check as values for JSON, for other programs."""
        facts = {
            each.name: _plain(getattr(self, each.name))
            for each in fields(self)
            if each.name not in ("dataset", "sides")
        }
        return facts | {"root": str(self.root), "ok": self.ok, "verdict": self.verdict()}

    def table(self) -> RenderableType:
        """The check for a terminal, as a rich renderable."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        for name, value in self.facts():
            table.add_row(Text(name, style="bold"), Text(value))
        styles = {"error": "red", "warning": "yellow"}
        problems = [Text(str(problem), style=styles[problem.severity]) for problem in self.problems]
        return Group(table, *problems, Text(self.verdict(), style="green" if self.ok else "bold red"))


def unusable(error: VptError, root: Path) -> dict[str, Any]:
    """What `Check.to_dict` would say of a data set that cannot be checked at all: the one problem."""
    problem = seen_from(problem_of(error), root)
    return {"root": str(root), "ok": False, "problems": [asdict(problem)], "verdict": "not ready: it cannot be checked"}


def _plain(value: Any) -> Any:
    """Of a dataclass, or of several in a tuple, dictionaries."""
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _describe(label: LabelSummary, cases: int, kind: Kind) -> str:
    name = "" if label.name == f"label {label.id}" else f"{label.name}: "  # the line begins with this word
    if kind == "images":
        area = f"{label.mean_share:.1%} of the image on average where present"
        return f"{name}in {label.cases} of {cases} images, {area}"
    return f"{name}in {label.cases} of {cases} cases, {label.voxels:,} voxels, mean {label.mean_ml:.3g} ml"


# --- helpers of the checks --------------------------------------------------------------------------------------------


def intensity_of(ranges: Sequence[Sequence[tuple[float, float]]]) -> tuple[tuple[float, float], ...]:
    """(low, high) per channel of each case -> the same over all cases."""
    channels = zip(*ranges, strict=True)
    return tuple((min(low for low, _ in pairs), max(high for _, high in pairs)) for pairs in channels)


def orientations_of(grids: Sequence[Grid]) -> dict[str, int]:
    """Axis codes and how many have them, the most frequent first; worked out once for all with the same axes."""
    alike: dict[bytes, list[Grid]] = {}
    for grid in grids:
        alike.setdefault(grid.affine[:3, :3].tobytes(), []).append(grid)
    found: Counter[str] = Counter()
    for same in alike.values():
        found[same[0].axcodes] += len(same)
    return dict(found.most_common())


def spread_of(values: Sequence[Triple]) -> Spread | None:
    if not values:
        return None
    table = np.array(values, dtype=float)
    rows = (table.min(0), np.median(table, 0), table.max(0))
    low, median, high = ((float(x), float(y), float(z)) for x, y, z in rows)
    return Spread(low, median, high)


def problem_of(error: VptError) -> Problem:
    """The loaders' sentences begin with the file's name and a colon."""
    file, _, text = str(error).partition(": ")
    return Problem("error", file, text)


def unforeseen(error: Exception, file: str) -> Problem:
    """What a library raised at a file that is broken in a way that no reader foresees."""
    text = f"cannot be read ({type(error).__name__}: {' '.join(str(error).split())}); export it again"
    return Problem("error", file, text)


def seen_from(problem: Problem, root: Path) -> Problem:
    """File names as seen from the data set's folder, where they are in it."""
    inside = Path(problem.file).is_relative_to(root) and Path(problem.file) != root
    file = str(Path(problem.file).relative_to(root)) if inside else problem.file
    return Problem(problem.severity, file, problem.text.replace(f"{root}/", ""))
