"""Which files of an archive are masks of the scans beside them, by their own names."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from vpt.data.cases import Case
from vpt.data.layouts.naming import MASK, SAYING, words_of
from vpt.data.paired_names import scans_and_masks
from vpt.words import counted, listed


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
        rest = tuple(word for word in words if word not in SAYING)
        counted_out = rest[:-1] if rest and rest[-1].isdigit() else rest
        if {rest, counted_out} & own or MASK.issuperset(words):
            masks.add(name)
    return masks


def told_of_masks(masks: Sequence[Case]) -> list[str]:
    if not masks:
        return []
    shown = listed((case.images[0].name for case in masks), 3)
    what = "looks like the mask of a scan beside it" if len(masks) == 1 else "look like masks of scans beside them"
    left = f"{counted(len(masks), 'file')} {what} by name and {'is' if len(masks) == 1 else 'are'} left out"
    return [f"{left}: {shown}; if it is a scan, give it by itself"]
