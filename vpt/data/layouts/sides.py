"""What words in folders and names say of sides: `ISIC_Training_Input/a.jpg`, `trainval-image/0.jpg`, `testA_1.bmp`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from vpt.data.cases import case_name
from vpt.data.layouts.naming import PLAIN
from vpt.data.patients import that_differ
from vpt.vocabulary import SIDE_WORDS, WITH_VAL

WORD = re.compile(
    rf"(?:\w*\d)?({'|'.join(map(re.escape, sorted(SIDE_WORDS, key=len, reverse=True)))})(?:[A-Z\d]\w*|set|data)?"
)


def side_of_word(word: str) -> str:
    """The side that a word of a name says, also before a capital or number (`testA`, `train2017`) or behind a number
    (`01training`); "" for none.
    """
    found = WORD.fullmatch(word.lower() if word.isupper() else word[:1].lower() + word[1:])
    return SIDE_WORDS[found[1]] if found else ""


def side_of_folder(name: str) -> str:
    """What the first of a folder's words that says a side says."""
    sides = (SIDE_WORDS.get(name.lower(), ""), *map(side_of_word, PLAIN.of(name)))
    return next(filter(None, sides), "")


def says_both(name: str) -> bool:
    """Whether a folder's or file's name says that training and validation are in it together (`trainval`)."""
    return name.lower() in WITH_VAL or not {*map(str.lower, PLAIN.of(name))}.isdisjoint(WITH_VAL)


def without_both(sides: Mapping[str, str], scans: Mapping[str, Path]) -> dict[str, str]:
    """Sides without those of cases called `trainval` where others are called train or val: these are the same again."""
    both = {name for name, path in scans.items() if any(map(says_both, (*path.parts[:-1], case_name(path))))}
    apart = {side for name, side in sides.items() if name not in both} & {"train", "val"}
    return {name: side for name, side in sides.items() if not (apart and name in both)}


def by_folders(scans: Mapping[str, Path]) -> dict[str, str]:
    """Case -> the side that a word of its folders says, but for those that all cases lie in; "" for none.

    scans: case -> its path, as seen from the data set's folder.
    """
    folders = that_differ({name: path.parts[:-1] for name, path in scans.items()})
    return {name: next(filter(None, map(side_of_folder, its)), "") for name, its in folders.items()}


def by_names(scans: Mapping[str, Path]) -> dict[str, str]:
    """The same of the first word of its file's name."""
    return {name: side_of_word(next(iter(PLAIN.of(case_name(path))), "")) for name, path in scans.items()}


def said_throughout(scans: Mapping[str, Path]) -> dict[str, str]:
    """Case -> its side, where folders, else names, say one of every case, of training and of another side; {} else."""
    for sides in (by_folders(scans), by_names(scans)):
        found = {*sides.values()}
        if "train" in found and "" not in found and len(found) > 1:
            return sides
    return {}
