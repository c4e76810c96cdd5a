"""Tables beside a data set that nothing reads, and that say who is tested, whose a case is, or other classes.

`meta.csv` with a column `split`, `metadata.csv` with `lesion_id`: published sets keep them apart from the files.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

from vpt.data.cases import case_name
from vpt.data.doubts.one_patient import on_two_sides, together
from vpt.data.doubts.unread_columns import may_name_patients, said_sides
from vpt.data.doubts.unread_lists import TESTED_WITH, folders_of, seen_from
from vpt.data.labelled import LabelledSet
from vpt.data.layouts.class_lists import csv_lines
from vpt.data.layouts.rows import PATIENT_COLUMNS
from vpt.data.splits import AnySet, Splits, drawn
from vpt.errors import VptError
from vpt.files import is_hidden
from vpt.vocabulary import TABLES
from vpt.words import agreeing, counted, listed

PLACES = ("*", "*/*")
LONGEST = 2**24  # bytes; larger tables hold pixels
MOST = 0.5  # of the cases a table names, if it is one of them
SOME = 0.2  # of the cases lie apart from most others of their label
GROUP = "group"  # of a table of participants it says who is ill
LABELS = {"label", "labels", "class", "class_name", "diagnosis", "dx", "finding", "findings", "finding labels"}
LABELS |= {"target", "category"}
GRADES = {"grade", "level"}  # beside folders called by words (benign, malignant) they say something else

Columns = Mapping[str, Mapping[str, str]]
"""Name in small letters -> case -> what it says."""


def unread_tables(dataset: AnySet, splits: Sequence[Splits]) -> Iterator[str]:
    """Sentences of their columns: of sides where these are drawn, of patients who are on two, and of labels that are
    not those of the folders.
    """
    if not dataset.root.is_dir():
        return
    known, are_drawn = _by_name(dataset), drawn(dataset)
    for path in _tables(dataset):
        shown, columns = seen_from(dataset.root, path), _columns(path, known, len(dataset.cases))
        if are_drawn:
            yield from _of_sides(shown, columns, len(dataset.cases))
        if isinstance(dataset, LabelledSet) and dataset.source.is_dir():
            yield from _of_classes(shown, columns, dataset)
        if splits and not dataset.patients:
            yield from _of_patients(shown, columns, splits, dataset.source)


def _tables(dataset: AnySet) -> Iterator[Path]:
    root, *above = folders_of(dataset)
    for folder, place in (*((root, place) for place in PLACES), *((each, PLACES[0]) for each in above)):
        for path in sorted(path for path in folder.glob(place) if path.suffix.lower() in TABLES):
            if path != dataset.source and not is_hidden(path) and path.is_file() and path.stat().st_size <= LONGEST:
                yield path


def _by_name(dataset: AnySet) -> dict[str, str]:
    """What a table may call a case by, its own name or that of an image's file -> the case, where one is called so."""
    names = [
        (name, case.name)
        for case in dataset.cases
        for name in {Path(case.name).name, *(case_name(path) for path in case.images if isinstance(path, Path))}
    ]
    count = Counter(name for name, _ in names)
    return {name: case for name, case in names if count[name] == 1}


def _columns(path: Path, known: Mapping[str, str], count: int) -> Columns:
    """All but that of the cases' names; {} where the table names other things."""
    lines: list[list[str]] = []
    with suppress(VptError):  # what is no table says nothing
        lines = [cells for _, cells in csv_lines(path)]
    header, rows = (lines[0], lines[1:]) if len(lines) > MOST * count else ([], [])
    cells = [[row[at].strip() if at < len(row) else "" for row in rows] for at in range(len(header))]
    different = {*chain.from_iterable(cells)}  # most cells of a long table are alike
    called = {cell: known.get(case_name(cell.replace("\\", "/")), "") for cell in different}
    named = [[called[cell] for cell in column] for column in cells]
    cases = max(named, key=lambda its: len({*its} - {""}), default=[])
    if len({*cases} - {""}) < max(2, MOST * count):
        return {}
    return {
        name.strip().casefold(): {case: cell for case, cell in zip(cases, column, strict=True) if case}
        for name, column, its in zip(header, cells, named, strict=True)
        if its is not cases
    }


def _of_sides(shown: str, columns: Columns, count: int) -> Iterator[str]:
    for name, cells in columns.items():
        if said := said_sides(name, cells, count):
            yield f"{shown} says in its column {name} {said} cases, but is not read, {TESTED_WITH}"


def _of_patients(shown: str, columns: Columns, splits: Sequence[Splits], source: Path) -> Iterator[str]:
    known = {*PATIENT_COLUMNS} - {GROUP}
    is_list = source.suffix.lower() in TABLES
    where = f"a column {PATIENT_COLUMNS[0]} of {source.name}" if is_list else "dataset.json"
    form = "" if is_list else ': "patients": {"CASE": "PATIENT", ...}'
    for name, cells in columns.items():
        its = together(cells.items()) if name in known or may_name_patients(name) else {}
        if parted := on_two_sides(its, splits):
            yield (
                f"{counted(len(parted), 'value')} of the column {name} of {shown}, which is not read, "
                f"{agreeing(len(parted), 'are')} on two sides ({listed(parted, 3)}); if what shares one is one "
                f"patient's, say so in {where}{form}"
            )


def _of_classes(shown: str, columns: Columns, dataset: LabelledSet) -> Iterator[str]:
    """Of a column of labels each of which lies in several folders, while folders hold several of them."""
    folder = {example.name: dataset.classes[example.target[0]] for example in dataset.cases}
    are_numbered = all(any(map(str.isdigit, name)) for name in dataset.classes)
    for name in sorted(columns.keys() & (LABELS | GRADES if are_numbered else LABELS)):
        held, lies = defaultdict[str, set[str]](set), defaultdict[str, Counter[str]](Counter)
        for case, cell in columns[name].items():
            if cell:
                held[folder[case]].add(cell)
                lies[cell][folder[case]] += 1
        apart = {cell: count.total() - max(count.values()) for cell, count in lies.items()}
        if sum(apart.values()) >= max(2, SOME * len(folder)) and max(map(len, held.values())) > 1:
            cell = max(apart, key=apart.__getitem__)
            yield (
                f"{shown} names the images, and its column {name} says otherwise than the folders, which count as "
                f"classes ({cell} is in {listed(sorted(lies[cell]), 3)}); give the list in the place of the folder, if "
                "that is the label"
            )
