"""A label map is turned as its scan is, and as MONAI turns it."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation
from scans import label_map_of, voxels_of

import vpt
from vpt.data.check import check_dataset
from vpt.readers import reader_of

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


@pytest.mark.parametrize("k", range(0, 48, 3))
def test_a_label_map_with_its_axes_in_another_order_is_laid_as_its_scan(k: int, tmp_path: Path) -> None:
    """All orders and directions of axes, oblique ones too: what was saved turned is what it was before."""
    rng = np.random.default_rng(k)
    array = rng.integers(0, 4, (4, 5, 6)).astype(np.uint8)
    rotation = nib.eulerangles.euler2mat(*rng.uniform(-0.7, 0.7, 3))
    affine = nib.affines.from_matvec(rotation * [0.7, 1.1, 2.5], [10, -20, 30])
    order, signs = AXES[k].nonzero()[0], AXES[k].sum(0)
    turned = nib.Nifti1Image(array, affine).as_reoriented(np.stack([order, signs], 1))
    nib.save(turned, tmp_path / "label.nii.gz")
    scan = label_map_of(array, affine).grid

    found = reader_of(tmp_path / "label.nii.gz").labels_on(scan)

    assert np.array_equal(found.array, array)
    assert found.grid.matches(scan)
    assert reader_of(tmp_path / "label.nii.gz").label_grid_beside(scan).matches(scan)


@pytest.mark.parametrize(
    "change",
    [
        lambda affine: affine + np.eye(4)[:, [3, 3, 3, 0]] * [[0, 0, 0, 0.5]],
        lambda affine: affine @ np.diag([-1, 1, 1, 1]),
        lambda affine: affine @ np.diag([1.05, 1, 1, 1]),
        lambda affine: affine[:, [1, 0, 2, 3]],
        lambda affine: nib.affines.from_matvec(nib.eulerangles.euler2mat(0.1, 0, 0), [0, 0, 0]) @ affine,
    ],
)
def test_another_grid_stays_as_it_is(change: Any, tmp_path: Path) -> None:
    affine = np.diag([0.7, 1.1, 2.5, 1.0])
    array = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6)
    nib.save(nib.Nifti1Image(array, change(affine)), tmp_path / "label.nii.gz")
    scan = label_map_of(array, affine).grid

    found = reader_of(tmp_path / "label.nii.gz").labels_on(scan)

    assert not found.grid.matches(scan)
    assert np.array_equal(found.array, array)


@pytest.mark.slow
@pytest.mark.parametrize("codes", ["LPS", "RAS", "PSR", "ASL", "SPL", "LAS"])
def test_sets_and_scores_take_labels_in_another_order_of_axes(codes: str, make_dataset, tmp_path: Path) -> None:
    root = make_dataset()
    straight, turned = tmp_path / "straight", tmp_path / "turned"
    straight.mkdir(), turned.mkdir()
    for path in sorted((root / "labelsTr").iterdir()):
        shutil.copy(path, straight)
        label = nib.load(path)
        to = nib.orientations.ornt_transform(nib.io_orientation(label.affine), nib.orientations.axcodes2ornt(codes))
        saved = nib.Nifti1Image.from_bytes(label.as_reoriented(to).to_bytes())
        nib.save(saved, turned / path.name)
        nib.save(saved, path)

    assert not [problem for problem in check_dataset(root).problems if problem.severity == "error"]
    assert vpt.evaluate(turned, straight).mean("Dice") == vpt.evaluate(straight, turned).mean("Dice") == 1
