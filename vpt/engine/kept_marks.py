"""Marks of a run's files beside its state, so that a refusal of changed data can name them; no artifact holds them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from vpt.errors import VptError
from vpt.files import read_json, write_json
from vpt.words import listed

KEPT = "data.json"
MARKED = "data, of which a file holds something else"  # what a state calls the digest of these marks

Marks = Mapping[str, Sequence[str]]
"""Case -> a mark of each of its files, and, of an example, what is said of it (its classes)."""


def digest_of(marks: Marks) -> str:
    """What a state keeps of them."""
    return sha256(json.dumps(marks).encode()).hexdigest()


def keep_marks(folder: Path, marks: Marks) -> None:
    """Write those that the state in the folder belongs to, unless they lie there."""
    if _kept(folder, digest_of(marks)) is None:
        write_json(folder / KEPT, marks)


def changed_since(folder: Path, marks: Marks, files: Mapping[str, Sequence[Path]], decided: Mapping[str, str]) -> str:
    """In words, which files differ from those of the state in the folder.

    marks, files: of each case, as they are now; decided: what the state says of its run, see `Setup.decided`. "" where
    the marks that it belongs to are not there, as beside those of versions before 0.6.
    """
    kept = _kept(folder, decided.get(MARKED, ""))
    if kept is None:
        return ""
    changed = [
        str(files[name][place]) if place < len(files[name]) else f"what is said of {name}"
        for name, now in marks.items()
        for place in _others(now, kept.get(name, ()))
    ]
    return f"{len(changed)} of {sum(map(len, marks.values()))} changed: {listed(changed, 3)}" if changed else ""


def _others(now: Sequence[str], then: Sequence[str]) -> list[int]:
    """Places of the marks of a case that were others; where a file came or went, of those that were not there."""
    if len(now) == len(then):
        return [place for place, mark in enumerate(now) if mark != then[place]]
    return [place for place, mark in enumerate(now) if mark not in then]


def _kept(folder: Path, digest: str) -> Marks | None:
    """The marks that lie there; None of none, and of those of other data or that are damaged."""
    try:
        found: Marks = read_json(folder / KEPT)
    except VptError:
        return None
    return found if digest_of(found) == digest else None
