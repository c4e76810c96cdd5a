"""Scans and masks that dataset.json names by patterns of their paths, and that are paired by what `*` stands for.

`"pairs": {"scans": "*/imaging.nii.gz", "masks": "*/segmentation.nii.gz"}`: of every other file nothing is read. What a
pattern of the masks fits is no scan: "*/*_frame*.nii.gz" beside "*/*_frame*_gt.nii.gz". Masks may be a file for each
label, `"masks": {"liver": "*/liver.nii.gz", "tumour": "*/tumour.nii.gz"}`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from vpt.data.cases import Case, SegmentationSet, kind_of
from vpt.data.label_values import BACKGROUND, IGNORE, require_plain_name
from vpt.data.layouts.annotated import is_told, without_masks
from vpt.data.layouts.by_name import only_channel
from vpt.data.layouts.description import (
    PAIRED,
    PAIRS,
    description,
    given_labels,
    read_channels,
    read_patients,
    shown_name,
)
from vpt.data.layouts.image_folders import found_labels, image_channels, labels_of_masks, turned
from vpt.data.layouts.label_masks import label_masks
from vpt.data.layouts.named_files import named_paths
from vpt.data.layouts.sides import said_throughout, without_both
from vpt.data.patients import of_folders, that_differ
from vpt.errors import VptError
from vpt.readers import ColourMask, Kind, LabelFiles
from vpt.words import counted, did_you_mean, listed

UNLABELLED, LEAVE_OUT = "unlabelled", "leave out"  # of scans without a mask
MISSING, ABSENT = "missing", "absent"  # of labels without a file, in a case that has others
KEYS = ("scans", "masks", UNLABELLED, MISSING)

Key = tuple[str, ...]  # what every `*` of a pattern stands for


def is_paired(root: Path) -> bool:
    """Whether a dataset.json pairs scans and masks by patterns; a list of pairs, as registration has, is none."""
    return root.is_dir() and isinstance(description(root / "dataset.json").get(PAIRS), dict)


def survey_pairs(root: Path) -> tuple[SegmentationSet, list[VptError]]:
    """The data set with every case that has all its scans and a mask, and what is wrong with the others.

    Raises VptError where a pattern fits no file, or no scan has a mask.
    """
    source = root / "dataset.json"
    content = description(source)
    said = _said(content[PAIRS], source)
    paths = named_paths(root)
    masks = {label: _matching(root, paths, patterns, source) for label, patterns in said.masks.items()}
    _require_one_label(masks, source)
    found = {key: path for its in reversed(masks.values()) for key, path in its.items()}  # one of each case
    of_masks = {*chain(*map(dict.values, masks.values()))}
    no_masks = [path for path in paths if root / path not in of_masks]
    channels = {name: _matching(root, no_masks, patterns, source) for name, patterns in said.scans.items()}
    problems = [*_alone(channels, found, said)]
    keys = sorted(key for key in found if all(key in its for its in channels.values()))
    if not keys:
        raise VptError(f"{source}: `{PAIRS}` pairs none of the files: {_differ(channels, found)}; {PAIRED}")
    first, shown = next(iter(channels.values())), next(iter(said.scans.values()))
    names = dict(zip(keys, _names([_told(first[key].relative_to(root), shown) for key in keys], source), strict=True))
    of = {names[key]: {label: its[key] for label, its in masks.items() if key in its} for key in keys}
    problems += _incomplete(of, said, content)
    kind = _one_kind([its[key] for its in channels.values() for key in keys], source)
    labels, read = _labelled(root, content, of, kind, problems)
    cases = tuple(
        Case(names[key], tuple(its[key] for its in channels.values()), read[names[key]])
        for key in sorted(keys, key=names.__getitem__)
    )
    problems += turned(cases) if kind == "images" else ()
    lie = {case.name: case.images[0].relative_to(root) for case in cases}
    folders = {name: path.parts[:-1] for name, path in lie.items()}
    return SegmentationSet(
        root,
        shown_name(content, root),
        _channels(root, content, list(channels), [path for case in cases for path in case.images], kind),
        labels,
        cases,
        read_patients(content, source, {case.name for case in cases}),
        kind,
        without_both(said_throughout(lie), lie),
        guess=_left_out(channels, found, said),
        stems=of_folders(that_differ(folders)),
    ), problems


@dataclass(frozen=True)
class _Said:
    """Channel ("" for the only one) -> patterns of its scans; label ("" for masks of all labels) -> patterns of its
    masks; leaves_out: scans without a mask; is_absent: a label of which a case has no mask, but of others.
    """

    scans: dict[str, list[str]]
    masks: dict[str, list[str]]
    leaves_out: bool
    is_absent: bool


def _said(given: Mapping[str, Any], source: Path) -> _Said:
    """What `pairs` says. Raises VptError for what is not understood."""
    if unknown := [key for key in given if key not in KEYS]:
        meant = did_you_mean(unknown[0], KEYS) or f"; there are {', '.join(KEYS)}"
        raise VptError(f"{source}: nothing reads `{unknown[0]}` in `{PAIRS}`{meant}")
    for key, value in ((UNLABELLED, LEAVE_OUT), (MISSING, ABSENT)):
        if given.get(key, value) != value:
            raise VptError(f'{source}: `{key}` is {given[key]!r} in `{PAIRS}`; expected "{value}", or take it out')
    masks = _patterns(given.get("masks"), source)
    for label in () if "" in masks else masks:
        require_plain_name(label, source)
        if label in (BACKGROUND, IGNORE):
            raise VptError(f"{source}: `{PAIRS}` names masks of {label}; expected those of labels")
    if MISSING in given and "" in masks:
        raise VptError(
            f'{source}: `{MISSING}` in `{PAIRS}` is of masks of a file for each label, "masks": {{"NAME": "*.png"}}; '
            "take it out"
        )
    return _Said(_patterns(given.get("scans"), source), masks, UNLABELLED in given, MISSING in given)


def _patterns(given: Any, source: Path) -> dict[str, list[str]]:
    """Name ("" where there is one) -> patterns."""
    named: dict[Any, Any] = given if isinstance(given, dict) else {"": given}
    lists: list[Any] = [[each] if isinstance(each, str) else each for each in named.values()]
    named_all = not isinstance(given, dict) or all(name.strip() for name in given)  # "" would be of all labels
    listed_all = all(isinstance(each, list) and each and {*map(type, each)} == {str} for each in lists)
    if not (named and named_all and listed_all):
        raise VptError(
            f"{source}: `{PAIRS}` is not understood; expected {PAIRED}, each a pattern of paths or a list of them; of "
            'several channels "scans": {"T1": "*/t1.nii.gz", "T2": "*/t2.nii.gz"}, of a file for each label "masks": '
            '{"liver": "*/liver.nii.gz", "tumour": "*/tumour.nii.gz"}'
        )
    return dict(zip(map(str, named), lists, strict=True))


def _labelled(
    root: Path, content: dict[str, Any], of: Mapping[str, Mapping[str, Path]], kind: Kind, problems: list[VptError]
) -> tuple[dict[int, str], Mapping[str, Path | ColourMask | LabelFiles]]:
    """The labels, and what each case's are read from. of: case -> label ("" for all) -> file."""
    source = root / "dataset.json"
    given = given_labels(content, source)
    if not all("" in its for its in of.values()):
        return label_masks(of, given, source)
    whole = {name: its[""] for name, its in of.items()}
    if kind == "images":
        return labels_of_masks(root, whole, given, problems)
    return given or found_labels(root, list(whole.values()), problems), whole


