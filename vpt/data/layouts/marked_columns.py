"""Lists with a column for each class, that holds 1 where an image is of it: `image,MEL,NV,BCC` of ISIC."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from vpt.errors import VptError
from vpt.vocabulary import SIDE_WORDS
from vpt.words import agreeing, counted, listed

FEWEST = 2  # columns, which all lines mark exactly one of
OF_PERSONS = frozenset(("male", "female", "m", "f", "man", "woman", "boy", "girl", "sex", "gender"))
OF_SIDES = frozenset(("left", "right", "l", "r", "od", "os"))  # of a body, or eyes


def marked_columns(header: Sequence[str], body: Sequence[tuple[int, Sequence[str]]], source: Path) -> dict[str, int]:
    """Class -> its column, where every line is 1 in one of them and 0 in the others; {} without such columns.

    Raises VptError where columns are marks, but of several labels an image, or of what nobody knows.
    """
    marks = {name: at for at, name in enumerate(header) if name.strip() and _are_marks(_cells(body, at))}
    ones = {name: at for name, at in marks.items() if any(_value(cell) == 1 for cell in _cells(body, at))}
    if len(marks) < FEWEST or not ones:
        return {}
    if said := _said_of_all(ones):
        raise VptError(
            f"{source}: no column for the label; {listed(ones, 4)} hold 1 and 0, but say {said}; write a column "
            "`label`, with these names in it if they are the classes"
        )
    values = [[_value(cell) for cell in row] for row in zip(*(_cells(body, at) for at in marks.values()), strict=True)]
    if all(sum(value == 1 for value in row) == 1 and {*row} <= {0, 1} for row in values):
        return ones
    unknown = sum(not {*row} <= {0, 1} for row in values)
    also = "" if not unknown else ", and `annotated` with those that are 1 or 0"
    blanks = f"{counted(unknown, 'line')} {agreeing(unknown, 'have')} blanks or -1"
    why = blanks if unknown else "several or none may be 1"
    raise VptError(
        f"{source}: no column for the label; {listed(marks, 4)} hold 1 and 0, but {why}; write a column `label` with "
        f"the names that are 1, with | between{also}"
    )


def _said_of_all(columns: Iterable[str]) -> str:
    """What names of columns say of an image besides its class, where all say the same; "" where they do not."""
    words = [{*filter(None, re.split(r"[\W_]+", name.casefold()))} for name in columns]
    meanings = (
        ("whether it is a man's or a woman's", OF_PERSONS),
        ("of which side it is", OF_SIDES),
        ("whether it trains", {*SIDE_WORDS}),
    )
    return next((said for said, known in meanings if all(each and each <= known for each in words)), "")


def mark_of(cells: Sequence[str], columns: dict[str, int]) -> str:
    """The class that a line marks."""
    return next(name.strip() for name, at in columns.items() if at < len(cells) and _value(cells[at]) == 1)


def _cells(body: Sequence[tuple[int, Sequence[str]]], at: int) -> list[str]:
    return [cells[at] if at < len(cells) else "" for _, cells in body]


def _are_marks(cells: Sequence[str]) -> bool:
    return {_value(cell) for cell in cells} <= {0, 1, -1, None} and any(_value(cell) is not None for cell in cells)


def _value(cell: str) -> float | None:
    """None of a blank; NaN of what is no number."""
    try:
        return float(cell) if cell.strip() else None
    except ValueError:
        return float("nan")
