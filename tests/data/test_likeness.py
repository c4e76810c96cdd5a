"""A copy is known by what it shows, whatever was done to its numbers; other cases are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from values import body, brain, xray

from vpt.data.doubts.likeness import alike, steps_of


def volume(array: np.ndarray) -> np.ndarray:
    return steps_of(array[None].astype(np.float32), "volumes")


def picture(array: np.ndarray) -> np.ndarray:
    """(rows, columns), or with three colours."""
    channels = array[..., None] if array.ndim == 2 else array
    return steps_of(channels.transpose(2, 1, 0)[..., None].astype(np.float32), "images")


COPIES = {
    "another unit": lambda scan: 3 * scan + 1024,
    "noise": lambda scan: scan + np.random.default_rng(0).normal(0, 0.02 * scan.std(), scan.shape),
    "fewer grey levels": lambda scan: np.rint(scan / scan.std() * 20),
    "slices twice": lambda scan: scan.repeat(2, axis=2),
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("make", [body, brain])
def test_copies_of_a_volume_are_alike(make, how):
    scans = [make(seed) for seed in range(4)]
    steps = [*map(volume, scans), volume(COPIES[how](scans[2]))]
    assert list(alike(steps)) == [(2, 4)]


@pytest.mark.parametrize("ending", ["jpg", "webp", "bmp"])
@pytest.mark.parametrize("size", [(48, 40), (96, 80)])
def test_a_picture_that_was_saved_again_is_alike(tmp_path, ending, size):
    pictures = [xray(seed) for seed in range(4)]
    Image.fromarray(pictures[1]).resize(size).convert("RGB").save(tmp_path / f"a.{ending}")
    again = np.asarray(Image.open(tmp_path / f"a.{ending}"))
    assert (1, 4) in list(alike([*map(picture, pictures), picture(again)]))


def test_what_is_the_same_everywhere_is_like_nothing():
    assert list(alike([volume(np.full((9, 9, 9), 7.0)), volume(np.zeros((9, 9, 9))), volume(np.ones((1, 1, 1)))])) == []


def test_many_are_compared_with_all():
    steps = [volume(np.random.default_rng(seed % 600).normal(size=(9, 8, 8))) for seed in range(1000)]
    assert list(alike(steps)) == [(k, k + 600) for k in range(400)]


@pytest.mark.data
def test_different_patients_are_not_alike(data_root: Path):
    from vpt.data.layouts import read_dataset
    from vpt.readers import reader_of

    cases = read_dataset(data_root / "hippocampus3d").cases[::4]
    assert not list(alike([steps_of(reader_of(case.images).voxels(1).values(), "volumes") for case in cases]))
