"""Classes that may be one, written in two ways."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")


def doubtful_classes(classes: Iterable[str], what: str = "classes") -> list[str]:
    """Sentences of classes that differ in case, in blanks and signs between words, or in how a number is written.

    what: to call them, in the plural.
    """
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault(plain_name(name), []).append(name)
    return [
        f"{what} {' and '.join(map(repr, names))} may be one, written in {len(names)} ways; write them alike"
        for names in alike.values()
        if len(names) > 1
    ]


def written_otherwise(names: Iterable[str], known: Collection[str]) -> tuple[str, str] | None:
    """The first name that is none of those known, but is one of them but for capitals and blanks; and that one."""
    folded = {_folded(name): name for name in known}
    pairs = ((name, folded[_folded(name)]) for name in names if name not in known and _folded(name) in folded)
    return next(pairs, None)


def _folded(name: str) -> str:
    return " ".join(name.casefold().split())


def plain_name(name: str) -> str:
    """A name without what two ways to write it differ in."""
    if NUMBER.fullmatch(name.strip()):
        return f"{float(name):g}" if abs(float(name)) < 1e5 else str(float(name))
    return re.sub(r"[\s_-]+", " ", name.strip()).casefold()
