"""Masks that a notebook shows: nibabel images, and of images arrays, that know what their labels are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Image
from nibabel.nifti2 import Nifti2Image

from vpt.readers.base import Mask
from vpt.readers.nifti_header import header_grid

Draw = Callable[[Any], str]


class Segmentation(Nifti1Image):
    """The mask of a scan as a nibabel image, with the names of its labels; a notebook shows it in three planes.

    labels: id -> name, the background 0 among them; draw: the mask -> HTML, for which it keeps hold of the scan as it
    was given. What nibabel makes of it (slices of it, a copy in another orientation) has neither.
    """

    labels: Mapping[int, str] = {}
    draw: Draw | None = None

    @property
    def volumes(self) -> dict[str, float]:
        """Name of each label -> its volume in ml; of a part that has no names, by `label ID`."""
        ids, counts = np.unique(np.asanyarray(self.dataobj), return_counts=True)
        found = dict(zip(ids.tolist(), counts.tolist(), strict=True))
        ml = header_grid(self, "the mask").voxel_ml
        labels = self.labels or {label: f"label {label}" for label in found}
        return {name: found.get(label, 0) * ml for label, name in labels.items() if label}

    def _repr_html_(self) -> str | None:
        """None, by which a notebook falls back to the text, where nobody has said how to draw it."""
        return self.draw(self) if self.draw else None


class Segmentation2(Segmentation, Nifti2Image):
    """A `Segmentation` with a header of NIfTI-2."""


class SegmentedImage(np.ndarray):
    """The mask of an image: an array of label ids (rows, columns) with the names of its labels, which a notebook shows.

    labels: id -> name, the background 0 among them; draw: as of a `Segmentation`. What NumPy makes of it (a part of it,
    a copy, a comparison) has neither; `numpy.asarray` gives the ids alone.
    """

    labels: Mapping[int, str] = {}
    draw: Draw | None = None

    @property
    def pixels(self) -> dict[str, int]:
        """Name of each label -> how many pixels it has."""
        ids, counts = np.unique(np.asarray(self), return_counts=True)
        found = dict(zip(ids.tolist(), counts.tolist(), strict=True))
        return {name: found.get(label, 0) for label, name in self.labels.items() if label}

    def _repr_html_(self) -> str | None:
        """None, by which a notebook falls back to the text, where nobody has said how to draw it."""
        return self.draw(self) if self.draw else None


def shown(mask: Mask, labels: Mapping[int, str], draw: Draw) -> Mask:
    """A mask that is a nibabel image as a `Segmentation`: the same voxels, header and kind of NIfTI. Of an image, as a
    `SegmentedImage`: the same array. Others as is.
    """
    if isinstance(mask, np.ndarray):
        image = mask.view(SegmentedImage)
        image.labels, image.draw = dict(labels), draw
        return image
    if not isinstance(mask, Nifti1Image):
        return mask
    kind = Segmentation2 if isinstance(mask, Nifti2Image) else Segmentation
    made = kind(mask.dataobj, mask.affine, mask.header)
    made.labels, made.draw = dict(labels), draw
    return made
