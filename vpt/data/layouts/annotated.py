"""What a data set says of the labels that each case was annotated for: `annotated` in dataset.json, or a column."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vpt.data.cases import SegmentationSet
from vpt.data.label_values import BACKGROUND, IGNORE
from vpt.data.layouts.description import description
from vpt.errors import VptError
from vpt.words import did_you_mean, listed

WORD, ALL = "annotated", "all"
FORM = f'"{WORD}": {{"CASE": ["LABEL", ...]}}'

Said = dict[str, frozenset[str]]  # case -> names of labels, as the files' labels are called


def read_annotated(dataset: SegmentationSet) -> tuple[Said, list[VptError]]:
    """What is said of cases, all others being annotated for every label; and what is wrong with it.

    dataset: as it was read, before `data.labels` names its values otherwise.
    """
    source, problems = dataset.root / "dataset.json", list[VptError]()
    described = _described(description(source), source)
    known = {case.name: case for case in dataset.cases}
    said: Said = {}
    for name, value in described.items():
        where = f"{source}: `{WORD}`"
        if name not in known:
            meant = did_you_mean(name, known)
            problems.append(VptError(f"{where} names the case {name!r}, which is not there{meant}"))
        elif not _is_names(value):
            problems.append(VptError(f"{where}: that of {name} is {value!r}; expected {FORM}"))
        else:
            _add(said, name, [value] if isinstance(value, str) else value, dataset, where, problems)
    for name, names in _by_columns(dataset).items():
        where = f"{dataset.source}: the column `{WORD}`"
        own: Said = {}
        _add(own, name, names, dataset, where, problems)
        if name in own and said.setdefault(name, own[name]) != own[name]:
            problems.append(VptError(f"{where} says otherwise of {name} than {source}; say it in one place"))
    return said, problems


def _described(content: Mapping[str, Any], source: Path) -> dict[str, Any]:
    found = content.get(WORD, {})
    if not isinstance(found, dict):
        raise VptError(f"{source}: `{WORD}` is no object; expected {FORM}")
    return {str(name): value for name, value in found.items()}


def names_annotated(content: Mapping[str, Any], source: Path) -> Said:
    """Case -> the names in a dataset.json's `annotated`, without asking whether cases and labels are there.

    Raises:
        VptError: what is no list of names.
    """
    found = _described(content, source)
    if odd := [name for name, value in found.items() if not _is_names(value)]:
        raise VptError(f"{source}: `{WORD}`: that of {odd[0]} is {found[odd[0]]!r}; expected {FORM}")
    listed_names = {name: {value} if isinstance(value, str) else {*value} for name, value in found.items()}
    return {name: frozenset(names - {BACKGROUND, IGNORE}) for name, names in listed_names.items() if names != {ALL}}


def is_told(content: Mapping[str, Any], case: str) -> bool:
    """Whether a dataset.json says which labels were looked for in a case, so that a mask that it lacks is no slip."""
    found = content.get(WORD)
    return isinstance(found, dict) and case in found


def without_masks(case: str, having: Sequence[str], missing: Sequence[str]) -> str:
    """Of a case that lacks masks which others have: what that may mean, and how to say which it is."""
    looked_for = ", ".join(f'"{name}"' for name in having)
    return (
        f"{case} has masks of {listed(having, 8)}, but none of {listed(missing, 8)}, which other cases have; add it, "
        f'or say in dataset.json what was looked for: "{WORD}": {{"{case}": [{looked_for}]}}, or "{ALL}" in the place '
        f"of the list if there is no {listed(missing, 3)} in it"
    )


def _is_names(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(name, str) for name in value))


def _by_columns(dataset: SegmentationSet) -> dict[str, list[str]]:
    """Case -> what its cells say; of a list in JSON there is a column for every entry."""
    own = [key for key in dataset.columns if re.fullmatch(rf"{WORD}(_\d+)?", key)]
    if not own:
        return {}
    cells = {case.name: [dataset.columns[key].get(case.name, "") for key in own] for case in dataset.cases}
    labels = {*dataset.labels.values()}
    return {name: [part for cell in row for part in _parts(cell, labels)] for name, row in cells.items()}


def _parts(cell: str, labels: set[str]) -> list[str]:
    """A cell's names, with `;`, `|` or else `,` between them."""
    sign = next((each for each in ";|" if each in cell), ",")
    parts = [cell] if cell in labels else cell.split(sign)
    return [part.strip() for part in parts if part.strip()]


def _add(
    said: Said, name: str, names: Sequence[str], dataset: SegmentationSet, where: str, problems: list[VptError]
) -> None:
    labels = [*dataset.labels.values()]
    chosen = {*labels} if list(names) == [ALL] and ALL not in labels else {*names} - {BACKGROUND, IGNORE}
    unknown = sorted(chosen - {*labels})
    if unknown:
        foreground = [label for label in labels if label not in (BACKGROUND, IGNORE)]
        meant = did_you_mean(unknown[0], labels) or f", which are {listed(foreground, 20)}"
        problems.append(VptError(f"{where} names for {name} {unknown[0]!r}, none of the labels{meant}"))
    elif not chosen:
        problems.append(VptError(f"{where} names no label for {name}; name them, write `{ALL}`, or leave the case out"))
    else:
        said[name] = frozenset(chosen)


def with_annotated(read: SegmentationSet, said: Said, values: Mapping[int, str]) -> SegmentationSet:
    """The set with every case's annotated labels, where they are not all.

    values: what the values in its files were called when that was said; `read` may call them otherwise.

    Raises:
        VptError: a label that joins values of which only some are annotated.
    """
    if not said:
        return read
    now = read.label_values.names if read.label_values else read.labels
    cases = []
    for case in read.cases:
        if case.name not in said:
            cases.append(case)
            continue
        looked_for = {value for value, name in values.items() if name in said[case.name]}
        ids = set()
        for id, label in read.labels.items():
            joined = {value for value, name in now.items() if name == label and value}
            if joined & looked_for and not joined <= looked_for:
                lacking = listed(dict.fromkeys(values[value] for value in sorted(joined - looked_for)))
                raise VptError(
                    f"{read.root}: {label} joins labels of which {lacking} is not annotated in {case.name}, so nobody "
                    "knows where it ends; give it as labels of its own, or leave the case out"
                )
            if id and joined <= looked_for:
                ids.add(id)
        every = {id for id in read.labels if id}
        cases.append(case if ids == every else replace(case, annotated=frozenset(ids)))
    return replace(read, cases=tuple(cases))
