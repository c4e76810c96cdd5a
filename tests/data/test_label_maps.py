"""A label map lies on its image's grid and holds the data set's labels; what does not fit is said in one sentence."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from vpt.data.label_maps import read_label
from vpt.errors import VptError
from vpt.readers import LabelMap, Voxels, reader_of

LABELS = {0: "background", 1: "rim", 2: "core"}
VOXELS = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
LPS = np.diag([-1.0, -1.5, 3.0, 1.0])


def refuses(sentence: str):
    return pytest.raises(VptError, match=sentence)


def label_of(path: Path | None, image: Voxels, labels: Collection[int]) -> LabelMap:
    return read_label(path, labels, image.grid, image.name)


@pytest.mark.parametrize(("largest", "dtype"), [(2, np.uint8), (255, np.uint8), (256, np.int16), (40000, np.int32)])
@pytest.mark.parametrize("stored", [np.int32, np.float64])
def test_label_type_follows_the_largest_id(tmp_path, save, largest, dtype, stored):
    image = reader_of(save(tmp_path / "a.nii.gz", VOXELS)).voxels(1)
    array = np.zeros(VOXELS.shape, stored)
    array[1, 2, 3] = largest
    label = label_of(save(tmp_path / "l.nii.gz", array), image, {0: "background", largest: "x"})
    assert (label.array.dtype, label.array.shape) == (dtype, (4, 5, 6))
    assert int(label.array[1, 2, 3]) == largest
    assert int((label.array != 0).sum()) == 1


@pytest.mark.parametrize("stored", [np.uint16, np.uint32, np.int64, np.dtype(">i2")])
def test_labels_of_every_integer_type_are_read(tmp_path, stored):
    image = reader_of(nib.Nifti1Image(VOXELS, LPS)).voxels(1)
    nib.save(nib.Nifti1Image((VOXELS % 3).astype(stored), LPS, dtype=stored), tmp_path / "l.nii")
    assert np.array_equal(label_of(tmp_path / "l.nii", image, LABELS).array, VOXELS % 3)


def test_unknown_and_broken_label_values(tmp_path, save):
    image = reader_of(save(tmp_path / "a.nii.gz", VOXELS)).voxels(1)
    path = save(tmp_path / "l.nii.gz", np.where(VOXELS == 7, 9, VOXELS % 2).astype(np.int16))
    with refuses(
        r"label 9 not in 0, 1, 2; add it to `labels` in dataset\.json, as `ignore` if it marks what shall not"
    ):
        label_of(path, image, LABELS)
    with refuses("holds -1, expected label ids of 0 and above"):
        label_of(save(tmp_path / "l.nii.gz", -(VOXELS % 2).astype(np.int16)), image, LABELS)
    with refuses(r"values 0\.5, 1\.5 are not whole numbers; .* nearest neighbour"):
        label_of(save(tmp_path / "l.nii.gz", (VOXELS % 4) / 2.0), image, LABELS)
    for value in (np.nan, np.inf):
        with refuses("are not whole numbers"):
            label_of(save(tmp_path / "l.nii.gz", np.where(VOXELS == 7, value, 0)), image, LABELS)
    with refuses("4-D, expected a 3-D label map"):
        label_of(save(tmp_path / "l.nii.gz", np.zeros((4, 5, 6, 2), np.uint8)), image, LABELS)
    with refuses(r"a\.nii\.gz: no label belongs to it"):
        label_of(None, image, LABELS)


def test_label_on_another_grid_names_both_files_and_the_difference(tmp_path, save):
    image = reader_of(save(tmp_path / "a.nii.gz", VOXELS, LPS)).voxels(1)
    with refuses(r"l\.nii\.gz: not on the grid of .*a\.nii\.gz: shape 3x5x6 against 4x5x6; .* nearest neighbour"):
        label_of(save(tmp_path / "l.nii.gz", VOXELS[1:] % 2, LPS), image, LABELS)
    moved = LPS.copy()
    moved[:3, 3] = 0, 0, 12
    with refuses(r"origin \(0 0 12\) against \(0 0 0\) mm, voxels up to 12 mm apart"):
        label_of(save(tmp_path / "l.nii.gz", VOXELS % 2, moved), image, LABELS)
    with refuses("axes RAS against LPS"):
        label_of(save(tmp_path / "l.nii.gz", VOXELS % 2, np.diag([1, 1.5, 3, 1])), image, LABELS)
    with refuses("spacing 1x1.5x3.5 against 1x1.5x3 mm"):
        label_of(save(tmp_path / "l.nii.gz", VOXELS % 2, np.diag([-1, -1.5, 3.5, 1])), image, LABELS)


def test_ids_beside_whole_numbers_are_rounded(tmp_path, save):
    scaled = nib.Nifti1Image((VOXELS % 3 * 10).astype(np.int16), LPS)
    scaled.header.set_slope_inter(0.1, 0)  # 0.1 is not a float32: 20 reads as 2.00000003
    nib.save(scaled, tmp_path / "l.nii.gz")
    image = reader_of(save(tmp_path / "i.nii.gz", VOXELS.astype(np.int16), LPS)).voxels(1)
    label = label_of(tmp_path / "l.nii.gz", image, {0: "background", 1: "a", 2: "b"})
    assert np.array_equal(label.array, VOXELS % 3)


def test_without_a_grid_none_is_compared(tmp_path, save):
    path = save(tmp_path / "l.nii.gz", VOXELS % 2, LPS)
    assert read_label(path, LABELS, None, "the image").grid.matches(reader_of(path).grid())


def picture(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def test_a_mask_has_the_size_and_the_labels_of_its_image(tmp_path):
    image = reader_of(picture(tmp_path / "a.png", np.zeros((4, 5), np.uint8))).voxels(1)
    ids = np.zeros((4, 5), np.uint8)
    ids[3, 1] = 255
    label = label_of(picture(tmp_path / "m.png", ids), image, (0, 255))
    assert (label.array.dtype, label.array.shape) == (np.uint8, (5, 4, 1))
    assert label.array[1, 3, 0] == 255
    with refuses(r"m\.png: label 255 not in 0, 1; add it to `labels` in dataset\.json"):
        label_of(tmp_path / "m.png", image, (0, 1))
    with refuses(r"t\.png: 4x5 pixels, but .*a\.png has 5x4 \(columns x rows\); export the mask at"):
        label_of(picture(tmp_path / "t.png", ids.T.copy()), image, (0, 255))
    found = reader_of(tmp_path / "m.png").labels()
    assert (found.array.shape, found.ids) == ((5, 4, 1), (0, 255))
    assert reader_of(tmp_path / "m.png").label_grid().shape == (5, 4, 1)


# --- real scans -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def odd(data_root) -> Path:
    return data_root / "odd_volumes"


@pytest.mark.data
def test_sparse_ids_up_to_117_are_kept(odd):
    label = label_of(
        odd / "ct_multiorgan/example_seg.nii.gz",
        reader_of(odd / "ct_multiorgan/example_ct_sm.nii.gz").voxels(1),
        range(118),
    )
    assert (label.array.dtype, int(label.array.max()), len(label.ids)) == (np.uint8, 117, 42)


@pytest.mark.data
def test_heart_is_refused_as_label_of_the_cropped_scan(odd):
    image = reader_of(odd / "grid_mismatch/ct_cropped.nii.gz").voxels(1)
    with refuses(r"heart\.nii\.gz: not on the grid of .*ct_cropped\.nii\.gz: shape 233x167x191 against 122x102x112"):
        label_of(odd / "grid_mismatch/heart.nii.gz", image, (0, 1))
    assert label_of(odd / "grid_mismatch/pulmonary_artery.nii.gz", image, (0, 1)).array.any()
