"""Scans and masks without a description, told apart and paired by their names, wherever they lie below a folder.

`images/` beside `labels/`, `pat01_T1.nii.gz` beside `pat01_seg.nii.gz`, a folder per patient, a file per label
(`s01/segmentations/liver.nii.gz`): a name is taken apart into words; those that say "mask" or "image" are no part of
the case, and at most one more at its end says which sequence a scan is, or which label a mask holds.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from vpt.data.cases import Case, SegmentationSet, case_name, kind_of
from vpt.data.layouts.annotated import is_told, without_masks
from vpt.data.layouts.description import (
    PAIRED,
    case_in_words,
    description,
    given_labels,
    read_channels,
    read_patients,
    shown_name,
)
from vpt.data.layouts.image_folders import found_labels, image_channels, labels_of_masks, turned
from vpt.data.layouts.label_masks import label_masks
from vpt.data.layouts.named_files import NamedFile, Place, Words, named_files, named_paths
from vpt.data.layouts.naming import PLAIN, WAYS, NameWords
from vpt.data.layouts.sides import said_throughout, without_both
from vpt.data.patients import of_folders, that_differ
from vpt.errors import VptError
from vpt.readers import ColourMask, Kind, LabelFiles
from vpt.words import counted, listed

MANY_ALIKE = 5  # scans without a mask that have one line
ENOUGH = 0.5  # of the cases, at least: have both where names are not read plainly


@dataclass(frozen=True)
class _Pairing:
    """Scans and masks by case; by_sequence, by_label: where a scan's (a mask's) name tells the sequence (the label)."""

    scans: Mapping[Words, Mapping[str, NamedFile]]
    masks: Mapping[Words, Mapping[str, NamedFile]]
    by_sequence: Place
    by_label: Place

    @cached_property
    def both(self) -> list[Words]:
        return sorted(self.scans.keys() & self.masks.keys())

    @cached_property
    def sequences(self) -> list[str]:
        return sorted({name for case in self.both for name in self.scans[case]})

    @cached_property
    def labels(self) -> list[str]:
        return sorted({name for case in self.both for name in self.masks[case]})


def is_told_by_names(root: Path) -> bool:
    """Whether scans and masks can be told apart and paired by their names."""
    return root.is_dir() and bool(_found(root)[1].both)


def _found(root: Path) -> tuple[list[NamedFile], _Pairing]:
    paths = named_paths(root)
    plain = _read_by(root, paths, PLAIN)
    by_chance = _by_chance(plain[1])
    with_masks = [PLAIN] if plain[1].masks else []
    for words in WAYS if by_chance else ():
        if _is_likely(read := _read_by(root, paths, words)):
            return read
        with_masks += [words] if read[1].masks else []
    for words in with_masks if by_chance or _none_shared(plain[1]) else ():
        if _is_likely(read := _read_by(root, paths, replace(words, by_folder=True))):
            return read
    return plain


def _read_by(root: Path, paths: Sequence[Path], words: NameWords) -> tuple[list[NamedFile], _Pairing]:
    files = [*named_files(root, paths, words)]
    return files, _paired(files, words)


def _is_likely(read: tuple[list[NamedFile], _Pairing]) -> bool:
    _, pairing = read
    return not (_by_chance(pairing) or _crosses(pairing) or _none_shared(pairing))


def _by_chance(pairing: _Pairing) -> bool:
    """Whether none or only some of the files find a partner, so that what pairs them is likely chance."""
    scans, masks = len(pairing.scans), len(pairing.masks)
    one_of_all = len(pairing.both) == 1 and min(len(pairing.sequences), len(pairing.labels)) > 1
    return not pairing.both or len(pairing.both) < ENOUGH * max(scans, masks) or one_of_all


def _none_shared(pairing: _Pairing) -> bool:
    """Whether what is read as the sequences is another in each case: of `P7/P7` and `P8/P8` P7 and P8."""
    count = sum(len(pairing.scans[case]) for case in pairing.both)
    return 1 < len(pairing.both) <= count == len(pairing.sequences)


def _crosses(pairing: _Pairing) -> bool:
    """Whether some mask is called as a scan is, but belongs to others: `images/slice-1` with `mask-1/slice-0`."""
    own = {case: {case_name(file.path) for file in pairing.scans[case].values()} for case in pairing.both}
    every = set[str]().union(*own.values())
    masks = ((case, case_name(file.path)) for case in pairing.both for file in pairing.masks[case].values())
    return any(name in every and name not in own[case] for case, name in masks)


def survey_by_name(root: Path) -> tuple[SegmentationSet, list[VptError]]:
    """The data set with every case that has a scan and a mask, and all that is wrong with the pairing of its files.

    A dataset.json may name channels, labels and patients. Raises VptError where the labels cannot be told.
    """
    source = root / "dataset.json"
    content, (files, pairing) = description(source), _found(root)
    _require_shared_labels(pairing)
    problems = [*_alone(files, pairing), *_incomplete(pairing, content)]
    kinds = {kind_of(file.path) for case in pairing.both for file in pairing.scans[case].values()}
    if len(kinds) > 1:
        problems.append(VptError(f"{root}: images and volumes among the scans; keep one kind, take the others out"))
    flat = kinds == {"images"}
    labels, masks = _labelled(root, content, pairing, flat, problems)
    order = _in_order(pairing, content, source)
    cases = tuple(
        Case(name, tuple(pairing.scans[words][k].path for k in order if k in pairing.scans[words]), masks[words])
        for words, name in zip(pairing.both, _names(pairing), strict=True)
    )
    problems += turned(cases) if flat else ()
    channels = _channels(root, content, pairing, flat)
    kind: Kind = "images" if flat else "volumes"
    scans = {case.name: _scan(pairing, words) for case, words in zip(cases, pairing.both, strict=True)}
    return SegmentationSet(
        root,
        shown_name(content, root),
        channels,
        labels,
        cases,
        read_patients(content, source, {case.name for case in cases}),
        kind,
        _sides(root, scans),
        guess="guessed from the names: " + case_in_words(root, cases[0], len(cases), channels),
        stems=of_folders(that_differ({name: scan.folders for name, scan in scans.items()})),
    ), problems


def _paired(files: Sequence[NamedFile], by: NameWords) -> _Pairing:
    """The reading of the names that pairs most; of equals the one that takes fewer words for sequences and labels."""
    places: tuple[Place, ...] = ("", "last", "first") if by.loosely else ("", "last")
    readings = [(by_sequence, by_label) for by_label in places for by_sequence in places]
    return max((_read(files, *reading) for reading in readings), key=lambda found: len(found.both))


def _read(files: Sequence[NamedFile], by_sequence: Place, by_label: Place) -> _Pairing:
    scans: dict[Words, dict[str, NamedFile]] = defaultdict(dict)
    masks: dict[Words, dict[str, NamedFile]] = defaultdict(dict)
    for file in files:
        case, name = file.split(by_label if file.is_mask else by_sequence)
        if case:
            (masks if file.is_mask else scans)[case].setdefault(name, file)
    return _Pairing(scans, masks, by_sequence, by_label)


# --- what is wrong ----------------------------------------------------------------------------------------------------


def _alone(files: Sequence[NamedFile], pairing: _Pairing) -> Iterator[VptError]:
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


def _alike(alone: Sequence[NamedFile], pairing: _Pairing) -> dict[str, list[NamedFile]]:
    """Last word, such as `4d` or `sequence` -> the scans without a mask called so, where they are many."""
    groups: dict[str, list[NamedFile]] = defaultdict(list)
    for file in alone:
        if not file.is_mask and file.split(pairing.by_sequence)[0] not in pairing.both:
            groups[file.words[-1]].append(file)
    return {word: group for word, group in groups.items() if len(group) >= MANY_ALIKE}


def _first_of(file: NamedFile, pairing: _Pairing) -> NamedFile | None:
    """The mask of the scan that another is called by, but for a number at the end: of `a_mask_1` `a_mask`."""
    *words, number = file.words
    label = words.pop() if pairing.by_label == "last" and words else ""
    masks = pairing.masks.get(tuple(words), {}) if number.isdecimal() and tuple(words) in pairing.both else {}
    return masks.get(label)


def _incomplete(pairing: _Pairing, content: dict[str, Any]) -> Iterator[VptError]:
    """Cases that lack a sequence, or the mask of a label that others have and nothing says who looked for it."""
    for case, name in zip(pairing.both, _names(pairing), strict=True):
        scans, masks = pairing.scans[case], pairing.masks[case]
        if missing := [sequence for sequence in pairing.sequences if sequence not in scans]:
            yield VptError(
                f"{next(iter(scans.values())).path}: {name} has the scans {listed(scans, 8)}, but not "
                f"{listed(missing, 8)}, which other cases have; add it, or take the case out"
            )
        missing = [label for label in pairing.labels if label not in masks]
        if missing and not is_told(content, name):
            yield VptError(f"{next(iter(masks.values())).path}: {without_masks(name, sorted(masks), missing)}")


def _require_shared_labels(pairing: _Pairing) -> None:
    """Raise VptError where no two cases have a mask of one name, as those of numbered or hashed objects have none."""
    names = [name for case in pairing.both for name in pairing.masks[case]]
    if not pairing.by_label or len(pairing.both) < 2 or len({*names}) < len(names) or len(names) == len(pairing.both):
        return
    case = max(pairing.both, key=lambda its: len(pairing.masks[its]))
    first = next(iter(pairing.masks[case].values()))
    raise VptError(
        f"{first.path}: one of {counted(len(pairing.masks[case]), 'mask')} of {_scan(pairing, case).path.name}, and no "
        "other case has a mask called as any of them, so that they are no labels but single objects (instances); merge "
        "those of each case into one mask, called as its scan, with a value for each label"
    )


# --- cases ------------------------------------------------------------------------------------------------------------


def _labelled(
    root: Path, content: dict[str, Any], pairing: _Pairing, flat: bool, problems: list[VptError]
) -> tuple[dict[int, str], Mapping[Words, Path | ColourMask | LabelFiles]]:
    """The labels, and what each case's are read from."""
    if pairing.by_label:
        source = root / "dataset.json"
        parts = {case: {name: file.path for name, file in pairing.masks[case].items()} for case in pairing.both}
        return label_masks(parts, given_labels(content, source), source)
    masks = {"/".join(case): pairing.masks[case][""].path for case in pairing.both}
    given = given_labels(content, root / "dataset.json")
    if not flat:
        labels = given or found_labels(root, list(masks.values()), problems)
        return labels, {case: pairing.masks[case][""].path for case in pairing.both}
    labels, read = labels_of_masks(root, masks, given, problems)
    return labels, {case: read["/".join(case)] for case in pairing.both}


