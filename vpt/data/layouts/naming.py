"""The words of which names of scans and masks are made, and which of them say mask or image."""

from __future__ import annotations

import re
from dataclasses import dataclass

MASK = {"mask", "label", "labelstr", "seg", "segmentation", "gt", "truth", "groundtruth", "annotation", "manual"}
MASK |= {f"{word}s" for word in MASK}
IMAGE = {"image", "images", "imagestr", "img", "imgs", "scan", "scans", "volume", "volumes"}
MORE = {"lbl", "msk", "roi", "contour", "delineation", "labelmap", "maske"}  # not of folders, which may be classes
MORE |= {f"{word}s" for word in MORE}
APART = re.compile(r"[_\-. ]+")
CASES = re.compile(r"[_\-. ]+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[0-9])(?=[a-z])")  # P7Mask, P7mask


@dataclass(frozen=True)
class NameWords:
    """How names are taken apart: between which letters, what says mask in a file's own name, and whether P7 is p7."""

    between: re.Pattern[str] = APART
    masks: frozenset[str] = frozenset(MASK)
    folded: bool = False

    def of(self, name: str) -> list[str]:
        words = [word for word in self.between.split(name) if word]
        return [word.casefold() for word in words] if self.folded else words


PLAIN = NameWords()
WAYS = (
    NameWords(masks=frozenset(MASK | MORE)),
    NameWords(between=CASES, masks=frozenset(MASK | MORE)),
    NameWords(between=CASES, masks=frozenset(MASK | MORE), folded=True),
)
"""What is tried where the plain reading of the names finds no pair; the first that pairs enough is taken."""
