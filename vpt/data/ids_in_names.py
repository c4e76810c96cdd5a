"""Whose a mask is by its name, or by its path: what is left without the words that say mask, scan or prediction."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vpt.data.cases import case_name
from vpt.data.layouts.bids_files import DATATYPES, SUBJECT
from vpt.data.layouts.naming import IMAGE, MASK, MORE, PLAIN, SAYING
from vpt.readers import endings

PREDICTED = {"pred", "preds", "prediction", "predictions", "predicted", "out", "output", "result"}
SEQUENCES = {"t1", "t1w", "t1c", "t1ce", "t1gd", "t1n", "t2", "t2w", "t2f", "flair", "dwi", "adc", "ct", "mr", "pet"}
SCAN = IMAGE | SEQUENCES | {"0000", "imaging"}
DERIVATIVES = "derivatives"  # folder of BIDS, whose folders are what made the masks in them
GRID = re.compile(r"(?<![^_])(?:space|res|den)-[A-Za-z0-9]+")  # on which a file of BIDS is
STRUCTURE = re.compile(r"(?<![^_])label-[A-Za-z]+")  # what a mask of BIDS is of

Word = tuple[str, str]  # what stands between it and the one before, and itself


@dataclass(frozen=True)
class Telling:
    """Which words of a name do not say whose it is, and which of these say that it is a mask.

    numbers: one behind a word for masks does not either (`p1_mask_0`).
    """

    words: frozenset[str]
    masks: frozenset[str] = SAYING
    numbers: bool = False


USUAL = Telling(frozenset(MASK | PREDICTED | SCAN), frozenset(MASK))
RARER = Telling(USUAL.words | MORE | {word for ending in endings() for word in ending.lower().split(".") if word})
NUMBERED = replace(RARER, numbers=True)
FOLDER = Telling(frozenset(MASK | MORE | PREDICTED | {"anat"}))  # of a folder, whose T1, images or 0000 is no other's
ANY_SCANS = replace(FOLDER, words=FOLDER.words | DATATYPES)  # of a folder of BIDS, where it says no more than the file


def id_of(name: str, telling: Telling = USUAL) -> str:
    """What is left of a case's name without the words that say mask, scan, prediction or sequence."""
    return "_".join(word for _, word in _left(name, telling)) or name


def own_name(name: str, telling: Telling = USUAL) -> str:
    """The same with what stands between the words in the name."""
    return _joined(_left(name, telling)) or name


def says_mask(name: str, words: Iterable[str] = SAYING) -> bool:
    return not {*PLAIN.of(name.lower())}.isdisjoint(words)


def _left(name: str, telling: Telling) -> list[Word]:
    """The words that make the id."""
    parts = [*re.split(f"({PLAIN.between.pattern})", name), ""]
    left: list[Word] = []
    between, before = "", ""
    for word, behind in zip(parts[::2], parts[1::2], strict=True):
        is_number = telling.numbers and bool(left) and before in SAYING and word.isdigit()
        if word and not is_number and word.lower() not in telling.words:
            left.append((between, word))
            between = behind
        before = word.lower()
    return left


def _joined(words: Sequence[Word]) -> str:
    return "".join(between * bool(place) + word for place, (between, word) in enumerate(words))


def by_case(
    folder: Path, files: Sequence[Path], *, strictly: bool, grids: bool, datatypes: bool = True
) -> dict[str, tuple[str, Path]]:
    """Id -> name and mask of the cases in a folder: of files in it, or of files below, whose folder begins the id.

    Where some of a case's files say that they are its mask, only these are taken. strictly: as of references, of which
    none is a scan: where some files say mask, a case of which none does has no mask. grids, datatypes: whether what
    BIDS says of a file's grid, and of the kind of its scan by a folder (`dwi/`), is a part of the id. {} where two have
    one id, a folder is nobody's, or where it cannot be known which is the mask: of several in one folder or, strictly,
    of one that says scan.
    """
    paths = {path: below_derivatives(path.relative_to(folder)) for path in files}
    saying = {path for path, inside in paths.items() if _words(inside) & (SAYING | PREDICTED)}
    beside: dict[str, list[Path]] = defaultdict(list)
    for path, inside in paths.items():
        beside[inside.parts[0] if len(inside.parts) > 1 else id_of(case_name(path), RARER)].append(path)
    taken: list[Path] = []
    for group in beside.values():
        said = [path for path in group if path in saying]
        unsaid = [] if strictly and saying else group
        alone = len({path.parent for path in unsaid}) == len(unsaid)  # a folder for each visit
        if not said and (not alone or (strictly and any(_words(paths[path]) & SCAN for path in unsaid))):
            return {}
        taken += said or unsaid
    found: dict[str, tuple[str, Path]] = {}
    for path in taken:
        id, name = _of_path(paths[path], strictly, grids, datatypes)
        if not id or id in found:
            return {}
        found[id] = name, path
    return found


def below_derivatives(inside: Path) -> Path:
    """A path without the folders of derivatives and of what made them, in which a case's own folder begins."""
    parts = inside.parts
    if parts[0].lower() != DERIVATIVES or len(parts) < 3:
        return inside
    if SUBJECT.fullmatch(parts[1]):  # as ISLES has them, without a folder of what made them
        return Path(*parts[1:])
    return Path(*parts[2:]) if len(parts) > 3 else inside


def _words(inside: Path) -> set[str]:
    """What the file, and the folders in a case's own folder, are called by."""
    parts = (*inside.parts[1:-1], case_name(inside))
    return {word for part in parts for word in PLAIN.of(part.lower())}


def _of_path(inside: Path, is_reference: bool, grids: bool, datatypes: bool) -> tuple[str, str]:
    """Id and name of whom a mask is by its path: of its folder, and what folders in that and its own name add.

    What begins as all before it, or is how that begins, is not said twice (`sub-01/ses-1/sub-01_ses-1_dseg`).
    ("", "") where the first folder is nobody's. Of a reference the structure is left out, which BIDS names.
    """
    file = case_name(inside) if grids else GRID.sub("", case_name(inside))
    tellings = [(part, FOLDER if datatypes else ANY_SCANS) for part in inside.parts[:-1]]
    known: list[Word] = []
    for part, telling in (*tellings, (STRUCTURE.sub("", file) if is_reference else file, RARER)):
        words = _left(part, telling)
        if not (known or words):
            return "", ""
        both = min(len(words), len(known))
        if both and [word for _, word in words[:both]] == [word for _, word in known[:both]]:
            words = words[both:]
        elif known and words:
            words[0] = "_", words[0][1]
        known += words
    return "_".join(word for _, word in known), _joined(known)
