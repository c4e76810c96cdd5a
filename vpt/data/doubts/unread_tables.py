"""Tables beside a data set that say of its cases who is tested, or whose they are, and that nothing reads.

`meta.csv` with a column `split`, `metadata.csv` with `lesion_id`: published sets keep both apart from the files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from vpt.data.cases import case_name
from vpt.data.doubts.one_patient import on_two_sides, together
from vpt.data.doubts.unread_columns import may_name, said_sides
from vpt.data.doubts.unread_lists import TESTED_WITH, known_names
from vpt.data.layouts.class_lists import csv_lines
from vpt.data.layouts.rows import PATIENT_COLUMNS
from vpt.data.splits import AnySet, Splits, drawn
from vpt.errors import VptError
from vpt.files import is_hidden
from vpt.vocabulary import TABLES
from vpt.words import agreeing, counted, listed

PLACES = ("*", "*/*")
LONGEST = 2**24  # bytes
MOST = 0.5  # of the cases: such a table names


def unread_tables(dataset: AnySet, splits: Sequence[Splits]) -> list[str]:
    """Sentences of such tables: of sides where these are drawn, of patients where nothing says them."""
    may_say = drawn(dataset) or not dataset.patients
    if not may_say or not dataset.root.is_dir():
        return []
    known, count = known_names(dataset), len(dataset.cases)
    found: list[str] = []
    for path in _tables(dataset):
        columns, shown = _columns(path, known, count), path.relative_to(dataset.root).as_posix()
        if drawn(dataset):
            found += _of_sides(shown, columns, count)
        if not dataset.patients:
            found += _of_patients(shown, columns, splits)
    return found


def _tables(dataset: AnySet) -> Iterator[Path]:
    for place in PLACES:
        for path in sorted(path for path in dataset.root.glob(place) if path.suffix.lower() in TABLES):
            if path != dataset.source and not is_hidden(path) and path.is_file() and path.stat().st_size <= LONGEST:
                yield path


def _columns(path: Path, known: Mapping[str, str], count: int) -> dict[str, dict[str, str]]:
    """The columns of a table by their names in small letters: case -> cell; {} where it does not name most cases."""
    lines: list[list[str]] = []
    with suppress(VptError):  # what is no table says nothing
        lines = [cells for _, cells in csv_lines(path)]
    header, rows = (lines[0], lines[1:]) if lines else ([], [])
    cells = [[row[k].strip() if k < len(row) else "" for row in rows] for k in range(len(header))]
    named = [[known.get(case_name(cell.replace("\\", "/")), "") for cell in column] for column in cells]
    cases = max(named, key=lambda its: len({*its} - {""}), default=[])
    if len({*cases} - {""}) < MOST * count:
        return {}
    return {
        name.strip().lower(): {case: cell for case, cell in zip(cases, column, strict=True) if case}
        for name, column, its in zip(header, cells, named, strict=True)
        if its is not cases
    }


def _of_sides(shown: str, columns: Mapping[str, Mapping[str, str]], count: int) -> Iterator[str]:
    for name, cells in columns.items():
        if said := said_sides(name, cells, count):
            yield f"{shown} says in its column {name} {said} cases, but is not read, {TESTED_WITH}"


def _of_patients(shown: str, columns: Mapping[str, Mapping[str, str]], splits: Sequence[Splits]) -> Iterator[str]:
    for name, cells in columns.items():
        its = together(cells.items()) if name in PATIENT_COLUMNS or may_name(name) else {}
        if parted := on_two_sides(its, splits):
            yield (
                f"{counted(len(parted), 'value')} of the column {name} of {shown}, which is not read, "
                f"{agreeing(len(parted), 'are')} on two sides ({listed(parted, 3)}); if what shares one is one "
                'patient\'s, say so in dataset.json: "patients": {"CASE": "PATIENT", ...}'
            )
