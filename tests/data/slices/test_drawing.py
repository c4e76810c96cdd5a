"""The same draw for the same seed; a sample is a window of its slice, the same in training and inference."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import plan_with

from vpt.data.framing import batches_of_slices, placement_of
from vpt.data.slices.cached_slices import PreparedCase
from vpt.data.slices.drawing import SliceDataset, SliceDraw, draw_epoch
from vpt.data.transforms import identity, make_augment

# --- draws ------------------------------------------------------------------------------------------------------------


def fake(depth: int, foreground: tuple[int, ...]) -> PreparedCase:
    return PreparedCase("case", Path("i"), Path("l"), None, foreground, depth, (8, 8))


def draws(cases, **changes) -> list[SliceDraw]:
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


def test_groups_are_drawn_equally_often_and_within_them_as_ever():
    """One case of the second group against three of the first, whose labelled slices are drawn as often as asked."""
    cases = [fake(10, (3, 4)), fake(10, ()), fake(10, (1,)), fake(100, tuple(range(10)))]
    found = draws(cases, groups=[0, 0, 0, 1])
    counts = Counter(draw.case for draw in found)
    assert counts[3] == 1000
    assert all(counts[case] > 100 for case in range(3))
    labelled = [draw.slice in cases[3].foreground for draw in found if draw.case == 3]
    assert np.mean(labelled) == pytest.approx(0.6 + 0.4 * 0.1, abs=0.05)
    assert draws(cases, groups=[0] * 4) == draws(cases), "a single group is all cases"


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
        image, label = samples[SliceDraw(0, seed % shape[0], seed)]
        assert (tuple(image.shape), image.dtype) == ((3, 32, 32), torch.float32)
        assert (tuple(label.shape), label.dtype) == ((32, 32), torch.int64)
        assert 0 <= image.min() <= image.max() <= 1
        assert set(label.unique().tolist()) <= {0, 1, 2}


def test_the_same_draw_is_the_same_sample(tmp_path):
    case = stored(tmp_path, np.random.default_rng(0).random((5, 1, 60, 60)), pattern((5, 60, 60)))
    samples = [SliceDataset([case], plan_with(), make_augment("strong")) for _ in range(2)]
    for seed in range(5):
        first, second = (each[SliceDraw(0, 2, seed)] for each in samples)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("shape", [(5, 30, 28), (5, 50, 60)])
def test_image_and_label_are_cropped_and_moved_together(tmp_path, shape):
    label = pattern(shape)
    case = stored(tmp_path, (label[:, None] > 0).astype(np.float32), label)  # the label is the image
    exact = SliceDataset([case], plan_with(), identity)
    moving = SliceDataset([case], plan_with(), make_augment("light"))
    for seed in range(15):
        image, found = exact[SliceDraw(0, 2, seed)]
        assert torch.equal(image[1] > 0.5, found > 0)
        image, found = moving[SliceDraw(0, 2, seed)]
        shown, truth = image[1] > (image[1].min() + image[1].max()) / 2, found > 0
        assert 2 * (shown & truth).sum() / (shown.sum() + truth.sum()) > 0.9


def test_a_slice_that_fits_is_in_the_middle_and_whole(tmp_path):
    label = pattern((2, 20, 31))
    case = stored(tmp_path, np.ones((2, 1, 20, 31)), label)
    image, found = SliceDataset([case], plan_with(), identity)[SliceDraw(0, 0, 0)]
    assert torch.equal(found[6:26, :31], torch.from_numpy(label[0].astype(np.int64)))
    assert image[:, 6:26, :31].min() == 1
    assert image.sum() == 3 * 20 * 31


def test_large_slices_are_cropped_around_any_labelled_pixel(tmp_path):
    label = np.zeros((1, 200, 150), np.uint8)
    label[0, 3, 4], label[0, 150, 140] = 1, 2  # two pixels, too far apart for one crop
    case = stored(tmp_path, np.ones((1, 1, 200, 150)), label)
    samples, seen, places = SliceDataset([case], plan_with(), identity), Counter(), set()
    for seed in range(60):
        image, found = samples[SliceDraw(0, 0, seed)]
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
    tops = [float(samples[SliceDraw(0, 0, seed)][0][1, 0, 0]) for seed in range(60)]
    assert min(tops) < 0.1
    assert max(tops) > 0.58


def test_neighbours_come_from_the_same_window(tmp_path):
    images = np.arange(5)[:, None, None, None] / 10 * np.ones((1, 1, 50, 50))
    image, _ = SliceDataset([stored(tmp_path, images, pattern((5, 50, 50)))], plan_with(), identity)[SliceDraw(0, 2, 1)]
    assert image[:, 0, 0].tolist() == pytest.approx([0.1, 0.2, 0.3], abs=1e-3)


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
    trained, mask = (part.numpy() for part in SliceDataset([case], plan, identity)[SliceDraw(0, 0, seed)])
    placement = placement_of(shape, plan)
    inferred = placement.pad(next(batches_of_slices(image, plan, 1)).numpy(), plan.fill)[0]
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
    back = placement.crop(torch.from_numpy(inferred))
    assert np.array_equal(back[0].numpy(), image[0, 0].astype(np.float32))


def test_what_augmentation_brings_in_has_the_fill_colour():
    fill, corners = (0.9, 0.1, 0.5), []
    for seed in range(40):
        image, label = np.full((3, 32, 32), 0.5, np.float32), np.zeros((32, 32), np.uint8)
        moved, _ = make_augment("light", fill)(image, label, seed)
        corners.append(moved[:, 0, 0])
    assert max(corner[0] - corner[1] for corner in corners) > 0.5  # grey alone would stay grey
