"""The training cases' fingerprint, the encoder's input and what the user fixed -> a plan, with the reasons."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from vpt.data.cropping import choose_crop, cropped_grid
from vpt.data.doubts.not_hu import no_hu
from vpt.data.fingerprint import Fingerprint, fingerprint_of
from vpt.data.intensities import choose_intensity, given_window, read_values
from vpt.data.plan import ORIENTATIONS, Plan, too_wide
from vpt.data.planned import FINGERPRINTED, NOTHING_FIXED, EncoderInput, Planned, Wishes, spread
from vpt.data.sizes import TrainingForeground
from vpt.data.slices.sampling import choose_sampling
from vpt.data.values import CaseValues, values_over
from vpt.errors import VptError
from vpt.progress import Tick, silent
from vpt.vocabulary import COLOURS, Crop, Plane, Sampling

Given = TypeVar("Given")
Chosen = TypeVar("Chosen")


def make_plan(
    dataset: Planned,
    cases: Sequence[Any],
    encoder: EncoderInput,
    wishes: Wishes = NOTHING_FIXED,
    progress: Tick = silent,
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
    intensity = given_window(dataset, wishes.window) if wishes.window is not None else None
    seen: list[CaseValues] = []
    if intensity is None:
        intensity, reasons["intensity"] = choose_intensity(dataset, cases, wishes, seen, progress)
    sampling = "even" if wishes.slices is not None else wishes.sampling
    if sampling is None:
        sampling, reasons["sampling"] = sampling_of(dataset, cases, wishes.plane, progress)
    seen = seen or read_values(dataset, cases, progress)
    if not flat and wishes.window is None and (text := no_hu(dataset.channels, seen)):
        raise VptError(f"{dataset.root}: {text}")
    values = values_over(seen)
    if wishes.window is not None and too_wide(intensity, values):
        low, high = min(each.low for each in values.channels), max(each.high for each in values.channels)
        raise VptError(
            f"plan.window: {wishes.window[0]:g} to {wishes.window[1]:g}, in which all values of the training scans, "
            f"{low:g} to {high:g}, would be one grey; give those of the scans' own units"
        )
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
        values=values,
        sizes=None if flat or wishes.pixel_mm is None else found.sizes(wishes.plane),
        foreground=wishes.foreground,
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
    foreground: TrainingForeground | None = None
    if not flat and wishes.slices is None:
        read = spread(cases, FINGERPRINTED["volumes"])[: FINGERPRINTED["volumes"]]
        crop = decide("crop", wishes.crop, lambda: choose_crop(dataset, read, progress))
        if crop == "foreground":
            grids, shares = zip(*(cropped_grid(dataset, case) for case in read), strict=True)
            found = Fingerprint(grids)
            foreground = found.foreground(plane, shares)
    voxels, millimetres = found.longer_sides([plane] if wishes.planes == "one" else list(ORIENTATIONS))
    size = decide("image_size", wishes.image_size, lambda: _choose_size(float(np.median(voxels)), encoder, flat))
    pixel = decide("pixel_mm", wishes.pixel_mm, lambda: _choose_pixel(millimetres, size, flat, wishes.slices))
    near = False if flat else decide("neighbours", wishes.neighbours, lambda: _choose_neighbours(dataset))
    settled = replace(
        wishes, plane=plane, image_size=size, pixel_mm=pixel, neighbours=near, crop=crop, foreground=foreground
    )
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