def _one_kind(scans: Sequence[Path], source: Path) -> Kind:
    kinds = {kind_of(scan) for scan in scans}
    if len(kinds) > 1:
        raise VptError(f"{source}: `{PAIRS}` names images and volumes; give patterns of one kind")
    return "images" if kinds == {"images"} else "volumes"


def _matching(root: Path, paths: Sequence[Path], patterns: Sequence[str], source: Path) -> dict[Key, Path]:
    """What `*` stands for -> the file. Raises VptError for a pattern that no file fits, and two files of one case."""
    found: dict[Key, Path] = {}
    for pattern in patterns:
        fits = _compiled(pattern)
        its = {path: match.groups() for path in paths if (match := fits.fullmatch(path.as_posix()))}
        if not its:
            some = listed((path.as_posix() for path in paths), 2) or "none"
            raise VptError(f"{source}: `{PAIRS}` names {pattern}, which no file fits; files here are {some}")
        for path, key in its.items():
            if (other := found.setdefault(key, root / path)) != root / path:
                raise VptError(
                    f"{source}: `{PAIRS}` names {path} and {other.relative_to(root)} for one case "
                    f"({'/'.join(key) or 'no *'}); give patterns that one of them fits"
                )
    return found


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*+)", pattern)
    return re.compile("".join({"*": "([^/]*)", "**": ".*"}.get(part, re.escape(part)) for part in parts))


