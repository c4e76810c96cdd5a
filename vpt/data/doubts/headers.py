"""What headers of scans leave open: said by `vpt check`, before training and beside masks of new scans."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vpt.data.fingerprint import slice_size
from vpt.data.plan import Plan
from vpt.data.wider_fields import unlike_slices
from vpt.errors import VptError
from vpt.readers import Grid, Reader, reader_of
from vpt.readers.doubts import odd_spacing
from vpt.readers.grid import by
from vpt.words import counted, listed

IN_PLANE, ACROSS = 8.0, 15.0  # times the usual: what protocols do not differ in; across slices they differ more
FAR = 20.0  # times the plan's pixel: what a scan of the same kind is not resized by
LITTLE, SHRUNK = 8, 4  # an eighth of the encoder's image, of so many times the pixels: cm that were written as mm
WAYS = {"L": "from left to right", "P": "from front to back", "S": "from top to bottom", "I": "from top to bottom"}


def header_doubts(cases: Iterable[Any]) -> list[str]:
    """Sentences of the volumes of a data set's cases, one for all files of the same doubt.

    Only headers are read; of files that cannot be read nothing is said.
    """
    cases = list(cases)
    grids = [grid for case in cases for grid in _grid(case)]
    odd = [*unusual_spacing(grids), *single_slices(grids)]
    return [*file_doubts(cases), *(f"{name}: {text}" for name, text in odd)]


def unusual_spacing(grids: Sequence[tuple[str, Grid]]) -> Iterator[tuple[str, str]]:
    """File and sentence for volumes whose voxels have another size than nearly all others of the set.

    Not for those of a size that no scanner has, which the reader says.
    """
    if len(grids) < 3:
        return
    sizes = np.array([np.sort(grid.spacing) for _, grid in grids])
    usual = np.median(sizes, axis=0)
    limits = np.array([IN_PLANE, IN_PLANE, ACROSS])
    for (name, grid), size in zip(grids, sizes, strict=True):
        flat = [count for _, count in sorted(zip(grid.spacing, grid.shape, strict=True))]
        factors = np.maximum(size / usual, usual / size)
        if not odd_spacing(grid) and any(
            factor > limit and count > 1 for factor, limit, count in zip(factors, limits, flat, strict=True)
        ):
            text = f"voxels of {by(grid.spacing)} mm, usual in this set are {by(usual.tolist())} mm (sorted)"
            yield name, f"{text}; correct the spacing, or its unit, in the header"


def single_slices(grids: Sequence[tuple[str, Grid]]) -> Iterator[tuple[str, str]]:
    """File and sentence for volumes of one slice where most others of the set have more."""
    depth = int(np.median([min(grid.shape) for _, grid in grids] or [1]))
    for name, grid in grids:
        if min(grid.shape) == 1 < depth:
            yield name, f"a single slice, the others have about {depth}; is the export complete?"


def scan_doubts(cases: Iterable[Any], plan: Plan) -> list[str]:
    """Of the headers of new scans, whose pixels are compared with what the model was trained at."""
    cases = [case for case in cases if reader_of(case.images).kind == plan.kind]
    doubts = file_doubts(cases)
    if plan.kind == "images":
        return doubts
    grids = (found for case in cases for found in _grid(case))
    return [*doubts, *(text for name, grid in grids for text in unlike_the_plan(name, grid, plan))]


def reader_doubts(reader: Reader, plan: Plan) -> list[str]:
    """The same sentences of one new scan, by the reader that read it."""
    if reader.kind != plan.kind:
        return []
    beside = reader.alone() if plan.slices is None else []  # what is classified may be slices
    own = [f"{reader.name}: {text}" for text in (*reader.doubts(), *beside, *reader.below())]
    if plan.kind == "images":
        return own
    return [*own, *unlike_the_plan(reader.name, reader.grid(), plan)]


def another_size(grid: Grid, plan: Plan) -> str | None:
    """What shows that a scan's mm are not mm: pixels and slices of a size that no scan of the training came near to."""
    if plan.sizes is None:
        return None
    pixel, side = slice_size(grid, plan.orientation)
    if (factor := plan.sizes.factor(pixel, side)) == 1:
        return None
    times, what = (factor, "larger") if factor > 1 else (1 / factor, "smaller")
    return (
        f"pixels of {pixel:.3g} mm in slices of {side:.3g} mm by its header, those that the model was trained on have "
        f"{_from_to(plan.sizes.pixel)} mm in {_from_to(plan.sizes.side)} mm, so both are {times:.2g} times {what} or "
        "more: likely cm, m or microns that count as mm; correct the spacing, or its unit, in the header"
    )


