"""Why scans and masks of a folder are not paired by their names, as far as the names let it guess."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from vpt.data.cases import case_name, kind_of
from vpt.data.layouts.bids_files import has_subjects
from vpt.data.layouts.description import PAIRED
from vpt.data.layouts.naming import WAYS
from vpt.data.walking import Walk, folders_in
from vpt.words import listed

FEWEST = 2  # cases that share the words
MOST = 6  # words that may tell sequences and masks apart
SETTLE = f"or list all in cases.csv with the columns image and mask, or say in dataset.json which files count: {PAIRED}"


def why_unpaired(root: Path) -> str:
    """The end of a sentence that found no data set; "" where no name says anything."""
    files = [path for path in Walk(root).files() if kind_of(path)] if root.is_dir() else []
    if bids := next((each for each in folders_in(root) if has_subjects(each)), None) if files else None:
        return f"; {bids.name} in it is BIDS: give {bids} in the place of this folder"
    masks = [path for path in files if _says_mask(path, root)]
    scans = [path for path in files if path not in masks]
    if masks and scans:
        return (
            f"; names such as {masks[0].relative_to(root).as_posix()} say mask, but none is called as a scan, such as "
            f"{scans[0].relative_to(root).as_posix()}, but for that word: call each as its scan, {SETTLE}"
        )
    if words := _telling(files):
        return (
            f"; names differ in {listed(words)}, which {'does' if len(words) == 1 else 'do'} not say mask: if one is "
            f"the mask's, call that mask, seg or label, {SETTLE}"
        )
    return ""


def _says_mask(path: Path, root: Path) -> bool:
    words = WAYS[-1]
    return any(
        word in words.masks
        for part in path.relative_to(root).with_name(case_name(path)).parts
        for word in words.of(part)
    )


def _telling(files: Sequence[Path]) -> list[str]:
    """First or last words in which the files of a case differ: of `a_T1` and `a_tumor`, `mr_1` and `lesion_1`, `a` and
    `a_m`; [] where there are none.
    """
    for at in (-1, 0):
        of_case: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for path in files:
            words = WAYS[-1].of(case_name(path))
            rest = words[:-1] if at else words[1:]
            if rest and not words[at].isdigit():
                of_case[path.parent.as_posix(), *rest].add(words[at])
            of_case[path.parent.as_posix(), *words].add("")
        several = [words for words in of_case.values() if len(words) > 1]
        often = Counter(word for words in several for word in words if word)
        found = sorted(word for word, count in often.items() if count >= max(FEWEST, len(several) / 2))
        if 0 < len(found) <= MOST:
            return found
    return []