def _told(path: Path, patterns: Sequence[str]) -> Key:
    """What `*` stands for, with what is between two of one name: `p1_s2` of `*_s*`, which says whose it is."""
    text = path.as_posix()
    match = next(match for pattern in patterns if (match := _compiled(pattern).fullmatch(text)))
    spans: list[tuple[int, int]] = []
    for start, end in match.regs[1:]:
        joined = bool(spans) and "/" not in text[spans[-1][1] : start]
        spans.append((spans.pop()[0] if joined else start, end))
    return tuple(text[start:end] for start, end in spans)


def _names(told: Sequence[Key], source: Path) -> list[str]:
    """Of the cases: the last of their places that tells all apart, else all of them.

    Raises VptError where these say nothing, or the same of two cases.
    """
    for at in range(-1, -min(map(len, told)) - 1, -1):
        names = [places[at] for places in told]
        if all(names) and len({*names}) == len(names):
            return names
    names = ["_".join(places) for places in told]
    if not all(names):
        raise VptError(f"{source}: `{PAIRS}` has no `*`, or it stands for nothing; put it where a case's name is")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise VptError(f"{source}: `{PAIRS}` calls two cases {twice[0]}; rename the folders or files of one of them")
    return names


def _require_one_label(masks: Mapping[str, Mapping[Key, Path]], source: Path) -> None:
    """Raise VptError for a file that the patterns of two labels fit."""
    label_of: dict[Path, str] = {}
    for label, its in masks.items():
        for path in its.values():
            if (other := label_of.setdefault(path, label)) != label:
                raise VptError(
                    f"{source}: `{PAIRS}` names {path.relative_to(source.parent)} as a mask of {other} and of {label}; "
                    "give patterns that are of one label each"
                )


def _alone(channels: Mapping[str, Mapping[Key, Path]], masks: Mapping[Key, Path], said: _Said) -> Iterator[VptError]:
    """Scans and masks without each other: an error for each kind of what lacks."""
    sides = [*((f"scan{f' of {name}' if name else ''}", its) for name, its in channels.items()), ("mask", masks)]
    every = masks.keys() if said.leaves_out else {key for _, its in sides for key in its}
    for what, its in sides:
        if lacking := sorted(every - its.keys()):
            have = next(other[lacking[0]] for _, other in sides if lacking[0] in other)
            others = f" and {counted(len(lacking) - 1, 'other')}" if len(lacking) > 1 else ""
            text = f"no {what} by `{PAIRS}`{others}; add what lacks, or name fewer by the patterns"
            leave = f', or leave them out with "{UNLABELLED}": "{LEAVE_OUT}" in `{PAIRS}`' if what == "mask" else ""
            yield VptError(f"{have}: {text}{leave}")


def _left_out(channels: Mapping[str, Mapping[Key, Path]], masks: Mapping[Key, Path], said: _Said) -> str:
    """In words, which scans are left out since they have no mask; "" for none."""
    keys = {key for its in channels.values() for key in its} - masks.keys() if said.leaves_out else set()
    if not keys:
        return ""
    shown = listed(("/".join(key) for key in sorted(keys)), 3)
    return f"paired by dataset.json; left out, as it says: {counted(len(keys), 'case')} without a mask ({shown})"


def _incomplete(of: Mapping[str, Mapping[str, Path]], said: _Said, content: dict[str, Any]) -> Iterator[VptError]:
    """Cases that lack the mask of a label, where nothing says who looked for it, or that it is absent: one error."""
    lacking = {
        name: [label for label in said.masks if label not in its]
        for name, its in of.items()
        if len(its) < len(said.masks) and not (said.is_absent or is_told(content, name))
    }
    if lacking:
        name, missing = next(iter(lacking.items()))
        all_of = f"{counted(len(lacking), 'case')} that {'lacks' if len(lacking) == 1 else 'lack'} one"
        yield VptError(
            f"{next(iter(of[name].values()))}: {without_masks(name, [*of[name]], missing)}; or of {all_of} say "
            f'"{MISSING}": "{ABSENT}" in `{PAIRS}`, if such labels are not in them'
        )


def _differ(channels: Mapping[str, Mapping[Key, Path]], masks: Mapping[Key, Path]) -> str:
    shown = ["/".join(next(iter(its))) for its in (*channels.values(), masks)]
    return f"`*` stands for {shown[0]} in the first scan, and for {shown[-1]} in the first mask"


def _channels(
    root: Path, content: dict[str, Any], names: Sequence[str], scans: Sequence[Path], kind: Kind
) -> tuple[str, ...]:
    if kind == "images":
        return image_channels(content, root / "dataset.json", scans)
    if names != [""]:
        return tuple(names)
    if content.keys() & {"channel_names", "modality"}:
        return read_channels(content, root / "dataset.json")
    return only_channel(root, scans)