def _from_to(span: tuple[float, float]) -> str:
    low, high = (f"{end:.3g}" for end in span)
    return low if low == high else f"{low} to {high}"


def unlike_the_plan(name: str, grid: Grid, plan: Plan) -> Iterator[str]:
    """A sentence, with the name, of a scan whose slices or pixels are far from those of the training."""
    if another_size(grid, plan):  # which is refused
        return
    _, turned = grid.turned(plan.orientation)
    if text := _of_another_plane(turned, plan):
        yield f"{name}: {text}"
        return
    if (pixel := plan.pixel_mm) is None:
        return
    rows, columns = turned.spacing[1:]
    if not odd_spacing(grid) and not pixel / FAR < np.sqrt(rows * columns) < pixel * FAR:
        text = f"pixels of {by((rows, columns))} mm, the model was trained at {pixel:.4g} mm"
        yield f"{name}: {text}; is the spacing in its header right?"
    elif _little_is_left(turned, plan.image_size, pixel):
        text = (
            f"slices of {by(turned.shape[1:])} pixels of {by((rows, columns))} mm would shrink to nearly nothing at the"
        )
        yield f"{name}: {text} {pixel:.4g} mm of the training; is the spacing in its header right, and in mm?"
    elif plan.crop == "none" and not odd_spacing(grid) and (text := unlike_slices(plan, grid)):
        yield f"{name}: {text}"


def _of_another_plane(turned: Grid, plan: Plan) -> str:
    """What shows that a scan is a single slice, of which the model's plane has lines of pixels alone."""
    ways = [WAYS[code] for code, count in zip(plan.orientation, turned.shape, strict=True) if count == 1]
    if plan.planes != "one" or not ways or turned.shape[0] == 1:
        return ""
    return (
        f"one voxel thick {listed(ways)}, and the model sees {plan.plane} slices, each of {by(turned.shape[1:])} "
        f"pixels; give the scan that the slice is of, or one of {plan.plane} slices"
    )


def _little_is_left(turned: Grid, image_size: int, pixel: float) -> bool:
    """Whether a whole slice would be a small part of the encoder's image, though it has many more pixels."""
    sides = turned.shape[1:]
    left = max(mm * side for mm, side in zip(turned.spacing[1:], sides, strict=True)) / pixel
    return left < image_size / LITTLE and left * SHRUNK < max(sides)


def file_doubts(cases: Sequence[Any]) -> list[str]:
    """What the readers of scans and masks doubt, a sentence for all files of the same doubt."""
    paths = [source for case in cases for source in case.images if isinstance(source, Path)]
    labels = [label for case in cases if (label := getattr(case, "label", None)) is not None]
    found = [(str(path), _told(reader_of(path).doubts)) for path in paths]
    found += [(str(label), _told(reader_of(label).label_doubts)) for label in labels]
    return _together((name, text) for name, texts in found for text in texts)


def _told(doubts: Callable[[], list[str]]) -> list[str]:
    try:
        return doubts()
    except VptError:  # reading the case says why
        return []


def _grid(case: Any) -> list[tuple[str, Grid]]:
    try:
        return [(str(case.images[0]), reader_of(case.images).grid())]
    except VptError:
        return []


def _together(doubts: Iterable[tuple[str, str]]) -> list[str]:
    """One sentence for all files of the same doubt."""
    return [f"{names[0]}{_and_more(names)}: {text}" for text, names in _by_text(doubts)]


def once(doubts: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """(file, sentence) of pictures, of which thousands may have the same doubt: that is told once."""
    return [(names[0], f"{text}{_and_more(names)}") for text, names in _by_text(doubts)]


def _by_text(doubts: Iterable[tuple[str, str]]) -> Iterable[tuple[str, list[str]]]:
    files: dict[str, list[str]] = {}
    for name, text in doubts:
        files.setdefault(text, []).append(name)
    return files.items()


def _and_more(names: Sequence[str]) -> str:
    return f" (and {counted(len(names) - 1, 'more file')})" if names[1:] else ""
