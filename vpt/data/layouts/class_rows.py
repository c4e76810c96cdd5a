"""Rows of a layout as examples: which classes there are, in which order, and which rows can be used."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from vpt.data.labelled import Example
from vpt.data.layouts.rows import Row, annotation_fault
from vpt.errors import VptError
from vpt.vocabulary import Target
from vpt.words import did_you_mean, listed, some_of


def refuse_classes(classes: Sequence[str]) -> None:
    if twice := sorted({name for name in classes if list(classes).count(name) > 1}):
        raise VptError(f"classes: {twice[0]!r} is named twice; name every class once")
    if len(classes) < 2:
        raise VptError(f"classes: {len(classes)} named ({listed(classes)}), expected at least 2")


def ordered(names: Iterable[str], target: Target, path: Path) -> list[str]:
    """Numbers by their value, else by name, which is no order for grades."""
    found = sorted(names)
    if all(re.fullmatch(r"[+-]?\d+(\.\d+)?", name) for name in found):
        return sorted(found, key=float)
    if target == "grades":
        shown = ", ".join(found)
        raise VptError(f"{path}: the grades {shown} are no numbers; give their order, the lowest first, as `classes`")
    return found


def chosen(
    rows: list[Row], only: Sequence[str] | None, order: Sequence[str] | None, target: Target, path: Path
) -> tuple[list[Row], list[str]]:
    """The rows of the classes in `only`, and the names of the others; order: of all classes, where it is known."""
    if only is None:
        return rows, []
    if target != "classes":
        raise VptError(f"{path}: data.only is for images of one class each, and the target is {target}; leave it out")
    refuse_classes(only)
    known = {label for row in rows for label in row.labels} | {*(order or ())}
    if unknown := [name for name in only if name not in known]:
        zeros = unknown[0].isdigit() and any(name.isdigit() and name != str(int(name)) for name in known)
        hint = "; YAML reads 010 as 8, so write such names in quotes" if zeros else did_you_mean(unknown[0], known)
        raise VptError(f"{path}: data.only names {unknown[0]!r}, which is no class of it ({some_of(known)}){hint}")
    apart = [row for row in rows if not {*row.labels} <= {*only}]
    return [row for row in rows if {*row.labels} <= {*only}], [row.name for row in apart]


def usable(rows: Iterable[Row], names: Sequence[str], target: Target, problems: list[VptError]) -> list[Row]:
    """The rows that have a name of their own and fitting labels, in their order."""
    known = set(names)
    seen: dict[str, Row] = {}
    for row in rows:
        if row.name in seen:
            fault = f"the second image called {row.name}; keep one of the two or rename it"
        else:
            unknown = [label for label in row.labels if label not in known]
            fault = _fault(row, unknown, names, target)
        if fault:
            problems.append(VptError(f"{row.where}: {fault}"))
        else:
            seen[row.name] = row
    return list(seen.values())


def _fault(row: Row, unknown: Sequence[str], names: Sequence[str], target: Target) -> str:
    """Why its labels cannot be used; "" where they can. unknown: those of them that are not among `names`."""
    if unknown:
        return f"{unknown[0]!r} is not in `classes` ({listed(names)}){did_you_mean(unknown[0], names)}"
    if fault := annotation_fault(row, names, target):
        return fault
    if target == "labels" or len(row.labels) == 1:
        return ""
    if not row.labels:
        return "no label; name the image's class, or set the target to labels if there can be none"
    return f"{len(row.labels)} labels ({listed(row.labels)}), expected one; set the target to labels for several"


def examples(rows: Iterable[Row], names: Sequence[str]) -> tuple[Example, ...]:
    place = {name: number for number, name in enumerate(names)}

    def places(labels: Sequence[str]) -> tuple[int, ...]:
        return tuple(sorted(place[label] for label in labels))

    def annotated(row: Row) -> tuple[int, ...] | None:
        return None if row.annotated is None or {*row.annotated} >= place.keys() else places(row.annotated)

    found = (Example(row.name, (row.image,), places(row.labels), annotated(row)) for row in rows)
    return tuple(sorted(found, key=lambda example: example.name))
