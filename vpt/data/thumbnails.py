"""Small pictures of cases: the slice where most is labelled, its labels in colour."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from vpt.data.label_maps import read_label
from vpt.data.plan import ORIENTATIONS, scaled
from vpt.errors import VptError
from vpt.palette import colours_of
from vpt.readers import Voxels, reader_of

Colour = tuple[int, int, int]

SIDE = 160  # pixels
FAINT = 0.2  # of a label inside its outline, which hides nothing


def thumbnail(images: Any, channels: int, label: Any = None, labels: Collection[int] = ()) -> bytes | None:
    """A JPEG of at most 160 px, of the axial slice as radiologists view it; None where the scan cannot be read.

    images, label: as `vpt.readers.reader_of` takes them; labels: the ids that the label map may hold. A label map that
    cannot be read, or lies elsewhere, leaves the scan without colours.
    """
    try:
        voxels = reader_of(images).voxels(channels)
    except VptError:
        return None
    turned = voxels.oriented(ORIENTATIONS["axial"])
    ids = _oriented_ids(label, labels, voxels)
    k = _fullest(ids) if ids.any() else turned.grid.shape[0] // 2
    slices = np.stack([next(turned.slices(channel, [k])).copy() for channel in range(min(channels, 3))], -1)
    grey = _stretched(slices if channels > 2 else slices[..., :1].repeat(3, -1))
    small, marked = _small(grey, ids[k], turned.grid.spacing[1:])
    return _jpeg(_coloured(small, marked, colours(labels)))


def colours(labels: Collection[int]) -> dict[int, Colour]:
    """The colour of every label, the background apart; those of all pages."""
    return {
        label: (int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16))
        for label, colour in colours_of(labels).items()
    }


def _oriented_ids(label: Any, labels: Collection[int], voxels: Voxels) -> np.ndarray:
    """(slices, rows, columns), zeros where there is none."""
    try:
        found = read_label(label, labels, voxels.grid, voxels.name) if label is not None else None
    except VptError:
        found = None
    if found is None:
        return np.zeros(voxels.oriented(ORIENTATIONS["axial"]).grid.shape, np.uint8)
    return found.oriented(ORIENTATIONS["axial"]).counted


def _fullest(ids: np.ndarray) -> int:
    return int(np.argmax(np.count_nonzero(ids, axis=(1, 2))))


def _stretched(image: np.ndarray) -> np.ndarray:
    """From the 1st percentile to the 99th -> float32 0 to 255."""
    low, high = np.percentile(image, (1, 99))
    return scaled(image, float(low), float(high)) * 255


def _small(image: np.ndarray, ids: np.ndarray, spacing: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """(rows, columns, 3) and ids, whose pixels are `spacing` mm high and wide -> both with `SIDE` square pixels."""
    rows, columns = (count * mm for count, mm in zip(image.shape, spacing, strict=False))
    scale = SIDE / max(rows, columns)
    width, height = max(1, round(columns * scale)), max(1, round(rows * scale))
    down, across = ((np.arange(new) * old) // new for new, old in zip((height, width), ids.shape, strict=True))
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), ids[down][:, across]


def _coloured(image: np.ndarray, ids: np.ndarray, of: Mapping[int, Colour]) -> np.ndarray:
    """Every label faint, with an outline."""
    for id in set(np.unique(ids).tolist()) - {0}:
        inside, colour = ids == id, np.array(of[id], np.float32)
        edge = inside & (cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0)
        image[inside] = (1 - FAINT) * image[inside] + FAINT * colour
        image[edge] = colour
    return image


def _jpeg(image: np.ndarray) -> bytes:
    """(rows, columns, 3) of 0 to 255."""
    pixels = image[..., ::-1].round().astype(np.uint8)
    return bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 85])[1])
