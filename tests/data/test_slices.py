"""From a volume to slices and back: nothing moves, nothing is lost, the same draw for the same seed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from plans import plan_with
from vpt.data.slices import (
    Draw,
    PreparedCase,
    SliceDataset,
    as_channels,
    batches_of_slices,
    crop_or_pad,
    draw_epoch,
    frame_of,
    positions,
    prepare_cases,
    prepare_image,
    prepare_label,
    prepared_size,
    resize_image,
)

from vpt.data.datasets import read_dataset
from vpt.data.plan import Percentiles, Plan, Window, make_plan
from vpt.data.transforms import identity, make_augment
from vpt.errors import VptError
from vpt.progress import silent


def volume(array: np.ndarray, spacing=(1.0, 1.0, 1.0)) -> MetaTensor:
    """(C, slices, rows, columns) as `orient` leaves it."""
    return MetaTensor(torch.from_numpy(array.copy()), affine=torch.diag(torch.tensor([*spacing, 1.0]).double()))


def centroid(weights: np.ndarray) -> np.ndarray:
    """Of (rows, columns), as a share of the side, from edge to edge."""
    index = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in weights.shape), indexing="ij"))
    return (index * weights).sum((1, 2)) / weights.sum() / weights.shape


def blob(shape, centre, radius) -> np.ndarray:
    """A filled ellipse in (rows, columns); centre and radius in pixels."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    distance = sum(((index[axis] - centre[axis]) / radius[axis]) ** 2 for axis in range(2))
    return (distance <= 1).astype(np.float32)


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
    label = prepare_label(volume(ellipse[None, None].astype(np.uint8), (4.0, *spacing)), (0, 1), plan)
    size = tuple(max(1, round(n * mm / pixel)) for n, mm in zip(shape, spacing, strict=True))
    assert (image.shape, image.dtype) == ((1, 1, *size), np.float32)
    assert (label.shape, label.dtype) == ((1, *size), np.uint8)
    assert image.min() >= 0
    assert image.max() <= 1 + 1e-6  # areas are averaged in float32
    if min(size) < 8:
        return  # too coarse a picture for an ellipse
    true = centroid(ellipse)
    assert (np.abs(centroid(image[0, 0]) - true) * size < 0.25).all()
    coarser = np.maximum(1, np.divide(size, shape))  # a pixel of the coarser of both grids, in prepared pixels
    assert (np.abs(centroid(label[0]) - true) * size < 0.5 * coarser).all()
    agreement = ((image[0, 0] > 0.5) == (label[0] > 0)).mean()
    assert agreement > 0.93


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
    label = np.random.default_rng(0).choice(ids, (1, 4, 9, 7)).astype(np.uint8)
    classes = prepare_label(volume(label), ids, plan_with())
    assert np.array_equal(classes, positions(label[0], ids))
    assert set(np.unique(classes)) == {0, 1, 2}
    assert np.array_equal(np.array(ids)[classes], label[0])
    resized = prepare_label(volume(label), ids, plan_with(pixel_mm=0.37))
    assert set(np.unique(resized)) == {0, 1, 2}  # none between


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


# --- the cache --------------------------------------------------------------------------------------------------------


@pytest.fixture
def dataset(make_dataset):
    return read_dataset(make_dataset(cases=3))


def prepare(dataset, cache: Path, plan: Plan | None = None, **options) -> list[PreparedCase]:
    plan = plan or make_plan(dataset, dataset.cases, native_size=32, patch=8)
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
    plan = make_plan(dataset, dataset.cases, native_size=32, patch=8)
    for case in dataset.cases:  # nothing else is needed any more
        for path in (*case.images, case.label):
            path.unlink()
    assert prepare(dataset, tmp_path / "cache", plan) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()} == stamps


