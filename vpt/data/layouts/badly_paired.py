"""What is wrong with scans and masks that were paired by their names: files left over, cases that lack one, objects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vpt.data.layouts.annotated import is_told, without_masks
from vpt.data.layouts.description import PAIRED
from vpt.data.layouts.name_pairs import Pairing, case_names, first_scan
from vpt.data.layouts.named_files import NamedFile
from vpt.errors import VptError
from vpt.words import counted, listed

MANY_ALIKE = 5  # scans without a mask that have one line
MOST = 0.5  # of masks, at least: are numbered or hashed


def left_over(files: Sequence[NamedFile], pairing: Pairing) -> Iterator[VptError]:
    """Files that belong to no case, or share a case's place with another."""
    used = {
        each.path for case in pairing.both for group in (pairing.scans, pairing.masks) for each in group[case].values()
    }
    alone = [file for file in files if file.path not in used]
    alike = _alike(alone, pairing)
    told: dict[str, list[tuple[Path, str]]] = defaultdict(list)  # what is wrong -> the files, and that in full
    for word, group in alike.items():
        others = listed((file.path.name for file in group[1:]), 2)
        yield VptError(
            f"{group[0].path}: a scan without a mask by its name, and so are {counted(len(group) - 1, 'other')} called "
            f"..._{word} ({others}); take all out, name their masks after them, or say in dataset.json which files "
            f"count: {PAIRED}"
        )
    for file in alone:
        if not file.is_mask and file in alike.get(file.words[-1], ()):
            continue
        case, _ = file.split(pairing.by_label if file.is_mask else pairing.by_sequence)
        what = "mask" if file.is_mask else "scan"
        if case in pairing.both:
            told[f"a second {what} of a case by its name"].append(
                (file.path, f"the second {what} of {'_'.join(case)} by its name; keep one of the two")
            )
        elif file.is_mask and (first := _first_of(file, pairing)):
            text = (
                f"a second mask of the scan of {first.path.name} by its name, which would be lost; merge both into "
                f"one file, {first.path.name}, and take this one out"
            )
            yield VptError(f"{file.path}: {text}")
        else:
            text = f"a {what} without a {'scan' if file.is_mask else 'mask'} by its name"
            told[text].append((file.path, f"{text}; rename one after the other, or take it out"))
    yield from _together(told)


def _together(told: Mapping[str, Sequence[tuple[Path, str]]]) -> Iterator[VptError]:
    """An error for each file, or where many have the same fault one for all, with the way to name those that count."""
    for fault, its in told.items():
        if len(its) < MANY_ALIKE:
            yield from (VptError(f"{path}: {text}") for path, text in its)
            continue
        others = listed((path.name for path, _ in its[1:]), 2)
        yield VptError(
            f"{its[0][0]}: {fault}, and so are {counted(len(its) - 1, 'other')} ({others}); take all out, or say in "
            f"dataset.json which files count: {PAIRED}"
        )


def _alike(alone: Sequence[NamedFile], pairing: Pairing) -> dict[str, list[NamedFile]]:
    """Last word, such as `4d` or `sequence` -> the scans without a mask called so, where they are many."""
    groups: dict[str, list[NamedFile]] = defaultdict(list)
    for file in alone:
        if not file.is_mask and file.split(pairing.by_sequence)[0] not in pairing.both:
            groups[file.words[-1]].append(file)
    return {word: group for word, group in groups.items() if len(group) >= MANY_ALIKE}


def _first_of(file: NamedFile, pairing: Pairing) -> NamedFile | None:
    """The mask of the scan that another is called by, but for a number at the end: of `a_mask_1` `a_mask`."""
    *words, number = file.words
    label = words.pop() if pairing.by_label == "last" and words else ""
    masks = pairing.masks.get(tuple(words), {}) if number.isdecimal() and tuple(words) in pairing.both else {}
    return masks.get(label)


def incomplete(pairing: Pairing, content: dict[str, Any]) -> Iterator[VptError]:
    """Cases that lack a sequence, or the mask of a label that others have and nothing says who looked for it."""
    for case, name in zip(pairing.both, case_names(pairing), strict=True):
        scans, masks = pairing.scans[case], pairing.masks[case]
        if missing := [sequence for sequence in pairing.sequences if sequence not in scans]:
            yield VptError(
                f"{next(iter(scans.values())).path}: {name} has the scans {listed(scans, 8)}, but not "
                f"{listed(missing, 8)}, which other cases have; add it, or take the case out"
            )
        missing = [label for label in pairing.labels if label not in masks]
        if missing and not is_told(content, name):
            yield VptError(f"{next(iter(masks.values())).path}: {without_masks(name, sorted(masks), missing)}")


def require_shared_labels(pairing: Pairing, content: dict[str, Any]) -> None:
    """Raise VptError where no two cases have a mask of one name, as those of numbered or hashed objects have none.

    Names without numbers are of labels, and so are any where it is said who looked for what.
    """
    names = [name for case in pairing.both for name in pairing.masks[case]]
    if not pairing.by_label or len(pairing.both) < 2 or len({*names}) < len(names) or len(names) == len(pairing.both):
        return
    told = any(is_told(content, name) for name in case_names(pairing))
    if told or sum(any(map(str.isdigit, name)) for name in names) < MOST * len(names):
        return
    case = max(pairing.both, key=lambda its: len(pairing.masks[its]))
    first, scan = next(iter(pairing.masks[case].values())), first_scan(pairing, case)
    raise VptError(
        f"{first.path}: one of {counted(len(pairing.masks[case]), 'mask')} of {scan.path.name}, and no other case has "
        "a mask called as any of them, so that they are no labels but single objects (instances); merge those of each "
        "case into one mask, called as its scan, with a value for each label"
    )
