"""A scan's memory: what its file stores, and the mask twice; never probabilities, or slices, of all of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from dicom_series import write_series
from forwards import forward_of
from masks import scan_plan, tiny
from torch import Tensor

from vpt.data.cases import Case
from vpt.data.framing import SLAB
from vpt.data.plan import Window
from vpt.machine.memory import peak_memory, reset_peak
from vpt.readers import reader_of
from vpt.use.archives import Masking, mask_file, segment_cases
from vpt.use.ensembles import SegmenterEnsemble
from vpt.use.segmenter import Segmenter

CPU = torch.device("cpu")
LABELS = 21  # with the background
LINUX = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="not Linux")


def by_brightness(images: Tensor) -> Tensor:
    """Logits (B, 21, S, S): the brighter, the higher the class."""
    return -((images[:, 1:2] * LABELS - torch.arange(LABELS).view(1, -1, 1, 1)) ** 2)


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return make_segmenter()


def make_segmenter() -> Segmenter:
    plan = scan_plan(pixel_mm=1.0, intensity=(Window(low=0, high=LABELS),))
    labels = {k: f"label {k}" for k in range(LABELS)}
    return Segmenter(tiny(plan, LABELS)[0], forward_of(by_brightness), plan, labels, CPU, batch_size=8)


def deep_scan(depth: int, side: int = 96) -> nib.Nifti1Image:
    """Axial slices, int16, each of one value: the class that it is to get."""
    array = np.empty((side, side, depth), np.int16, order="F")
    array[...] = np.arange(depth) % LABELS
    return nib.Nifti1Image(array, np.diag([1.0, 1.0, 2.0, 1.0]))


def peak_of(work: Callable[[], object]) -> int:
    """Bytes at the most, above what was there before."""
    reset_peak(CPU)
    before = peak_memory(CPU)
    work()
    after = peak_memory(CPU)
    assert before is not None
    assert after is not None
    return after - before


def grown_by_depth(models: int) -> float:
    """Bytes that every further voxel of a deep scan takes, of so many models as one."""
    segmenter = make_segmenter() if models == 1 else SegmenterEnsemble([make_segmenter()] * models)
    shallow, deep = deep_scan(3 * SLAB), deep_scan(13 * SLAB)
    segmenter.segment(shallow)  # what libraries take when they are used
    grown = peak_of(lambda: segmenter.segment(deep)) - peak_of(lambda: segmenter.segment(shallow))
    return grown / (96 * 96 * 10 * SLAB)


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize("models", [1, 2])
def test_memory_grows_by_the_mask_alone_and_not_by_labels(models):
    """The scan itself is there before. 2 bytes a voxel: the classes, and the mask; probabilities would be 84.

    The rest of the bound is for what the allocator keeps. In a process of its own, without what other tests left.
    """
    code = f"import {Path(__file__).stem} as tests; print(tests.grown_by_depth({models}))"
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    command, env = [sys.executable, "-c", code], os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True)
    grown = float(done.stdout.split()[-1])
    assert grown < 6, f"{grown:.1f} bytes a voxel"


@pytest.mark.slow
@LINUX
def test_a_file_is_read_into_what_it_stores(segmenter, tmp_path):
    nib.save(deep_scan(13 * SLAB), tmp_path / "deep.nii.gz")
    nib.save(deep_scan(3 * SLAB), tmp_path / "shallow.nii.gz")
    segmenter.prepare(tmp_path / "shallow.nii.gz")
    deep, shallow = (
        peak_of(lambda name=name: segmenter.prepare(tmp_path / f"{name}.nii.gz")) for name in ("deep", "shallow")
    )
    voxels = 96 * 96 * 10 * SLAB
    assert (deep - shallow) / voxels < 4, f"{(deep - shallow) / voxels:.1f} bytes a voxel of 2"


@pytest.mark.slow
@LINUX
@pytest.mark.parametrize(("slopes", "stored"), [((2,), 2), ((2, 3), 4)])
def test_a_dicom_series_is_read_into_one_volume(tmp_path, slopes, stored):
    """`stored` bytes a voxel: as its files have them, or float32 where their slopes differ."""
    pixels = np.zeros((64, 320, 320), np.int16)

    def change(k, data):
        data.RescaleSlope = slopes[k % len(slopes)]

    deep, shallow = (write_series(tmp_path / str(depth), pixels[:depth], change=change) for depth in (64, 8))
    reader_of(shallow).voxels(1)
    grown = peak_of(lambda: reader_of(deep).voxels(1)) - peak_of(lambda: reader_of(shallow).voxels(1))
    voxels = pixels[8:].size
    assert grown / voxels < stored + 1, f"{grown / voxels:.1f} bytes a voxel"


def test_every_slice_of_a_deep_scan_has_its_own_label(segmenter):
    depth = 2 * SLAB + 5
    found = np.asarray(segmenter.segment(deep_scan(depth, 70)).dataobj)
    assert found.dtype == np.uint8
    assert np.array_equal(found, np.broadcast_to(np.arange(depth) % LABELS, found.shape))


def test_progress_tells_the_slices_of_a_deep_scan(segmenter, tmp_path):
    path, told = tmp_path / "in" / "deep.nii.gz", []
    path.parent.mkdir()
    nib.save(deep_scan(2 * SLAB + 5, 70), path)
    failures = segment_cases(
        Masking(segmenter, lambda case: mask_file(tmp_path, case)),
        [Case("deep", (path,), None)],
        lambda *said: told.append(said),
    )
    assert not failures
    assert told == [(0, 1, f"deep, slice {k} of {2 * SLAB + 5}") for k in (SLAB, 2 * SLAB)] + [(1, 1, "deep")]
