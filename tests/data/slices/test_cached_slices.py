"""From a volume to slices in the cache: nothing moves, nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import plan_with
from scans import label_map_of, voxels_of

from vpt.data.label_maps import positions
from vpt.data.layouts import read_dataset
from vpt.data.plan import Percentiles, Plan, Window
from vpt.data.planned import EncoderInput
from vpt.data.planning import make_plan
from vpt.data.slices.cached_slices import PreparedCase, prepare_cases, prepare_image, prepare_label
from vpt.errors import VptError
from vpt.progress import silent
from vpt.readers import LabelMap, Voxels


def volume(array: np.ndarray, spacing=(1.0, 1.0, 1.0)) -> Voxels:
    """(C, slices, rows, columns) as `oriented` leaves it."""
    return voxels_of(array, np.diag([*spacing, 1.0]))


def label_map(array: np.ndarray, spacing=(1.0, 1.0, 1.0)) -> LabelMap:
    return label_map_of(array, np.diag([*spacing, 1.0]))


def centroid(weights: np.ndarray) -> np.ndarray:
    """Of (rows, columns), as a share of the side, from edge to edge."""
    index = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in weights.shape), indexing="ij"))
    return (index * weights).sum((1, 2)) / weights.sum() / weights.shape


def blob(shape, centre, radius) -> np.ndarray:
    """A filled ellipse in (rows, columns); centre and radius in pixels."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    distance = sum(((index[axis] - centre[axis]) / radius[axis]) ** 2 for axis in range(2))
    return (distance <= 1).astype(np.float32)


def is_nearest(prepared: np.ndarray, original: np.ndarray) -> bool:
    """Whether every pixel has the value of the original one in which its centre lies; on a border, of either."""
    centres = [(np.arange(new) + 0.5) * old / new for new, old in zip(prepared.shape, original.shape, strict=True)]
    near = [
        [(at + by).astype(int).clip(0, n - 1) for by in (-1e-3, 1e-3)]
        for at, n in zip(centres, original.shape, strict=True)
    ]
    return bool(
        np.any([prepared == original[np.ix_(rows, columns)] for rows in near[0] for columns in near[1]], axis=0).all()
    )


# --- a volume prepared ------------------------------------------------------------------------------------------------

sides = st.integers(16, 60)
millimetres = st.floats(0.3, 3.0)


@given(st.tuples(sides, sides), st.tuples(millimetres, millimetres), millimetres, st.data())
@settings(max_examples=120, deadline=None)
def test_an_ellipse_stays_where_it_is_and_image_and_label_agree(shape, spacing, pixel, data):
    centre = [data.draw(st.floats(0.35 * n, 0.65 * n)) for n in shape]
    radius = [max(3.0, 0.25 * n) for n in shape]
    ellipse = blob(shape, centre, radius)
    plan = plan_with(pixel_mm=pixel, plane="sagittal")
    image = prepare_image(volume(ellipse[None, None], (4.0, *spacing)), plan)
    label = prepare_label(label_map(ellipse[None].astype(np.uint8), (4.0, *spacing)), (0, 1), plan)
    size = tuple(max(1, round(n * mm / pixel)) for n, mm in zip(shape, spacing, strict=True))
    assert (image.shape, image.dtype) == ((1, 1, *size), np.float32)
    assert (label.shape, label.dtype) == ((1, *size), np.uint8)
    assert image.min() >= 0
    assert image.max() <= 1 + 1e-6  # areas are averaged in float32
    if min(size) < 8:
        return  # too coarse a picture for an ellipse
    true = centroid(ellipse)
    assert (np.abs(centroid(image[0, 0]) - true) * size < 0.25).all()
    assert is_nearest(label[0], ellipse)
    agreement = ((image[0, 0] > 0.5) == (label[0] > 0)).mean()
    assert agreement > 0.93


def test_sizes_channels_and_their_own_scales():
    array = np.stack([np.full((3, 8, 10), 5.0), np.linspace(1, 9, 240).reshape(3, 8, 10)]).astype(np.float32)
    plan = plan_with(
        neighbours=False, channels=("CT", "MRI"), intensity=(Window(low=0, high=10), Percentiles()), pixel_mm=0.5
    )
    out = prepare_image(volume(array, (5.0, 1.0, 1.5)), plan)
    assert out.shape == (3, 2, 16, 30)
    assert np.allclose(out[:, 0], 0.5)
    assert (out[:, 1].min(), out[:, 1].max()) == pytest.approx((0, 1), abs=0.02)


def test_a_slice_of_less_than_a_pixel_is_one_pixel():
    assert prepare_image(volume(np.ones((1, 2, 1, 4), np.float32)), plan_with(pixel_mm=5.0)).shape == (2, 1, 1, 1)


def test_labels_are_positions_of_sparse_ids_and_come_back_as_ids():
    ids = (0, 3, 117)
    label = np.random.default_rng(0).choice(ids, (4, 9, 7)).astype(np.uint8)
    classes = prepare_label(label_map(label), ids, plan_with())
    assert np.array_equal(classes, positions(label, ids))
    assert set(np.unique(classes)) == {0, 1, 2}
    assert np.array_equal(np.array(ids)[classes], label)
    resized = prepare_label(label_map(label), ids, plan_with(pixel_mm=0.37))
    assert set(np.unique(resized)) == {0, 1, 2}  # none between


