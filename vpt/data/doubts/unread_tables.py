"""Tables beside a data set that nothing reads, and that say whose a case is, as ISIC's lesions, or other classes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from vpt.data.cases import case_name
from vpt.data.doubts.one_patient import on_two_sides, together
from vpt.data.doubts.unread_columns import may_name_patients
from vpt.data.labelled import LabelledSet
from vpt.data.layouts.class_lists import csv_lines, tables_in
from vpt.data.layouts.rows import PATIENT_COLUMNS
from vpt.data.splits import AnySet, Splits
from vpt.errors import VptError
from vpt.words import agreeing, counted, listed

LONGEST = 2**24  # bytes; larger tables hold pixels
MOST = 0.5  # of the cases a table names, if it is one of them
SOME = 0.2  # of the cases lie apart from most others of their label
GROUP = "group"  # of a table of participants it says who is ill
LABELS = {"label", "labels", "class", "class_name", "diagnosis", "dx", "finding", "findings", "finding labels", "grade"}
LABELS |= {"level", "target", "category"}

Columns = Mapping[str, Mapping[str, str]]
"""Name in small letters -> case -> what it says."""


def unread_tables(dataset: AnySet, splits: Sequence[Splits]) -> Iterator[str]:
    """Sentences of their columns: of patients who are on two sides, and of labels that are not those of the folders."""
    if not dataset.root.is_dir():
        return
    cases = _by_file(dataset)
    for table in tables_in(dataset.root):
        if table == dataset.source or table.stat().st_size > LONGEST:
            continue
        columns = _columns(table, cases)
        if isinstance(dataset, LabelledSet) and dataset.source.is_dir():
            yield from _of_classes(table, columns, dataset)
        if splits and not dataset.patients:
            yield from _of_patients(table, columns, splits)


def _of_patients(table: Path, columns: Columns, splits: Sequence[Splits]) -> Iterator[str]:
    known = {*PATIENT_COLUMNS} - {GROUP}
    for name, cells in columns.items():
        said = name in known or may_name_patients(name)
        if said and (parted := on_two_sides(together(cells.items()), splits)):
            yield (
                f"{counted(len(parted), 'value')} of the column {name} of {table.name}, which is not read, "
                f"{agreeing(len(parted), 'are')} on two sides ({listed(parted, 3)}); if what shares one is one "
                f"patient's, say so in a column {PATIENT_COLUMNS[0]} of the list, or as `patients` in dataset.json"
            )


def _of_classes(table: Path, columns: Columns, dataset: LabelledSet) -> Iterator[str]:
    """Of a column of labels each of which lies in several folders, while folders hold several of them."""
    folder = {example.name: dataset.classes[example.target[0]] for example in dataset.cases}
    for name in sorted(columns.keys() & LABELS):
        held, lies = defaultdict[str, set[str]](set), defaultdict[str, Counter[str]](Counter)
        for case, cell in columns[name].items():
            if cell:
                held[folder[case]].add(cell)
                lies[cell][folder[case]] += 1
        apart = {cell: count.total() - max(count.values()) for cell, count in lies.items()}
        if sum(apart.values()) >= max(2, SOME * len(folder)) and max(map(len, held.values())) > 1:
            cell = max(apart, key=apart.__getitem__)
            yield (
                f"{table.name} names the images, and its column {name} says otherwise than the folders, which count as "
                f"classes ({cell} is in {listed(sorted(lies[cell]), 3)}); give the list in the place of the folder, if "
                "that is the label"
            )


def _by_file(dataset: AnySet) -> dict[str, str]:
    """The name of an image's file, without its ending -> its case, where there is one of that name."""
    files = [(case_name(path), case.name) for case in dataset.cases for path in case.images if isinstance(path, Path)]
    count = Counter(file for file, _ in files)
    return {file: case for file, case in files if count[file] == 1}


def _columns(table: Path, cases: Mapping[str, str]) -> Columns:
    """All but that of the images' names; {} where the table names other things."""
    try:
        (_, header), *lines = [*csv_lines(table)] or [(1, [])]
    except VptError:  # no list that can be read
        return {}
    columns = [[cells[at].strip() if at < len(cells) else "" for _, cells in lines] for at in range(len(header))]
    files = [[case_name(cell.replace("\\", "/")) for cell in column] for column in columns]
    naming = max(range(len(header)), key=lambda at: len(cases.keys() & {*files[at]}), default=0)
    if not header or len(cases.keys() & {*files[naming]}) < max(2, MOST * len(cases)):
        return {}
    return {
        name.strip().casefold(): {
            cases[file]: cell for file, cell in zip(files[naming], columns[at], strict=True) if file in cases
        }
        for at, name in enumerate(header)
        if at != naming
    }
