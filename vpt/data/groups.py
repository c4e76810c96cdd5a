"""Groups of cases by a column: of the list that a data set is, of a CSV that its dataset.json names, or of any other.

A line is a case's by its name (or its file's), or all cases of a patient's.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from vpt.data.cases import without_ending
from vpt.data.doubts.class_names import doubtful_classes, missing_among
from vpt.data.layouts.bids_tables import PARTICIPANT, UNKNOWN
from vpt.data.layouts.class_lists import csv_lines
from vpt.data.layouts.description import description
from vpt.data.layouts.rows import CALLED_PATIENT, IMAGE_COLUMNS
from vpt.errors import VptError, VptWarning
from vpt.scores.groups import Grouping
from vpt.words import did_you_mean, listed, with_article

CASE = ("case", "id", "name", "image", "scan", "mask", "path", "file", "filename")
PATIENT = (PARTICIPANT, *CALLED_PATIENT)
KEYS = (*CASE, "patient", "subject", PARTICIPANT, *IMAGE_COLUMNS, *CALLED_PATIENT)  # the first that a CSV has counts
MOST_NUMBERS = 10  # a column with more different ones is cut into QUARTERS
QUARTERS = 4

ASKED = ("--by ", "--groups")  # how a column is asked for, and a CSV that has it

Columns = Mapping[str, Mapping[str, str]]  # column -> case -> what it says


def read_groupings(
    by: str | Sequence[str] | None,
    names: Sequence[str],
    patient: Callable[[str], str],
    *,
    file: str | Path | None = None,
    columns: Columns | None = None,
    described: Iterable[Path] = (),
) -> tuple[Grouping, ...]:
    """`read_grouping` of each column; `by`: them, or their names with commas between.

    Raises VptError for no column, and for one that is named twice; warns of what `group_doubts` tells.
    """
    if by is None:
        return ()
    asked = [column.strip() for column in (by.split(",") if isinstance(by, str) else by)]
    if not asked or not all(asked) or len({column.casefold() for column in asked}) < len(asked):
        raise VptError(f"--by {by}: expected names of columns with commas between, each once: --by sex,site")
    known = list(described)
    found = [read_grouping(each, names, patient, file=file, columns=columns, described=known) for each in asked]
    for grouping in found:
        for doubt in group_doubts(dict.fromkeys(grouping.of.values())):
            warnings.warn(f"--by {grouping.column}: {doubt}", VptWarning, stacklevel=2)
    return tuple(found)


def group_doubts(groups: Collection[str]) -> list[str]:
    """Sentences of groups that may be one, written in two ways, or stand for what is not known."""
    return [*doubtful_classes(groups, "groups"), *missing_among(groups, "groups")]


def read_grouping(
    column: str,
    names: Sequence[str],
    patient: Callable[[str], str],
    *,
    file: str | Path | None = None,
    columns: Columns | None = None,
    described: Iterable[Path] = (),
    settings: tuple[str, str] = ASKED,
) -> Grouping:
    """What a column says of the named cases; numbers such as ages are cut into quarters of the cases.

    patient: whose a case is; file: a CSV with the column; without it `columns` of the data set, then the CSV that one
    of the `described` dataset.json names as `groups`; settings: how the column is asked for, for messages.

    Raises VptError for a column that is nowhere, a CSV that cannot be read, two values for one case, no case with one.
    """
    known, where, asked = columns or {}, "the data set", f"{settings[0]}{column}"
    named = None if column.casefold() in known else next(filter(None, map(_named_in, described)), None)
    if file is not None or named is not None:
        source = Path(file) if file is not None else Path(str(named))
        known, where = _read(source, names, patient, column), str(source)
    if column.casefold() not in known:
        found = f"has the columns {listed(known, 10)}" if known else "has no columns"
        raise VptError(
            f"{asked}: {where} {found}; give a CSV that has it with {settings[1]}{did_you_mean(column, known)}"
        )
    of = {name: known[column.casefold()].get(name, "") for name in names}
    of = {name: value for name, value in of.items() if value}
    if not of:
        raise VptError(f"{asked}: {where} says nothing of {listed(names, 3)}; name cases in a column `case`")
    if all(patient(name) == group for name, group in of.items()):
        raise VptError(
            f"{asked}: {where} takes it for the patients, so no group has two; say whose the cases are in a "
            "column `patient`"
        )
    return Grouping(column, _quarters(of), tuple(name for name in names if name not in of))


def _named_in(source: Path) -> Path | None:
    """The CSV that a dataset.json names as `groups`."""
    named = description(source).get("groups")
    if named is None:
        return None
    if not isinstance(named, str):
        raise VptError(
            f'{source}: `groups` is {with_article(type(named).__name__)}; expected the name of a CSV, "groups.csv"'
        )
    return source.parent / named


def _read(source: Path, names: Sequence[str], patient: Callable[[str], str], column: str) -> dict[str, dict[str, str]]:
    """Column -> case -> its cell in a CSV."""
    (_, header), *body = list(csv_lines(source)) or [(1, [])]
    heads = [name.strip().casefold() for name in header]
    key = next((heads.index(name) for name in KEYS if name in heads), None)
    if key is None:
        raise VptError(f"{source}: no column `case` or `patient` among {listed(header, 10)}; add one that names them")
    by_patient = heads[key] in PATIENT
    at = heads.index(column.casefold()) if column.casefold() in heads else key
    lines: dict[str, list[str]] = {}
    for number, cells in body:
        told = [cell.strip() for cell in [*cells, *[""] * (len(heads) - len(cells))]]
        name = told[key] if by_patient else without_ending(told[key].replace("\\", "/"))
        if lines.setdefault(name, told)[at] != told[at]:
            raise VptError(
                f"{source}: line {number}: {column} of {name} is {told[at]!r}, and {lines[name][at]!r} further up; "
                "keep one of the two"
            )
    owners = {name: patient(name) if by_patient else _line_of(name, lines, source) for name in names}
    if heads[key] == PARTICIPANT:  # BIDS has them with and without the word
        subjects = {f"sub-{name.removeprefix('sub-')}": name for name in lines}
        owners = {name: subjects.get(f"sub-{owner.removeprefix('sub-')}", owner) for name, owner in owners.items()}
    return {
        head: {
            name: lines[owner][place]
            for name, owner in owners.items()
            if owner in lines and not (heads[key] == PARTICIPANT and lines[owner][place] == UNKNOWN)
        }
        for place, head in enumerate(heads)
        if place != key
    }


def _line_of(case: str, lines: Mapping[str, list[str]], source: Path) -> str:
    """The name under which a case is listed: its own, or that of a file in any folder; "" where it is not."""
    if case in lines:
        return case
    alike = [name for name in lines if name.rpartition("/")[2] == case]
    if len(alike) > 1:
        raise VptError(f"{source}: {listed(alike, 2)} are both called {case}; name the cases in a column `case`")
    return alike[0] if alike else ""


def _quarters(of: Mapping[str, str]) -> dict[str, str]:
    """The same, but many different numbers as the range of the quarter that they are in."""
    if len(set(of.values())) <= MOST_NUMBERS or not all(
        re.fullmatch(r"[+-]?\d+(\.\d+)?", text) for text in of.values()
    ):
        return dict(of)
    ordered = sorted(of.values(), key=float)
    ends = [float(ordered[len(ordered) * k // QUARTERS - 1]) for k in range(1, QUARTERS)] + [float(ordered[-1])]
    place = {name: next(k for k, end in enumerate(ends) if float(text) <= end) for name, text in of.items()}
    inside = {k: sorted((of[name] for name in of if place[name] == k), key=float) for k in set(place.values())}
    return {name: f"{inside[k][0]} to {inside[k][-1]}" for name, k in place.items()}
