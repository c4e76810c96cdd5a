"""A case's label map, checked against its image and the labels of the data set."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vpt.data.doubts.class_names import plain_name
from vpt.data.doubts.mask_looks import BETWEEN, lie_between
from vpt.data.label_values import IGNORED, require_no_negative
from vpt.errors import VptError
from vpt.readers import ColourMask, Grid, LabelFiles, LabelMap, Relabelled, reader_of
from vpt.readers.grid import by, some
from vpt.readers.relabelled import LARGE, replaced


def how_to_turn(images: bool) -> str:
    """What to do where EXIF turns image and mask in different ways; images: these are marked, or else the masks."""
    marked = "images" if images else "masks"
    drawn = "on the images as seen" if images else "as they are seen themselves"
    return (
        f"if the masks were drawn on the pixels as stored, take the mark off the {marked} "
        f"(exiftool -Orientation= {marked}), if {drawn}, turn their pixels (mogrify -auto-orient {marked}/*)"
    )


def read_label(
    path: str | Path | ColourMask | LabelFiles | Relabelled | None,
    labels: Collection[int],
    grid: Grid | None,
    image: str,
) -> LabelMap:
    """Label ids (X, Y, Z), uint8, int16, int32 or int64 as the largest of `labels` needs, on the grid of their image.

    labels: ids, of a data set with their names; grid, image: where the image lies (None: not compared), and its name.
    Raises VptError for what a reader refuses, another grid, ids that are not in `labels` and count or that their file
    calls as the data set calls another, values between ids, and for None, the label of a case that has none.
    """
    if path is None:
        raise VptError(f"{image}: no label belongs to it; add one, or leave the case out")
    reader = reader_of(path)
    found = reader.labels() if grid is None else reader.labels_on(grid)
    if grid is not None and reader.unit == "px" and found.grid.shape != grid.shape:
        raise _other_size(str(path), found.grid, reader.orientation(), image, grid)
    if grid is not None and not found.grid.matches(grid):
        raise VptError(
            f"{path}: not on the grid of {image}: {found.grid.difference(grid)}; export the mask on the scan's own "
            "grid, or resample it with nearest neighbour"
        )
    require_no_negative(found.ids if found.stored is None else found.stored, path)
    known = {*labels} if found.ignored is None else {*labels, found.ignored}
    if unknown := [id for id in found.ids if id not in known]:
        written = [value for value, _ in path.ids] if isinstance(path, Relabelled) else labels
        raise VptError(
            f"{path}: label {some(unknown)} not in {some(sorted(written))}; {_mended(found, unknown, labels)}"
        )
    if isinstance(labels, Mapping):
        require_same_names(found, labels, path)
    return replace(found, array=found.array.astype(_dtype_for(max(known))))


def require_same_names(
    found: LabelMap, labels: Mapping[int, str], path: object, of: str = "the data set", where: str = "in dataset.json"
) -> None:
    """A file that names its ids (DICOM SEG, Slicer's .seg.nrrd) calls none of them as `labels` call another.

    of, where: whose labels they are, and where they are said.
    """
    called = {plain_name(name): id for id, name in labels.items()}
    for id, name in found.names:
        if id in found.ids and called.get(plain_name(name), id) != id:
            raise VptError(
                f"{path}: its segment {id} is called {name}, which is label {called[plain_name(name)]} of {of}"
                f"{f', and {id} is {labels[id]}' if id in labels else ''}; number the segments as {where}, or correct "
                "that"
            )


def positions(label: np.ndarray, ids: Sequence[int], ignored: int | None = None) -> np.ndarray:
    """Label ids -> their positions in the sorted `ids`: the classes that the head predicts; uint8 up to 256 of them.

    The id that is `ignored` becomes IGNORED, and the type a signed one.
    """
    if ignored is not None:
        pairs = [*zip(ids, range(len(ids)), strict=True), (ignored, IGNORED)]
        known, classes = zip(*sorted(pairs), strict=True)
        found = replaced(label, classes, known)
        return found.astype(np.promote_types(found.dtype, np.int16))  # OpenCV turns no signed bytes
    kind = np.min_scalar_type(len(ids) - 1)
    if max(ids) >= LARGE:  # a table would be as long as the largest id
        return np.stack([np.searchsorted(np.array(ids, np.int64), part).astype(kind) for part in label])
    table = np.zeros(max(ids) + 1, kind)
    table[list(ids)] = range(len(ids))
    return table[label]


def _dtype_for(largest: int) -> type[np.integer]:
    """The smallest type that holds ids up to `largest`; signed above 255, since PyTorch has few unsigned ones."""
    if largest < 2**8:
        return np.uint8
    return next(kind for kind in (np.int16, np.int32, np.int64) if largest <= np.iinfo(kind).max)


def _mended(found: LabelMap, unknown: Collection[int], labels: Collection[int]) -> str:
    """What to do about ids that are no labels: not to name them where they are shades, or another way to write one."""
    if lie_between(found, unknown):
        return f"{BETWEEN}: export the mask again without interpolation (nearest neighbour; pictures as PNG)"
    foreground, expected = {*found.ids} - {0}, {*labels} - {0}
    if len(foreground) == len(expected) == 1 and foreground | expected <= {1, 255, 65535}:
        same = f"or, if it is the same label written in another way, write {expected.pop()} in this mask"
        return f"add it to `labels` in dataset.json, {same}"
    if len(unknown) == 1 and max(unknown) > max(labels) and found.ignored is None:
        return "add it to `labels` in dataset.json, as `ignore` if it marks what shall not count, or correct the mask"
    return "add it to `labels` in dataset.json, or correct the mask"


def _other_size(path: str, found: Grid, turned: int, image: str, grid: Grid) -> VptError:
    """Of a mask and its image: EXIF is named where that alone makes the difference, since to resize would distort."""
    sizes = f"{_pixels(found)} pixels, but {image} has {_pixels(grid)} (columns x rows)"
    file = Path(image)
    seen = reader_of(file).orientation() if file.is_file() else 1
    columns, rows, _ = found.shape
    if seen != turned and (rows, columns) == grid.shape[:2]:
        marks = f"{_marked('the image', seen)} and {_marked('the mask', turned)}"
        return VptError(f"{path}: {sizes}, because EXIF turns {marks}; {how_to_turn(seen != 1)}")
    return VptError(f"{path}: {sizes}; export the mask at the image's own size, or resize it with nearest neighbour")


def _marked(what: str, orientation: int) -> str:
    return f"{what} (orientation {orientation})" if orientation > 1 else f"not {what}, which has no such mark"


def _pixels(grid: Grid) -> str:
    return by(grid.shape[:2])
