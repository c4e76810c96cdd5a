"""The words of which names of scans and masks are made, and which of them say mask or image."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

MASK = {"mask", "label", "labelstr", "seg", "segmentation", "gt", "truth", "groundtruth", "annotation", "manual"}
MASK |= {f"{word}s" for word in MASK}
IMAGE = {"image", "images", "imagestr", "img", "imgs", "scan", "scans", "volume", "volumes"}
MORE = {"lbl", "msk", "roi", "contour", "delineation", "labelmap", "dseg", "maske"}  # no folder's
MORE |= {f"{word}s" for word in MORE}
RARE = {"lab", "ann", "anno", "target", "rs", "rtstruct", "rtss"}  # said beside a word for images, or before a number
RARE |= {f"{word}s" for word in RARE}
RARE_IMAGE = {"vol", "vols", "raw", "orig", "original", "originals", "input", "inputs"}
KINDS = {"ct", "cbct", "mr", "mri", "pet", "pt", "us"}  # of scans, which a number may follow: CT7
UNLABELLED = {"imagests", "labelsts"}  # folders of scans to predict, which MSD and nnU-Net keep beside the others
APART = re.compile(r"[_\-. ]+")
CASES = re.compile(r"[_\-. ]+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[0-9])(?=[a-z])")  # P7Mask, P7mask
MARKS = re.compile(r"[_\-. ()\[\]]+")
NUMBERED = re.compile(r"([A-Za-z]+)(\d+)")


@dataclass(frozen=True)
class NameWords:
    """How names are taken apart: between which letters, what says mask or image in a file's own name, whether P7 is p7.

    loosely: a word of a role or kind and its number are two (`mask7`, `ct07`), 07 is 7, a sequence or label may stand
    first (`ct_7`, `lesion_mask_7`), and a folder's rarer word counts beside a folder of images. by_folder: a folder is
    a case, whose name counts once where its files repeat it (`P7/P7`, `P7/GT`), and alone where it holds two files.
    """

    between: re.Pattern[str] = APART
    masks: frozenset[str] = frozenset(MASK)
    images: frozenset[str] = frozenset(IMAGE)
    folded: bool = False
    loosely: bool = False
    by_folder: bool = False

    def of(self, name: str) -> list[str]:
        words = [word for word in self.between.split(name) if word]
        if self.loosely:
            words = [part.lstrip("0") or "0" for word in words for part in self._apart(word)]
        return [word.casefold() for word in words] if self.folded else words

    def _apart(self, word: str) -> tuple[str, ...]:
        found = NUMBERED.fullmatch(word)
        return found.groups() if found and found[1].lower() in self.masks | self.images | KINDS else (word,)

    def folders_of_masks(self, paths: Iterable[Path]) -> set[Path]:
        """Folders called by a rarer word for masks (`ann`, `roi`), which stand beside one of images (`img`)."""
        beside: dict[Path, set[Path]] = defaultdict(set)
        for path in paths if self.loosely else ():
            for folder in path.parents[:-1]:
                beside[folder.parent].add(folder)
        return {
            each
            for folders in beside.values()
            if any(_are_all(folder.name, self.images) for folder in folders)
            for each in folders
            if _are_all(each.name, self.masks)
        }


PLAIN = NameWords()
SAYING = frozenset(MASK | MORE)
WAYS = (
    NameWords(masks=SAYING),
    NameWords(between=CASES, masks=SAYING),
    NameWords(between=CASES, masks=SAYING, folded=True),
    NameWords(MARKS, SAYING | RARE, frozenset(IMAGE | RARE_IMAGE), folded=True, loosely=True),
)
"""What is tried where the plain reading of the names finds no pair; the first that pairs enough is taken."""


def words_of(name: str) -> tuple[str, ...]:
    """Of a case's name, in small letters."""
    return tuple(PLAIN.of(name.lower()))


def masked_by(words: Sequence[str]) -> set[tuple[str, ...]]:
    """The words of the scans that a name may be the mask of: its own without those that say mask, and without a number
    behind these; none where nothing says mask.
    """
    rest = tuple(word for word in words if word not in SAYING)
    counted_out = rest[:-1] if rest and rest[-1].isdigit() else rest
    return {rest, counted_out} - {()} if len(rest) < len(words) else set()


def says_masks(folder: str) -> bool:
    """Whether a word for masks is in a folder's name (`2. All Groundtruths`, `ManualMask`)."""
    return not {*WAYS[2].of(folder)}.isdisjoint(SAYING)


def name_roles(folders: Collection[str]) -> bool:
    """Whether two folders are called images and masks, by any words for these."""
    last = WAYS[-1]
    return len(folders) == 2 and all(
        any(_are_all(folder, words) for folder in folders) for words in (last.masks, last.images)
    )


def _are_all(name: str, words: Collection[str]) -> bool:
    return {*WAYS[-1].of(name)} <= {*words}
