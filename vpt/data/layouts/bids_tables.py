"""Tables of BIDS: who the participants are, and which label each number of a segmentation stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vpt.data.layouts.bids_files import SUBJECT
from vpt.data.layouts.class_lists import csv_lines
from vpt.data.layouts.description import labels_of
from vpt.errors import VptError
from vpt.words import listed

PARTICIPANTS, PARTICIPANT, UNKNOWN = "participants.tsv", "participant_id", "n/a"  # the table, its key, no value
NOTHING = ("", UNKNOWN)
ABOVE = ("", "rawdata")  # where the table of participants lies


def participants(root: Path, subjects: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Column -> case -> what participants.tsv says of its subject; nothing where there is no table.

    subjects: case -> `sub-01`.
    """
    source = table_of_participants(root)
    if source is None:
        return {}
    (_, header), *body = list(csv_lines(source)) or [(1, [])]
    heads = [name.strip().casefold() for name in header]
    if PARTICIPANT not in heads:
        raise VptError(f"{source}: no column `{PARTICIPANT}` among {listed(header, 10)}; add one, or take the file out")
    lines: dict[str, list[str]] = {}
    for number, cells in body:
        told = [cell.strip() for cell in [*cells, *[""] * (len(heads) - len(cells))]]
        subject = f"sub-{told[heads.index(PARTICIPANT)].removeprefix('sub-')}"
        if lines.setdefault(subject, told) != told:
            raise VptError(f"{source}: line {number}: {subject} has another line further up; keep one of the two")
    return {
        head: {
            case: lines[subject][place]
            for case, subject in subjects.items()
            if subject in lines and lines[subject][place] not in NOTHING
        }
        for place, head in enumerate(heads)
        if head and head != PARTICIPANT
    }


def table_of_participants(root: Path) -> Path | None:
    return next((path for each in ABOVE if (path := root / each / PARTICIPANTS).is_file()), None)


def labels_in_tables(root: Path, masks: Sequence[Path]) -> dict[int, str] | None:
    """Value -> name as the `dseg.tsv` beside the masks and above them say (columns index and name); None without one.

    Raises VptError for a table without these columns, and for two that differ.
    """
    dense = [path for path in masks if "dseg" in path.name]
    folders = {above for path in dense for above in path.parents if above.is_relative_to(root)}
    own = {f"{path.name.partition('.')[0]}.tsv" for path in dense}
    tables = [
        path
        for folder in sorted(folders)
        for path in sorted(folder.glob("*dseg.tsv"))
        if not SUBJECT.match(path.name) or path.name in own
    ]
    names: dict[str, str] = {}
    said: dict[str, Path] = {}
    for table in tables:
        for id, name in _rows(table):
            if names.setdefault(id, name) != name:
                raise VptError(f"{table}: {id} is {name}, but {names[id]} in {said[id]}; correct one of the two")
            said.setdefault(id, table)
    return labels_of({"labels": names}, tables[0]) if names else None


def _rows(table: Path) -> list[tuple[str, str]]:
    """(number, name) but for the background, 0."""
    (_, header), *body = list(csv_lines(table)) or [(1, [])]
    heads = [name.strip().casefold() for name in header]
    if not {"index", "name"} <= {*heads}:
        raise VptError(f"{table}: the columns {listed(header, 10)}, expected index and name; correct the header")
    at, called = heads.index("index"), heads.index("name")
    pairs = [(cells[at].strip(), cells[called].strip()) for _, cells in body if len(cells) > max(at, called)]
    return [(id.removesuffix(".0"), name) for id, name in pairs if id.removesuffix(".0") != "0"]
