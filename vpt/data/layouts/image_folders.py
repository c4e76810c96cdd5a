"""Data sets of images: images/NAME.ext and masks/NAME.ext, paired by name, with an optional dataset.json.

What dataset.json does not say is read from the files: the labels are the values that the masks hold, and the data set
has colour if any of its images has.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vpt.data.cases import Case, SegmentationSet, case_name, holds_scan, kind_of, raise_first, scan_files
from vpt.data.doubts.drawn import drawn_below
from vpt.data.doubts.labels import unnamed_label
from vpt.data.doubts.left_out import ending_of, kinds, left_out
from vpt.data.doubts.mask_values import AT_ONCE, MANY, MOST_LABELS, MaskValues, SeenMask, too_many_values
from vpt.data.label_maps import how_to_turn
from vpt.data.label_values import negative, require_no_negative
from vpt.data.layouts.class_lists import lists_in, to_give
from vpt.data.layouts.description import description, given_labels, read_channels, read_patients, shown_name
from vpt.data.mask_colours import ids_by_colour
from vpt.errors import VptError
from vpt.machine.available import cores
from vpt.parallel import in_processes
from vpt.readers import ColourMask, Reader, reader_of
from vpt.readers.colours import Colour, shown
from vpt.words import counted, listed

GREY, COLOUR = ("grey",), ("red", "green", "blue")


def is_image_set(root: Path) -> bool:
    """Whether a folder has images/ with image files in it."""
    return holds_scan(root / "images", "images")


def have_names_in_common(root: Path) -> bool:
    """Whether any mask is called like an image, as here, and not `NAME_mask` or the like."""
    images, masks = ({case_name(path) for path in scan_files(root / folder)} for folder in ("images", "masks"))
    return bool(images & masks)


def survey_images(root: Path) -> tuple[SegmentationSet, list[VptError]]:
    """The data set with every case that has an image, and all that is wrong with the pairing of its files.

    Raises VptError only where the labels or channels cannot be told, or dataset.json is unusable.
    """
    source = root / "dataset.json"
    content = description(source)
    if not (root / "masks").is_dir():
        if drawn := drawn_below(root):
            raise VptError(f"{root}: images/ but no masks/; {drawn}")
        lists = lists_in(root)
        classes = f"; to classify, {to_give(lists)}" if lists else ""
        raise VptError(f"{root}: images/ but no masks/; put a mask of the same name there for every image{classes}")
    if not scan_files(root / "masks") and (other := left_out(root / "masks", ()).files):
        raise _unread_masks(root / "masks", other)
    images, masks, problems = _paired(root)
    labels, of = labels_of_masks(root / "masks", masks, given_labels(content, source), problems)
    cases = tuple(Case(name, (path,), of.get(name)) for name, path in sorted(images.items()))
    problems += turned(cases)
    return SegmentationSet(
        root,
        shown_name(content, root),
        image_channels(content, source, [case.images[0] for case in cases]),
        labels,
        cases,
        read_patients(content, source, images),
        kind="images",
    ), problems


def _unread_masks(folder: Path, files: Sequence[Path]) -> VptError:
    """Why none of the files in the folder of masks, and below it, is read."""
    below = [path for path in files if kind_of(path) == "images" and path.parent != folder]
    if not below:
        return VptError(f"{folder}: the masks are {kinds(files)}, which are not read; convert them to PNG")
    inner = sorted({path.relative_to(folder).parts[0] for path in below})
    within = f"in {counted(len(inner), 'folder')} inside ({listed(inner, 4)}), expected in {folder.name}/ itself"
    move = f"move them up, each called as its image ({folder.name}/NAME.png)"
    if len(inner) > 1:
        move += "; where these are labels of one image, merge its masks into one with a value for each label"
    return VptError(f"{folder}: the masks lie {within}; {move}")


def labels_of_masks(
    folder: Path, masks: Mapping[str, Path], given: dict[int, str] | None, problems: list[VptError]
) -> tuple[dict[int, str], dict[str, Path | ColourMask]]:
    """Labels as `given` or as the masks' values or colours say, and the masks by name, as they are to be read."""
    ids = ids_by_colour(folder, list(masks.values()))
    if ids:
        return given or _coloured_labels(ids), {name: ColourMask(path, ids) for name, path in masks.items()}
    return given or found_labels(folder, list(masks.values()), problems), dict(masks)


def as_images(root: Path, cases: Sequence[Case], labels: dict[int, str], problems: list[VptError]) -> list[Case]:
    """Cases whose files are images: the masks as they are to be read, and what is wrong with how they are turned."""
    masks = {case.name: case.label for case in cases if isinstance(case.label, Path)}
    _, read = labels_of_masks(root, masks, labels, problems)
    found = [replace(case, label=read.get(case.name, case.label)) for case in cases]
    problems += turned(found)
    return found


