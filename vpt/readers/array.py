"""Pixels in memory: a NumPy array is an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vpt.errors import VptError
from vpt.readers.base import Reader, Source
from vpt.readers.grid import Grid, picture_grid
from vpt.readers.labels import LabelMap
from vpt.readers.voxels import Channel, Voxels, distinct
from vpt.vocabulary import LARGEST_IN_PNG

COLOUR_NOISE = 8  # of 255: channels this near to each other are grey, since JPEG moves them apart


class ArrayReader(Reader):
    """Pixels (rows, columns) or (rows, columns, 3): a volume of one slice, X its columns and Y its rows."""

    kind = "images"
    unit = "px"
    mask_endings = (".png",)

    @classmethod
    def claims(cls, sources: tuple[Source, ...]) -> bool:
        return len(sources) == 1 and isinstance(sources[0], np.ndarray)

    @classmethod
    def name_of(cls, source: Source) -> str:
        return "the array given"

    def picture(self) -> np.ndarray:
        """(1, rows, columns) where it is grey, (3, rows, columns) where not; uint8, uint16 or float32."""
        return as_picture(self.sources[0], self.name)

    def ids(self) -> np.ndarray:
        """Its pixels as label ids (rows, columns), integers."""
        array: np.ndarray = self.sources[0]
        if array.ndim != 2 or array.dtype.kind not in "iu":
            found = f"{array.dtype} values of shape {array.shape}"
            raise VptError(f"{self.name}: {found}, expected label ids: integers (rows, columns); convert them")
        return array

    def grid(self) -> Grid:
        shape = self.sources[0].shape
        if len(shape) < 2:
            raise VptError(f"{self.name}: shape {shape}, expected (rows, columns) or (rows, columns, 3); reshape it")
        return picture_grid(*shape[:2])

    def voxels(self, channels: int) -> Voxels:
        """(C, columns, rows, 1) as they are stored; grey is repeated where colour is expected."""
        picture = self.picture()
        if len(picture) > channels:
            raise VptError(
                f"{self.name}: a colour image, expected grey; convert it to grey, "
                "or train on images of which at least one has colour"
            )
        found = [Channel(channel.T[..., None]) for channel in picture for _ in range(channels // len(picture))]
        return Voxels(tuple(found), picture_grid(*picture.shape[1:]), self.name)

    def labels(self) -> LabelMap:
        ids = self.ids()
        return LabelMap(ids.T[..., None], tuple(distinct(ids).tolist()), picture_grid(*ids.shape), self.name)

    def count_channels(self, exact: bool = True) -> int:
        return len(self.picture()) if exact else 3 if self.sources[0].ndim == 3 else 1

    def is_deep(self) -> bool:
        return bool(self.sources[0].dtype != np.uint8)

    def mask(self, labels: np.ndarray) -> np.ndarray:
        """(X, Y, 1) -> (rows, columns)."""
        return np.ascontiguousarray(labels[..., 0].T)

    @staticmethod
    def write_mask(path: Path, mask: np.ndarray) -> None:
        """Label ids (rows, columns) as a grey PNG: 8-bit up to 255, else 16-bit."""
        from PIL import Image

        if mask.max(initial=0) > LARGEST_IN_PNG:
            raise VptError(
                f"{path}: label {mask.max()}, a PNG holds ids up to {LARGEST_IN_PNG}; give the labels smaller ids"
            )
        deep = mask.dtype.itemsize > 1
        Image.fromarray(mask.astype(np.uint16 if deep else np.uint8)).save(path, format="PNG")


def as_picture(pixels: np.ndarray, name: str) -> np.ndarray:
    """Pixels (rows, columns) or (rows, columns, 3) -> (1 or 3, rows, columns); near-equal channels become one."""
    if isinstance(pixels, np.matrix):  # which stays 2-D whatever is taken of it
        pixels = np.asarray(pixels)
    if not pixels.dtype.isnative:
        pixels = pixels.astype(pixels.dtype.newbyteorder("="))
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if np.ma.is_masked(pixels):
        raise VptError(f"{name}: an array with masked pixels, whose values are unknown; fill them: array.filled(0)")
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[-1] == 3)) or not pixels.size:
        raise VptError(f"{name}: shape {pixels.shape}, expected (rows, columns) or (rows, columns, 3); reshape it")
    if pixels.dtype not in (np.uint8, np.uint16, np.float32) or (pixels.ndim == 3 and pixels.dtype != np.uint8):
        raise VptError(f"{name}: {pixels.dtype} pixels, expected uint8 (grey: uint16 as well); convert them")
    if pixels.dtype == np.float32 and not np.isfinite(pixels).all():
        raise VptError(f"{name}: holds pixels that are not finite; replace them, and save the image again")
    if pixels.ndim == 2:
        return pixels[None]
    if is_grey(pixels):
        return np.rint(pixels.mean(-1)).astype(np.uint8)[None]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def is_grey(colours: np.ndarray, noise: int = COLOUR_NOISE) -> bool:
    """(..., 3) uint8 -> whether the three are equal everywhere, up to a difference of `noise`, by default JPEG's."""
    red, green, blue = (colours[..., k] for k in range(3))
    most, least = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    return not colours.size or int((most - least).max()) <= noise  # several times as fast as max(-1)