# --- the cache --------------------------------------------------------------------------------------------------------


@pytest.fixture
def dataset(make_dataset):
    return read_dataset(make_dataset(cases=3))


def prepare(dataset, cache: Path, plan: Plan | None = None, **options) -> list[PreparedCase]:
    plan = plan or make_plan(dataset, dataset.cases, EncoderInput(native_size=32, patch=8))
    return prepare_cases(dataset, dataset.cases, plan, cache, silent, **options)


def test_prepared_cases_are_described_and_readable(dataset, tmp_path):
    plan = plan_with(intensity=(Percentiles(),), pixel_mm=0.5)
    ticks = []
    prepared = prepare_cases(
        dataset, dataset.cases, plan, tmp_path / "new/cache", lambda *tick: ticks.append(tick), native=True
    )
    assert ticks == [(1, 3, "case_00"), (2, 3, "case_01"), (3, 3, "case_02")]
    for case in prepared:
        images, labels = case.read()
        assert (images.shape, images.dtype) == ((6, 1, 30, 24), np.float16)  # (12, 10, 6) voxels of 1 x 1.5 x 3 mm
        assert (labels.shape, labels.dtype) == ((6, 30, 24), np.uint8)
        assert (case.depth, case.foreground) == (6, (1, 2, 3, 4))
        native = np.load(case.native)
        assert (native.shape, native.dtype) == ((6, 10, 12), np.uint8)
        assert np.bincount(native.ravel()).tolist() == [720 - 100, 92, 8]
        inside = images[:, 0].astype(np.float32)[np.asarray(labels) > 0].mean()
        assert inside > images[:, 0].astype(np.float32)[np.asarray(labels) == 0].mean() + 0.1


def test_what_is_in_the_cache_is_taken_from_there(dataset, tmp_path):
    first = prepare(dataset, tmp_path / "cache")
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    plan = make_plan(dataset, dataset.cases, EncoderInput(native_size=32, patch=8))
    for case in dataset.cases:  # nothing else is needed any more
        for path in (*case.images, case.label):
            path.unlink()
    assert prepare(dataset, tmp_path / "cache", plan) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()} == stamps


def test_an_interrupted_preparation_leaves_no_broken_file_and_is_taken_up(dataset, tmp_path, monkeypatch):
    cache, begin, calls = tmp_path / "cache", np.lib.format.write_array_header_1_0, []

    def interrupted(file, header):
        begin(file, header)
        calls.append(file)
        if len(calls) == 4:  # the images of the second case
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(np.lib.format, "write_array_header_1_0", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(dataset, cache)
    assert sorted(path.name for path in cache.iterdir()) == [
        "case_00.image.npy",
        "case_00.label.npy",
        "case_01.label.npy",
    ]
    whole = prepare(dataset, tmp_path / "other")
    for found, expected in zip(prepare(dataset, cache), whole, strict=True):
        for ours, theirs in zip(found.read(), expected.read(), strict=True):
            assert np.array_equal(ours, theirs)


def test_a_full_disk_is_said_and_nothing_is_left(dataset, tmp_path, monkeypatch):
    def full(file, header):
        file.write(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    with pytest.raises(VptError, match="No space left on device"):
        prepare(dataset, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_sparse_ids_survive_the_cache(tmp_path, save):
    root, label = tmp_path / "sparse", np.zeros((9, 8, 4), np.uint8)
    label[2:5, 2:5, 1], label[4:8, 4:7, 2] = 3, 117
    save(root / "labelsTr/a.nii.gz", label)
    save(root / "imagesTr/a_0000.nii.gz", label.astype(np.float32))
    content = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "skin": 3, "rib": 117}}
    (root / "dataset.json").write_text(json.dumps(content))
    dataset = read_dataset(root)
    (case,) = prepare(dataset, tmp_path / "cache", plan_with(), native=True)
    ids = np.array(sorted(dataset.labels))
    back = ids[np.load(case.native)]  # axial: slices to S, rows to P, columns to L
    assert np.array_equal(back, label.transpose(2, 1, 0)[:, ::-1, ::-1])
    assert case.foreground == (1, 2)


def test_a_real_case_is_prepared_as_nibabel_sees_it(tmp_path, data_root):
    """Independent of `oriented`: nibabel's own canonical volume, cut by hand."""
    dataset = read_dataset(data_root / "hippocampus3d")
    case = dataset.cases[0]
    (prepared,) = prepare_cases(dataset, [case], plan_with(intensity=(Percentiles(),)), tmp_path, silent, native=True)
    canonical = np.asarray(nib.as_closest_canonical(nib.load(case.label)).dataobj).astype(np.uint8)
    assert np.array_equal(np.load(prepared.native), canonical.transpose(2, 1, 0)[:, ::-1, ::-1])
