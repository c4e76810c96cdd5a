"""Classes that may be one, written in two ways, and names of classes that are likely none."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable

from vpt.vocabulary import SIDE_WORDS
from vpt.words import listed

NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d{1,2})?")
TRUTH = {"true": "1", "yes": "1", "false": "0", "no": "0"}  # beside 1 and 0 they are the same
MISSING = {"nan", "n/a", "#n/a", "<na>", "null", "nat", "#value!", "?", "unlabeled", "unlabelled", "not labeled"}
MAYBE = {"na", "none", "nil", "unknown", "-", "."}  # beside numbers alone; they may be names
BELOW_ALL = {"-1", "-9", "-99", "-999"}  # beside numbers of 0 and above
YEAR = re.compile(r"[ _-]?\d{4}$")
MEASURED = 5  # classes that are numbers with fractions
BRACKETS = " []{}()"  # of a list, as Python writes it into a cell
JOINED = re.compile(r"\s*[;,/&+]\s*")


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


def class_doubts(classes: Collection[str]) -> list[str]:
    """All that the names of classes let doubt."""
    return [
        *doubtful_classes(classes), *missing_among(classes), *_sides(classes), *_joined(classes), *_measured(classes)
    ]  # fmt: skip


def _sides(classes: Collection[str]) -> list[str]:
    """Names that are those of a side, with a year behind or not (`train2017`)."""
    sides = [name for name in classes if YEAR.sub("", name.strip().casefold()) in SIDE_WORDS]
    if not sides or {name.strip().casefold() for name in classes} <= SIDE_WORDS.keys():
        return []
    beside = f", beside {listed(others, 3)}" if (others := [name for name in classes if name not in sides]) else ""
    are = "is a class" if len(sides) == 1 else "are classes"
    return [
        f"{listed(map(repr, sides))} {are} here{beside}, but called as a side of the split is; if it is that, put "
        "folders of the classes into train, val and test"
    ]


def _joined(classes: Collection[str]) -> list[str]:
    """Names that join others of the set, as several labels of one image do in lists of other programs."""
    known = {plain_name(name) for name in classes}
    parts = {name: [plain_name(part) for part in JOINED.split(name.strip(BRACKETS))] for name in classes}
    known |= {each[0] for name, each in parts.items() if len(each) == 1 and name[:1] in BRACKETS}  # ['a'] is a
    joined = [name for name, each in parts.items() if len(each) > 1 and all(each) and known & {*each}]
    if not joined:
        return []
    return [
        f"classes {listed(map(repr, joined), 3)} join names that are classes too; if these are several labels of an "
        "image, write them with | between (a|b)"
    ]


def _measured(classes: Collection[str]) -> list[str]:
    """Many numbers with fractions, as a column of a measure or a score has; of few they may be grades."""
    points = {name: name.strip().replace(",", ".") for name in classes}  # 0,5 is 0.5 in many tables
    numbers = {name: float(number) for name, number in points.items() if NUMBER.fullmatch(number)}
    broken = [name for name, number in numbers.items() if not number.is_integer()]
    if len(broken) < MEASURED or 2 * len(broken) < len(classes):
        return []
    return [
        f"classes {listed(map(repr, broken), 3)} are numbers with fractions, as a measure has, and each is a class of "
        "its own; unless they are codes, write the class (or range) that is meant in their place"
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
    letters = [letter for letter in unicodedata.normalize("NFKC", name) if not _is_unseen(letter)]
    name = "".join(letters).strip().strip("'\"").strip()
    if NUMBER.fullmatch(name):
        return f"{float(name):g}" if abs(float(name)) < 1e5 else str(float(name))
    words = "".join(" " if unicodedata.category(letter) == "Pd" or letter == "_" else letter for letter in name).split()
    word = " ".join(words).casefold()
    return TRUTH.get(word, word)


def _is_unseen(letter: str) -> bool:
    """As a space of no width, which spreadsheets and web pages leave."""
    return unicodedata.category(letter) in ("Cf", "Cc") and not letter.isspace()


def missing_among(names: Collection[str], what: str = "classes") -> list[str]:
    """A sentence of names that stand for what is not known, as programs write it into tables."""
    numbers = [name.strip() for name in names if NUMBER.fullmatch(name.strip())]
    marks = MISSING | MAYBE if 0 < len(numbers) >= len(names) - 2 else MISSING
    if len(numbers) == len(names) and sum(name.startswith("-") for name in numbers) == 1 < len(names):
        marks = marks | BELOW_ALL
    odd = [name for name in names if name.strip().casefold() in marks]
    if not odd:
        return []
    return [
        f"{what} hold {listed(map(repr, odd), 3)}, with which tables mark what is not known; take these lines out, or "
        "write what is meant"
    ]
