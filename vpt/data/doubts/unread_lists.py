"""Files beside a data set that list who is tested, as `test.txt` or `splits.json`, where the sides are drawn."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vpt.data.cases import case_name
from vpt.data.layouts.description import description
from vpt.data.layouts.naming import IMAGE, PLAIN
from vpt.data.layouts.sides import side_of_folder, side_of_word
from vpt.data.splits import AnySet, drawn
from vpt.data.walking import is_training
from vpt.errors import VptError
from vpt.files import is_hidden, read_json
from vpt.vocabulary import TABLES
from vpt.words import agreeing, counted, listed

PLAIN_TEXT = (".txt", ".lst", ".list")
CALLED_SPLIT = {"split", "splits", "fold", "folds", "partition", "partitions"}
PLACES = ("*", "*/*", "*/*/*")  # ImageSets/Segmentation/test.txt
LABELLED = {"labelled", "labeled"}
FLAT = PLACES[:2]  # in the folder above, which may be anything
LONGEST = 2**24  # bytes
TESTED_WITH = (
    "so that the sides are drawn, and training may take what is to be tested with; write the sides into split.json "
    '({"train": [...], "val": [...], "test": [...]})'
)
SHORT = re.compile(r"\d{1,2}(\.\d*)?")  # a number of a table, and no case's


def unread_lists(dataset: AnySet) -> str:
    """That such files name cases, in one sentence; "" where none does, or something says the sides."""
    if not drawn(dataset) or not dataset.root.is_dir():
        return ""
    known = {Path(case.name).name: case.name for case in dataset.cases}
    images = ((image, case.name) for case in dataset.cases for image in case.images if isinstance(image, Path))
    files = {os.path.normpath(image): name for image, name in images}
    known |= {case_name(image): name for image, name in files.items()}
    count = len(dataset.cases)
    found = {seen_from(dataset.root, path): (path, _named_in(path, known)) for path in _lists(dataset)}
    said = [
        f"{name} names {len(named)}"
        for name, (path, named) in found.items()
        if named and not (_side(path) and len(named) == count)  # as blood_test.csv: nothing is kept apart
    ]
    said += [f"`{word}` of dataset.json names {len(named)}" for word, named in _described(dataset.root, files)]
    if not said:
        return ""
    return f"{listed(said, 4)} of {counted(count, 'case')}, but {agreeing(len(said), 'are')} not read, {TESTED_WITH}"


def _described(root: Path, files: Mapping[str, str]) -> Iterator[tuple[str, set[str]]]:
    """What a dataset.json lists under words for validation and test, as MONAI and MSD do, of the cases that are read.

    files: the path of an image -> its case; another folder may hold others of the same names (imagesTs).
    """
    for word, value in description(root / "dataset.json").items():
        paths = (os.path.normpath(root / text) for text in _texts(value))
        if side_of_word(word) in ("val", "test") and (named := {files[path] for path in paths if path in files}):
            yield word, named


def folders_of(dataset: AnySet) -> list[Path]:
    """A set's folder, and where that is called as one of images and no more, as `dtd/images`, the one above."""
    root = dataset.root.resolve()
    words = {*PLAIN.of(root.name.lower())} - LABELLED
    is_inner = dataset.source.is_dir() and bool(words) and words <= IMAGE
    return [dataset.root, *([root.parent] if is_inner else [])]


def seen_from(root: Path, path: Path) -> str:
    """A path as it is called in a set's folder, or above it."""
    return Path(os.path.relpath(path, root if path.is_relative_to(root) else root.resolve())).as_posix()


def _lists(dataset: AnySet) -> Iterator[Path]:
    """The files in its folder that are called as a side or a split, but for the list that the set is read from."""
    root, *above = folders_of(dataset)
    for folder, place in (*((root, place) for place in PLACES), *((each, place) for each in above for place in FLAT)):
        for path in sorted(path for path in folder.glob(place) if _may_list(path)):
            if path != dataset.source and not is_training(path.parent) and path.is_file():
                yield path


def _may_list(path: Path) -> bool:
    """By its name, which is quickly asked of very many files."""
    if path.suffix.lower() not in (*PLAIN_TEXT, *TABLES, ".json") or is_hidden(path):
        return False
    return bool(_side(path)) or not CALLED_SPLIT.isdisjoint(PLAIN.of(path.stem.lower()))


def _side(path: Path) -> str:
    return side_of_folder(path.stem)


def _named_in(path: Path, known: Mapping[str, str]) -> set[str]:
    """The cases that a file names, by their paths or names; known: name -> case."""
    try:
        if path.stat().st_size > LONGEST:
            return set()
        kind = path.suffix.lower()
        if kind == ".json":
            return _cases_in(_texts(read_json(path)), known)
        return _cases_in(_words(path.read_text(encoding="utf-8-sig", errors="replace"), kind), known)
    except (OSError, VptError, ValueError):  # nothing that can be read says nothing
        return set()


def _cases_in(words: Iterable[str], known: Mapping[str, str]) -> set[str]:
    names = (case_name(word.strip().replace("\\", "/")) for word in words)
    return {known[name] for name in names if name in known}


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
