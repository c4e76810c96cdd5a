"""Which scans an archive holds: of one place or several, with subfolders or without; and what is no scan, in words."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from vpt.data.cases import (
    Case,
    case_name,
    channel_suffix,
    group_channels,
    kind_of,
    scan_files,
    unfit_name,
    without_suffix,
)
from vpt.data.scans import each_image, find_scans, scans_at, series_below, series_left_out, unread_scans
from vpt.data.walking import Walk, folders_in
from vpt.errors import VptError
from vpt.files import real, spelled
from vpt.readers import Kind, format_of
from vpt.readers.dicom.reader import DicomReader
from vpt.readers.dicom.scanless import scanless
from vpt.use.archives.attempts import Failure
from vpt.use.archives.beside import EVERYTHING
from vpt.use.archives.bids_folders import join_datatypes, without_derived_masks
from vpt.use.archives.masks_beside import told_of_folders, told_of_masks, without_mask_folders, without_masks
from vpt.use.archives.named_channels import by_channel_names
from vpt.use.archives.records import answers_in
from vpt.words import counted, listed

MOST_CHANNELS = 4  # sequences of one scan: with more files of one name these are numbered scans


@dataclass(frozen=True)
class Found:
    """Cases in order of their names, those that cannot be put together, and what is left out, as sentences.

    files: all scans that lie there, also of failures and of what is left out.
    """

    cases: tuple[Case, ...]
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()


def find_archive(
    inputs: Sequence[Path],
    kind: Kind,
    channels: int | Sequence[str],
    out: Path,
    series: str | None = None,
    recursive: bool = False,
) -> Found:
    """Scans of that kind at all the inputs; one that lacks a channel is a failure, and stops no other.

    channels: how many, or what a model's are called, in order: files in folders are put together by these names too.
    recursive: with their subfolders, also those of a DICOM series; a case is then called by its path in the folder.
    out: where answers go, which may lie inside.

    Raises:
        VptError: a place that is not there, no scan at all, two of one name.
    """
    names = () if isinstance(channels, int) else tuple(channels)
    channels = channels if isinstance(channels, int) else len(channels)
    more = any(_holds_more(path, recursive) for path in inputs)
    if more or channels == 1:  # else a sequence may be given twice, in the place of one that was not taken
        inputs = list({os.path.abspath(path): path for path in inputs}.values())
    if not more:
        return _named_well(_given_one_by_one(inputs, channels, series))
    if missing := [path for path in inputs if not path.exists()]:
        raise VptError(f"{missing[0]}: no such file or folder; give a scan or a folder of them")
    once: dict[str, tuple[str, Path]] = {}  # where inputs overlap
    for path in inputs:
        for prefix, file in _files_at(path, out, recursive):
            once.setdefault(os.path.abspath(file), (prefix, file))
    files = list(once.values())
    if not files:
        _given_one_by_one(inputs, channels, series)  # which says why, where it can
        raise VptError(f"{listed(inputs, 3)}: no scans found")
    fitting = [(prefix, file) for prefix, file in files if kind_of(file) == kind]
    notes = _of_another_kind(len(files) - len(fitting), kind) if fitting else []
    taken, answers = _without_answers(fitting or files)
    taken, derived = without_derived_masks(taken)
    cases, failures, others = _grouped(taken, channels, names, series)
    cases, masks = without_masks(cases, [failure.name for failure in failures])
    masks += [Case(case_name(file), (file,), None) for file in derived]
    cases, failures, folders = without_mask_folders(cases, failures)
    cases, scanless = _without_scanless(cases)
    read = [image for case in (*cases, *masks, *scanless) for image in case.images]
    read += [file for prefix, file in files]
    unread = [
        f"{path}: {text}" for path in inputs for text in unread_scans(path, channels, out, read, recursive=recursive)
    ]
    notes += [
        *_told_of_numbers(cases),
        *told_of_masks(masks),
        *told_of_folders(folders),
        *_told_of_others(others),
        *_told_of(scanless),
    ]
    notes += [*_told_as_answers(answers), *unread]
    every = tuple(file for _, file in files if file not in answers)
    return _named_well(Found(tuple(cases), tuple(failures), tuple(notes), every))


def _given_one_by_one(inputs: Sequence[Path], channels: int, series: str | None) -> Found:
    """Scans that were named themselves."""
    scans = find_scans(inputs[0] if len(inputs) == 1 else list(inputs), channels, series)
    below = [f"{path}: {text}" for path in inputs for text in series_left_out(path)]
    notes = (*_told_of_numbers(scans), *below)
    return Found(scans, (), notes, tuple(file for case in scans for file in case.images))


def _holds_more(path: Path, recursive: bool) -> bool:
    """Whether it is a folder of scans, and no scan itself, or one with others below that are asked for."""
    return path.is_dir() and (kind_of(path) is None or (recursive and bool(series_below(path))))


def _named_well(found: Found) -> Found:
    """Scans whose names no answer can be called by are failures."""
    unfit = {case.name: what for case in found.cases if (what := unfit_name(case.name))}
    cases = tuple(case for case in found.cases if case.name not in unfit)
    failures = [Failure(spelled(name), f"{spelled(name)}: the name {what}; rename it") for name, what in unfit.items()]
    return replace(found, cases=cases, failures=(*found.failures, *failures))


def _files_at(path: Path, out: Path, recursive: bool) -> Iterator[tuple[str, Path]]:
    """Scans, each with the folder that its name begins with."""
    made = real(out)
    if not recursive or not path.is_dir():
        yield from (("", file) for file in scans_at(path) if real(file) != made)
        return
    if kind_of(path) is not None:
        yield "", path
    for folder in Walk(path, apart=made).folders():
        prefix = "" if folder == path else f"{folder.relative_to(path).as_posix()}/"
        inside = scan_files(folder) if kind_of(folder) is None else filter(kind_of, folders_in(folder))  # no slices
        yield from ((prefix, file) for file in inside if real(file) != made)


def _grouped(
    files: Sequence[tuple[str, Path]], channels: int, names: Sequence[str], series: str | None
) -> tuple[list[Case], list[Failure], list[Path]]:
    """The cases, why other files make none, and sequences of cases that the model has no channel for."""
    cases: list[Case] = []
    failures: list[Failure] = []
    others: list[Path] = []
    by_folder: dict[str, list[Path]] = {}
    for prefix, file in files:
        by_folder.setdefault(prefix, []).append(file)
    by_folder, joined, beside = join_datatypes(by_folder, names)
    others += beside
    for prefix, own in sorted(by_folder.items()):
        if kind_of(own[0]) == "images":
            groups, problems = each_image(own)
            cases += [Case(prefix + name, groups[name], None) for name in groups]
            failures += [Failure(prefix + _named(problem, groups), str(problem)) for problem in problems]
        else:
            found = _volumes(own, channels, names, joined=prefix in joined)
            cases += [Case(prefix + name, found.cases[name], None, series) for name in found.cases]
            failures += [Failure(prefix + name, str(problem)) for name, problem in found.problems]
            others += found.others
    return sorted(cases, key=lambda case: case.name), failures, others


class _Volumes(NamedTuple):
    """Case name -> its files, what to call files that make no case and why, and sequences beside cases."""

    cases: dict[str, tuple[Path, ...]]
    problems: list[tuple[str, VptError]]
    others: list[Path]


def _volumes(files: Sequence[Path], channels: int, names: Sequence[str], joined: bool) -> _Volumes:
    """By their numbers, and folder by folder by the names of channels; joined: as if they lay in one folder."""
    folders: dict[Path, list[Path]] = {}
    for file in files:
        folders.setdefault(Path() if joined else file.parent, []).append(file)
    named = [by_channel_names(own, names) for own in folders.values()]
    cases, unfit = group_channels([file for each in named for file in each.rest], channels)
    for each in named:
        for name, own in each.cases.items():
            if cases.setdefault(name, own) is not own:
                text = f"{own[0]}: the second scan called {name}; keep one of the two or rename it"
                unfit.append(VptError(text))
    problems = [(_named(problem, cases), problem) for problem in unfit]
    for each in named:
        problems += [(_named(why, cases) if name in cases else name, why) for name, why in each.problems.items()]
    return _Volumes(cases, problems, [file for each in named for file in each.others])


def _named(problem: VptError, taken: Collection[str]) -> str:
    """What to call files that make no case: as the first one, with which such a sentence begins, would be.

    With its ending where a case is `taken` to be called so, whose record this is not.
    """
    path = Path(str(problem).partition(": ")[0])
    return path.name if case_name(path) in taken else case_name(path)


def _without_answers(files: Sequence[tuple[str, Path]]) -> tuple[Sequence[tuple[str, Path]], list[Path]]:
    """The scans, and what earlier batches have written, by their records: masks, and what lies beside these.

    Where there is nothing else they stay.
    """
    holding = {folder for _, file in files for folder in file.parents}
    written = {each for folder in holding for mask in answers_in(folder) for each in (mask, *EVERYTHING.files(mask))}
    answers = [file for _, file in files if file in written]
    if not answers or len(answers) == len(files):
        return files, []
    return [(prefix, file) for prefix, file in files if file not in written], answers


def _told_as_answers(answers: Sequence[Path]) -> list[str]:
    if not answers:
        return []
    what = "file is an answer" if len(answers) == 1 else "files are answers"
    return [
        f"{len(answers)} {what} of an earlier `vpt predict` and left out: {listed(answers, 3)}; to segment "
        f"{'it' if len(answers) == 1 else 'one'} all the same, give it by itself"
    ]


def _without_scanless(cases: Sequence[Case]) -> tuple[list[Case], dict[Case, str]]:
    """The scans, and DICOM reports, contours and the like, which lie beside them in every archive, with their modality.

    Where there is no scan at all they stay, and are refused one by one.
    """
    slices = [case for case in cases if format_of(case.images[0]) is DicomReader]
    others = {case: what for case in slices if (what := scanless(case.images[0]))}
    left = [case for case in cases if case not in others]
    return (left, others) if left else (list(cases), {})


def _told_of_numbers(cases: Sequence[Case]) -> list[str]:
    """Of scans that are cases of their own and called as the channels of one are in nnU-Net: few, from 0000 on."""
    alike: dict[Path, list[Path]] = {}
    for file in (case.images[0] for case in cases if len(case.images) == 1):
        if channel_suffix(file):
            alike.setdefault(file.parent / without_suffix(file), []).append(file)
    several = [sorted(files) for files in alike.values() if len(files) > 1]
    wanted = [f"{number:04d}" for number in range(MOST_CHANNELS)]
    if not several or any([*map(channel_suffix, files)] != wanted[: len(files)] for files in several):
        return []
    shown = listed((file.name for file in several[0]), MOST_CHANNELS)
    return [
        f"{shown} count as scans of their own to a model of one channel; if they are channels of one scan (as nnU-Net "
        "names them), give the one that it was trained on"
    ]


def _told_of_others(files: Sequence[Path]) -> list[str]:
    if not files:
        return []
    what = "file is a sequence" if len(files) == 1 else "files are sequences"
    shown = listed((file.name for file in files), 3)
    return [f"{len(files)} {what} that the model was not trained on, beside those of a case, and left out: {shown}"]


def _told_of(others: Mapping[Case, str]) -> list[str]:
    if not others:
        return []
    shown = listed((f"{case.name} ({what})" for case, what in others.items()), 3)
    what = "DICOM object is no scan and is" if len(others) == 1 else "DICOM objects are no scans and are"
    return [f"{len(others)} {what} left out: {shown}"]


def _of_another_kind(number: int, kind: Kind) -> list[str]:
    if not number:
        return []
    what, model = ("volume", "images") if kind == "images" else ("image", "volumes")
    return [f"{counted(number, what)} left out: the model was trained on {model}"]
