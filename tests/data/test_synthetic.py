"""The synthetic data are what their docstring promises, and pass the check that real data must pass."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from vpt.data.cases import SegmentationSet
from vpt.data.check import check_dataset
from vpt.data.layouts import read_dataset
from vpt.data.splits import read_splits
from vpt.data.synthetic import LABELS, make_dataset
from vpt.errors import VptError
from vpt.readers import reader_of


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("synthetic") / "blobs")


@pytest.fixture(scope="module")
def dataset(root) -> SegmentationSet:
    return read_dataset(root)


def tilt(affine: np.ndarray) -> float:
    """Degrees between the axes and the scanner's nearest ones."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.degrees(np.arccos(np.clip(np.abs(axes).max(0), 0, 1))).max())


def test_check_finds_nothing_to_mend(root):
    check = check_dataset(root)
    assert [str(problem) for problem in check.problems] == []
    assert (check.cases, check.channels) == (12, ("MRI",))
    assert check.orientations == {"RAS": 4, "LPS": 4, "PSR": 4}
    assert {summary.id: summary.name for summary in check.labels if summary.id} == {1: "dark", 2: "bright"}


def test_axes_cycle_and_every_fourth_is_oblique(dataset):
    grids = [reader_of(case.images[0]).grid() for case in dataset.cases]
    assert [grid.axcodes for grid in grids] == ["RAS", "LPS", "PSR"] * 4
    tilts = [tilt(grid.affine) for grid in grids]
    assert [7.9 < degrees < 18.1 for degrees in tilts] == [number % 4 == 3 for number in range(12)]
    assert max(degrees for number, degrees in enumerate(tilts) if number % 4 != 3) < 0.01


def test_voxels_are_anisotropic_and_labels_share_the_grid(dataset):
    for case in dataset.cases:
        grid = reader_of(case.images[0]).grid()
        assert max(grid.spacing) > 2 * min(grid.spacing)
        assert grid.spacing[_along(grid.axcodes, "SI")] == max(grid.spacing)
        assert grid.matches(reader_of(case.label).grid())
        assert nib.load(case.label).get_data_dtype() == np.uint8


def _along(axcodes: str, wanted: str) -> int:
    return next(axis for axis, code in enumerate(axcodes) if code in wanted)


def test_labels_are_told_apart_by_brightness_and_scales_differ(dataset):
    tops = []
    for case in dataset.cases:
        image = np.asarray(nib.load(case.images[0]).dataobj)
        label = np.asarray(nib.load(case.label).dataobj)
        assert set(np.unique(label)) <= set(LABELS.values())
        assert image.dtype == np.int16
        means = [image[label == id].mean() for id in (0, 1, 2) if (label == id).any()]
        assert means == sorted(means)
        assert all(high > 1.2 * low for low, high in pairwise(means))
        tops.append(float(image.max()))
    assert max(tops) > 3 * min(tops)


@pytest.mark.parametrize(("cases", "sides"), [(12, (8, 2, 2)), (6, (4, 1, 1)), (3, (1, 1, 1))])
def test_sides_of_the_split(tmp_path, cases, sides):
    dataset = read_dataset(make_dataset(tmp_path / "d", cases=cases))
    splits = read_splits(dataset)
    assert tuple(map(len, (splits.train, splits.val, splits.test))) == sides
    assert sorted(splits.train + splits.val + splits.test) == [case.name for case in dataset.cases]


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_same_seed_same_files_and_another_seed_others(tmp_path):
    seeds = {"first": 1, "again": 1, "other": 2}
    first, again, other = (make_dataset(tmp_path / name, cases=3, seed=seed) for name, seed in seeds.items())
    voxels = [np.asarray(nib.load(root / "imagesTr/blobs_000_0000.nii.gz").dataobj) for root in (first, again, other)]
    assert np.array_equal(voxels[0], voxels[1])
    assert voxels[0].shape != voxels[2].shape or not np.array_equal(voxels[0], voxels[2])
    assert digests(first) == digests(again)


def test_numpys_global_state_is_left_alone(tmp_path):
    before = np.random.get_state()[1].copy()
    make_dataset(tmp_path / "d", cases=3)
    assert np.array_equal(np.random.get_state()[1], before)


def test_a_folder_that_is_not_empty_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(VptError, match="not empty"):
        make_dataset(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    (tmp_path / "empty").mkdir()
    assert json.loads((make_dataset(tmp_path / "empty", cases=3) / "dataset.json").read_text())["numTraining"] == 3
