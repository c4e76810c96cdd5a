"""Scans and masks that dataset.json names by patterns of their paths, and that are paired by what `*` stands for.

`"pairs": {"scans": "*/imaging.nii.gz", "masks": "*/segmentation.nii.gz"}`: of every other file nothing is read. What a
pattern of the masks fits is no scan: "*/*_frame*.nii.gz" beside "*/*_frame*_gt.nii.gz".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from vpt.data.cases import Case, SegmentationSet, kind_of
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
from vpt.data.layouts.named_files import named_paths
from vpt.data.layouts.sides import said_throughout, without_both
from vpt.data.patients import of_folders, that_differ
from vpt.errors import VptError
from vpt.readers import ColourMask, Kind
from vpt.words import counted, listed

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
    scans, masks = _patterns(content[PAIRS], source)
    paths = named_paths(root)
    found = _matching(root, paths, masks, source)
    are_masks = {*found.values()}
    no_masks = [path for path in paths if root / path not in are_masks]
    channels = {name: _matching(root, no_masks, patterns, source) for name, patterns in scans.items()}
    problems = [*_alone(channels, found)]
    keys = sorted(key for key in found if all(key in its for its in channels.values()))
    if not keys:
        raise VptError(f"{source}: `{PAIRS}` pairs none of the files: {_differ(channels, found)}; {PAIRED}")
    first, shown = next(iter(channels.values())), next(iter(scans.values()))
    names = dict(zip(keys, _names([_told(first[key].relative_to(root), shown) for key in keys], source), strict=True))
    kind = _one_kind([its[key] for its in channels.values() for key in keys], source)
    given, of = given_labels(content, source), {names[key]: found[key] for key in keys}
    read: Mapping[str, Path | ColourMask] = of
    if kind == "images":
        labels, read = labels_of_masks(root, of, given, problems)
    else:
        labels = given or found_labels(root, list(of.values()), problems)
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
        stems=of_folders(that_differ(folders)),
    ), problems


def _one_kind(scans: Sequence[Path], source: Path) -> Kind:
    kinds = {kind_of(scan) for scan in scans}
    if len(kinds) > 1:
        raise VptError(f"{source}: `{PAIRS}` names images and volumes; give patterns of one kind")
    return "images" if kinds == {"images"} else "volumes"


def _patterns(given: Any, source: Path) -> tuple[dict[str, list[str]], list[str]]:
    """Channel ("" for the only one) -> patterns of its scans, and those of masks."""
    scans, masks = (given.get(key) for key in ("scans", "masks")) if isinstance(given, dict) else (None, None)
    channels: dict[Any, Any] = scans if isinstance(scans, dict) else {"": scans}
    lists: list[Any] = [[each] if isinstance(each, str) else each for each in (*channels.values(), masks)]
    if not channels or not all(isinstance(each, list) and each and {*map(type, each)} == {str} for each in lists):
        raise VptError(
            f"{source}: `{PAIRS}` is not understood; expected {PAIRED}, each a pattern of paths or a list of them; of "
            'several channels "scans": {"T1": "*/t1.nii.gz", "T2": "*/t2.nii.gz"}'
        )
    return dict(zip(map(str, channels), lists[:-1], strict=True)), lists[-1]


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


def _alone(channels: Mapping[str, Mapping[Key, Path]], masks: Mapping[Key, Path]) -> Iterator[VptError]:
    """Scans and masks without each other: an error for each kind of what lacks."""
    sides = [*((f"scan{f' of {name}' if name else ''}", its) for name, its in channels.items()), ("mask", masks)]
    every = {key for _, its in sides for key in its}
    for what, its in sides:
        if lacking := sorted(every - its.keys()):
            have = next(other[lacking[0]] for _, other in sides if lacking[0] in other)
            others = f" and {counted(len(lacking) - 1, 'other')}" if len(lacking) > 1 else ""
            yield VptError(f"{have}: no {what} by `{PAIRS}`{others}; add what lacks, or name fewer by the patterns")


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
