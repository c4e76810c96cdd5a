"""Files beside a data set that list who is tested, as `test.txt` or `splits.json`, where the sides are drawn."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from vpt.data.cases import case_name
from vpt.data.layouts.naming import PLAIN
from vpt.data.layouts.sides import side_of_folder
from vpt.data.splits import AnySet, drawn
from vpt.data.walking import is_training
from vpt.errors import VptError
from vpt.files import is_hidden, read_json
from vpt.vocabulary import TABLES
from vpt.words import counted, listed

PLAIN_TEXT = (".txt", ".lst", ".list")
CALLED_SPLIT = {"split", "splits", "fold", "folds", "partition", "partitions"}
PLACES = ("*", "*/*", "*/*/*")  # ImageSets/Segmentation/test.txt
LONGEST = 2**24  # bytes
SHORT = re.compile(r"\d{1,2}(\.\d*)?")  # a number of a table, and no case's


def unread_lists(dataset: AnySet) -> str:
    """That such files name cases, in one sentence; "" where none does, or something says the sides."""
    if not drawn(dataset) or not dataset.root.is_dir():
        return ""
    cases = {Path(case.name).name for case in dataset.cases}
    found = {path: len(_named_in(path, cases)) for path in _lists(dataset)}
    telling = [path for path, count in found.items() if count and not (_side(path) == "train" and count == len(cases))]
    if not telling:
        return ""
    said = (f"{path.relative_to(dataset.root).as_posix()} names {found[path]}" for path in telling)
    return (
        f"{listed(said, 4)} of {counted(len(cases), 'case')}, but {'is' if len(telling) == 1 else 'are'} not read, so "
        "that the sides are drawn, and training may take what is to be tested with; write the sides into split.json "
        '({"train": [...], "val": [...], "test": [...]})'
    )


def _lists(dataset: AnySet) -> Iterator[Path]:
    """The files in its folder that are called as a side or a split, but for the list that the set is read from."""
    for place in PLACES:
        for path in sorted(dataset.root.glob(place)):
            kind = path.suffix.lower()
            called = _side(path) or not CALLED_SPLIT.isdisjoint(PLAIN.of(path.stem.lower()))
            told = not (path == dataset.source or is_hidden(path) or is_training(path.parent))
            if kind in (*PLAIN_TEXT, *TABLES, ".json") and called and told and path.is_file():
                yield path


def _side(path: Path) -> str:
    return side_of_folder(path.stem)


def _named_in(path: Path, cases: Collection[str]) -> set[str]:
    """The cases that a file names, by their paths or names."""
    try:
        if path.stat().st_size > LONGEST:
            return set()
        kind = path.suffix.lower()
        text = "" if kind == ".json" else path.read_text(encoding="utf-8-sig", errors="replace")
        words = _texts(read_json(path)) if kind == ".json" else _words(text, kind)
        return {name for word in words if (name := case_name(word.strip().replace("\\", "/"))) in cases}
    except (OSError, VptError, ValueError):  # nothing that can be read says nothing
        return set()


def _words(text: str, kind: str) -> Iterator[str]:
    """Of plain text what stands first in each line; of a table every cell that is no short number."""
    for line in text.splitlines():
        if kind in PLAIN_TEXT:
            yield from line.split()[:1]
        else:
            yield from (word for each in re.split("[,;\t]", line) if not SHORT.fullmatch(word := each.strip(' "')))


def _texts(content: Any) -> Iterator[str]:
    """All texts of a JSON."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list | dict):
        for each in content.values() if isinstance(content, dict) else content:
            yield from _texts(each)
        if isinstance(content, dict):
            yield from content
