"""The training cases' fingerprint, the encoder's input and what the user fixed -> a plan, with the reasons."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from vpt.data.cropping import choose_crop, cropped_grid
from vpt.data.fingerprint import Fingerprint, fingerprint_of
from vpt.data.label_maps import read_label
from vpt.data.not_hu import no_hu
from vpt.data.plan import ORIENTATIONS, Colour, Intensity, Padding, Percentiles, Plan, Plane, Window
from vpt.data.sampling import choose_sampling
from vpt.data.value_doubts import is_ct
from vpt.data.values import CaseValues, values_of, values_over
from vpt.errors import VptError
from vpt.progress import Tick, silent
from vpt.readers import Kind, reader_of
from vpt.vocabulary import COLOURS, Crop, Interpolation, Planes, Sampling

SOFT_TISSUE = (-160.0, 240.0)  # HU
FINGERPRINTED: dict[Kind, int] = {"volumes": 40, "images": 100}  # cases whose voxels are read

Given = TypeVar("Given")
Chosen = TypeVar("Chosen")


class Planned(Protocol):
    """What a plan needs to know of a data set: a `SegmentationSet` or a `LabelledSet`."""

    @property
    def root(self) -> Path: ...
    @property
    def channels(self) -> tuple[str, ...]: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def labels(self) -> dict[int, str]: ...


@dataclass(frozen=True)
class EncoderInput:
    """What an encoder takes: the size that it was trained at and its patches, in pixels; how slices were padded and
    enlarged.
    """

    native_size: int
    patch: int
    padding: Padding = "centre"
    fill: Colour = (0.0, 0.0, 0.0)
    interpolation: Interpolation = "bilinear"


@dataclass(frozen=True)
class Wishes:
    """What the user fixed; None is left to the data. The fields are the plan's, but for the window (low, high).

    slices: so many of every volume are classified, each whole in the square; None segments all of them.
    """

    plane: Plane | None = None
    image_size: int | None = None
    pixel_mm: float | None = None
    neighbours: bool | None = None
    window: tuple[float, float] | None = None
    slices: int | None = None
    skip_blank: bool = False
    sampling: Sampling | None = None
    crop: Crop | None = None
    planes: Planes = "one"


def make_plan(
    dataset: Planned, cases: Sequence[Any], encoder: EncoderInput, wishes: Wishes = Wishes(), progress: Tick = silent
) -> Plan:
    """Plan from the training cases (of a LabelledSet: examples) only. What is given is taken, the rest is the data's.

    Reads every header, and the voxels of up to 40 volumes or 100 images.
    """
    _require_possible(dataset, wishes)
    found = fingerprint_of(cases)
    wishes, reasons = choose_grid(dataset, cases, found, encoder, wishes, progress)
    flat = dataset.kind == "images"
    assert wishes.plane is not None
    assert wishes.image_size is not None
    assert wishes.neighbours is not None
    reasons |= _about_channels(dataset, wishes.neighbours)
    intensity = _choose_window(dataset, wishes.window) if wishes.window is not None else None
    seen: list[CaseValues] = []
    if intensity is None:
        intensity, reasons["intensity"] = _choose_intensity(dataset, cases, wishes, seen, progress)
    sampling = "even" if wishes.slices is not None else wishes.sampling
    if sampling is None:
        sampling, reasons["sampling"] = sampling_of(dataset, cases, wishes.plane, progress)
    seen = seen or _read_values(dataset, cases, progress)
    if not flat and wishes.window is None and (text := no_hu(dataset.channels, seen)):
        raise VptError(f"{dataset.root}: {text}")
    return Plan(
        plane=wishes.plane,
        pixel_mm=wishes.pixel_mm,
        image_size=wishes.image_size,
        neighbours=wishes.neighbours,
        channels=dataset.channels,
        intensity=intensity,
        padding=encoder.padding,
        fill=encoder.fill,
        interpolation=encoder.interpolation,
        kind=dataset.kind,
        slices=None if flat else wishes.slices,
        skip_blank=wishes.skip_blank,
        planes=wishes.planes,
        crop=wishes.crop or "none",
        sampling=sampling,
        values=values_over(seen),
        sizes=None if flat or wishes.pixel_mm is None else found.sizes(wishes.plane),
        reasons=reasons,
    )


def choose_grid(
    dataset: Planned,
    cases: Sequence[Any],
    found: Fingerprint,
    encoder: EncoderInput,
    wishes: Wishes,
    progress: Tick = silent,
) -> tuple[Wishes, dict[str, str]]:
    """Wishes with crop, plane, size, pixel and neighbours settled by the cases' headers, `found`, and why.

    Of volumes that are segmented by the voxels of 40 of them too, for the crop.
    """
    flat = dataset.kind == "images"
    reasons: dict[str, str] = {}

    def decide(what: str, given: Given | None, choose: Callable[[], tuple[Chosen, str]]) -> Given | Chosen:
        if given is not None:
            return given
        value, reasons[what] = choose()
        return value

    plane: Plane = "axial" if flat else decide("plane", wishes.plane, lambda: _choose_plane(found))
    crop: Crop = "none"
    if not flat and wishes.slices is None:
        read = spread(cases, FINGERPRINTED["volumes"])[: FINGERPRINTED["volumes"]]
        crop = decide("crop", wishes.crop, lambda: choose_crop(dataset, read, progress))
        if crop == "foreground" and None in (wishes.image_size, wishes.pixel_mm):
            found = Fingerprint(tuple(cropped_grid(dataset, case) for case in read))
    voxels, millimetres = found.longer_sides([plane] if wishes.planes == "one" else list(ORIENTATIONS))
    size = decide("image_size", wishes.image_size, lambda: _choose_size(float(np.median(voxels)), encoder, flat))
    pixel = decide("pixel_mm", wishes.pixel_mm, lambda: _choose_pixel(millimetres, size, flat, wishes.slices))
    near = False if flat else decide("neighbours", wishes.neighbours, lambda: _choose_neighbours(dataset))
    settled = replace(wishes, plane=plane, image_size=size, pixel_mm=pixel, neighbours=near, crop=crop)
    return settled, reasons


# --- what is not possible ---------------------------------------------------------------------------------------------


def _require_possible(dataset: Planned, wishes: Wishes) -> None:
    if wishes.slices is not None and wishes.pixel_mm is not None:
        raise VptError("plan.pixel_mm: what is classified is resized whole to the square; leave it out")
    if dataset.kind != "images":
        return
    if wishes.plane not in (None, "axial"):
        raise VptError(f"{dataset.root}: images have no {wishes.plane} plane; leave plan.plane out")
    if wishes.planes == "all":
        raise VptError(f"{dataset.root}: images have one plane; leave plan.planes out")
    if wishes.crop == "foreground":
        raise VptError(f"{dataset.root}: images are taken whole, only volumes are cropped; leave plan.crop out")
    if wishes.neighbours:
        raise VptError(f"{dataset.root}: images have no slices beside them; set plan.neighbours=false")


def _about_channels(dataset: Planned, neighbours: bool) -> dict[str, str]:
    """That many are mixed; of several none has neighbours."""
    count = len(dataset.channels)
    if neighbours and count > 1:
        raise VptError(f"{dataset.root}: plan.neighbours needs one channel, found {count}; set plan.neighbours=false")
    mixed = f"{count} channels are mixed to {COLOURS} by a trained 1x1 convolution"
    return {"channels": mixed} if count > COLOURS else {}


# --- plane, size and pixel: each with the reason ----------------------------------------------------------------------


def _choose_plane(found: Fingerprint) -> tuple[Plane, str]:
    """Slices are cut across the thickest axis; axial where the voxels are about cubes."""
    spacing = found.slice_distances()
    thickest = max(spacing, key=lambda plane: spacing[plane])
    said = ", ".join(f"{plane} {value:.2f}" for plane, value in spacing.items())
    if spacing[thickest] > 1.5 * min(spacing.values()):
        return thickest, f"slices are thickest along this axis (median distance in mm: {said})"
    return "axial", f"voxels are about cubes (median distance of slices in mm: {said})"


def _choose_size(voxels: float, encoder: EncoderInput, flat: bool) -> tuple[int, str]:
    """A pixel per voxel at least, in whole patches; from the encoder's native size to twice that (or 256).

    A native size that is no multiple of the patch (384 and 14) counts as the nearest that is (378).
    """
    patch = encoder.patch
    native = max(1, round(encoder.native_size / patch)) * patch
    wanted = math.ceil(voxels / patch) * patch
    most = max(2 * native, 256) // patch * patch
    what, element = ("images", "pixels") if flat else ("slices", "voxels")
    reason = f"{what} have {voxels:.0f} {element} on the longer side; the encoder's own size is {native} px"
    return int(min(max(wanted, native), most)), reason


def _choose_pixel(millimetres: np.ndarray, size: int, flat: bool, slices: int | None) -> tuple[float | None, str]:
    if flat:
        return None, "the longer side of every image is resized to fill the square"
    if slices is not None:
        return None, "the longer side of every slice is resized to fill the square"
    field = float(np.percentile(millimetres, 95, method="lower"))
    pixel = float(f"{field / size:.5g}")  # significant digits: a pixel may be micrometres
    return pixel, f"the longer side of 95 % of the slices, {field:.0f} mm, fills the image; larger ones are tiled"


def _choose_neighbours(dataset: Planned) -> tuple[bool, str]:
    if len(dataset.channels) == 1:
        return True, "one channel: the slices above and below fill the other two"
    return False, "several channels"


def sampling_of(dataset: Planned, cases: Sequence[Any], plane: Plane, progress: Tick) -> tuple[Sampling, str]:
    most = FINGERPRINTED[dataset.kind]
    return choose_sampling(dataset, spread(cases, most), ORIENTATIONS[plane], most, progress)


# --- intensities ------------------------------------------------------------------------------------------------------


def _choose_window(dataset: Planned, window: tuple[float, float]) -> tuple[Intensity, ...]:
    """The window that was given: of CT, or where there is none of every channel."""
    low, high = window
    if low >= high:
        raise VptError(f"plan.window: {low:g} to {high:g}; give the lower value first")
    given, is_ct = Window(low=low, high=high), _are_ct(dataset)
    return tuple(given if ct or not any(is_ct) else Percentiles() for ct in is_ct)


def _choose_intensity(
    dataset: Planned, cases: Sequence[Any], wishes: Wishes, seen: list[CaseValues], progress: Tick
) -> tuple[tuple[Intensity, ...], str]:
    is_ct = _are_ct(dataset)
    if dataset.kind == "images":
        return _image_intensity(dataset, cases)
    if not any(is_ct):
        reason = "not CT: percentiles of every scan's own non-zero voxels"
        return tuple(Percentiles() for _ in dataset.channels), reason
    if wishes.slices is not None:
        reason = f"CT without masks: soft tissue, {SOFT_TISSUE[0]:g} to {SOFT_TISSUE[1]:g} HU"
        soft = Window(low=SOFT_TISSUE[0], high=SOFT_TISSUE[1])
        return tuple(soft if ct else Percentiles() for ct in is_ct), reason
    low, high = _foreground_range(dataset, cases, seen, progress)
    reason = "CT: 0.5 and 99.5 percentile of the labelled voxels of the training cases, 50 HU wider"
    return tuple(Window(low=low[k], high=high[k]) if ct else Percentiles() for k, ct in enumerate(is_ct)), reason


def _are_ct(dataset: Planned) -> list[bool]:
    return [is_ct(name) for name in dataset.channels]


def _image_intensity(dataset: Planned, cases: Sequence[Any]) -> tuple[tuple[Intensity, ...], str]:
    if any(reader_of(case.images[0]).is_deep() for case in cases):
        reason = "images of more than 8 bits: percentiles of every image's own non-zero pixels"
        return tuple(Percentiles() for _ in dataset.channels), reason
    return tuple(Window(low=0, high=255) for _ in dataset.channels), "8-bit images: all values from 0 to 255"


def _foreground_range(
    dataset: Planned, cases: Sequence[Any], seen: list[CaseValues], progress: Tick
) -> tuple[list[float], list[float]]:
    """Per channel: 0.5 and 99.5 percentile over the labelled voxels of 40 cases that have any, widened by 50.

    What the values of all cases read are like is added to `seen`.
    """
    most, samples = FINGERPRINTED["volumes"], list[np.ndarray]()
    for case in spread(cases, most):
        if len(samples) == most:
            break
        voxels = reader_of(case.images).voxels(len(dataset.channels))
        seen.append(values_of(voxels))
        label = read_label(case.label, dataset.labels, voxels.grid, voxels.name)
        inside = voxels.values()[:, label.counted > 0]
        if inside.size:
            samples.append(inside[:, :: max(1, inside.shape[1] // 20_000)])
        progress(len(samples), min(len(cases), most), case.name)
    if not samples:
        raise VptError(f"{dataset.root}: no labelled voxel in the training cases; there is nothing to learn from")
    low, high = np.percentile(np.concatenate(samples, axis=1), (0.5, 99.5), axis=1)
    return [float(v) - 50 for v in low], [float(v) + 50 for v in high]


def _read_values(dataset: Planned, cases: Sequence[Any], progress: Tick) -> list[CaseValues]:
    chosen, found = spread(cases, FINGERPRINTED[dataset.kind])[: FINGERPRINTED[dataset.kind]], list[CaseValues]()
    for case in chosen:
        found.append(values_of(reader_of(case.images).voxels(len(dataset.channels))))
        progress(len(found), len(chosen), case.name)
    return found


def spread(cases: Sequence[Any], most: int) -> list[Any]:
    """All cases, but first those evenly spread over the data set, `most` at most, then those between."""
    step = max(1, math.ceil(len(cases) / most))
    return [cases[k] for k in sorted(range(len(cases)), key=lambda k: k % step)]
