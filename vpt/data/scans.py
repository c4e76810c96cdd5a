"""Scans and images to predict, by the names of their files and folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from vpt.data.cases import (
    Case,
    case_name,
    channel_files,
    channel_suffix,
    group_channels,
    kind_of,
    raise_first,
    scan_files,
)
from vpt.data.doubts.left_out import left_out, unread_beside
from vpt.data.walking import Walk
from vpt.errors import VptError
from vpt.readers import SUPPORTED
from vpt.readers.content import other_content
from vpt.words import listed


def find_scans(path: str | Path | Sequence[str | Path], channels: int, series: str | None = None) -> tuple[Case, ...]:
    """Cases to predict, sorted by name: one file, a list of files, or a folder of them.

    Of its subfolders only those that are scans themselves, DICOM series, each called by its folder's name; series: see
    `Case`.

    The files are NIfTI or images, not both; an image is a case of its own.
    Files CASE_0000, CASE_0001, ... are the channels of CASE. With one channel a lone `_0000` is dropped from the name,
    but files that differ only in those digits are cases of their own. A file without such a suffix is a whole scan
    (4-D if `channels` > 1), unless a list of exactly `channels` plain files is given: then they are one scan.
    """
    paths = [Path(path)] if isinstance(path, str | Path) else [Path(item) for item in path]
    what = ", ".join(map(str, paths)) or "no path at all"
    if missing := [item for item in paths if not item.exists()]:
        raise VptError(f"{missing[0]}: no such file or folder; give a NIfTI file, an image or a folder of them")
    files = [file for item in paths for file in scans_at(item)]
    if wrong := [file for file in files if kind_of(file) is None]:
        raise other_content(wrong[0]) or VptError(f"{wrong[0]}: not a supported ending; {SUPPORTED}")
    if not files:
        inner = [name for name in ("imagesTs", "imagesTr", "images") if len(paths) == 1 and (paths[0] / name).is_dir()]
        hint = f"; did you mean {paths[0] / inner[0]}?" if inner else ""
        unread = unread_beside(paths[0]) if len(paths) == 1 and not hint else ""
        raise VptError(f"{what}: no scans found, {SUPPORTED}{hint}{unread}")
    images = [file for file in files if kind_of(file) == "images"]
    if images and len(images) < len(files):
        volume = next(file for file in files if kind_of(file) == "volumes")
        raise VptError(f"{what}: {images[0].name} is an image and {volume.name} a NIfTI; give one kind at a time")
    if images:
        return image_cases(images)
    if len(paths) == 1 and not paths[0].is_dir() and channels > 1:
        files = list(channel_files(paths[0], channels))
    elif 1 < channels == len(files) == len(paths) and not any(channel_suffix(file) for file in files):
        return (Case(case_name(files[0]), tuple(files), None, series),)
    groups, problems = group_channels(files, channels)
    raise_first(problems, "give every scan all of its channels")
    return tuple(Case(name, groups[name], None, series) for name in sorted(groups))


def scans_at(path: Path) -> list[Path]:
    """A folder may be one scan, or hold many; where it holds none, those that lie deeper, as DICOM is exported."""
    if not path.is_dir() or kind_of(path) is not None:
        return [path]
    return scan_files(path) or series_below(path)


def series_below(path: Path) -> list[Path]:
    """Folders below one, at any depth, that are scans themselves, as DICOM series are."""
    return sorted(folder for folder in Walk(path).folders() if folder != path and kind_of(folder))


def series_left_out(path: Path) -> list[str]:
    """Of a folder that is a scan, a DICOM series: those below it, which are scans of their own, as sentences."""
    found = series_below(path) if path.is_dir() and kind_of(path) is not None else []
    if not found:
        return []
    shown = listed((each.relative_to(path).as_posix() for each in found), 3)
    return [
        f"{len(found)} more DICOM series below it {'is' if len(found) == 1 else 'are'} not read: {shown}; add "
        "--recursive, or give each by itself"
    ]


def unread_scans(
    path: str | Path, channels: int, out: Path, read: Iterable[Path] | None = None, *, recursive: bool = False
) -> list[str]:
    """What lies in a folder of scans to predict and is none of them, as sentences; `out`: where the masks go.

    read: the files that are scans, by default those that `find_scans` finds; recursive: with those in its subfolders.
    """
    folder = Path(path)
    if not folder.is_dir():
        return []
    if kind_of(folder) is not None and not recursive:
        return series_left_out(folder)
    if read is None:
        read = [file for case in find_scans(folder, channels) for file in case.images]
    found = left_out(folder, list(read), nested=not recursive)
    made = os.path.abspath(out)
    files, nested = (
        tuple(file for file in each if not Path(os.path.abspath(file)).is_relative_to(made))
        for each in (found.files, found.nested)
    )
    return replace(found, files=files, nested=nested).sentences()


def image_cases(files: Iterable[Path]) -> tuple[Case, ...]:
    groups, problems = each_image(files)
    raise_first(problems, "rename them")
    return tuple(Case(name, groups[name], None) for name in sorted(groups))


def each_image(files: Iterable[Path]) -> tuple[dict[str, tuple[Path, ...]], list[VptError]]:
    """Every image a case of its own -> case name -> its file, and what is wrong: a name used twice."""
    found: dict[str, tuple[Path, ...]] = {}
    problems = []
    for path in files:
        name = case_name(path)
        if name in found:
            problems.append(VptError(f"{path}: the second image called {name}; keep one of the two or rename it"))
        else:
            found[name] = (path,)
    return found, problems
