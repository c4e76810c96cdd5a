"""Volumes with a dataset.json: MSD, whose lists name them, and nnU-Net raw, whose folders do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vpt.data.cases import (
    Case,
    SegmentationSet,
    case_name,
    channel_files,
    channel_suffix,
    group_channels,
    kind_of,
    scan_files,
    without_suffix,
)
from vpt.data.doubts.drawn import drawn_below
from vpt.data.doubts.left_out import unread_beside
from vpt.data.layouts.class_lists import lists_in, to_give
from vpt.data.layouts.description import description, labels_of, read_channels, read_patients, shown_name
from vpt.data.layouts.image_folders import as_images, image_channels, labels_of_masks
from vpt.data.layouts.regions import regions_in_words
from vpt.data.layouts.unpaired import why_unpaired
from vpt.errors import VptError
from vpt.files import can_be_path, holds_file, read_json
from vpt.readers import Kind, LabelFiles, endings
from vpt.words import with_article

LAYOUTS = (
    "supported are MSD (dataset.json with `modality`, `labels` and `training`) and nnU-Net raw "
    "(dataset.json with `channel_names` and `labels`, imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz; of "
    "DICOM imagesTr/CASE/, a folder of the series, and labelsTr/CASE.dcm, its DICOM SEG), "
    "images (images/NAME.png with masks/NAME.png), BIDS, pairs by name (pat01_T1.nii.gz with pat01_seg.nii.gz), "
    "a list of cases (a .csv with the columns image and mask), and to classify two folders of classes or more "
    "(CLASS/NAME.png)"
)


def is_described(root: Path) -> bool:
    """Whether a dataset.json lists the cases, or stands above the folders that hold them."""
    source = root / "dataset.json"
    if not holds_file(source) or (root / "imagesTr").is_dir():
        return holds_file(source)
    content = read_json(source)
    return not isinstance(content, dict) or bool(content.get("training"))


def lists_masks(root: Path) -> bool:
    """Whether a dataset.json lists cases with their masks."""
    entries = _entries(description(root / "dataset.json"))
    return any(isinstance(entry, dict) and isinstance(entry.get("label"), str | dict) for entry in entries)


def survey_volumes(root: Path) -> tuple[SegmentationSet, list[VptError]]:
    """The data set with every case that has an image, and all that is wrong with the pairing of its files."""
    source = root / "dataset.json"
    if not source.is_file():
        if root.is_dir() and kind_of(root):
            raise VptError(
                f"{root}: a scan by itself (DICOM), and no data set; `vpt predict -i {root} -o OUT -m RUN` segments "
                "it. To train, give its masks too: imagesTr/CASE/, a folder of the series, with labelsTr/CASE.dcm, "
                "its DICOM SEG, or a cases.csv with the columns image and mask"
            )
        if root.is_dir() and (drawn := drawn_below(root)):
            raise VptError(f"{root}: no masks; {drawn}")
        if lists := lists_in(root):
            raise VptError(f"{root}: no data set by its folders; {to_give(lists)}{unread_beside(root)}")
        raise VptError(f"{root}: no dataset.json in this folder; {LAYOUTS}{why_unpaired(root)}{unread_beside(root)}")
    content = read_json(source)
    if not isinstance(content, dict):
        raise VptError(f"{source}: {with_article(type(content).__name__)} at the top, expected an object; {LAYOUTS}")
    channels = _channels(root, content)
    labels = labels_of(content, source) if content.get("labels") or not _images(root, content) else {}
    ending = content.get("file_ending", ".nii.gz")
    if ending not in endings("volumes"):
        raise VptError(
            f"{source}: file_ending {ending!r} is not supported; convert the files to .nii.gz, "
            "or put images into images/ and masks/"
        )
    if content.get("training"):
        cases, problems = _listed_cases(root, content["training"], len(channels), labels)
    else:
        cases, problems = _folder_cases(root, len(channels))
    if not cases and not problems:
        problems = [VptError(f"{root / 'imagesTr'}: no scans found; put CASE_0000.nii.gz files there")]
    cases = sorted(cases, key=lambda case: case.name)
    patients = read_patients(content, source, {case.name for case in cases})
    kind = _kind(source, cases, problems)
    if kind == "images":
        masks = {case.name: case.label for case in cases if isinstance(case.label, Path)}
        labels = labels or labels_of_masks(root, masks, None, problems)[0]
        cases = as_images(root, cases, labels, problems)
    guess = regions_in_words(content, labels)
    return SegmentationSet(
        root, shown_name(content, root), channels, labels, tuple(cases), patients, kind, guess=guess
    ), problems


def _channels(root: Path, content: dict[str, Any]) -> tuple[str, ...]:
    """What dataset.json says; of images, where it says nothing, what the listed ones hold."""
    source, listed = root / "dataset.json", _images(root, content)
    if content.keys() & {"channel_names", "modality"} or not listed:
        return read_channels(content, source)
    return image_channels(content, source, [path for path in listed if path.is_file()])


def _images(root: Path, content: dict[str, Any]) -> list[Path]:
    """What dataset.json lists, where all of it are images; else nothing."""
    listed = [root / _first(entry) for entry in _entries(content) if _is_entry(entry)]
    return listed if all(kind_of(path) == "images" for path in listed) else []


def _entries(content: dict[str, Any]) -> list[Any]:
    entries = content.get("training")
    return entries if isinstance(entries, list) else []


def _kind(source: Path, cases: Sequence[Case], problems: list[VptError]) -> Kind:
    kinds = {kind_of(path) for case in cases for path in case.images}
    if len(kinds) > 1:
        problems.append(VptError(f"{source}: lists images and volumes; keep one kind, take the others out"))
    return "images" if kinds == {"images"} else "volumes"


def _listed_cases(
    root: Path, entries: Any, channels: int, labels: Mapping[int, str]
) -> tuple[list[Case], list[VptError]]:
    """Cases of MSD's `training`: {"image": .., "label": ..}, or an image alone (label: its name in labelsTr/).

    `image` may be a list, a file for every channel; `label` an object, a file for every label's name; `case` names it.
    """
    source = root / "dataset.json"
    if not isinstance(entries, list):
        raise VptError(f'{source}: `training` is not a list; expected [{{"image": PATH, "label": PATH}}, ...]')
    cases: dict[str, Case] = {}
    problems = []
    for number, entry in enumerate(entries):
        entry = {"image": entry} if isinstance(entry, str) else entry
        if not _is_entry(entry):
            problems.append(VptError(f'{source}: training entry {number} is not {{"image": PATH, "label": PATH}}'))
            continue
        if odd := [path for path in _paths(entry) if not can_be_path(path)]:
            problems.append(
                VptError(f"{source}: training entry {number} names {odd[0][:80]!r}, no path of a file; correct it")
            )
            continue
        case = _listed_case(root, entry, channels, labels, problems)
        if case.name in cases:
            text = f"the second case called {case.name}; give every case a name of its own"
            problems.append(VptError(f"{root / _first(entry)}: {text}"))
        elif case.images:
            cases[case.name] = case
    return list(cases.values()), problems


def _is_entry(entry: Any) -> bool:
    image = entry.get("image") if isinstance(entry, dict) and entry.get("label") != {} else None
    return isinstance(image, str) or (
        isinstance(image, list) and bool(image) and all(isinstance(k, str) for k in image)
    )


def _paths(entry: dict[str, Any]) -> list[str]:
    """All that an entry names."""
    image, label = entry["image"], entry.get("label")
    labels = label.values() if isinstance(label, dict) else [label] if isinstance(label, str) else []
    return [*([image] if isinstance(image, str) else image), *map(str, labels)]


def _first(entry: dict[str, Any]) -> str:
    image = entry["image"]
    return str(image if isinstance(image, str) else image[0])


def _listed_case(
    root: Path, entry: dict[str, Any], channels: int, labels: Mapping[int, str], problems: list[VptError]
) -> Case:
    """The case of an entry; without images where its files are missing, which is a problem then."""
    given, image = entry.get("label"), root / _first(entry)
    label: Path | LabelFiles = root / given if isinstance(given, str) else _label_of(image, root / "labelsTr")
    if isinstance(given, dict):
        ids = {name: id for id, name in labels.items()}
        if unknown := [name for name in given if name not in ids]:
            raise VptError(f"{root / 'dataset.json'}: training names the label {unknown[0]!r}, not in `labels`; add it")
        label = LabelFiles(tuple((root / str(path), ids[name]) for name, path in given.items()))
    if isinstance(entry["image"], list):
        images = tuple(root / each for each in entry["image"] if (root / each).is_file())
        images = images if len(images) == len(entry["image"]) else ()
    else:
        whole = image.is_file() and case_name(image) == case_name(label)
        images = (image,) if whole else channel_files(image, channels)
    case = Case(str(entry.get("case") or _listed_name(image, label)), images, label)
    absent = [path for path in case.files[len(images) :] if not path.is_file()]
    if not images:
        problems.append(VptError(f"{image}: no such file, but dataset.json lists it; add it or remove the entry"))
    elif absent:
        problems.append(_no_label(image, absent[0]))
        return replace(case, label=None)
    return case


def _listed_name(image: Path, label: Path | LabelFiles) -> str:
    return case_name(label) if case_name(label) == without_suffix(image) else case_name(image)


def _label_of(image: Path, folder: Path) -> Path:
    """Where the label of an image lies that is listed alone: under its name, with or without the channel's digits."""
    names = (case_name(image), without_suffix(image))
    paths = [folder / f"{name}{ending}" for name in names for ending in endings("volumes")]
    return next((path for path in paths if path.is_file()), paths[0])


