"""How values become the encoder's range, chosen by what the channels are and what the training cases hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vpt.data.doubts.values import is_ct
from vpt.data.label_maps import read_label
from vpt.data.plan import LARGEST_VALUE, NARROWEST, Intensity, Percentiles, Window
from vpt.data.planned import FINGERPRINTED, Planned, Wishes, spread
from vpt.data.values import CaseValues, values_of
from vpt.errors import VptError
from vpt.progress import Tick
from vpt.readers import reader_of

SOFT_TISSUE = (-160.0, 240.0)  # HU


def given_window(dataset: Planned, window: tuple[float, float]) -> tuple[Intensity, ...]:
    """The window that was given: of CT, or where there is none of every channel."""
    low, high = window
    if not low < high:  # NaN neither
        raise VptError(f"plan.window: {low:g} to {high:g}; give the lower value first")
    if max(-low, high) > LARGEST_VALUE or high - low < NARROWEST:
        raise VptError(
            f"plan.window: {low:g} to {high:g}, expected values up to {LARGEST_VALUE:g}, {NARROWEST:g} apart at least; "
            "give those of the scans' own units"
        )
    given, is_ct = Window(low=low, high=high), _are_ct(dataset)
    return tuple(given if ct or not any(is_ct) else Percentiles() for ct in is_ct)


def choose_intensity(
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


def read_values(dataset: Planned, cases: Sequence[Any], progress: Tick) -> list[CaseValues]:
    chosen, found = spread(cases, FINGERPRINTED[dataset.kind])[: FINGERPRINTED[dataset.kind]], list[CaseValues]()
    for case in chosen:
        found.append(values_of(reader_of(case.images).voxels(len(dataset.channels))))
        progress(len(found), len(chosen), case.name)
    return found
