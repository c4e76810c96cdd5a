"""A case's scan, truth and prediction -> the planes of it that a page shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vpt.data.label_maps import positions, read_label
from vpt.data.label_values import IGNORED
from vpt.data.plan import ORIENTATIONS, Percentiles, Plan, Window, scaled
from vpt.palette import colours_of
from vpt.readers import Grid, LabelMap, Reader, Voxels, reader_of
from vpt.report.cuts import Cut, Error, Place, Take, cropped, cropped_alike, cuts_at, middle_of, worst_error
from vpt.report.overlays import Panel, draw_panel
from vpt.report.parts import amount
from vpt.words import counted

AXES = ORIENTATIONS["axial"]
BLANK = 0.35  # grey, where there is no scan
SLAB = 1_000_000  # voxels that are counted at a time


@dataclass(frozen=True)
class CaseFiles:
    """What there is of a case, each as `vpt.readers.reader_of` takes it, or None: scan, truth, prediction."""

    name: str
    scan: Any
    truth: Any
    found: Any


@dataclass(frozen=True, eq=False)
class Shown:
    """Panels of a case, its largest error in words, and voxels (K, K), truth by prediction, where both are there."""

    panels: tuple[Panel, ...]
    error: str
    confusion: np.ndarray | None = None


@dataclass(frozen=True)
class ShownTwice:
    """Panels of a case with the masks of two over the same planes, and where these differ most in words.

    empty: of each of the two whether its mask is.
    """

    first: tuple[Panel, ...]
    second: tuple[Panel, ...]
    difference: str
    empty: tuple[bool, bool]


def show_case(files: CaseFiles, labels: Mapping[int, str], plan: Plan | None) -> Shown:
    """Planes through the largest error of the label that scores worst, or without errors through what is labelled.

    labels: id -> name; plan: how the scan becomes grey, None to stretch its values.

    Raises:
        VptError: a file that cannot be read, or a mask on another grid.
    """
    scene = _Scene.of(files.scan, [files.truth, files.found], labels, plan)
    truth, found = _ids(*scene.maps)
    error = worst_error(truth, found, labels) if truth is not None and found is not None else None
    place = error.place if error else _place([truth, found], scene.turned.shape)
    colours = colours_of(labels)
    panels = tuple(draw_panel(cropped(cut), colours, files.name) for cut in scene.cuts(place, truth, found))
    return Shown(panels, _in_words("largest error", error, labels, scene), _confused(labels, *scene.maps))


def show_twice(files: CaseFiles, second: Any, labels: Mapping[int, str], plan: Plan | None) -> ShownTwice:
    """Planes through the largest part in which the masks of two, `files.found` and `second`, differ, of the label in
    which they agree least.

    Raises:
        VptError: see `show_case`.
    """
    scene = _Scene.of(files.scan, [files.truth, files.found, second], labels, plan)
    truth, one = _ids(*scene.maps[:2])
    other = _ids(scene.maps[0], scene.maps[2])[1]
    assert one is not None
    assert other is not None
    apart = worst_error(one, other, labels)
    place = apart.place if apart else _place([truth, one, other], scene.turned.shape)
    planes = zip(scene.cuts(place, truth, one), scene.cuts(place, truth, other), strict=True)
    colours = colours_of(labels)
    drawn = [[draw_panel(cut, colours, files.name) for cut in cropped_alike(pair)] for pair in planes]
    mine, theirs = zip(*drawn, strict=True)
    words = _in_words("largest difference", apart, labels, scene)
    return ShownTwice(mine, theirs, words, (not one.any(), not other.any()))


@dataclass(frozen=True, eq=False)
class _Scene:
    """A case's scan and label maps on its grid. turned: the grid in the axes of `AXES`."""

    maps: list[LabelMap | None]
    turned: Grid
    unit: str
    take: Take

    @classmethod
    def of(cls, scan: Any, masks: Sequence[Any], labels: Mapping[int, str], plan: Plan | None) -> _Scene:
        reader = reader_of(scan if scan is not None else next(mask for mask in masks if mask is not None))
        voxels = None if scan is None else reader.voxels(_channels(reader, plan))
        grid = voxels.grid if voxels else reader.label_grid()
        turned = grid.turned(AXES)[1]
        maps = [None if mask is None else read_label(mask, [0, *labels], grid, reader.name) for mask in masks]
        take = _blank(turned.shape) if voxels is None else _taking(voxels.oriented(AXES), reader, plan)
        return cls(maps, turned, reader.unit, take)

    def cuts(self, place: Place, truth: np.ndarray | None, found: np.ndarray | None) -> list[Cut]:
        return cuts_at(place, self.take, truth, found, self.turned.shape, self.turned.spacing, self.unit)


