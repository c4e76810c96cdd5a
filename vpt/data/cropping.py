"""The part of a scan that is not background, found from the image alone, so that it is found of a new scan as well."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from vpt.data.doubts.values import is_ct
from vpt.data.label_maps import read_label
from vpt.progress import Tick
from vpt.readers import Grid, LabelMap, Voxels, reader_of
from vpt.readers.grid import Box, in_place
from vpt.vocabulary import Crop

AIR = -500.0  # HU: what lies above is patient, table or clothes
MARGIN = 5.0  # mm around the foreground, for labels at the skin
KEPT = 0.5  # of the voxels: where the foreground's box holds more, nothing is cut off


class Cropped(Protocol):
    @property
    def channels(self) -> tuple[str, ...]: ...
    @property
    def labels(self) -> dict[int, str]: ...


@dataclass(frozen=True)
class Part:
    """A box in a volume of that shape (slices, rows, columns)."""

    shape: tuple[int, int, int]
    box: Box

    @classmethod
    def by(cls, crop: Crop, voxels: Voxels, channels: Sequence[str]) -> Part:
        """The part that a plan's crop leaves of a scan: all, or the box around its foreground."""
        shape = voxels.grid.shape
        if crop == "none":
            return cls(shape, (slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2])))
        return cls(shape, foreground_box(voxels, channels))

    @classmethod
    def from_array(cls, array: np.ndarray) -> Part:
        """The inverse of `array`."""
        shape, first, behind = array.tolist()
        x, y, z = (slice(*ends) for ends in zip(first, behind, strict=True))
        return cls(tuple(shape), (x, y, z))

    def array(self) -> np.ndarray:
        """(3, 3): the shape, and where the box begins and ends."""
        return np.array([self.shape, [part.start for part in self.box], [part.stop for part in self.box]])

    @property
    def inside(self) -> tuple[int, int, int]:
        """The box's own shape."""
        x, y, z = (part.stop - part.start for part in self.box)
        return x, y, z

    @property
    def share(self) -> float:
        """The share of the scan's voxels that lies in it."""
        return math.prod(self.inside) / math.prod(self.shape)

    def of(self, voxels: Voxels) -> Voxels:
        """Views of the voxels inside."""
        return voxels.cropped(self.box)

    def of_labels(self, label: LabelMap) -> LabelMap:
        return label.cropped(self.box)

    def placed(self, inside: np.ndarray) -> np.ndarray:
        """What lies inside -> the whole volume, 0 around it; itself where that is all."""
        return in_place(inside, self.box, self.shape)


def foreground_box(voxels: Voxels, channels: Sequence[str]) -> Box:
    """The smallest box that holds what is above -500 HU in a CT, and not 0 in another channel, and 5 mm around it.

    The whole where there is no such voxel. Read slice by slice.
    """
    shape = voxels.grid.shape
    seen = [np.zeros(length, bool) for length in shape]
    for number, name in enumerate(channels):
        for k, values in enumerate(voxels.slices(number)):
            inside = values > AIR if is_ct(name) else values != 0
            rows, columns = inside.any(axis=1), inside.any(axis=0)
            seen[0][k] |= rows.any()
            seen[1] |= rows
            seen[2] |= columns
    if not seen[0].any():
        return slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2])
    x, y, z = (_widened(np.flatnonzero(one), mm, len(one)) for one, mm in zip(seen, voxels.grid.spacing, strict=True))
    return x, y, z


def _widened(places: np.ndarray, spacing: float, length: int) -> slice:
    more = math.ceil(MARGIN / spacing)
    return slice(max(int(places[0]) - more, 0), min(int(places[-1]) + 1 + more, length))


def choose_crop(dataset: Cropped, cases: Sequence[Any], progress: Tick) -> tuple[Crop, str]:
    """Whether the foreground of these training cases is so small a part of them that the rest is cut off, and why.

    Masks only say whether a label would be lost, never where the box lies.
    """
    shares, lost = list[float](), list[str]()
    for done, case in enumerate(cases, start=1):
        voxels, part = _foreground(dataset, case)
        shares.append(part.share)
        if part.share <= KEPT and _leaves_out(part, read_label(case.label, dataset.labels, voxels.grid, voxels.name)):
            lost.append(case.name)
        progress(done, len(cases), case.name)
    share = float(np.median(shares))
    found = f"the box around what is no background holds {share:.0%} of the voxels (median of {len(shares)} cases)"
    if share > KEPT:
        return "none", f"{found}, more than {KEPT:.0%}: nothing is cut off"
    if lost:
        return "none", f"{found}, but not all labelled voxels, of {lost[0]} for instance: nothing is cut off"
    return (
        "foreground",
        f"{found}, {KEPT:.0%} or less: what lies outside is background, and the encoder does not see it",
    )


def cropped_grid(dataset: Cropped, case: Any) -> tuple[Grid, float]:
    """Where the foreground of a case lies, and the share of its voxels."""
    voxels, part = _foreground(dataset, case)
    return part.of(voxels).grid, part.share


def _foreground(dataset: Cropped, case: Any) -> tuple[Voxels, Part]:
    voxels = reader_of(case.images).voxels(len(dataset.channels))
    return voxels, Part.by("foreground", voxels, dataset.channels)


def _leaves_out(part: Part, label: LabelMap) -> bool:
    counted = label.counted
    return bool(np.count_nonzero(counted[part.box]) < np.count_nonzero(counted))