def test_an_interrupted_preparation_leaves_no_broken_file_and_is_taken_up(dataset, tmp_path, monkeypatch):
    cache, save, calls = tmp_path / "cache", np.save, []

    def interrupted(file, array):
        calls.append(file)
        if len(calls) == 4:  # the images of the second case
            file.write(b"half a file")
            raise KeyboardInterrupt
        save(file, array)

    with monkeypatch.context() as patched:
        patched.setattr(np, "save", interrupted)
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
    def full(file, array):
        file.write(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
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


# --- draws ------------------------------------------------------------------------------------------------------------


def fake(depth: int, foreground: tuple[int, ...]) -> PreparedCase:
    return PreparedCase("case", Path("i"), Path("l"), None, foreground, depth, (8, 8))


def draws(cases, **changes) -> list[Draw]:
    options = {"steps": 100, "batch_size": 20, "foreground": 0.6, "seed": 0, "epoch": 0}
    batches = draw_epoch(cases, **{**options, **changes})
    assert [len(batch) for batch in batches] == [changes.get("batch_size", 20)] * changes.get("steps", 100)
    return [draw for batch in batches for draw in batch]


def test_an_epoch_is_the_same_for_its_seed_and_number_only():
    cases = [fake(10, (3, 4)), fake(20, ())]
    assert draws(cases) == draws(cases)
    assert draws(cases) != draws(cases, epoch=1)
    assert draws(cases) != draws(cases, seed=1)
    assert len({draw.seed for draw in draws(cases)}) > 1990  # every sample is augmented in its own way


def test_cases_are_drawn_evenly_whatever_their_depth():
    cases = [fake(1000, tuple(range(400, 600))), fake(10, (2,)), fake(50, (7, 8, 9)), fake(3, (0, 1, 2))]
    found = Counter(draw.case for draw in draws(cases))
    assert all(abs(found[case] / 2000 - 0.25) < 0.04 for case in range(4))
    assert all(0 <= draw.slice < cases[draw.case].depth for draw in draws(cases))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 1.0])
def test_the_share_of_labelled_slices_is_as_asked_for(share):
    cases = [fake(100, tuple(range(10))), fake(40, tuple(range(30, 34)))]  # a tenth of the slices have a label
    found = np.mean([draw.slice in cases[draw.case].foreground for draw in draws(cases, foreground=share)])
    assert found == pytest.approx(share + (1 - share) * 0.1, abs=0.035)


def test_unlabelled_cases_are_drawn_too_and_labels_are_not_needed():
    cases = [fake(10, (1,)), fake(10, ())]
    assert Counter(draw.case for draw in draws(cases, foreground=0.5))[1] == pytest.approx(500, abs=80)
    assert {draw.case for draw in draws([fake(4, ()), fake(5, ())], foreground=1.0)} == {0, 1}


# --- samples ----------------------------------------------------------------------------------------------------------


def stored(tmp_path: Path, images: np.ndarray, labels: np.ndarray) -> PreparedCase:
    np.save(tmp_path / "i.npy", images.astype(np.float16))
    np.save(tmp_path / "l.npy", labels.astype(np.uint8))
    filled = tuple(np.flatnonzero(labels.any(axis=(1, 2))).tolist())
    return PreparedCase("a", tmp_path / "i.npy", tmp_path / "l.npy", None, filled, len(labels), labels.shape[1:])