def _folder_cases(root: Path, channels: int) -> tuple[list[Case], list[VptError]]:
    """Cases of imagesTr/ and labelsTr/, paired by name; a file that has its label's exact name carries no suffix."""
    problems: list[VptError] = []
    labels, images = (scan_files(root / folder, "volumes") for folder in ("labelsTr", "imagesTr"))
    named: dict[str, Path] = {}
    for path in labels:
        if case_name(path) in named:
            problems.append(VptError(f"{path}: the second label of {case_name(path)}; keep one of the two"))
        named.setdefault(case_name(path), path)
    exact = [path for path in images if case_name(path) in named]
    groups, grouping = group_channels([path for path in images if path not in exact], channels)
    problems += grouping
    for path in exact:
        if case_name(path) in groups:
            problems.append(VptError(f"{path}: the second image of {case_name(path)}; keep one of the two"))
        groups.setdefault(case_name(path), (path,))
    cases = [Case(name, paths, named.get(name)) for name, paths in groups.items()]
    lone = [case for case in cases if not case.label]
    apart = [
        case for case in lone if channels == 1 and without_suffix(case.images[0]) in named
    ]  # of a case with a label
    problems += _unnamed_channels(apart)
    problems += [_no_label(case.images[0], root / f"labelsTr/{case.name}.nii.gz") for case in lone if case not in apart]
    problems += [
        VptError(f"{path}: a label without an image; add imagesTr/{name}_0000.nii.gz or remove the label")
        for name, path in named.items()
        if name not in groups and name not in {without_suffix(image) for image in images}
    ]
    return cases, problems


def _unnamed_channels(cases: Sequence[Case]) -> Iterator[VptError]:
    """Files of a case's channels that count as cases of their own, since dataset.json names one channel alone."""
    files = [case.images[0] for case in cases]
    for stem in dict.fromkeys(map(without_suffix, files)):
        own = [path for path in files if without_suffix(path) == stem]
        yield VptError(
            f"{own[0]}: {stem} has the channel files {' '.join(map(channel_suffix, own))}, expected 0000, since "
            "dataset.json names one channel; name all under `channel_names`, or rename or take out what is none"
        )


def _no_label(image: Path, label: Path) -> VptError:
    return VptError(f"{image}: an image without a label; add {label} or remove the image")
