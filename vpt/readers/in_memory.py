"""Scans that other libraries hold in memory: Pillow's images, and MONAI's MetaTensor with its affine.

nibabel's and SimpleITK's images are read by the readers of their files' formats.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from vpt.errors import VptError
from vpt.readers.array import ArrayReader, as_picture
from vpt.readers.base import Source
from vpt.readers.damage import spoiled
from vpt.readers.grid import Grid, picture_grid
from vpt.readers.itk import ItkReader, require_itk
from vpt.readers.nifti import NiftiReader, volume_in_memory
from vpt.readers.pillow_file import DAMAGED, DEEP_MODES, GREY_MODES, ORIENTATION, doubts_of_transparency, seen
from vpt.readers.volumes import placed
from vpt.words import counted


def flat_pixels(scan: Any) -> Any:
    """A SimpleITK image of two dimensions -> its pixels (rows, columns[, colours]); anything else as it is."""
    if not ItkReader.claims((scan,)) or scan.GetDimension() != 2 or "label" in scan.GetPixelIDTypeAsString():
        return scan
    return require_itk("the image given").GetArrayFromImage(scan)


class PillowReader(ArrayReader):
    """A Pillow image of any mode, turned upright as its EXIF orientation asks; masks are arrays (rows, columns)."""

    @classmethod
    def claims(cls, sources: tuple[Source, ...]) -> bool:
        return len(sources) == 1 and all(hasattr(sources[0], name) for name in ("getexif", "getbands", "mode"))

    @classmethod
    def name_of(cls, source: Source) -> str:
        return str(getattr(source, "filename", "") or "the image given")

    @cached_property
    def _pixels(self) -> np.ndarray:
        image = self.sources[0]
        if image.format == "TIFF" and getattr(image, "filename", "") and image.getexif().get(ORIENTATION, 1) != 1:
            raise VptError(f"{self.name}: a turned TIFF that Pillow opened by its path and scrambles; give its path")
        try:
            return seen(image, self.name)
        except DAMAGED as error:  # a file that was opened and is decoded now
            if isinstance(low := spoiled(self.name, error), MemoryError):
                raise low from error
            reason = " ".join(str(error).split())
            raise VptError(f"{self.name}: truncated or damaged ({reason}); open or save the image again") from error

    def picture(self) -> np.ndarray:
        return as_picture(self._pixels, self.name)

    def ids(self) -> np.ndarray:
        raise VptError(f"{self.name}: a Pillow image as a mask; give its label ids as an array, numpy.array(image)")

    def grid(self) -> Grid:
        return picture_grid(*self._pixels.shape[:2])

    def count_channels(self, exact: bool = True) -> int:
        return len(self.picture()) if exact else 1 if self.sources[0].mode in GREY_MODES else 3

    def is_deep(self) -> bool:
        return self.sources[0].mode in DEEP_MODES

    def doubts(self) -> list[str]:
        return doubts_of_transparency(self.sources[0])


FEW, FLAT = 4, 4  # so many voxels along the first axis, so many times as many along the others, may be channels as well


class MetaTensorReader(NiftiReader):
    """A MONAI MetaTensor, (channels, X, Y, Z) or (X, Y, Z), in the world of its affine (RAS); masks are nibabel's.

    (X, Y), or (channels, X, Y) where its file was of two dimensions, is a volume of one slice.
    """

    endings: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def claims(cls, sources: tuple[Source, ...]) -> bool:
        return all(hasattr(source, "affine") and hasattr(source, "as_tensor") for source in sources)

    @classmethod
    def name_of(cls, source: Source) -> str:
        return str(source.meta.get("filename_or_obj") or "the tensor given")

    def _open(self, source: Source) -> Any:
        voxels = source.as_tensor().detach().cpu()
        voxels = (voxels.float() if voxels.is_floating_point() else voxels).numpy()
        array = self._as_volume(voxels, tuple(int(size) for size in source.meta.get("spatial_shape", ())))
        affine = source.affine.cpu().numpy()
        placed(array.shape, affine, self.name)  # nibabel refuses what has no place with a library's own error
        return volume_in_memory(array.astype(np.uint8) if array.dtype == bool else array, affine)

    def _as_volume(self, voxels: np.ndarray, of_file: tuple[int, ...]) -> np.ndarray:
        """(X, Y, Z) or (X, Y, Z, channels); of_file: the shape that MONAI found in the file, () where it read none.

        MONAI leaves the affine as it was when axes are taken away, so that only a file of two dimensions says where a
        slice of two lies.
        """
        shape = tuple(voxels.shape)
        if voxels.ndim == 2 and len(of_file) < 3:
            return voxels[..., None]
        if voxels.ndim == 3 and len(of_file) == 2:
            return np.moveaxis(voxels, 0, -1)[:, :, None]
        if voxels.ndim == 4:
            return np.moveaxis(voxels, 0, -1)
        if voxels.ndim == 2:
            raise VptError(
                f"{self.name}: shape {shape}, a slice of a volume of {of_file}, whose affine does not say which; keep "
                "its axis, tensor[..., k : k + 1]"
            )
        if voxels.ndim != 3:
            raise VptError(
                f"{self.name}: shape {shape}, expected (channels, X, Y, Z) or (X, Y, Z); index or reshape it"
            )
        if shape[0] <= FEW and shape != of_file and min(shape[1:]) > FLAT * shape[0]:
            raise VptError(
                f"{self.name}: shape {shape}, a slice of {counted(shape[0], 'channel')}, or a volume {shape[0]} wide? "
                "Give a slice as (channels, X, Y, 1), a volume as (1, X, Y, Z)"
            )
        return voxels
