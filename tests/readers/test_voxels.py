"""Voxels turned as views and read a slice at a time are what nibabel and MONAI make of the whole."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import Orientation
from plans import plan_with

from vpt.data.framing import resize_image
from vpt.data.plan import Percentiles, Window
from vpt.data.slices.cached_slices import prepare_image
from vpt.errors import VptError
from vpt.readers import reader_of
from vpt.readers.voxels import BLOCK, Channel, Voxels, distinct

AXES = [
    np.eye(3)[list(order)].T * signs
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1.0, -1.0), repeat=3)
]
STORED = ("<i2", ">i2", "u1", "<f4", ">f4", "<f8", ">i4", "<u2", "<i8", "i1")
SCALES = ((None, None), (1, -1024), (0.37, 3.3))


def write(path: Path, k: int, shape=(2 * BLOCK + 3, 9, 7)) -> Path:
    """A scan whose axes, type, scale and format follow from `k`."""
    stored, (slope, inter) = np.dtype(STORED[k % len(STORED)]), SCALES[k % len(SCALES)]
    array = np.clip(np.random.default_rng(k).normal(60, 30, shape), 0, 120).astype(stored.newbyteorder("="))
    make = nib.Nifti2Image if k % 4 == 3 else nib.Nifti1Image
    header = make.header_class(endianness=">" if stored.str[0] == ">" else "<")
    rotation = nib.eulerangles.euler2mat(*np.random.default_rng(k).uniform(-0.3, 0.3, 3)) if k % 2 else np.eye(3)
    affine = nib.affines.from_matvec(rotation @ AXES[k % 48] * [0.7, 1.1, 2.5], [10, -20, 30])
    image = make(array, affine, header, dtype=stored.newbyteorder("="))
    image.header.set_slope_inter(slope, inter)
    nib.save(image, path)
    return path


def by_monai(volume: np.ndarray, affine: np.ndarray, axcodes: str) -> MetaTensor:
    """A volume (C, X, Y, Z) permuted and flipped by MONAI."""
    tensor = MetaTensor(torch.from_numpy(np.ascontiguousarray(volume)), affine=torch.from_numpy(affine))
    return Orientation(axcodes, labels=(("L", "R"), ("P", "A"), ("I", "S")))(tensor)


@pytest.mark.parametrize("k", range(48))
@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
def test_every_scan_is_what_nibabel_and_monai_make_of_it(tmp_path, k, ending):
    path = write(tmp_path / f"a.{ending}", k)
    plain = np.asanyarray(nib.load(path).dataobj).astype(np.float32)
    voxels = reader_of(path).voxels(1)
    assert np.array_equal(voxels.values()[0], plain)
    for axcodes in ("SPL", "PIL", "LIP"):
        slow, fast = by_monai(plain[None], voxels.grid.affine, axcodes), voxels.oriented(axcodes)
        assert fast.shape == tuple(slow.shape)
        assert np.array_equal(fast.grid.affine, np.asarray(slow.affine))
        # to the last bit: sizes are rounded from it; by NumPy, since torch's root is not exact on every processor
        assert list(fast.grid.spacing) == affine_to_spacing(np.asarray(slow.affine)).tolist()
        assert np.shares_memory(fast.channels[0].stored, voxels.channels[0].stored)
        assert np.array_equal([each.copy() for each in fast.slices(0)], np.asarray(slow)[0])
        some = [0, 4, fast.shape[1] - 1]
        assert np.array_equal([each.copy() for each in fast.slices(0, some)], np.asarray(slow)[0][some])


@pytest.mark.parametrize("intensity", [Window(low=20, high=90), Percentiles()])
@pytest.mark.parametrize("pixel", [0.5, 1.7, None])
@pytest.mark.parametrize("k", [0, 13, 26, 47])
def test_slice_by_slice_is_bit_for_bit_the_whole_volume(tmp_path, intensity, pixel, k):
    """The plain form: one float32 volume turned, scaled, then resized; and rounded to half precision by NumPy."""
    path = write(tmp_path / "a.nii.gz", k)
    for plane in ("axial", "coronal", "sagittal"):
        plan = plan_with(plane=plane, intensity=(intensity,), pixel_mm=pixel)
        fast = prepare_image(reader_of(path).voxels(1).oriented(plan.orientation), plan)
        voxels = reader_of(path).voxels(1)
        turned = np.asarray(by_monai(voxels.values(), voxels.grid.affine, plan.orientation))
        whole = intensity(turned[0])
        plain = [resize_image(np.ascontiguousarray(each), fast.shape[2:]) for each in whole]
        assert np.array_equal(fast[:, 0], plain)
        half = prepare_image(reader_of(path).voxels(1).oriented(plan.orientation), plan, torch.float16)
        assert np.array_equal(half, fast.astype(np.float16))


def test_percentiles_of_more_than_a_million_voxels_are_of_the_same_ones():
    image = np.random.default_rng(0).normal(50, 80, (31, 290, 310)).astype(np.float32)
    image[np.random.default_rng(1).random(image.shape) < 0.2] = 0
    values = image[image != 0]
    assert values.size > 2_000_000
    plain = np.percentile(values[:: values.size // 1_000_000], (0.5, 99.5))
    assert Percentiles().limits(lambda: image) == tuple(plain)
    assert Percentiles().limits(lambda: [image]) == tuple(plain)
    buffer = np.empty(image.shape[1:], np.float32)  # slices come in one buffer
    empty = np.zeros((3, 2, 2), np.float32)

    def reused(array):
        for each in array:
            np.copyto(buffer[: each.shape[0], : each.shape[1]], each)
            yield buffer[: each.shape[0], : each.shape[1]]

    assert Percentiles().limits(lambda: reused(image)) == tuple(plain)
    assert Percentiles().limits(lambda: reused(empty)) == (0, 0)


def test_only_some_slices_are_prepared_and_all_for_the_percentiles(tmp_path):
    plan = plan_with(intensity=(Percentiles(),))
    voxels = reader_of(write(tmp_path / "a.nii.gz", 5)).voxels(1).oriented(plan.orientation)
    whole, some = prepare_image(voxels, plan), prepare_image(voxels, plan, only={3, 1})
    assert np.array_equal(some[[1, 3]], whole[[1, 3]])
    assert not some[[0, 2, *range(4, len(some))]].any()


def test_the_scan_given_is_not_changed():
    array = np.random.default_rng(0).normal(60, 30, (4, 5, 6)).astype(np.float32)
    image = nib.Nifti1Image(array.copy(), np.diag([-1.0, -1, 1, 1]))
    prepare_image(reader_of(image).voxels(1).oriented("SPL"), plan_with())
    assert np.array_equal(np.asarray(image.dataobj), array)


def test_whole_numbers_are_checked_only_where_a_scale_may_make_them_infinite():
    class Unread(np.ndarray):
        def __getitem__(self, place):
            raise AssertionError("read")

    stored = np.arange(-6, 6, dtype=np.int16).reshape(3, 2, 2)
    assert Channel(stored.view(Unread)).not_finite() == (0, 0)
    assert Channel(stored.view(Unread), 2.5, -7).not_finite() == (0, 0)
    assert Channel(stored, 1e38, 0).not_finite() == (0, 5)  # -6 to -4, 4 and 5: beyond 3.4e38
    assert Channel(np.array([[[1.0, np.nan, np.inf, 1e300]]])).not_finite() == (1, 2)


def test_a_file_packed_in_several_members_or_cut_before_packing(tmp_path):
    whole = write(tmp_path / "a.nii", 0).read_bytes()
    expected = reader_of(tmp_path / "a.nii").voxels(1).values()
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(whole[:1000]) + gzip.compress(whole[1000:]))
    assert np.array_equal(reader_of(tmp_path / "b.nii.gz").voxels(1).values(), expected)
    (tmp_path / "c.nii.gz").write_bytes(gzip.compress(whole[:-10]))
    with pytest.raises(VptError, match=r"c\.nii\.gz: truncated or damaged \(expected \d+ bytes, got \d+\); copy or"):
        reader_of(tmp_path / "c.nii.gz").voxels(1)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, ">i4"])
def test_distinct_numbers_are_those_of_unique(dtype):
    array = np.random.default_rng(0).integers(0, 4, (5, 6, 7)).astype(dtype).repeat(3, axis=1)
    for view in (array, array.T, array[::-1, ::-1], array[:1, :1, :1], np.asfortranarray(array)):
        found = distinct(view)
        assert found.dtype == array.dtype.newbyteorder("=")
        assert np.array_equal(found, np.unique(view))


def test_channels_have_the_scans_name_and_grid(tmp_path):
    path = write(tmp_path / "a.nii.gz", 2)
    voxels = reader_of([path, path]).voxels(2)
    assert isinstance(voxels, Voxels)
    assert (voxels.shape[0], voxels.name) == (2, str(path))
    assert voxels.grid.matches(reader_of(path).grid())
