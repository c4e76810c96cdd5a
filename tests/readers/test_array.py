"""Pixels in memory are an image that lies as it is seen; what is none is said in one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from vpt.errors import VptError
from vpt.readers import reader_of
from vpt.readers.array import ArrayReader, as_picture
from vpt.readers.grid import restore
from vpt.readers.picture import read_mask

GREY = np.arange(6 * 5, dtype=np.uint8).reshape(6, 5) * 8


def refuses(sentence: str):
    return pytest.raises(VptError, match=sentence)


def picture(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]))
@settings(max_examples=40, deadline=None)
def test_an_image_is_a_slice_that_lies_as_it_is_seen_and_comes_back(tmp_path_factory, rows, columns, channels):
    rng = np.random.default_rng(rows * 10 + columns)
    pixels = rng.integers(0, 60, (rows, columns, 3), np.uint8)
    pixels[..., 0] += 100
    pixels = pixels if channels == 3 else pixels[..., 0]
    path = picture(tmp_path_factory.mktemp("image") / "a.png", pixels)
    volume = reader_of(path).voxels(channels)
    values = volume.values()
    assert (values.dtype, values.shape) == (np.float32, (channels, columns, rows, 1))
    assert np.array_equal(volume.grid.affine, np.diag([-1.0, -1.0, 1.0, 1.0]))
    seen = volume.oriented("SPL").values()
    assert np.array_equal(seen[:, 0], np.atleast_3d(pixels).transpose(2, 0, 1))
    assert np.array_equal(restore(seen[0], "SPL", volume.grid)[..., 0].T, np.atleast_3d(pixels)[..., 0])
    assert reader_of(path).grid().matches(volume.grid)
    assert reader_of(pixels).grid().matches(volume.grid)
    assert np.array_equal(reader_of(pixels).voxels(channels).values(), values)


def test_a_grey_image_is_repeated_and_a_colour_one_not_made_grey(tmp_path):
    grey = np.arange(20, dtype=np.uint8).reshape(4, 5)
    values = reader_of(picture(tmp_path / "grey.png", grey)).voxels(3).values()
    assert all(np.array_equal(values[k, ..., 0].T, grey) for k in range(3))
    colour = picture(tmp_path / "colour.png", np.full((4, 5, 3), (200, 10, 10), np.uint8))
    with refuses(r"colour\.png: a colour image, expected grey; convert it to grey, or train on images"):
        reader_of(colour).voxels(1)
    with refuses("the array given: a colour image, expected grey"):
        reader_of(np.full((4, 5, 3), (200, 10, 10), np.uint8)).voxels(1)


def test_nearly_equal_channels_are_grey_and_a_touch_of_colour_is_colour():
    noisy = np.stack([GREY // 2 + 8, GREY // 2, GREY // 2 + 4], -1).astype(np.uint8)
    assert np.array_equal(as_picture(noisy, "a"), (GREY // 2 + 4)[None])
    noisy[3, 2, 0] += 1
    assert as_picture(noisy, "a").shape == (3, 6, 5)


@pytest.mark.parametrize(
    ("pixels", "sentence"),
    [
        (np.zeros((3, 4, 5, 2), np.uint8), r"a: shape \(3, 4, 5, 2\), expected \(rows, columns\)"),
        (np.zeros((4, 5, 4), np.uint8), r"a: shape \(4, 5, 4\), expected"),
        (np.zeros((0, 5), np.uint8), r"a: shape \(0, 5\), expected"),
        (np.zeros((4, 5), np.float64), "a: float64 pixels, expected uint8"),
        (np.zeros((4, 5, 3), np.uint16), "a: uint16 pixels, expected uint8"),
        (np.full((4, 5), np.nan, np.float32), "a: holds pixels that are not finite"),
    ],
)
def test_arrays_that_are_no_images_are_refused(pixels, sentence):
    with pytest.raises(VptError, match=sentence):
        as_picture(pixels, "a")


# --- masks ------------------------------------------------------------------------------------------------------------


@given(arrays(np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 9))), st.sampled_from([255, 65535]))
@settings(max_examples=60, deadline=None)
def test_a_written_mask_is_read_back(tmp_path_factory, labels, largest):
    labels = np.minimum(labels, largest).astype(np.min_scalar_type(largest))
    path = tmp_path_factory.mktemp("mask") / "a.png"
    ArrayReader.write_mask(path, labels)
    assert np.array_equal(read_mask(path), labels)
    assert Image.open(path).mode == ("L" if largest == 255 else "I;16")


def test_ids_that_a_png_cannot_hold_are_refused(tmp_path):
    with pytest.raises(VptError, match="label 70000, a PNG holds ids up to 65535"):
        ArrayReader.write_mask(tmp_path / "a.png", np.full((2, 2), 70_000, np.uint32))


def test_an_array_of_ids_is_a_label_map_and_a_mask_of_it_the_same_array():
    ids = np.array([[0, 7, 0], [300, 0, 0]], np.uint16)
    reader = reader_of(ids)
    label = reader.labels()
    assert (label.array.shape, label.ids) == ((3, 2, 1), (0, 7, 300))
    assert label.grid.matches(reader.grid())
    assert np.array_equal(reader.mask(label.array), ids)
    with refuses(r"the array given: float32 values of shape \(2, 3\), expected label ids: integers"):
        reader_of(ids.astype(np.float32)).labels()


def test_colour_and_depth_of_an_array():
    grey_rgb = np.stack([GREY] * 3, -1)
    assert (reader_of(grey_rgb).count_channels(), reader_of(grey_rgb).count_channels(exact=False)) == (1, 3)
    assert reader_of(GREY).count_channels() == 1
    assert [reader_of(array).is_deep() for array in (GREY, GREY.astype(np.uint16))] == [False, True]


def test_masked_pixels_are_refused_and_an_unmasked_array_is_not():
    with refuses("masked pixels, whose values are unknown; fill them"):
        reader_of(np.ma.masked_less(GREY, 50)).voxels(1)
    assert reader_of(np.ma.masked_array(GREY)).voxels(1).grid.shape == (5, 6, 1)


@pytest.mark.parametrize(
    "same",
    [
        lambda grey: grey.astype(">u2"),
        lambda grey: grey.astype("<u2"),
        np.asfortranarray,
        lambda grey: np.asmatrix(grey),
        lambda grey: grey[..., None],
        lambda grey: np.flipud(grey)[::-1],
    ],
)
def test_an_array_is_the_same_however_it_lies_in_memory(same):
    found = reader_of(same(GREY)).voxels(1)

    assert np.array_equal(found.values()[0, ..., 0].T, GREY)