def _names(pairing: _Pairing) -> list[str]:
    """The scans' own names, without the sequence; where two cases would be called alike, all words."""
    files = [next(iter(pairing.scans[case].values())) for case in pairing.both]
    own = [case_name(file.path) for file in files]
    if pairing.by_sequence == "last":
        own = [
            re.sub(rf"[_\-. ]*{re.escape(file.words[-1])}$", "", name) for file, name in zip(files, own, strict=True)
        ]
    if pairing.by_sequence == "first":
        return ["_".join(case) for case in pairing.both]
    return own if all(own) and len(set(own)) == len(own) else ["_".join(case) for case in pairing.both]


def _scan(pairing: _Pairing, words: Words) -> NamedFile:
    return next(iter(pairing.scans[words].values()))


def _sides(root: Path, scans: Mapping[str, NamedFile]) -> dict[str, str]:
    """Case -> its side, as a folder is called, or where none is as words of folders or names say of every case."""
    called = {name: scan.side for name, scan in scans.items() if scan.side}
    if len(called) == len(scans) and len({*called.values()}) == 1:  # what all lie in parts nobody
        called = {}
    paths = {name: scan.path.relative_to(root) for name, scan in scans.items()}
    return without_both(called or said_throughout(paths), paths)


def _channels(root: Path, content: dict[str, Any], pairing: _Pairing, flat: bool) -> tuple[str, ...]:
    """What dataset.json says, else the sequences' names; of one scan a case CT where all names or folders say so."""
    scans = [file.path for case in pairing.both for file in pairing.scans[case].values()]
    if flat:
        return image_channels(content, root / "dataset.json", scans)
    if content.keys() & {"channel_names", "modality"}:
        return read_channels(content, root / "dataset.json")
    if len(pairing.sequences) > 1:
        return tuple(pairing.sequences)
    return only_channel(root, scans)


def _in_order(pairing: _Pairing, content: dict[str, Any], source: Path) -> list[str]:
    """The sequences as dataset.json names the channels, where these are the same words; else by their names."""
    called = {sequence.casefold(): sequence for sequence in pairing.sequences}
    named = [name.casefold() for name in read_channels(content, source)] if content.get("channel_names") else []
    return [called[name] for name in named] if sorted(named) == sorted(called) else pairing.sequences


def only_channel(root: Path, scans: Sequence[Path]) -> tuple[str, ...]:
    """The channel of cases with one scan each: CT where the names of all scans, or of their folders in it, say so."""
    names = ((path.relative_to(root) if path.is_relative_to(root) else path).parts for path in scans)
    said = all("ct" in (word.lower() for part in parts for word in PLAIN.of(part.split(".")[0])) for parts in names)
    return ("CT",) if said else ("image",)
