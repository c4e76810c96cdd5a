"""The data's fingerprint -> a plan: which plane, how many pixels of how many mm, which intensities and channels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from vpt.data.cases import Kind
from vpt.data.grid import Grid
from vpt.data.images import is_deep
from vpt.data.volumes import grid_of, load_image, load_label
from vpt.errors import VptError
from vpt.progress import Tick, silent

Plane = Literal["axial", "coronal", "sagittal"]
Padding = Literal["centre", "corner"]
Colour = tuple[float, float, float]

ORIENTATIONS: dict[Plane, str] = {"axial": "SPL", "coronal": "PIL", "sagittal": "LIP"}
"""Axis codes of (slices, rows, columns), so that slices lie as radiologists view them."""

SOFT_TISSUE = (-160.0, 240.0)  # HU
FINGERPRINTED = 40  # cases whose voxels are read where the plan needs intensities

_AXES: dict[Plane, str] = {"axial": "SI", "coronal": "AP", "sagittal": "LR"}


class Percentiles(BaseModel):
    """MR: clip to percentiles of the scan's own non-zero voxels, scale to [0, 1]; MR has no absolute unit."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["percentiles"] = "percentiles"
    low: float = 0.5
    high: float = 99.5

    def __str__(self) -> str:
        return f"percentiles {self.low:g} to {self.high:g} of the scan's own non-zero voxels"

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """One channel of a scan, any shape -> float32 in [0, 1]."""
        return scaled(image, *self.limits(lambda: [image]))

    def limits(self, parts: Callable[[], Iterable[np.ndarray]]) -> tuple[float, float]:
        """What becomes 0 and 1 in a channel, of which `parts` gives the slices in order, as often as it is called.

        The percentiles are of a million voxels, evenly spread in that order.
        """
        filled = [int(np.count_nonzero(part)) for part in parts()]
        count = sum(filled) or sum(part.size for part in parts())
        step, first, sample = max(1, count // 1_000_000), 0, []
        for part in parts():
            values = part[part != 0] if any(filled) else part.ravel()
            sample.append(values[first::step])
            first = (first - values.size) % step
        low, high = np.percentile(np.concatenate(sample), (self.low, self.high))
        if low == high:  # a mask, for instance, whose voxels are all 0 or 1
            low, high = min(part.min() for part in parts()), max(part.max() for part in parts())
        return float(low), float(high)


class Window(BaseModel):
    """CT (in HU) and 8-bit images: clip to a window, the same for every scan, scale to [0, 1]."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["window"] = "window"
    low: float
    high: float

    def __str__(self) -> str:
        return f"window {self.low:g} to {self.high:g}, the same for every scan"

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """One channel of a scan, any shape -> float32 in [0, 1]."""
        return scaled(image, self.low, self.high)

    def limits(self, parts: Callable[[], Iterable[np.ndarray]]) -> tuple[float, float]:
        """What becomes 0 and 1, in every scan."""
        return self.low, self.high


class Plan(BaseModel):
    """How a scan becomes slices, decided once per training and stored in the artifact.

    pixel_mm: side of a square pixel in mm (of images: in their pixels); None resizes the longer side of every slice to
    image_size; image_size: side of the square that the encoder sees, in pixels;
    neighbours: the slices above and below are the first and the last of the three input channels;
    padding: where a slice smaller than the square is put; fill: the colour in [0, 1] around it;
    kind: what it was made for, NIfTI volumes or images; slices: read of a volume that is classified, evenly spread;
    None where all are read; skip_blank: of a scan that is segmented, slices of one value throughout (air, padding) are
    background, and the encoder does not see them;
    reasons: why, in words, for `plan.json` and `vpt info`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    plane: Plane
    pixel_mm: float | None = Field(gt=0)
    image_size: int
    neighbours: bool
    channels: tuple[str, ...]
    intensity: tuple[Annotated[Percentiles | Window, Field(discriminator="kind")], ...]
    padding: Padding = "centre"
    fill: Colour = (0.0, 0.0, 0.0)
    kind: Kind = "volumes"
    slices: int | None = None
    skip_blank: bool = False
    reasons: dict[str, str] = {}

    @property
    def orientation(self) -> str:
        return ORIENTATIONS[self.plane]

    def __str__(self) -> str:
        if self.kind == "volumes":
            scale = "longer side resized" if self.pixel_mm is None else f"{self.pixel_mm:g} mm per pixel"
            return f"{self.plane} slices, {scale}, {self.image_size} px"
        scale = "longer side" if self.pixel_mm is None else f"every {self.pixel_mm:g} px to one, tiles of"
        return f"images, {scale} {self.image_size} px"


class Planned(Protocol):
    """What a plan needs to know of a data set: a `Dataset` or a `LabelledSet`."""

    @property
    def root(self) -> Path: ...
    @property
    def channels(self) -> tuple[str, ...]: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def labels(self) -> dict[int, str]: ...


def make_plan(
    dataset: Planned,
    cases: Sequence[Any],
    *,
    native_size: int,
    patch: int,
    plane: Plane | None = None,
    image_size: int | None = None,
    pixel_mm: float | None = None,
    neighbours: bool | None = None,
    window: tuple[float, float] | None = None,
    padding: Padding = "centre",
    fill: Colour = (0.0, 0.0, 0.0),
    slices: int | None = None,
    skip_blank: bool = False,
    progress: Tick = silent,
) -> Plan:
    """Plan from the training cases (of a LabelledSet: examples) only. What is given is taken, the rest is the data's.

    slices: so many of every volume are classified, each whole in the square; None segments all of them.
    native_size, patch: of the encoder, pixels; padding, fill: as its weights were trained. Reads every header, and the
    voxels of up to 40 cases where the intensities are needed (CT).
    """
    grids = [grid_of(case.images[0]) for case in cases]
    reasons: dict[str, str] = {}
    flat = dataset.kind == "images"
    if slices is not None and pixel_mm is not None:
        raise VptError("plan.pixel_mm: what is classified is resized whole to the square; leave it out")
    if flat:
        _require_images(dataset, plane, neighbours)
        plane, neighbours = "axial", False
    if plane is None:
        plane, reasons["plane"] = _choose_plane(grids)
    extents = np.array([_in_plane(grid, plane) for grid in grids])  # (N, 2, 2): case, rows/columns, (voxels, mm)
    voxels, millimetres = extents[:, :, 0].max(1), extents[:, :, 1].max(1)
    if image_size is None:
        image_size = _choose_size(float(np.median(voxels)), native_size, patch)
        what, element = ("images", "pixels") if flat else ("slices", "voxels")
        reasons["image_size"] = (
            f"{what} have {np.median(voxels):.0f} {element} on the longer side; "
            f"the encoder's own size is {native_size} px"
        )
    if pixel_mm is None and flat:
        reasons["pixel_mm"] = "the longer side of every image is resized to fill the square"
    elif pixel_mm is None and slices is not None:
        reasons["pixel_mm"] = "the longer side of every slice is resized to fill the square"
    elif pixel_mm is None:
        field = float(np.percentile(millimetres, 95, method="lower"))
        pixel_mm = float(f"{field / image_size:.5g}")  # significant digits: a pixel may be micrometres
        reasons["pixel_mm"] = (
            f"the longer side of 95 % of the slices, {field:.0f} mm, fills the image; larger ones are tiled"
        )
    if neighbours is None:
        neighbours = len(dataset.channels) == 1
        reasons["neighbours"] = (
            "one channel: the slices above and below fill the other two" if neighbours else "several channels"
        )
    _require_channels(dataset, neighbours)
    intensity = _choose_intensity(dataset, cases, window, slices is not None, reasons, progress)
    return Plan(
        plane=plane,
        pixel_mm=pixel_mm,
        image_size=image_size,
        neighbours=neighbours,
        channels=dataset.channels,
        intensity=intensity,
        padding=padding,
        fill=fill,
        kind=dataset.kind,
        slices=None if flat else slices,
        skip_blank=skip_blank,
        reasons=reasons,
    )


def _choose_plane(grids: Sequence[Grid]) -> tuple[Plane, str]:
    """Slices are cut across the thickest axis; axial where the voxels are about cubes."""
    spacing = {plane: float(np.median([_spacing_along(grid, axes) for grid in grids])) for plane, axes in _AXES.items()}
    thickest = max(spacing, key=lambda plane: spacing[plane])
    said = ", ".join(f"{plane} {value:.2f}" for plane, value in spacing.items())
    if spacing[thickest] > 1.5 * min(spacing.values()):
        return thickest, f"slices are thickest along this axis (median distance in mm: {said})"
    return "axial", f"voxels are about cubes (median distance of slices in mm: {said})"


def _choose_size(voxels: float, native: int, patch: int) -> int:
    """A pixel per voxel at least, in whole patches; from the encoder's native size to twice that (or 256).

    A native size that is no multiple of the patch (384 and 14) counts as the nearest that is (378).
    """
    native = max(1, round(native / patch)) * patch
    wanted = math.ceil(voxels / patch) * patch
    most = max(2 * native, 256) // patch * patch
    return int(min(max(wanted, native), most))


def _spacing_along(grid: Grid, axes: str) -> float:
    return next(mm for code, mm in zip(grid.axcodes, grid.spacing, strict=True) if code in axes)


def _in_plane(grid: Grid, plane: Plane) -> list[tuple[float, float]]:
    """[(voxels, mm), (voxels, mm)] of the two axes of the plane."""
    sizes = zip(grid.axcodes, grid.shape, grid.spacing, strict=True)
    return [(count, count * mm) for code, count, mm in sizes if code not in _AXES[plane]]


def _require_images(dataset: Planned, plane: Plane | None, neighbours: bool | None) -> None:
    if plane not in (None, "axial"):
        raise VptError(f"{dataset.root}: images have no {plane} plane; leave plan.plane out")
    if neighbours:
        raise VptError(f"{dataset.root}: images have no slices beside them; set plan.neighbours=false")


def _require_channels(dataset: Planned, neighbours: bool) -> None:
    count = len(dataset.channels)
    if neighbours and count > 1:
        raise VptError(f"{dataset.root}: plan.neighbours needs one channel, found {count}; set plan.neighbours=false")


def _choose_intensity(
    dataset: Planned,
    cases: Sequence[Any],
    window: tuple[float, float] | None,
    whole: bool,
    reasons: dict[str, str],
    progress: Tick,
) -> tuple[Percentiles | Window, ...]:
    is_ct = [name.strip().upper() in ("CT", "CBCT") for name in dataset.channels]
    if window is not None:
        if window[0] >= window[1]:
            raise VptError(f"plan.window: {window[0]:g} to {window[1]:g}; give the lower value first")
        given = Window(low=window[0], high=window[1])
        return tuple(given if ct or not any(is_ct) else Percentiles() for ct in is_ct)
    if dataset.kind == "images":
        return _image_intensity(dataset, cases, reasons)
    if not any(is_ct):
        reasons["intensity"] = "not CT: percentiles of every scan's own non-zero voxels"
        return tuple(Percentiles() for _ in dataset.channels)
    if whole:
        reasons["intensity"] = f"CT without masks: soft tissue, {SOFT_TISSUE[0]:g} to {SOFT_TISSUE[1]:g} HU"
        soft = Window(low=SOFT_TISSUE[0], high=SOFT_TISSUE[1])
        return tuple(soft if ct else Percentiles() for ct in is_ct)
    low, high = _foreground_range(dataset, cases, progress)
    chosen = tuple(
        Window(low=low[k], high=high[k]) if ct else Percentiles() for k, ct in enumerate(is_ct)
    )  # fmt: skip
    reasons["intensity"] = "CT: 0.5 and 99.5 percentile of the labelled voxels of the training cases, 50 HU wider"
    return chosen


def _image_intensity(
    dataset: Planned, cases: Sequence[Any], reasons: dict[str, str]
) -> tuple[Percentiles | Window, ...]:
    if any(_is_deep(case.images[0]) for case in cases):
        reasons["intensity"] = "images of more than 8 bits: percentiles of every image's own non-zero pixels"
        return tuple(Percentiles() for _ in dataset.channels)
    reasons["intensity"] = "8-bit images: all values from 0 to 255"
    return tuple(Window(low=0, high=255) for _ in dataset.channels)


def _is_deep(image: Path | np.ndarray) -> bool:
    return image.dtype != np.uint8 if isinstance(image, np.ndarray) else is_deep(image)


def _foreground_range(dataset: Planned, cases: Sequence[Any], progress: Tick) -> tuple[list[float], list[float]]:
    """Per channel: 0.5 and 99.5 percentile over the labelled voxels of 40 cases that have any, widened by 50."""
    step = max(1, math.ceil(len(cases) / FINGERPRINTED))
    samples: list[np.ndarray] = []
    for k in sorted(range(len(cases)), key=lambda k: k % step):  # spread over the data set, then those between
        if len(samples) == FINGERPRINTED:
            break
        image = load_image(cases[k], len(dataset.channels))
        inside = np.asarray(image)[:, np.asarray(load_label(cases[k].label, image, dataset.labels))[0] > 0]
        if inside.size:
            samples.append(inside[:, :: max(1, inside.shape[1] // 20_000)])
        progress(len(samples), min(len(cases), FINGERPRINTED), cases[k].name)
    if not samples:
        raise VptError(f"{dataset.root}: no labelled voxel in the training cases; there is nothing to learn from")
    low, high = np.percentile(np.concatenate(samples, axis=1), (0.5, 99.5), axis=1)
    return [float(v) - 50 for v in low], [float(v) + 50 for v in high]


def scaled(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """An image -> a new one, float32, in which `low` and what lies below is 0, `high` and what lies above 1."""
    return scale(image.astype(np.float32), low, high)


def scale(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """`scaled` in place, of float32."""
    image -= low
    image /= high - low if high > low else 1.0
    return np.clip(image, 0, 1, out=image)
