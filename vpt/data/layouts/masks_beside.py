"""Masks that lie among the images of a class folder, told by their names; they are no cases."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from vpt.data.layouts.naming import IMAGE, MASK, SAYING, WAYS, masked_by, says_masks
from vpt.data.layouts.rows import Row

WORDS = WAYS[2]  # apart at capitals and after numbers too, in small letters
SAID = re.compile("|".join(sorted(MASK)), re.IGNORECASE)  # looked for first, since there may be a million names

Words = tuple[str, ...]


def without_masks(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The images of class folders, and those that are masks of others by their names.

    `a_mask` and `a_mask_1` beside `a` or `a_image`, `masks/a` beside `a` or `images/a`; in a folder of a case, which
    lies in that of the class, `seg` beside any. Rarer words (`a_roi`) may be of parts of an image, and a class that is
    called as masks (`with_mask`) has no others.
    """
    if not any(SAID.search(inside) for row in rows for inside in _inside(row)):
        return list(rows), []
    beside: dict[Words, list[Row]] = defaultdict(list)
    for row in rows:
        beside[_place(row)].append(row)
    masks = {row for group in beside.values() for row in _masks_among(group)}
    return [row for row in rows if row not in masks], [row for row in rows if row in masks]


def _masks_among(rows: Sequence[Row]) -> list[Row]:
    """Of those in one folder."""
    words = {row: _words(row) for row in rows}
    saying = [row for row in rows if not MASK.isdisjoint(words[row]) and not any(map(says_masks, row.labels))]
    own = {_plain(words[row]) for row in rows if MASK.isdisjoint(words[row])}
    return [
        row
        for row in saying
        if {*map(_plain, masked_by(words[row]))} & (own - {()}) or (own and _is_called_mask_alone(row))
    ]


def _is_called_mask_alone(row: Row) -> bool:
    """In a folder below that of the class."""
    return len(_place(row)) > 1 + bool(row.side) and MASK.issuperset(_words(row))


def _inside(row: Row) -> list[str]:
    """The folders below that of the class, and the name."""
    return row.name.split("/")[1 + bool(row.side) :]


def _place(row: Row) -> Words:
    """The folders of an image, without those below the class that say no more than mask or image."""
    above = row.name.split("/")[: 1 + bool(row.side)]
    return (*above, *(folder for folder in _inside(row)[:-1] if not _is_role(folder)))


def _words(row: Row) -> Words:
    """Of its name, and of the folders below the class that say no more than mask or image."""
    *folders, name = _inside(row)
    return tuple(word for part in (*filter(_is_role, folders), name) for word in WORDS.of(part))


def _is_role(folder: str) -> bool:
    return (SAYING | IMAGE).issuperset(WORDS.of(folder))


def _plain(words: Words) -> Words:
    return tuple(word for word in words if word not in IMAGE)
