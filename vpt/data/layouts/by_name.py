"""Scans and masks without a description, told apart and paired by their names, wherever they lie below a folder.

`images/` beside `labels/`, `pat01_T1.nii.gz` beside `pat01_seg.nii.gz`, a folder per patient, a file per label
(`s01/segmentations/liver.nii.gz`): a name is taken apart into words; those that say "mask" or "image" are no part of
the case, and at most one more at its end says which sequence a scan is, or which label a mask holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vpt.data.cases import Case, SegmentationSet, kind_of
from vpt.data.layouts.badly_paired import incomplete, left_over, require_shared_labels
from vpt.data.layouts.description import (
    case_in_words,
    description,
    given_labels,
    read_channels,
    read_patients,
    shown_name,
)
from vpt.data.layouts.image_folders import found_labels, image_channels, labels_of_masks, turned
from vpt.data.layouts.label_masks import label_masks
from vpt.data.layouts.name_pairs import Pairing, case_names, first_scan, pair_named
from vpt.data.layouts.named_files import NamedFile, Words
from vpt.data.layouts.naming import PLAIN
from vpt.data.layouts.sides import said_throughout, without_both
from vpt.data.patients import of_folders, that_differ
from vpt.errors import VptError
from vpt.readers import ColourMask, Kind, LabelFiles


def is_told_by_names(root: Path) -> bool:
    """Whether scans and masks can be told apart and paired by their names."""
    return root.is_dir() and bool(pair_named(root)[1].both)


def survey_by_name(root: Path) -> tuple[SegmentationSet, list[VptError]]:
    """The data set with every case that has a scan and a mask, and all that is wrong with the pairing of its files.

    A dataset.json may name channels, labels and patients. Raises VptError where the labels cannot be told.
    """
    source = root / "dataset.json"
    content, (files, pairing) = description(source), pair_named(root)
    require_shared_labels(pairing, content)
    problems = [*left_over(files, pairing), *incomplete(pairing, content)]
    kinds = {kind_of(file.path) for case in pairing.both for file in pairing.scans[case].values()}
    if len(kinds) > 1:
        problems.append(VptError(f"{root}: images and volumes among the scans; keep one kind, take the others out"))
    flat = kinds == {"images"}
    labels, masks = _labelled(root, content, pairing, flat, problems)
    order = _in_order(pairing, content, source)
    cases = tuple(
        Case(name, tuple(pairing.scans[words][k].path for k in order if k in pairing.scans[words]), masks[words])
        for words, name in zip(pairing.both, case_names(pairing), strict=True)
    )
    problems += turned(cases) if flat else ()
    channels = _channels(root, content, pairing, flat)
    kind: Kind = "images" if flat else "volumes"
    scans = {case.name: first_scan(pairing, words) for case, words in zip(cases, pairing.both, strict=True)}
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


def _labelled(
    root: Path, content: dict[str, Any], pairing: Pairing, flat: bool, problems: list[VptError]
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


def _sides(root: Path, scans: Mapping[str, NamedFile]) -> dict[str, str]:
    """Case -> its side, as a folder is called, or where none is as words of folders or names say of every case."""
    called = {name: scan.side for name, scan in scans.items() if scan.side}
    if len(called) == len(scans) and len({*called.values()}) == 1:  # what all lie in parts nobody
        called = {}
    paths = {name: scan.path.relative_to(root) for name, scan in scans.items()}
    return without_both(called or said_throughout(paths), paths)


def _channels(root: Path, content: dict[str, Any], pairing: Pairing, flat: bool) -> tuple[str, ...]:
    """What dataset.json says, else the sequences' names; of one scan a case CT where all names or folders say so."""
    scans = [file.path for case in pairing.both for file in pairing.scans[case].values()]
    if flat:
        return image_channels(content, root / "dataset.json", scans)
    if content.keys() & {"channel_names", "modality"}:
        return read_channels(content, root / "dataset.json")
    if len(pairing.sequences) > 1:
        return tuple(pairing.sequences)
    return only_channel(root, scans)


def _in_order(pairing: Pairing, content: dict[str, Any], source: Path) -> list[str]:
    """The sequences as dataset.json names the channels, where these are the same words; else by their names."""
    called = {sequence.casefold(): sequence for sequence in pairing.sequences}
    named = [name.casefold() for name in read_channels(content, source)] if content.get("channel_names") else []
    return [called[name] for name in named] if sorted(named) == sorted(called) else pairing.sequences


def only_channel(root: Path, scans: Sequence[Path]) -> tuple[str, ...]:
    """The channel of cases with one scan each: CT where the names of all scans, or of their folders in it, say so."""
    names = ((path.relative_to(root) if path.is_relative_to(root) else path).parts for path in scans)
    said = all("ct" in (word.lower() for part in parts for word in PLAIN.of(part.split(".")[0])) for parts in names)
    return ("CT",) if said else ("image",)
