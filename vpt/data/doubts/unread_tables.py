"""Tables beside a data set that say whose a case is, as ISIC's lesions, where nothing that is read says it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from vpt.data.cases import case_name
from vpt.data.doubts.one_patient import on_two_sides, together
from vpt.data.doubts.unread_columns import may_name_patients
from vpt.data.layouts.class_lists import csv_lines, tables_in
from vpt.data.layouts.rows import PATIENT_COLUMNS
from vpt.data.splits import AnySet, Splits
from vpt.errors import VptError
from vpt.words import agreeing, counted, listed

LONGEST = 2**24  # bytes; larger tables hold pixels
MOST = 0.5  # of the cases a table names, if it is one of them
GROUP = "group"  # of a table of participants it says who is ill


def unread_tables(dataset: AnySet, splits: Sequence[Splits]) -> Iterator[str]:
    """Sentences of their columns by which cases on two sides are one patient's."""
    if dataset.patients or not splits or not dataset.root.is_dir():
        return
    cases = _by_file(dataset)
    for table in tables_in(dataset.root):
        if table == dataset.source or table.stat().st_size > LONGEST:
            continue
        for name, cells in _columns_of_patients(table, cases).items():
            if parted := on_two_sides(together(cells.items()), splits):
                yield (
                    f"{counted(len(parted), 'value')} of the column {name} of {table.name}, which is not read, "
                    f"{agreeing(len(parted), 'are')} on two sides ({listed(parted, 3)}); if what shares one is one "
                    f"patient's, say so in a column {PATIENT_COLUMNS[0]} of the list, or as `patients` in dataset.json"
                )


def _by_file(dataset: AnySet) -> dict[str, str]:
    """The name of an image's file, without its ending -> its case, where there is one of that name."""
    files = [(case_name(path), case.name) for case in dataset.cases for path in case.images if isinstance(path, Path)]
    count = Counter(file for file, _ in files)
    return {file: case for file, case in files if count[file] == 1}


def _columns_of_patients(table: Path, cases: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Column, in small letters -> case -> whose it says that the case is; {} where the table names other things."""
    try:
        (_, header), *lines = [*csv_lines(table)] or [(1, [])]
    except VptError:  # no list that can be read
        return {}
    names = [name.strip().casefold() for name in header]
    known = (*(name for name in PATIENT_COLUMNS if name != GROUP),)
    patients = [at for at, name in enumerate(names) if name in known or may_name_patients(name)]
    if not patients:
        return {}
    columns = [[cells[at].strip() if at < len(cells) else "" for _, cells in lines] for at in range(len(names))]
    files = [[case_name(cell.replace("\\", "/")) for cell in column] for column in columns]
    naming = max(range(len(names)), key=lambda at: len(cases.keys() & {*files[at]}))
    if len(cases.keys() & {*files[naming]}) < max(2, MOST * len(cases)):
        return {}
    return {
        names[at]: {cases[file]: cell for file, cell in zip(files[naming], columns[at], strict=True) if file in cases}
        for at in patients
        if at != naming
    }
