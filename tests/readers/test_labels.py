"""A label map is turned as its scan is, and as MONAI turns it."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation
from scans import label_map_of, voxels_of

AXES = [
    np.eye(3)[list(order)].T * signs
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1.0, -1.0), repeat=3)
]


@pytest.mark.parametrize("axcodes", ["SPL", "PIL", "LIP"])
def test_labels_are_turned_with_their_scan(axcodes):
    array = np.random.default_rng(0).integers(0, 300, (4, 5, 6)).astype(np.int16)
    for k, axes in enumerate(AXES):
        rotation = nib.eulerangles.euler2mat(*np.random.default_rng(k).uniform(-0.3, 0.3, 3))
        affine = nib.affines.from_matvec(rotation @ axes * [0.7, 1.1, 2.5], [10, -20, 30])
        label, voxels = label_map_of(array, affine).oriented(axcodes), voxels_of(array[None], affine).oriented(axcodes)
        tensor = MetaTensor(torch.from_numpy(array[None]), affine=torch.from_numpy(affine))
        turned = Orientation(axcodes, labels=(("L", "R"), ("P", "A"), ("I", "S")))(tensor)
        assert np.array_equal(label.array, np.asarray(turned)[0])
        assert np.array_equal(label.array, voxels.values()[0])
        assert label.array.dtype == np.int16
        assert np.array_equal(label.grid.affine, np.asarray(turned.affine))
        assert (label.grid.shape, label.grid.spacing) == (voxels.grid.shape, voxels.grid.spacing)
        assert np.shares_memory(label.array, array)
        assert label.ids == tuple(np.unique(array))