def _paired(root: Path) -> tuple[dict[str, Path], dict[str, Path], list[VptError]]:
    """Images and masks by name, and what is wrong with them."""
    problems: list[VptError] = []
    for folder in (root / "images", root / "masks"):
        if volumes := scan_files(folder, "volumes"):
            problems.append(VptError(f"{volumes[0]}: a volume among images; keep one kind, take the others out"))
    images, masks = (_by_name(root / folder, problems) for folder in ("images", "masks"))
    unread = {path.name.removesuffix(ending_of(path)): path for path in left_out(root / "masks", masks.values()).files}
    for name in sorted(images.keys() - masks.keys()):
        mask = root / "masks" / f"{name}.png"
        there = f"its mask is {unread[name].name}, which is not read; convert it to PNG" if name in unread else ""
        missing = there or f"an image without a mask; add {mask} or remove the image"
        problems.append(VptError(f"{images[name]}: {missing}"))
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
            raise VptError(
                f"{source}: {counted(len(named), 'channel')}, an image has 1 (grey) or 3; correct `channel_names`"
            )
        return named
    return COLOUR if any(_has_colour(file, exact) for file in files) else GREY


def _has_colour(path: Path, exact: bool) -> bool:
    try:
        return reader_of(path).count_channels(exact) > 1
    except VptError:  # reading the case says why
        return False


def found_labels(folder: Path, masks: Sequence[Path], problems: list[VptError]) -> dict[int, str]:
    """Id -> name of the values that the masks hold: the background, and the object or labels by number."""
    if not masks:
        raise VptError(f"{folder}: no mask in it; put a mask of the same name there for every image")
    values = MaskValues(folder)
    unread: list[VptError] = []
    for path, seen in zip(masks, in_processes(_seen, masks, cores(AT_ONCE), MANY), strict=True):
        if isinstance(seen, VptError):  # reading the case says so again
            unread.append(seen)
        elif kind_of(path) == "images" and (error := negative(seen.foreground, path)):
            unread.append(error)
        else:
            require_no_negative(seen.foreground, path)
            values.add(os.path.relpath(path, folder), seen)
        if len(values.ids) > MOST_LABELS:
            raise too_many_values(path)
    if masks and len(unread) == len(masks):
        raise_first(unread, "the other masks are like it")
    found = sorted(values.ids)
    if not found:
        raise VptError(f"{folder}: no mask holds a value above 0, so nothing can be learned; check the export")
    problems += values.problems()
    names = ["object"] if len(found) == 1 else [unnamed_label(id) for id in found]
    return {0: "background", **dict(zip(found, names, strict=True))}


def _seen(mask: Path) -> SeenMask | VptError:
    try:
        return SeenMask.of(reader_of(mask).labels())
    except VptError as error:
        return error


def _coloured_labels(ids: Sequence[tuple[Colour, int]]) -> dict[int, str]:
    """Names of the labels of masks that are read by colour: the colours, where there are several."""
    found = sorted((id, colour) for colour, id in ids if id)
    names = ["object"] if len(found) == 1 else [shown(colour) for _, colour in found]
    return {0: "background", **{id: name for (id, _), name in zip(found, names, strict=True)}}


# --- EXIF -------------------------------------------------------------------------------------------------------------


def turned(cases: Sequence[Case]) -> Iterator[VptError]:
    """Images and masks that EXIF turns in different ways, where their sizes do not tell that they belong together so.

    Of those whose sizes differ then, reading the mask says it.
    """
    apart: list[tuple[str, int, int]] = []
    paired = [case for case in cases if case.label is not None]
    for case, turns in zip(paired, in_processes(_turns, paired, cores(AT_ONCE), MANY), strict=True):
        if turns is None or turns[0] == turns[1]:
            continue
        try:
            sizes = tuple(reader.grid().shape for reader in _readers(case))
        except VptError:  # reading the case says why
            continue
        differ = {turn in (5, 6, 7, 8) for turn in turns} == {True, False} and sizes[0][0] != sizes[0][1]
        if differ and sizes[0] == sizes[1]:
            return  # so the masks of this set were drawn on the images as they are seen
        if sizes[0] == sizes[1]:
            apart.append((case.images[0].name, *turns))
    if apart:
        marks = listed(sorted({f"{image} against {mask}" for _, image, mask in apart}), 3)
        own = all(image == 1 for _, image, _ in apart)  # the masks alone are marked
        without = all(mask == 1 for _, _, mask in apart)
        how = (
            "have no mark of EXIF, and their masks are turned by one"
            if own
            else f"are turned by EXIF, and the masks {'have no such mark' if without else 'are not turned alike'}"
        )
        yield VptError(
            f"{cases[0].images[0].parent}: {len(apart)} of {counted(len(cases), 'image')} "
            f"({listed((name for name, _, _ in apart), 3)}) {how} (orientation {marks}), so that they may not "
            f"lie on each other; {how_to_turn(not own)}"
        )


def _turns(case: Case) -> tuple[int, int] | None:
    """How EXIF turns image and mask; None where either cannot be read."""
    try:
        image, mask = (reader.orientation() for reader in _readers(case))
        return image, mask
    except VptError:
        return None


def _readers(case: Case) -> tuple[Reader, Reader]:
    """The readers of the image and of the mask."""
    return reader_of(case.images), reader_of(case.label)
