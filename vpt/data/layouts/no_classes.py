"""Folders that count as classes, but are parts of a set, patients or sides, as their names say.

A set of images whose labels stand in a list is often packed so; the list that lies beside is named. Only names, and the
lists of a set that is refused, are read here.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vpt.data.cases import case_name
from vpt.data.doubts.drawn import TOOLS, drawn_as
from vpt.data.layouts.class_lists import csv_lines, tables_in
from vpt.data.layouts.label_columns import columns_of
from vpt.data.layouts.lists import listed_masks
from vpt.data.layouts.naming import CASES as CASES_APART
from vpt.data.layouts.naming import says_masks
from vpt.data.layouts.rows import Row
from vpt.data.walking import Walk
from vpt.errors import VptError
from vpt.vocabulary import SIDE_WORDS
from vpt.words import listed

PARTS = {"part", "image", "images", "img", "imgs", "batch", "fold", "chunk", "shard", "split", "subset", "set"}
CASES = {"patient", "pat", "case", "subject", "subj", "participant", "person", "scan", "volume", "vol", "study"}
CASES |= {"series", "slide", "slice", "exam", "examination"}
CALLED = {**dict.fromkeys(PARTS, "parts of a set"), **dict.fromkeys(CASES, "patients or their scans")}
CALLED |= {f"{word}s": what for word, what in CALLED.items()} | dict.fromkeys(SIDE_WORDS, "sides of the split")
"""A word before a number that counts folders -> what these are, and no classes."""
UNLABELLED = {"unlabelled", "unlabeled"}
NUMBER = re.compile(r"(\d+)")
WORD = re.compile(r"[^\W\d_]+")
NAMED = "; or name them in data.classes, if they are classes all the same"
MOST = 0.5  # of the folders: are called so; of the images: a list names


@dataclass(frozen=True)
class _List:
    """A list beside the folders that names most of the images; is_labelled: whether it has a column of labels, too."""

    file: Path
    is_labelled: bool


def no_classes(root: Path, rows: Sequence[Row]) -> str:
    """Why the folders of these images are no classes, and what to give in their place; "" where they may be some."""
    names = sorted({label for row in rows for label in row.labels})
    if listing := _list_of_masks(root, rows):
        what = f"{listing.name} lists images of these folders as masks of others, so that the folders are no classes"
        return f"{what}; give the list in the place of the folder ({listing}){NAMED}"
    if again := _again(rows, names):
        others = f"those beside it ({listed((name for name in names if name != again), 3)})"
        return f"the folder {again} holds folders called as {others}, as the set once more; take it out{NAMED}"
    if unlabelled := [name for name in names if UNLABELLED & {*WORD.findall(name.casefold())}]:
        what = f"the folder {unlabelled[0]} is called as images without a label are, not as a class"
        return f"{what}; take it out, or give the folder of the labelled ones in the place of this one{NAMED}"
    counted = _counted(names)
    are_counted = len(counted) == len(names)
    if sides := _sides(names):
        what = f"{listed(sides, 3)} are called as sides of the split are, not as classes{_beside(sides, names)}"
    elif counted and (called := CALLED.get(_word_before(counted))):
        what = f"{listed(counted, 3)} are called as {called} are, not as classes"
    elif len(names) > 1 and (masks := _masks_in_each(rows, alike=not are_counted)):
        whose = "patients" if are_counted else "sets to segment"
        what = f"{listed(names, 3)} each hold a folder of masks ({masks}) beside others, as {whose} do, not classes"
        what += "" if are_counted else "; to segment, name images and masks by `pairs` in dataset.json"
    else:
        return ""
    way_out = _way_out(root, _lists(root, rows))
    return f"the folders {what}; {way_out}{NAMED}"


def _way_out(root: Path, lists: Sequence[_List]) -> str:
    columns = "labels.csv with the columns path and label"
    if labelled := [each.file for each in lists if each.is_labelled]:
        return f"give the list of the labels in the place of the folder ({labelled[0]})"
    if lists:
        return f"{lists[0].file.name} names the images, so write {columns} by it"
    if drawn := [path for path in Walk(root).files() if drawn_as(path)]:
        names = listed((path.relative_to(root).as_posix() for path in drawn), 2)
        return (
            f"draw the boxes and polygons of {names} as masks{TOOLS.get(drawn_as(drawn[0]), '')}, and put images into "
            f"images/ and masks into masks/, or write {columns}"
        )
    return f"to classify, write {columns}, to segment, cases.csv with image and mask"


# --- names ------------------------------------------------------------------------------------------------------------


def _counted(names: Collection[str]) -> list[str]:
    """Those of the names that differ from each other in numbers alone, where these are most; [] where none do."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[NUMBER.sub("0", name.casefold())].append(name)
    most = max(alike.values(), key=len, default=[])
    differ = len({tuple(NUMBER.findall(name)) for name in most}) > 1
    return most if differ and len(most) >= MOST * len(names) and WORD.search(most[0]) else []


