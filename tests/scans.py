"""Scans in memory, for tests of what is made of them."""

import numpy as np

from vpt.readers import Grid, LabelMap, Voxels
from vpt.readers.voxels import Channel


def voxels_of(array: np.ndarray, affine: np.ndarray | None = None, name: str = "the image") -> Voxels:
    """Channels (C, X, Y, Z), which are shared, and where they lie; by default voxels of 1 mm."""
    x, y, z = array.shape[1:]
    return Voxels(tuple(map(Channel, array)), Grid((x, y, z), np.eye(4) if affine is None else affine), name)


def label_map_of(array: np.ndarray, affine: np.ndarray | None = None, name: str = "the label") -> LabelMap:
    """Labels (X, Y, Z), which are shared, and where they lie; by default voxels of 1 mm."""
    x, y, z = array.shape
    grid = Grid((x, y, z), np.eye(4) if affine is None else affine)
    return LabelMap(array, tuple(np.unique(array).tolist()), grid, name)