def pattern(shape=(5, 40, 30)) -> np.ndarray:
    """Labels whose every slice has a lopsided shape of classes 1 and 2."""
    label = np.zeros(shape, np.uint8)
    label[:, shape[1] // 4 : shape[1] // 2, shape[2] // 4 : shape[2] // 2] = 1
    label[:, shape[1] // 2 : 3 * shape[1] // 4, shape[2] // 4 : 3 * shape[2] // 4] = 2
    return label


@pytest.mark.parametrize("strength", ["none", "light", "strong"])
@pytest.mark.parametrize("shape", [(5, 40, 30), (5, 20, 18), (5, 90, 70), (5, 90, 10), (1, 32, 32)])
def test_samples_have_the_encoders_shape_and_range(tmp_path, strength, shape):
    case = stored(tmp_path, np.random.default_rng(0).random(shape)[:, None], pattern(shape))
    samples = SliceDataset([case], plan_with(), make_augment(strength))
    for seed in range(8):
        image, label = samples[Draw(0, seed % shape[0], seed)]
        assert (tuple(image.shape), image.dtype) == ((3, 32, 32), torch.float32)
        assert (tuple(label.shape), label.dtype) == ((32, 32), torch.int64)
        assert 0 <= image.min() <= image.max() <= 1
        assert set(label.unique().tolist()) <= {0, 1, 2}


def test_the_same_draw_is_the_same_sample(tmp_path):
    case = stored(tmp_path, np.random.default_rng(0).random((5, 1, 60, 60)), pattern((5, 60, 60)))
    samples = [SliceDataset([case], plan_with(), make_augment("strong")) for _ in range(2)]
    for seed in range(5):
        first, second = (each[Draw(0, 2, seed)] for each in samples)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("shape", [(5, 30, 28), (5, 50, 60)])
def test_image_and_label_are_cropped_and_moved_together(tmp_path, shape):
    label = pattern(shape)
    case = stored(tmp_path, (label[:, None] > 0).astype(np.float32), label)  # the label is the image
    exact = SliceDataset([case], plan_with(), identity)
    moving = SliceDataset([case], plan_with(), make_augment("light"))
    for seed in range(15):
        image, found = exact[Draw(0, 2, seed)]
        assert torch.equal(image[1] > 0.5, found > 0)
        image, found = moving[Draw(0, 2, seed)]
        shown, truth = image[1] > (image[1].min() + image[1].max()) / 2, found > 0
        assert 2 * (shown & truth).sum() / (shown.sum() + truth.sum()) > 0.9


def test_a_slice_that_fits_is_in_the_middle_and_whole(tmp_path):
    label = pattern((2, 20, 31))
    case = stored(tmp_path, np.ones((2, 1, 20, 31)), label)
    image, found = SliceDataset([case], plan_with(), identity)[Draw(0, 0, 0)]
    assert torch.equal(found[6:26, :31], torch.from_numpy(label[0].astype(np.int64)))
    assert image[:, 6:26, :31].min() == 1
    assert image.sum() == 3 * 20 * 31


def test_large_slices_are_cropped_around_any_labelled_pixel(tmp_path):
    label = np.zeros((1, 200, 150), np.uint8)
    label[0, 3, 4], label[0, 150, 140] = 1, 2  # two pixels, too far apart for one crop
    case = stored(tmp_path, np.ones((1, 1, 200, 150)), label)
    samples, seen, places = SliceDataset([case], plan_with(), identity), Counter(), set()
    for seed in range(60):
        image, found = samples[Draw(0, 0, seed)]
        assert found.any()
        assert image.min() == 1  # no padding where there is enough slice
        seen.update(found[found > 0].tolist())
        places.add(tuple(torch.nonzero(found)[0].tolist()))
    assert min(seen[1], seen[2]) > 15
    assert len(places) > 20  # not always in the middle


def test_large_slices_without_label_are_cropped_anywhere(tmp_path):
    position = np.arange(100)[None, None, :, None] / 100 * np.ones((1, 1, 1, 90))
    case = stored(tmp_path, position, np.zeros((1, 100, 90)))
    samples = SliceDataset([case], plan_with(), identity)
    tops = [float(samples[Draw(0, 0, seed)][0][1, 0, 0]) for seed in range(60)]
    assert min(tops) < 0.1
    assert max(tops) > 0.58


def test_neighbours_come_from_the_same_window(tmp_path):
    images = np.arange(5)[:, None, None, None] / 10 * np.ones((1, 1, 50, 50))
    image, _ = SliceDataset([stored(tmp_path, images, pattern((5, 50, 50)))], plan_with(), identity)[Draw(0, 2, 1)]
    assert image[:, 0, 0].tolist() == pytest.approx([0.1, 0.2, 0.3], abs=1e-3)


def test_a_real_case_is_prepared_as_nibabel_sees_it(tmp_path, data_root):
    """Independent of `orient`: nibabel's own canonical volume, cut by hand."""
    dataset = read_dataset(data_root / "hippocampus3d")
    case = dataset.cases[0]
    (prepared,) = prepare_cases(dataset, [case], plan_with(intensity=(Percentiles(),)), tmp_path, silent, native=True)
    canonical = np.asarray(nib.as_closest_canonical(nib.load(case.label)).dataobj).astype(np.uint8)
    assert np.array_equal(np.load(prepared.native), canonical.transpose(2, 1, 0)[:, ::-1, ::-1])


# --- images: the longer side fills the square, padding is the encoder's -----------------------------------------------


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([32, 224, 1024]))
def test_without_a_pixel_size_the_longer_side_is_the_plans(rows, columns, size):
    """As ResizeLongestSide of segment_anything: round(side * scale)."""
    found = prepared_size((rows, columns), (1.0, 1.0), plan_with(pixel_mm=None, image_size=size))
    assert max(found) == size
    scale = size / max(rows, columns)
    assert all(abs(side - max(1.0, n * scale)) <= 0.5 + 1e-6 for side, n in zip(found, (rows, columns), strict=True))


@given(
    st.tuples(st.integers(1, 45), st.integers(1, 45)),
    st.sampled_from(["centre", "corner"]),
    st.integers(0, 2**31),
)
@settings(max_examples=80, deadline=None)
def test_training_and_inference_put_a_slice_at_the_same_place(tmp_path_factory, shape, padding, seed):
    plan = plan_with(padding=padding, fill=(0.25, 0.5, 0.75), neighbours=False)
    image = np.random.default_rng(seed).random((1, 1, *shape)).astype(np.float16)
    label = np.ones((1, *shape), np.uint8)
    case = stored(tmp_path_factory.mktemp("case"), image[:, 0][:, None], label)
    trained, mask = (part.numpy() for part in SliceDataset([case], plan, identity)[Draw(0, 0, seed)])
    frame = frame_of(shape, plan)
    inferred = frame.pad(next(batches_of_slices(image, plan, 1)).numpy(), plan.fill)[0]
    assert inferred.shape == (3, *(max(side, 32) for side in shape))
    windows = np.lib.stride_tricks.sliding_window_view(inferred, (32, 32), axis=(1, 2))
    assert (windows == trained[:, None, None]).all(axis=(0, 3, 4)).any()  # what is larger is cropped, elsewhere equal
    if max(shape) <= 32:
        assert np.array_equal(inferred, trained)
        inside = np.zeros((32, 32), bool)
        top, left = ((32 - side) // 2 if padding == "centre" else 0 for side in shape)
        inside[top : top + shape[0], left : left + shape[1]] = True
        assert np.array_equal(mask > 0, inside)  # the label's padding stays background
        assert np.array_equal(trained[:, ~inside].T, np.tile(np.float32(plan.fill), ((~inside).sum(), 1)))
    back = frame.crop(torch.from_numpy(inferred))
    assert np.array_equal(back[0].numpy(), image[0, 0].astype(np.float32))


def test_what_augmentation_brings_in_has_the_fill_colour():
    fill, corners = (0.9, 0.1, 0.5), []
    for seed in range(40):
        image, label = np.full((3, 32, 32), 0.5, np.float32), np.zeros((32, 32), np.uint8)
        moved, _ = make_augment("light", fill)(image, label, seed)
        corners.append(moved[:, 0, 0])
    assert max(corner[0] - corner[1] for corner in corners) > 0.5  # grey alone would stay grey