def count_confusion(files: CaseFiles, labels: Mapping[int, str]) -> np.ndarray:
    """Voxels (K, K), truth by prediction, the background first; what is ignored is not counted."""
    reader = reader_of(files.truth)
    ids = [0, *labels]
    truth = read_label(files.truth, ids, None, files.name)
    return _count(truth, read_label(files.found, ids, truth.grid, reader.name), ids)


def _confused(labels: Mapping[int, str], truth: LabelMap | None, found: LabelMap | None) -> np.ndarray | None:
    return _count(truth, found, [0, *labels]) if truth is not None and found is not None else None


def _count(truth: LabelMap, found: LabelMap, ids: Sequence[int]) -> np.ndarray:
    total = np.zeros(len(ids) ** 2, np.int64)
    for true, predicted in zip(_slabs(truth.array), _slabs(found.array), strict=True):
        rows, columns = positions(true, ids, truth.ignored), positions(predicted, ids)
        cells = rows.astype(np.intp) * len(ids) + columns
        total += np.bincount(
            cells[rows != IGNORED] if truth.ignored is not None else cells.ravel(), minlength=total.size
        )
    return total.reshape(len(ids), len(ids))


def _slabs(array: np.ndarray) -> Iterator[np.ndarray]:
    """Along the last axis of (X, Y, Z), which files store last: slices, or several of small ones."""
    step = max(1, SLAB // max(1, array[..., 0].size))
    return (array[..., start : start + step] for start in range(0, array.shape[-1], step))


def _channels(reader: Reader, plan: Plan | None) -> int:
    return len(plan.channels) if plan else reader.count_channels()


def _ids(truth: LabelMap | None, found: LabelMap | None) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Label ids (slices, rows, columns), background where the truth is ignored."""
    true, predicted = (None if each is None else each.oriented(AXES).counted for each in (truth, found))
    if truth is not None and truth.ignored is not None and predicted is not None:
        predicted = np.where(truth.oriented(AXES).array == truth.ignored, predicted.dtype.type(0), predicted)
    return true, predicted


def _place(maps: Sequence[np.ndarray | None], shape: tuple[int, int, int]) -> Place:
    """In the middle of what is labelled, or of the scan."""
    for ids in maps:
        if ids is not None and ids.any():
            return middle_of(ids > 0)
    z, y, x = (size // 2 for size in shape)
    return z, y, x


def _taking(voxels: Voxels, reader: Reader, plan: Plan | None) -> Take:
    """Planes of a scan in [0, 1]: three channels of an image in colour, else the first in grey."""
    colour = reader.kind == "images" and len(voxels.channels) == 3
    shown = range(3) if colour else range(1)
    limits = [_limits(voxels, channel, reader, plan) for channel in shown]

    def take(axis: int, index: int) -> np.ndarray:
        place = (slice(None),) * axis + (index,)
        parts = [
            scaled(voxels.channels[k].values(voxels.channels[k].stored[place]), *limit)
            for k, limit in zip(shown, limits, strict=True)
        ]
        return np.stack(parts, -1) if colour else parts[0]

    return take


def _limits(voxels: Voxels, channel: int, reader: Reader, plan: Plan | None) -> tuple[float, float]:
    if plan is not None:
        return plan.intensity[channel].limits(lambda: voxels.slices(channel))
    usual = Percentiles() if reader.kind == "volumes" or reader.is_deep() else Window(low=0, high=255)
    return usual.limits(lambda: voxels.slices(channel))


def _blank(shape: tuple[int, int, int]) -> Take:
    def take(axis: int, index: int) -> np.ndarray:
        return np.full([size for side, size in enumerate(shape) if side != axis], BLANK, np.float32)

    return take


def _in_words(what: str, error: Error | None, labels: Mapping[int, str], scene: _Scene) -> str:
    """Of several labels, of which one it is."""
    if error is None:
        return ""
    pixels = scene.unit == "px"
    size = counted(error.voxels, "pixel") if pixels else f"{amount(error.voxels * scene.turned.voxel_ml)} ml"
    whose = f" of {labels[error.label]}" if error.label is not None and len(labels) > 1 else ""
    return f"{what}{whose}: {size}"
