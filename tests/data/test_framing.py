"""Slices in the encoder's square: resized without stairs, padded and cropped back, three channels of any number."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from plans import plan_with

from vpt.data.framing import (
    SLAB,
    as_channels,
    batches_of_slices,
    crop_or_pad,
    prepared_size,
    require_usable,
    resize_image,
)
from vpt.data.slices.prepared import PreparedSlices
from vpt.errors import VptError
from vpt.readers import reader_of


@pytest.mark.parametrize("size", [(30, 26), (20, 40), (60, 7), (40, 13), (80, 26), (9, 4)])
def test_resizing_keeps_a_slope_straight_on_both_axes(size):
    """One axis may shrink while the other grows; repeating pixels would leave stairs."""
    rows, columns = np.mgrid[:40, :13]
    for axis, ramp in enumerate((rows, columns)):
        out = resize_image(ramp.astype(np.float32), size)
        assert out.shape == size
        steps = np.diff(out, axis=axis)
        inner = steps[2:-2] if axis == 0 else steps[:, 1:-1] if size[1] < 13 else steps[:, 2:-2]
        assert np.allclose(inner, ramp.shape[axis] / size[axis], rtol=0.35)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_images_are_enlarged_as_said_and_stay_in_range(mode):
    image = np.random.default_rng(0).random((9, 7)).round().astype(np.float32)  # edges that overshoot
    expected = torch.nn.functional.interpolate(torch.from_numpy(image)[None, None], (31, 40), mode=mode)[0, 0]
    assert mode == "bilinear" or expected.max() > 1.05
    assert np.allclose(resize_image(image, (31, 40), mode), expected.clamp(0, 1), atol=1e-5)
    assert np.array_equal(resize_image(image, (3, 7), mode), resize_image(image, (3, 7)))  # areas are averaged


def test_slices_are_enlarged_as_the_plan_says():
    voxels = _voxels(np.random.default_rng(1).random((6, 5, 2)))
    plans = [plan_with(pixel_mm=0.25, interpolation=mode) for mode in ("bilinear", "bicubic")]
    slices = [PreparedSlices.of(voxels, plan)[0:1][0, 0] for plan in plans]
    assert not np.allclose(*slices, atol=0.01)
    for plan, found in zip(plans, slices, strict=True):
        raw = next(iter(voxels.slices(0, [0]))).copy()
        assert np.allclose(found, resize_image(raw, found.shape, plan.interpolation))


def _voxels(array):
    image = nib.Nifti1Image(array.astype(np.float32), np.eye(4))
    return reader_of(image).voxels(1).oriented(plan_with().orientation)


# --- channels ---------------------------------------------------------------------------------------------------------


def test_neighbours_are_the_slices_below_and_above_and_the_ends_repeat():
    slices = np.arange(4, dtype=np.float32).reshape(4, 1, 1, 1) * np.ones((1, 1, 2, 3), np.float32)
    seen = [as_channels(slices, k, True)[:, 0, 0].tolist() for k in range(4)]
    assert seen == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 3]]
    assert as_channels(slices[:1], 0, True)[:, 0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("channels", "seen"), [(1, [1, 1, 1]), (2, [1, 2, 1.5]), (3, [1, 2, 3])])
def test_several_channels_are_three_with_their_mean(channels, seen):
    slices = np.arange(1.0, channels + 1).reshape(1, channels, 1, 1) * np.ones((2, 1, 4, 4))
    image = as_channels(slices, 1, False)
    assert image.shape == (3, 4, 4)
    assert image[:, 2, 2].tolist() == seen


@given(st.integers(1, 9), st.integers(1, 9), st.integers(9, 14), st.integers(0, 3), st.integers(0, 3))
def test_padding_and_cropping_back_is_a_round_trip(rows, columns, size, top, left):
    array = np.arange(1, 2 * rows * columns + 1, dtype=np.float32).reshape(2, rows, columns)
    top, left = min(top, size - rows), min(left, size - columns)
    padded = crop_or_pad(array, size, -top, -left)
    assert padded.shape == (2, size, size)
    assert padded.sum() == array.sum()
    back = crop_or_pad(padded, max(rows, columns), top, left)[:, :rows, :columns]
    assert np.array_equal(back, array)


def test_a_crop_is_the_window_asked_for():
    array = np.arange(30).reshape(5, 6)
    assert np.array_equal(crop_or_pad(array, 3, 1, 2), array[1:4, 2:5])
    assert np.array_equal(crop_or_pad(array, 3, 4, -1), [[0, 24, 25], [0, 0, 0], [0, 0, 0]])


def test_batches_hold_every_slice_in_order():
    slices = np.arange(7, dtype=np.float16).reshape(7, 1, 1, 1) * np.ones((1, 1, 2, 2), np.float16)
    batches = list(batches_of_slices(slices, plan_with(), 3))
    assert [tuple(batch.shape) for batch in batches] == [(3, 3, 2, 2), (3, 3, 2, 2), (1, 3, 2, 2)]
    assert torch.cat(batches)[:, 1, 0, 0].tolist() == list(range(7))
    assert batches[0].dtype == torch.float32


# --- images: the longer side fills the square, padding is the encoder's -----------------------------------------------


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([32, 224, 1024]))
def test_without_a_pixel_size_the_longer_side_is_the_plans(rows, columns, size):
    """As ResizeLongestSide of segment_anything: round(side * scale)."""
    found = prepared_size((rows, columns), (1.0, 1.0), plan_with(pixel_mm=None, image_size=size))
    assert max(found) == size
    scale = size / max(rows, columns)
    assert all(abs(side - max(1.0, n * scale)) <= 0.5 + 1e-6 for side, n in zip(found, (rows, columns), strict=True))


def test_batches_are_the_same_whether_slices_are_an_array_or_made_slab_by_slab() -> None:
    slices = np.random.default_rng(0).random((2 * SLAB + 3, 1, 4, 5)).astype(np.float32)
    cut: list[int] = []

    class Made:
        shape = slices.shape

        def __len__(self) -> int:
            return len(slices)

        def __getitem__(self, places: slice) -> np.ndarray:
            cut.append(len(slices[places]))
            return slices[places].copy()

    plan = plan_with(neighbours=True)
    for batch in (1, 5, SLAB + 1):
        whole = torch.cat(list(batches_of_slices(slices, plan, batch)))
        assert torch.equal(torch.cat(list(batches_of_slices(Made(), plan, batch))), whole)
        near = [slices[[max(k - 1, 0), k, min(k + 1, len(slices) - 1)], 0] for k in range(len(slices))]
        assert np.array_equal(whole.numpy(), np.stack(near))
    assert max(cut) < len(slices)


@pytest.mark.parametrize("pixel_mm", [1.0, None])
@pytest.mark.parametrize("spacing", [(50.0, 50.0), (0.02, 0.02), (1e38, 1e38), (0.9, 1.1), (8.0, 0.5)])
def test_a_spacing_that_no_scan_of_the_kind_has_is_refused(pixel_mm, spacing):
    plan = plan_with(pixel_mm=pixel_mm)
    usable = max(spacing) < 1e6 if pixel_mm is None else max(spacing) < 10 < 1e6 * min(spacing) and min(spacing) > 0.1
    if usable:
        require_usable("a.nii", (40, 30), spacing, plan)
    else:
        with pytest.raises(VptError, match=r"a\.nii: slices of 40x30 pixels of .* mm would be .* mm large.*; correct"):
            require_usable("a.nii", (40, 30), spacing, plan)
