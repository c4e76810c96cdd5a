"""Which files of an archive are masks of the scans beside them, by their own names or by those of their folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from vpt.data.cases import Case
from vpt.data.ids_in_names import id_of
from vpt.data.layouts.naming import MASK, SAYING, masked_by, words_of
from vpt.use.archives.attempts import Failure
from vpt.use.evaluation.paired_names import scans_and_masks
from vpt.words import agreeing, counted, listed


def without_masks(cases: Sequence[Case], failed: Iterable[str] = ()) -> tuple[list[Case], list[Case]]:
    """The scans, and what their names say are masks of scans beside them: `a_seg.nii.gz` beside `a.nii.gz`, and
    `segmentation.nii.gz` beside any. failed: the names of scans that lie there as well, and cannot be put together.
    """
    by_folder: dict[str, set[str]] = {}
    for called in (*(case.name for case in cases), *failed):
        folder, _, name = called.rpartition("/")
        by_folder.setdefault(folder, set()).add(name)
    masks = {f"{folder}/{name}".lstrip("/") for folder, names in by_folder.items() for name in _masks_among(names)}
    return [case for case in cases if case.name not in masks], [case for case in cases if case.name in masks]


def _masks_among(names: Collection[str]) -> set[str]:
    """Of the names in a folder: `p1_T1_seg` beside `p1_T2`, `ct_seg` and `ct_label_2` beside `ct`, `seg` beside any."""
    scans, masks = scans_and_masks(names, SAYING)
    own = {words_of(name) for name in scans}
    for name in {*names} - scans if scans else ():
        words = words_of(name)
        if masked_by(words) & own or MASK.issuperset(words):
            masks.add(name)
    return masks


def without_mask_folders(
    cases: Sequence[Case], failures: Sequence[Failure]
) -> tuple[list[Case], list[Failure], dict[str, int]]:
    """What lies in no folder of masks, and how many files each of these held, by its path in the archive.

    Such a folder is called by nothing but words for masks, and beside it lie scans: `ct.nii.gz` beside
    `segmentations/`, or files of the same ids in another folder (`images/a.jpg` beside `masks/a.jpg`). What is given
    as the archive itself may be called as it likes.
    """
    levels = {case.name: [*_levels(case.name, case.images[0])] for case in cases}
    # a reason begins with its file, as `vpt.data.findings.problem_of` has it
    levels |= {each.name: [*_levels(each.name, Path(each.reason.partition(": ")[0]))] for each in failures}
    lying = {each.folder for its in levels.values() for each in its[:1]}
    alike = {(each.above, each.inner, each.id) for its in levels.values() for each in _outside_masks(its)}
    folders = {
        each.folder
        for its in levels.values()
        for each in its[:-1]
        if (each.of_nothing_else and not each.inner and each.above in lying)
        or (each.of_masks and (each.above, each.inner, each.id) in alike)
    }
    held = {name: each.shown for name, its in levels.items() for each in its if each.folder in folders}
    numbers = Counter[str]()
    for case in cases:
        numbers[held.get(case.name, "")] += len(case.images)
    del numbers[""]
    left = [case for case in cases if case.name not in held]
    return left, [failure for failure in failures if failure.name not in held], dict(sorted(numbers.items()))


WORDS = SAYING - {"manual", "manuals"}  # of folders of masks; done by hand may be a scan as well
PLAIN = {f"{word}{s}" for word in ("mask", "label", "seg", "segmentation") for s in ("", "s")}


class _Level(NamedTuple):
    """One of the folders that a file lies in. inner: those from there to the file; shown: its path in the archive."""

    folder: Path
    inner: tuple[str, ...]
    id: str
    shown: str

    @property
    def above(self) -> Path:
        return self.folder.parent

    @property
    def of_masks(self) -> bool:
        words = words_of(self.folder.name)
        return bool(words) and (WORDS.issuperset(words) or "".join(words) in WORDS)

    @property
    def of_nothing_else(self) -> bool:
        """Called so that what lies in it is no scan, whatever its files are called."""
        return self.of_masks and PLAIN.issuperset(words_of(self.folder.name))


def _levels(name: str, file: Path) -> Iterator[_Level]:
    """The folder that a file lies in first, the archive itself last."""
    *folders, own = name.split("/")
    for cut, folder in zip(range(len(folders), -1, -1), file.parents, strict=False):
        yield _Level(folder, tuple(folders[cut:]), id_of(own), "/".join(folders[:cut]))


def _outside_masks(levels: Sequence[_Level]) -> Iterator[_Level]:
    """The folders below the archive down to a file, as long as none of them from there is one of masks."""
    return takewhile(lambda each: not each.of_masks, levels[:-1])


def told_of_masks(masks: Sequence[Case]) -> list[str]:
    if not masks:
        return []
    shown = listed((case.images[0].name for case in masks), 3)
    what = "looks like the mask of a scan beside it" if len(masks) == 1 else "look like masks of scans beside them"
    left = f"{counted(len(masks), 'file')} {what} by name and {'is' if len(masks) == 1 else 'are'} left out"
    return [f"{left}: {shown}; if it is a scan, give it by itself"]


def told_of_folders(folders: Mapping[str, int]) -> list[str]:
    if not folders:
        return []
    files = sum(folders.values())
    one = "the folder is called as one of masks and lies beside scans; if it holds scans, give it by itself"
    more = "the folders are called as those of masks and lie beside scans; if one holds scans, give it by itself"
    left = f"{counted(files, 'file')} in {listed(folders, 3)} {agreeing(files, 'are')} left out"
    return [f"{left}: {one if len(folders) == 1 else more}"]
