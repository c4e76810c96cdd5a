"""Scans and masks as they lie below a folder, and what their names and folders say of each in words."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vpt.data.cases import case_name, kind_of
from vpt.data.layouts.naming import MASK, UNLABELLED, NameWords
from vpt.data.layouts.sides import side_of_folder
from vpt.data.walking import Walk
from vpt.readers import endings, is_part
from vpt.vocabulary import SIDE_WORDS

Words = tuple[str, ...]
Place = Literal["", "last", "first"]  # of the word for a sequence or a label in a name; "": there is none

FEWEST_FOLDERS = 3  # of a scan and a mask each, whose names then do not matter


@dataclass(frozen=True)
class NamedFile:
    """A file, and the words of its folders and name that tell its case.

    folders: those of its folders that tell anything, by their words; last: how many words, at the end, may say which
    sequence or label it is: one, or, in a folder of masks, all of the file's name; first: where the file's own words
    begin, of which one may say it too; side: where a folder is called train, val or test.
    """

    path: Path
    words: Words
    folders: tuple[str, ...]
    last: int
    first: int
    is_mask: bool
    side: str

    def split(self, at: Place) -> tuple[Words, str]:
        """The words of the case and, where one says it, the sequence or label."""
        if at == "first":
            return self.words[: self.first] + self.words[self.first + 1 :], self.words[self.first]
        k = len(self.words) - self.last * (at == "last")
        return self.words[:k], "_".join(self.words[k:])


def named_paths(root: Path) -> list[Path]:
    """Every scan and mask below a folder, as seen from it, but for those of folders without labels."""
    paths = [path.relative_to(root) for path in Walk(root).files() if kind_of(path) and not is_part(path)]
    return [path for path in paths if not {each.lower() for each in path.parts[:-1]} & UNLABELLED]


def named_files(root: Path, paths: Sequence[Path], by: NameWords) -> Iterator[NamedFile]:
    """The same with their words; by: how names are taken apart. None where no name says mask: nothing can be paired."""
    masks_in: dict[str, set[bool]] = defaultdict(set)
    of_masks, top = by.folders_of_masks(paths), _common_folders(paths)
    says_mask = {path: _says_mask(path, by, top) or bool(of_masks & {*path.parents}) for path in paths}
    if not any(says_mask.values()):
        return
    for path in paths:
        masks_in[path.parts[top]].add(says_mask[path])
    told_apart, of_two = _sides_tell_apart(says_mask, top), _folders_of_two(says_mask, by)
    for path in paths:
        # a folder of scans, or one of masks:
        apart = len(path.parts) > top + 1 and len(masks_in[path.parts[top]]) == 1
        folders = [each for each in [*path.parents][-2::-1] if not (apart and each == path.parents[-2 - top])]
        telling = [told for each in folders if each not in of_masks and (told := _telling(each.name, by, MASK))]
        above, own = [word for told in telling for word in told], _telling(case_name(path), by, by.masks)
        if by.by_folder and telling:
            own = [] if path.parent in of_two else _without(telling[-1], own)
        whole = any(MASK & {*map(str.lower, by.of(each.name))} for each in folders[top:])
        if apart and told_apart:  # `train_images/1.png` is another case than `test_images/1.png`
            above = [side_of_folder(path.parts[top]), *above]
        words = (*above, *own) or (case_name(path),)
        last, first = max(1, len(own)) if whole else 1, min(len(above), len(words) - 1)
        side = next((SIDE_WORDS[each.lower()] for each in path.parts[:-1] if each.lower() in SIDE_WORDS), "")
        if telling and not own:
            telling[-1] = telling[-1][:-1]  # that word is the file's
        lies_in = tuple("_".join(told) for told in telling if told)
        yield NamedFile(root / path, words, lies_in, last, first, says_mask[path], side)


def _without(folder: Sequence[str], own: list[str]) -> list[str]:
    """The words of a file's name without those of its folder, where it begins with them."""
    return own[len(folder) :] if own[: len(folder)] == [*folder] else own


def _folders_of_two(says_mask: Mapping[Path, bool], by: NameWords) -> set[Path]:
    """Folders that hold one scan and one mask, and nothing else, where no word of the masks may be a label's."""
    holds: dict[Path, list[Path]] = defaultdict(list)
    for path in says_mask:
        holds[path.parent].append(path)
    two = {each for each, files in holds.items() if sorted(says_mask[path] for path in files) == [False, True]}
    masks = [path for path in says_mask if path.parent in two and says_mask[path]]
    words = {
        (*_without(_telling(path.parent.name, by, MASK), _telling(case_name(path), by, by.masks)),) for path in masks
    }
    return two if len(two) >= FEWEST_FOLDERS and len(words) == 1 else set()


def _common_folders(paths: Sequence[Path]) -> int:
    """How many folders, from the top, every file lies in: what a set was packed in says nothing of its files."""
    return len(Path(os.path.commonpath([path.parent for path in paths])).parts) if paths else 0


def _sides_tell_apart(says_mask: Mapping[Path, bool], top: int) -> bool:
    """Whether folders at the top of scans, and those of masks, say the same sides, and names in them repeat without."""
    below = [path for path in says_mask if len(path.parts) > top + 1]
    of_masks, of_scans = (
        {side_of_folder(path.parts[top]) for path in below if says_mask[path] is masks} for masks in (True, False)
    )
    repeat = len({(says_mask[path], path.parts[top + 1 :]) for path in below}) < len(below)
    return repeat and of_masks == of_scans and "" not in of_masks


def _says_mask(path: Path, by: NameWords, top: int) -> bool:
    """By a folder, but for those at the top that all files lie in, or by its own name."""
    folders = any(word.lower() in MASK for part in path.parts[top:-1] for word in by.of(part))
    return folders or any(word.lower() in by.masks for word in by.of(case_name(path)))


def _telling(part: str, by: NameWords, masks: Collection[str]) -> list[str]:
    """The words that tell the case; of `a.jpg.png` the ending of the scan is none."""
    kept = [word for word in by.of(part) if word.lower() not in masks and word.lower() not in by.images]
    return [word for word in kept if f".{word.lower()}" not in endings("images")] or kept
