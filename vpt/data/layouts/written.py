"""What was guessed of a data set, written down: a dataset.json that says it, to be read and corrected."""

from __future__ import annotations

import csv
import io
import os
import re
from pathlib import Path
from typing import Any

from vpt.data.cases import Case, SegmentationSet
from vpt.data.labelled import LabelledSet
from vpt.data.layouts.annotated import WORD
from vpt.data.layouts.bids_tables import table_of_participants
from vpt.data.splits import read_splits
from vpt.errors import VptError
from vpt.files import write_json, write_text
from vpt.readers import LabelFiles, Relabelled
from vpt.vocabulary import SIDES

GROUPS = "groups.csv"


def write_description(dataset: SegmentationSet | LabelledSet, path: Path) -> list[Path]:
    """Channels, labels, patients and every case's files; sides go into a split.json beside it, and what else a list
    says of its cases into a groups.csv. Returns what is new.

    A path without a folder lies in the data set's. Raises VptError for another name or folder than DATA/dataset.json,
    for files that are there already, and for a data set for classification.
    """
    if isinstance(dataset, LabelledSet):
        raise VptError(f"{dataset.root}: a data set for classification, which needs no dataset.json; leave --write out")
    path = path if path.is_absolute() or path.parent != Path() else dataset.root / path
    if path.name != "dataset.json" or path.resolve().parent != dataset.root.resolve():
        raise VptError(f"{path}: the description is read from {dataset.root / 'dataset.json'}; write it there")
    split, groups = path.with_name("split.json"), path.with_name(GROUPS)
    told = _told(dataset)
    new = [path, *([split] if dataset.sides else []), *([groups] if told else [])]
    if there := [each for each in new if each.exists()]:
        raise VptError(f"{there[0]}: exists already; move it away to have it written anew")
    sides, content = _sides(dataset), _content(dataset)
    if sides:
        write_json(split, sides)
    if told:
        write_text(groups, _as_csv(told, [case.name for case in dataset.cases]))
    write_json(path, content)  # the last: without the sides beside it, it would hide those of folders and lists
    return new


def _sides(dataset: SegmentationSet) -> dict[str, list[str]]:
    """The cases of each side, where the set says them; where it has no validation, with the fold that validates."""
    if {*dataset.sides.values()} == {"train", "test"}:
        return read_splits(dataset).to_dict()
    said = {side: [name for name, its in dataset.sides.items() if its == side] for side in SIDES}
    return said if dataset.sides else {}


def _told(dataset: SegmentationSet) -> dict[str, dict[str, str]]:
    """Columns that no other file keeps: BIDS' have a table of their own, and `annotated` is in dataset.json."""
    if table_of_participants(dataset.root):
        return {}
    columns = {head: cells for head, cells in dataset.columns.items() if not re.fullmatch(rf"{WORD}(_\d+)?", head)}
    return {head: cells for head, cells in columns.items() if any(cells.values())}


def _as_csv(columns: dict[str, dict[str, str]], cases: list[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", *columns])
    writer.writerows([case, *(cells.get(case, "") for cells in columns.values())] for case in cases)
    return text.getvalue()


def _content(dataset: SegmentationSet) -> dict[str, Any]:
    content: dict[str, Any] = {
        "name": dataset.name,
        "channel_names": {str(k): name for k, name in enumerate(dataset.channels)},
        "labels": _labels(dataset),
        "training": [_entry(case, dataset) for case in dataset.cases],
    }
    annotated = {
        case.name: [dataset.labels[id] for id in sorted(case.annotated)]
        for case in dataset.cases
        if case.annotated is not None
    }
    table = table_of_participants(dataset.root) if dataset.columns else None
    groups = _seen(table, dataset.root) if table else GROUPS if _told(dataset) else ""
    guessed = {case: its for case in dataset.stems if (its := dataset.patient(case)) != case}
    patients = guessed | dataset.patients
    known = {"patients": patients, "codes": dataset.codes, "annotated": annotated, "groups": groups}
    return content | {key: value for key, value in known.items() if value}


def _labels(dataset: SegmentationSet) -> dict[str, int | list[int]]:
    """Name -> its value in the files, or the values that are one label."""
    if dataset.label_values is None:
        return {name: id for id, name in dataset.labels.items()}
    return {name: values if len(values) > 1 else values[0] for name, values in dataset.label_values.by_name.items()}


def _entry(case: Case, dataset: SegmentationSet) -> dict[str, Any]:
    images = [_seen(path, dataset.root) for path in case.images]
    entry: dict[str, Any] = {"case": case.name, "image": images[0] if len(images) == 1 else images}
    label = case.label.mask if isinstance(case.label, Relabelled) else case.label
    if isinstance(label, LabelFiles):
        if dataset.label_values:
            raise VptError(f"{label}: labels in files of their own are written down as they are; leave --labels out")
        entry["label"] = {dataset.labels[id]: _seen(path, dataset.root) for path, id in label.masks}
    elif case.label is not None:
        entry["label"] = _seen(Path(case.label), dataset.root)
    return entry


def _seen(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()
