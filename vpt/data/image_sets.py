"""Data sets of images: images/NAME.ext and masks/NAME.ext, paired by name, with an optional dataset.json.

What dataset.json does not say is read from the files: the labels are the values that the masks hold, and the data set
has colour if any of its images has.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vpt.data.cases import Case, SegmentationSet, case_name, scan_files
from vpt.data.description import read_channels, read_labels, read_patients, shown_name
from vpt.errors import VptError
from vpt.files import read_json
from vpt.readers import reader_of

GREY, COLOUR = ("grey",), ("red", "green", "blue")
MOST_LABELS = 30  # more values than these are no label ids, but shades


def is_image_set(root: Path) -> bool:
    """Whether a folder has images/ with image files in it."""
    return bool(scan_files(root / "images", "images"))


def survey_images(root: Path) -> tuple[SegmentationSet, list[VptError]]:
    """The data set with every case that has an image, and all that is wrong with the pairing of its files.

    Raises VptError only where the labels or channels cannot be told, or dataset.json is unusable.
    """
    source = root / "dataset.json"
    content = read_json(source) if source.is_file() else {}
    if not isinstance(content, dict):
        raise VptError(f"{source}: a {type(content).__name__} at the top, expected an object")
    if not (root / "masks").is_dir():
        raise VptError(f"{root}: images/ but no masks/; put a mask of the same name there for every image")
    images, masks, problems = _paired(root)
    cases = tuple(Case(name, (path,), masks.get(name)) for name, path in sorted(images.items()))
    labels = read_labels(source) if source.is_file() else None
    return SegmentationSet(
        root,
        shown_name(content, root),
        image_channels(content, source, [case.images[0] for case in cases]),
        labels or _found_labels(root, list(masks.values())),
        cases,
        {case_name(case): patient for case, patient in read_patients(content, source).items()},
        kind="images",
    ), problems


def _paired(root: Path) -> tuple[dict[str, Path], dict[str, Path], list[VptError]]:
    """Images and masks by name, and what is wrong with them."""
    problems: list[VptError] = []
    for folder in (root / "images", root / "masks"):
        if volumes := scan_files(folder, "volumes"):
            problems.append(VptError(f"{volumes[0]}: a NIfTI file among images; keep one kind, take the others out"))
    images, masks = (_by_name(root / folder, problems) for folder in ("images", "masks"))
    for name in sorted(images.keys() - masks.keys()):
        mask = root / "masks" / f"{name}.png"
        problems.append(VptError(f"{images[name]}: an image without a mask; add {mask} or remove the image"))
    for name in sorted(masks.keys() - images.keys()):
        problems.append(VptError(f"{masks[name]}: a mask without an image; add images/{name}.png or remove the mask"))
    return images, masks, problems


def _by_name(folder: Path, problems: list[VptError]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for path in scan_files(folder, "images"):
        if case_name(path) in named:
            problems.append(VptError(f"{path}: the second file called {case_name(path)}; keep one of the two"))
        named.setdefault(case_name(path), path)
    return named


def image_channels(
    content: dict[str, Any], source: Path, files: Sequence[Path], *, exact: bool = True
) -> tuple[str, ...]:
    """What the dataset.json `source` says, else red, green, blue if any of the files has colour.

    Not `exact`: if any is stored with colours, by its header alone.
    """
    if content.get("channel_names"):
        named = read_channels(content, source)
        if len(named) not in (1, 3):
            raise VptError(f"{source}: {len(named)} channels, an image has 1 (grey) or 3; correct `channel_names`")
        return named
    return COLOUR if any(_has_colour(file, exact) for file in files) else GREY


def _has_colour(path: Path, exact: bool) -> bool:
    try:
        return reader_of(path).count_channels(exact) > 1
    except VptError:  # reading the case says why
        return False


def _found_labels(root: Path, masks: Sequence[Path]) -> dict[int, str]:
    """Id -> name of the values that the masks hold: the background, and the object or labels by number."""
    ids: set[int] = set()
    unread: list[VptError] = []
    for path in masks:
        try:
            ids.update(reader_of(path).labels().ids)
        except VptError as error:  # reading the case says so again
            unread.append(error)
        if len(ids - {0}) > MOST_LABELS:
            raise VptError(
                f"{path}: with it the masks hold more than {MOST_LABELS} values, expected label ids; "
                "threshold soft masks (0 and 255) and save them as PNG, or name the ids under `labels` in dataset.json"
            )
    if masks and len(unread) == len(masks):
        raise unread[0]
    found = sorted(ids - {0})
    if not found:
        raise VptError(f"{root / 'masks'}: no mask holds a value above 0, so nothing can be learned; check the export")
    names = ["object"] if len(found) == 1 else [f"label {id}" for id in found]
    return {0: "background", **dict(zip(found, names, strict=True))}