def _word_before(names: Sequence[str]) -> str:
    """The word that stands before the first number in which these names differ, or behind it where none does; "" where
    a unit follows it (`images_10x`), as none does that counts folders.
    """
    parts = [NUMBER.split(name.casefold()) for name in names]  # text, number, text, number, ..., text
    at = next(place for place in range(1, len(parts[0]), 2) if len({each[place] for each in parts}) > 1)
    if WORD.match(parts[0][at + 1]):
        return ""
    before, behind = (WORD.findall("".join(part)) for part in (parts[0][:at], parts[0][at + 1 :]))
    return before[-1] if before else behind[0]


def _words(name: str) -> list[str]:
    """Of a folder's name, in small letters; words begin at capitals too (`MoNuSegTestData`)."""
    return [word for part in CASES_APART.split(name) for word in WORD.findall(part.casefold())]


def _sides(names: Collection[str]) -> list[str]:
    """Those of the names that a word for a side tells apart, with a number or without (`train2017`, `test_images`)."""
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in names:
        words = [word for word in _words(name) if len(word) > 1]
        if SIDE_WORDS.keys() & {*words}:
            alike[tuple("" if word in SIDE_WORDS else word for word in words)].append(name)
    most = max(alike.values(), key=len, default=[])
    sides = {SIDE_WORDS[word] for name in most for word in _words(name) if word in SIDE_WORDS}
    return most if len(sides) > 1 and len(most) >= MOST * len(names) else []


def _beside(sides: Collection[str], names: Collection[str]) -> str:
    """What keeps folders called just train, val or test from being read as sides, "" where nothing does."""
    others = [name for name in names if name not in sides]
    plain = all(name.casefold() in SIDE_WORDS for name in sides)
    return f", which they are where {listed(others, 3)} is not beside them" if plain and others else ""


def _again(rows: Iterable[Row], names: Collection[str]) -> str:
    """The class whose folder holds all the others once more (`yes`, `no`, `brain_tumors/yes`, ...); "" if none.

    Folders in a class that is called by a number, as the others are, count its patients (`0/1`, `0/2`, ...).
    """
    inside: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        inside[row.labels[0]].update(row.name.split("/")[1 + bool(row.side) : -1][:1])
    if len(names) < 3 or all(map(NUMBER.fullmatch, names)):
        return ""
    return next((name for name in names if inside[name] >= {*names} - {name}), "")


def _masks_in_each(rows: Iterable[Row], *, alike: bool) -> str:
    """The name of a folder of masks, where every class has one beside other images; "" where one has none.

    alike: whether all in it must be called as others of the class are. Folders that a whole class lies in say nothing.
    """
    of_class: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of_class[row.labels[0]].append(row)
    found = ""
    for its in of_class.values():
        inside = {row: row.name.split("/")[1 + bool(row.side) : -1] for row in its}
        common = set.intersection(*map(set, inside.values()))
        masks = {
            row: next((each for each in inside[row] if each not in common and says_masks(each)), "") for row in its
        }
        called, others = ({_own_name(row.name) for row in its if bool(masks[row]) is which} for which in (True, False))
        if not called or not others or (alike and not called <= others):
            return ""
        found = found or min(filter(None, masks.values()))
    return found


# --- lists ------------------------------------------------------------------------------------------------------------


def _list_of_masks(root: Path, rows: Iterable[Row]) -> Path | None:
    """A list of images and masks at the top of the set, of which most masks are among these images."""
    lists = {path: masks for path in tables_in(root) if (masks := listed_masks(path))}
    images = {row.image for row in rows if lists and isinstance(row.image, Path)}
    return next((path for path in lists if sum(mask in images for mask in lists[path]) > MOST * len(lists[path])), None)


def _lists(root: Path, rows: Sequence[Row]) -> list[_List]:
    """Those at the top of the set that name most of its images, those with labels first."""
    tables = tables_in(root)
    images = {_own_name(row.name) for row in rows} if tables else set()
    found = []
    for path in tables if images else ():
        with suppress(VptError):  # no list that can be read
            found += _read(path, images)
    return sorted(found, key=lambda each: not each.is_labelled)


def _read(path: Path, images: Set[str]) -> list[_List]:
    """The list in a file, where one of its columns names most of the images; [] where none does."""
    (_, header), *lines = [*csv_lines(path)] or [(1, [])]
    columns = [[cells[k] if k < len(cells) else "" for _, cells in lines] for k in range(len(header))]
    naming = [k for k, cells in enumerate(columns) if len({*map(_own_name, cells)} & images) >= MOST * len(images)]
    if not naming:
        return []
    is_labelled = False
    with suppress(VptError):  # it does not say what its images are
        is_labelled = columns_of(header, lines, path, partial(_among, images))[0]["path"] in naming
    return [_List(path, is_labelled)]


def _among(images: Set[str], path: str) -> Path | None:
    """The image that a cell names, by its own name."""
    return Path(name) if (name := _own_name(path)) in images else None


def _own_name(path: str) -> str:
    """Of an image, without folders and ending."""
    return case_name(path.strip().replace("\\", "/"))
