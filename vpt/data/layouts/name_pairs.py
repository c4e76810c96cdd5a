"""Scans and masks below a folder, told apart and paired by the words of their names.

The way to read the names that pairs most counts: plainly, or where that pairs little more loosely, or by folders.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from vpt.data.cases import case_name
from vpt.data.layouts.named_files import NamedFile, Place, Words, named_files, named_paths
from vpt.data.layouts.naming import PLAIN, WAYS, NameWords

ENOUGH = 0.5  # of the cases, at least: have both where names are not read plainly


@dataclass(frozen=True)
class Pairing:
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


def pair_named(root: Path) -> tuple[list[NamedFile], Pairing]:
    """All scans and masks below a folder, and which belong together."""
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


def _read_by(root: Path, paths: Sequence[Path], words: NameWords) -> tuple[list[NamedFile], Pairing]:
    files = [*named_files(root, paths, words)]
    return files, _paired(files, words)


def _is_likely(read: tuple[list[NamedFile], Pairing]) -> bool:
    _, pairing = read
    return not (_by_chance(pairing) or _crosses(pairing) or _none_shared(pairing))


def _by_chance(pairing: Pairing) -> bool:
    """Whether none or only some of the files find a partner, so that what pairs them is likely chance."""
    scans, masks = len(pairing.scans), len(pairing.masks)
    one_of_all = len(pairing.both) == 1 and min(len(pairing.sequences), len(pairing.labels)) > 1
    return not pairing.both or len(pairing.both) < ENOUGH * max(scans, masks) or one_of_all


def _none_shared(pairing: Pairing) -> bool:
    """Whether what is read as the sequences is another in each case: of `P7/P7` and `P8/P8` P7 and P8."""
    count = sum(len(pairing.scans[case]) for case in pairing.both)
    return 1 < len(pairing.both) <= count == len(pairing.sequences)


def _crosses(pairing: Pairing) -> bool:
    """Whether some mask is called as a scan is, but belongs to others: `images/slice-1` with `mask-1/slice-0`."""
    own = {case: {case_name(file.path) for file in pairing.scans[case].values()} for case in pairing.both}
    every = set[str]().union(*own.values())
    masks = ((case, case_name(file.path)) for case in pairing.both for file in pairing.masks[case].values())
    return any(name in every and name not in own[case] for case, name in masks)


def _paired(files: Sequence[NamedFile], by: NameWords) -> Pairing:
    """The reading of the names that pairs most; of equals the one that takes fewer words for sequences and labels."""
    places: tuple[Place, ...] = ("", "last", "first") if by.loosely else ("", "last")
    readings = [(by_sequence, by_label) for by_label in places for by_sequence in places]
    return max((_read(files, *reading) for reading in readings), key=lambda found: len(found.both))


def _read(files: Sequence[NamedFile], by_sequence: Place, by_label: Place) -> Pairing:
    scans: dict[Words, dict[str, NamedFile]] = defaultdict(dict)
    masks: dict[Words, dict[str, NamedFile]] = defaultdict(dict)
    for file in files:
        case, name = file.split(by_label if file.is_mask else by_sequence)
        if case:
            (masks if file.is_mask else scans)[case].setdefault(name, file)
    return Pairing(scans, masks, by_sequence, by_label)


def case_names(pairing: Pairing) -> list[str]:
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


def first_scan(pairing: Pairing, words: Words) -> NamedFile:
    return next(iter(pairing.scans[words].values()))
