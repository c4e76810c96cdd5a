"""Voxels as the bytes of a NIfTI file, whatever they were read from."""

from __future__ import annotations

import numpy as np

from vpt.readers.grid import Grid
from vpt.readers.voxels import Voxels

PLAIN = ("uint8", "int16", "uint16", "int32", "float32")


def scan_bytes(voxels: Voxels, colour: bool) -> bytes:
    """A scan as `.nii`: its first channel, or in colour three channels of 0 to 255.

    Whole numbers stay what they are; what else there is becomes float32.
    """
    if colour:
        rgb = np.stack([np.clip(channel.values(channel.stored), 0, 255) for channel in voxels.channels[:3]], -1)
        kind = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
        return _bytes(np.ascontiguousarray(np.rint(rgb).astype(np.uint8)).view(kind)[..., 0], voxels.grid)
    first = voxels.channels[0]
    plain = first.stored.dtype.newbyteorder("=").name in PLAIN and (first.slope, first.inter) == (1.0, 0.0)
    return _bytes(first.stored if plain else first.values(first.stored), voxels.grid)


def label_bytes(labels: np.ndarray, grid: Grid) -> bytes:
    """Label ids or their places (X, Y, Z) as `.nii`, in the smallest type that holds them."""
    return _bytes(labels.astype(np.uint8 if labels.max(initial=0) < 256 else np.int16), grid)


def _bytes(array: np.ndarray, grid: Grid) -> bytes:
    from nibabel.nifti1 import Nifti1Image

    image = Nifti1Image(array, grid.affine)
    image.header.set_xyzt_units("mm")
    return image.to_bytes()
