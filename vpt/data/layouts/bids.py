"""BIDS: scans of subjects and sessions, and masks of them in `derivatives`, beside the scans or in any other folder.

Of a mask, the scans are those of its subject and session in its own folder, else the raw ones; each sequence is a
channel. One kind of masks is read: `_dseg` or a `_mask`, or masks of several labels (`label-`), a file for each.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vpt.data.cases import Case, SegmentationSet, kind_of
from vpt.data.layouts.annotated import is_told, without_masks
from vpt.data.layouts.bids_files import OF_A_CASE, BidsFile, bids_files, chosen_by, has_subjects
from vpt.data.layouts.bids_scans import BidsMask, Masks, sequences_of
from vpt.data.layouts.bids_tables import labels_in_tables, participants
from vpt.data.layouts.description import (
    case_in_words,
    description,
    given_labels,
    read_channels,
    read_patients,
    shown_name,
)
from vpt.data.layouts.image_folders import found_labels, image_channels, labels_of_masks, turned
from vpt.errors import VptError
from vpt.readers import ColourMask, Kind, LabelFiles
from vpt.words import counted, listed

CHOOSE = "the one that counts is named in dataset.json"


def is_bids(root: Path) -> bool:
    """Whether a folder holds BIDS' folders of subjects, with masks or without."""
    return root.is_dir() and has_subjects(root) and bool(bids_files(root))


def survey_bids(root: Path) -> tuple[SegmentationSet, list[VptError]]:
    """The data set with every case that has scans and a mask, and all that is wrong with the others.

    A dataset.json may name channels, labels and patients, and with `bids` which files are scans and masks. Raises
    VptError where there is no mask, or several kinds of them, and where the labels cannot be told.
    """
    source = root / "dataset.json"
    content = description(source)
    chosen = chosen_by(content, source)
    files = bids_files(root, chosen)
    masks = _one_kind(root, _masks(files), chosen="masks" in chosen)
    problems: list[VptError] = []
    scans, elsewhere = sequences_of(masks, [file for file in files if file.is_scan], problems)
    sequences = sorted(next(iter(scans.values())))
    cases = [Case(name, tuple(its[each].path for each in sequences), None) for name, its in scans.items()]
    flat = {kind_of(case.images[0]) for case in cases} == {"images"}
    labels, read = _labelled(root, content, {name: masks[name] for name in scans}, flat, problems)
    whole = tuple(replace(case, label=read[case.name]) for case in cases)
    problems += turned(whole) if flat else ()
    said = {name: found[0].file.subject for name, found in masks.items() if name in scans}
    kind: Kind = "images" if flat else "volumes"
    channels = _channels(content, source, whole, sequences, flat)
    return SegmentationSet(
        root,
        shown_name(content, root),
        channels,
        labels,
        whole,
        said | read_patients(content, source, said),
        kind,
        guess="read as BIDS: " + case_in_words(root, whole[0], len(whole), channels, _left(files, masks, elsewhere)),
        columns=participants(root, said),
    ), problems


# --- masks ------------------------------------------------------------------------------------------------------------


def _masks(files: Sequence[BidsFile]) -> list[BidsMask]:
    scans = {file.name for file in files if file.is_scan}
    found = []
    for file in (file for file in files if file.is_mask):
        ends = (("_".join(file.words[:k]), k) for k in range(len(file.words) - 1, 1, -1))
        scan, k = next(((name, k) for name, k in ends if name in scans), ("", 0))
        rest = [word for word in file.words[k:] if word.partition("-")[0] not in ("label", *OF_A_CASE)]
        found.append(BidsMask(file, scan, f"{file.pipeline}/{'_'.join(rest)}", file.entities.get("label", "")))
    return found


def _one_kind(root: Path, masks: Sequence[BidsMask], chosen: bool) -> dict[str, list[BidsMask]]:
    """Case -> its masks, all of one kind; several only if each is of a label of its own.

    chosen: whether dataset.json names them; then their names may differ in more, as long as each label has one mask.
    """
    if not masks:
        raise VptError(
            f"{root}: subjects of BIDS (sub-...), but no mask of them: no file called ..._mask, ..._dseg or ..._seg in "
            "derivatives or beside the scans; add the masks, or to classify, a labels.csv with `path` and `label`"
        )
    kinds, often = Counter(mask.kind for mask in masks), Counter((mask.case, mask.label) for mask in masks)
    if chosen and (twice := [case for (case, label), count in often.items() if count > 1]):
        its = sorted(mask.file.path.relative_to(root).as_posix() for mask in masks if mask.case == twice[0])
        raise VptError(
            f"{root / 'dataset.json'}: `bids` names {counted(len(its), 'mask')} of {twice[0]} ({listed(its, 3)}), "
            "expected one of each label; give a pattern of `masks` that one of them fits"
        )
    if len(kinds) > 1 and not chosen:
        few = {kind: next(mask for mask in masks if mask.kind == kind) for kind in sorted(kinds)}
        shown = listed((f"{_pattern(mask, root)} ({kinds[kind]})" for kind, mask in few.items()), 6)
        first = _pattern(next(iter(few.values())), root)
        raise VptError(
            f"{root}: {len(kinds)} kinds of masks: {shown}; {CHOOSE}: "
            f'"bids": {{"masks": "{first}"}} (a pattern of paths, or a list of them)'
        )
    cases: dict[str, list[BidsMask]] = defaultdict(list)
    for mask in sorted(masks, key=lambda mask: mask.file.path):
        cases[mask.case].append(mask)
    return dict(sorted(cases.items()))


def _pattern(mask: BidsMask, root: Path) -> str:
    """Of the paths of all masks of its kind, as far as names tell."""
    parts = mask.file.path.relative_to(root).parts
    top = "/".join(parts[: next(k for k, part in enumerate(parts) if part == mask.file.subject)])
    ending = mask.file.path.name[len(mask.file.name) :]
    return f"{top + '/' if top else ''}*_{mask.kind.partition('/')[2]}{ending}"


def _labelled(
    root: Path, content: dict[str, Any], masks: Masks, flat: bool, problems: list[VptError]
) -> tuple[dict[int, str], Mapping[str, Path | ColourMask | LabelFiles]]:
    """The labels, and what each case's are read from."""
    names = sorted({mask.label for found in masks.values() for mask in found})
    if len(names) > 1 or any(len(found) > 1 for found in masks.values()):
        return _in_own_files(masks, names, content, problems)
    paths = {case: found[0].file.path for case, found in masks.items()}
    given = given_labels(content, root / "dataset.json") or labels_in_tables(root, list(paths.values()))
    if flat:
        return labels_of_masks(root, paths, given, problems)
    labels = given or found_labels(root, list(paths.values()), problems)
    if not given and names != [""] and len(labels) == 2:
        labels = {id: names[0] if id else name for id, name in labels.items()}
    return labels, paths


def _in_own_files(
    masks: Masks, names: Sequence[str], content: dict[str, Any], problems: list[VptError]
) -> tuple[dict[int, str], Mapping[str, LabelFiles]]:
    """A file for every label; a case that lacks one has nothing of it, or nobody looked: dataset.json says which."""
    ids = {name: id for id, name in enumerate(names, start=1)}
    if "" in ids:
        some = next(mask for found in masks.values() for mask in found if not mask.label)
        raise VptError(f"{some.file.path}: no `label-` in its name, as other masks have; rename it, or take it out")
    found: dict[str, LabelFiles] = {}
    for case, its in masks.items():
        of = {mask.label: mask.file.path for mask in reversed(its)}
        for mask in its:
            if of[mask.label] != mask.file.path:
                problems.append(VptError(f"{mask.file.path}: the second mask of {mask.label} of {case}; keep one"))
        missing = [name for name in names if name not in of]
        if missing and not is_told(content, case):
            problems.append(VptError(f"{its[0].file.path}: {without_masks(case, sorted(of), missing)}"))
        found[case] = LabelFiles(tuple((path, ids[name]) for name, path in sorted(of.items())))
    return {0: "background", **{id: name for name, id in ids.items()}}, found


def _channels(
    content: dict[str, Any], source: Path, cases: Sequence[Case], sequences: Sequence[str], flat: bool
) -> tuple[str, ...]:
    if flat:
        return image_channels(content, source, [path for case in cases for path in case.images])
    if content.keys() & {"channel_names", "modality"}:
        return read_channels(content, source)
    return tuple(sequences)


# --- what was read ----------------------------------------------------------------------------------------------------


def _left(files: Sequence[BidsFile], masks: Masks, elsewhere: Sequence[str]) -> str:
    """What is left out: subjects that have scans, but no mask, and sequences on another grid."""
    masked = {mask.file.subject for found in masks.values() for mask in found}
    without = sorted({file.subject for file in files if file.is_scan} - masked)
    left = f"; left out: {counted(len(without), 'subject')} without a mask ({listed(without, 3)})" if without else ""
    return left + (f"; left out: {listed(elsewhere)}, on another grid than the masks" if elsewhere else "")
