"""Scores against hand-computed numbers, brute force over distance transforms, and identities."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from label_scores import surface_scores
from scipy.ndimage import binary_erosion, distance_transform_edt

from vpt.errors import VptError
from vpt.scores import cases
from vpt.scores.cases import score_case
from vpt.scores.lesions import score_lesions


def box(shape, start, size, label=1):
    volume = np.zeros(shape, np.uint8)
    volume[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = label
    return volume


def brute_force(predicted, true, spacing, tolerance):
    """(HD95, ASSD, NSD) from dense distance transforms of the whole, uncropped volume."""
    surfaces = [mask & ~binary_erosion(mask) for mask in (predicted, true)]
    to = [distance_transform_edt(~surface, sampling=spacing) for surface in surfaces]
    there, back = to[1][surfaces[0]], to[0][surfaces[1]]
    within = (there <= tolerance + 1e-6).sum() + (back <= tolerance + 1e-6).sum()
    count = len(there) + len(back)
    return max(np.percentile(there, 95), np.percentile(back, 95)), (there.sum() + back.sum()) / count, within / count


def test_shifted_cubes_by_hand():
    """A 4x4x4 cube moved by two voxels of 3 mm: half of it overlaps, its far face is 6 mm away."""
    reference, prediction = box((12, 12, 12), (2, 2, 2), (4, 4, 4)), box((12, 12, 12), (2, 2, 4), (4, 4, 4))
    score = score_case(prediction, reference, (0.5, 1.0, 3.0), [1])[1]
    assert (score.tp, score.fp, score.fn, score.tn) == (32, 32, 32, 12**3 - 96)
    assert (score.n_pred, score.n_ref) == (64, 64)
    assert score.dice == 0.5
    assert score.iou == pytest.approx(1 / 3)
    assert score.volume_ref_ml == score.volume_pred_ml == pytest.approx(64 * 1.5 / 1000)
    assert score.hd95 == pytest.approx(6.0)
    # Of the 56 surface voxels of each (all but the inner 2x2x2), the two layers outside of the other cube are 3 mm and
    # more away; in the two layers inside of it lie 12 + 16, on the other's surface or one voxel of 0.5 mm beside it.
    assert score.nsd == 28 / 56


def test_spacing_decides_which_axis_is_far():
    reference = box((20, 20, 20), (5, 5, 5), (6, 6, 6))
    for axis, shift in enumerate(((1, 0, 0), (0, 1, 0), (0, 0, 1))):
        moved = box((20, 20, 20), tuple(5 + step for step in shift), (6, 6, 6))
        score = score_case(moved, reference, (0.4, 0.9, 5.0), [1])[1]
        assert score.hd95 == pytest.approx((0.4, 0.9, 5.0)[axis])
        assert (score.nsd == 1.0) == (axis < 2)


def test_where_the_reference_is_ignored_nothing_counts():
    reference, prediction = box((9, 9, 9), (2, 2, 2), (3, 3, 3)), box((9, 9, 9), (2, 2, 2), (3, 3, 3))
    prediction[6:] = 1
    reference[6:] = 255
    score = score_case(prediction, reference, (1, 1, 1), [1], ignored=255)[1]
    assert (score.dice, score.hd95, score.nsd) == (1, 0, 1)
    assert (score.tp, score.fp, score.fn, score.tn) == (27, 0, 0, 6 * 81 - 27)
    assert score_case(prediction, reference, (1, 1, 1), [1])[1].fp == 3 * 81
    assert prediction[6:].all()  # what was given is left as it is


def test_equal_volumes_are_perfect():
    volume = box((9, 9, 9), (1, 2, 3), (4, 3, 2))
    score = score_case(volume, volume, (1, 1, 1), [1])[1]
    assert (score.dice, score.iou, score.hd95, score.nsd) == (1.0, 1.0, 0.0, 1.0)


def test_header_rounding_does_not_push_a_surface_out_of_the_tolerance():
    reference, prediction = box((9, 9, 9), (3, 3, 3), (3, 3, 3)), box((9, 9, 9), (4, 3, 3), (3, 3, 3))
    assert score_case(prediction, reference, (1.0000001,) * 3, [1], tolerance=1.0)[1].nsd == 1.0
    assert score_case(prediction, reference, (1.001,) * 3, [1], tolerance=1.0)[1].nsd < 1.0


@pytest.mark.parametrize("seed", range(6))
def test_brute_force_agrees_also_at_the_border(seed):
    """Random blobs, some of them cut by the volume's border, on anisotropic voxels; scored cropped and uncropped."""
    rng = np.random.default_rng(seed)
    shape, spacing = (18, 22, 9), tuple(rng.uniform(0.4, 5.0, 3))
    grid = np.indices(shape).transpose(1, 2, 3, 0)
    center = rng.uniform(0, 1, 3) * shape if seed % 2 else np.array(shape) * (0, 0.5, 1)
    masks = [((grid - center - rng.uniform(-2, 2, 3)) ** 2).sum(-1) < rng.uniform(9, 40) for _ in range(2)]
    score = score_case(masks[0].astype(np.int16), masks[1].astype(np.int16), spacing, [1], tolerance=1.5)[1]
    assert (score.hd95, score.assd, score.nsd) == pytest.approx(brute_force(*masks, spacing, 1.5), rel=1e-9)
    whole = surface_scores(*masks, spacing, 1.5)
    assert (score.hd95, score.assd, score.nsd) == pytest.approx((whole.hd95, whole.assd, whole.nsd))


@pytest.mark.parametrize("where", [(0, 0, 0), (3, 3, 3), (6, 0, 3)])
def test_space_around_the_masks_changes_no_score_but_the_true_negatives(where):
    small = [box((6, 7, 8), (0, 0, 0), (4, 7, 3)), box((6, 7, 8), (1, 0, 2), (5, 4, 6))]
    large = []
    for mask in small:
        padded = np.zeros((15, 15, 15), np.uint8)
        padded[tuple(slice(a, a + n) for a, n in zip(where, mask.shape, strict=True))] = mask
        large.append(padded)
    first, second = (score_case(*pair, (0.7, 1.3, 2.9), [1])[1] for pair in (small, large))
    assert (first.dice, first.iou, first.hd95, first.nsd) == (second.dice, second.iou, second.hd95, second.nsd)
    assert second.tn - first.tn == 15**3 - 6 * 7 * 8


def test_labels_are_scored_apart_and_others_are_background():
    reference = box((8, 8, 8), (0, 0, 0), (4, 4, 4), 1) + box((8, 8, 8), (4, 4, 4), (4, 4, 4), 117)
    prediction = box((8, 8, 8), (0, 0, 0), (4, 4, 2), 1) + box((8, 8, 8), (4, 4, 4), (4, 4, 4), 9)
    scores = score_case(prediction, reference, (1, 1, 1), [117, 1, 9])
    assert {label: score.dice for label, score in scores.items()} == {117: 0.0, 1: pytest.approx(2 / 3), 9: 0.0}
    assert sum(scores[1].__dict__[name] for name in ("tp", "fp", "fn", "tn")) == 512


@pytest.mark.parametrize(("empty", "value"), [("nan", math.nan), ("one", 1.0), ("zero", 0.0)])
def test_absent_in_both_follows_the_rule(empty, value):
    score = score_case(np.zeros((4, 4, 4), int), np.zeros((4, 4, 4), int), (1, 1, 1), [1], empty=empty)[1]
    assert (score.dice, score.iou, score.nsd) == pytest.approx((value,) * 3, nan_ok=True)
    assert math.isnan(score.hd95)
    assert (score.n_pred, score.n_ref, score.tn) == (0, 0, 64)


@pytest.mark.parametrize("empty", ["nan", "one", "zero"])
@pytest.mark.parametrize("side", ["false positive", "missed"])
def test_absent_in_one_is_zero_and_has_no_distance(side, empty):
    some, none = box((5, 5, 5), (1, 1, 1), (2, 2, 2)), np.zeros((5, 5, 5), np.uint8)
    pair = (some, none) if side == "false positive" else (none, some)
    score = score_case(*pair, (1, 1, 1), [1], empty=empty)[1]
    assert (score.dice, score.iou, score.nsd) == (0.0, 0.0, 0.0)
    assert math.isnan(score.hd95)
    assert (score.fp, score.fn) == ((8, 0) if side == "false positive" else (0, 8))


def test_without_distances_the_rest_is_the_same():
    reference, prediction = box((9, 9, 9), (1, 1, 1), (5, 5, 5)), box((9, 9, 9), (2, 2, 2), (5, 5, 5))
    full = score_case(prediction, reference, (1, 2, 3), [1, 2])
    fast = score_case(prediction, reference, (1, 2, 3), [1, 2], distances=False)
    for label in (1, 2):
        assert math.isnan(fast[label].hd95)
        assert math.isnan(fast[label].nsd)
        assert fast[label].dice == pytest.approx(full[label].dice, nan_ok=True)
        assert (fast[label].tp, fast[label].volume_ref_ml) == (full[label].tp, full[label].volume_ref_ml)


def test_images_and_booleans_are_scored_as_well():
    mask = np.zeros((8, 8), bool)
    mask[2:5, 2:5] = True
    assert score_case(mask, mask, (0.3, 0.3), [1])[1].nsd == 1.0


def test_single_slice_volume():
    reference, prediction = box((9, 9, 1), (2, 2, 0), (4, 4, 1)), box((9, 9, 1), (4, 2, 0), (4, 4, 1))
    assert score_case(prediction, reference, (1, 1, 8), [1])[1].hd95 == pytest.approx(2.0)


labels_3d = arrays(np.uint8, (5, 6, 4), elements=st.integers(0, 3))


@settings(max_examples=60, deadline=None)
@given(labels_3d, labels_3d)
def test_identities(prediction, reference):
    scores = score_case(prediction, reference, (1, 1, 2), [1, 2, 3], distances=False)
    swapped = score_case(reference, prediction, (1, 1, 2), [1, 2, 3], distances=False)
    for label, score in scores.items():
        predicted, true = prediction == label, reference == label
        assert score.tp == (predicted & true).sum()
        assert score.tn == (~predicted & ~true).sum()
        assert score.tp + score.fp + score.fn + score.tn == prediction.size
        assert score.volume_pred_ml == pytest.approx(predicted.sum() * 2 / 1000)
        if score.n_pred + score.n_ref:
            assert score.dice == pytest.approx(2 * score.iou / (1 + score.iou))
            assert 0 <= score.iou <= score.dice <= 1
            assert score.dice == swapped[label].dice
            assert score.fp == swapped[label].fn


def test_a_small_organ_in_a_large_volume_is_quick_and_frugal():
    """512 x 512 x 300 voxels in under 5 s and less than 64 MB beside the volumes, which are not copied."""
    import time
    import tracemalloc

    reference, prediction = np.zeros((512, 512, 300), np.uint8), np.zeros((512, 512, 300), np.uint8)
    reference[200:240, 210:250, 100:130] = 1
    prediction[202:242, 210:250, 100:130] = 1
    surface_scores(reference[:4, :4, :4] == 0, reference[:4, :4, :4] == 0, (1, 1, 1))  # SciPy's import, once
    tracemalloc.start()
    start = time.perf_counter()
    assert score_case(prediction, reference, (0.8, 0.8, 1), [1])[1].hd95 == pytest.approx(1.6)
    assert time.perf_counter() - start < 5
    assert tracemalloc.get_traced_memory()[1] < 64e6
    tracemalloc.stop()


def test_stray_voxels_in_far_corners_cost_next_to_nothing():
    """Of 20 labels that each reach through a volume of 40 million voxels: under 10 s and 100 MB beside it."""
    import time
    import tracemalloc

    reference, prediction = np.zeros((400, 400, 250), np.uint8, "F"), np.zeros((400, 400, 250), np.uint8, "F")
    for label in range(1, 21):
        reference[label, 0, 0] = reference[-label, -1, -1] = prediction[label, 0, 0] = label
    tracemalloc.start()
    start = time.perf_counter()
    scores = score_case(prediction, reference, (1, 1, 1), range(1, 21))
    assert time.perf_counter() - start < 10
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()
    assert {(score.tp, score.fp, score.fn) for score in scores.values()} == {(1, 0, 1)}


@pytest.mark.parametrize("slab", [1, 50, 10**6])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int64, np.uint64])
def test_voxels_are_counted_in_one_pass_whatever_their_type_and_order(monkeypatch, slab, kind):
    monkeypatch.setattr(cases, "SLAB", slab)
    rng = np.random.default_rng(0)
    first, second = (rng.choice([0, 1, 5, 200], size=(7, 5, 6)).astype(kind) for _ in range(2))
    found = cases.count_labels(np.asfortranarray(first), second.transpose(2, 1, 0).copy().T, [200, 1, 300])
    assert found == {
        label: tuple(
            int(mask.sum()) for mask in ((first == label) & (second == label), first == label, second == label)
        )
        for label in (1, 200, 300)
    }


def test_no_warning_reaches_the_user(recwarn):
    reference, prediction = box((5, 5, 5), (1, 1, 1), (2, 2, 2)), box((5, 5, 5), (1, 1, 2), (2, 2, 2))
    score_case(prediction, reference, (1, 1, 1), [1, 2])
    score_case(np.zeros_like(reference), reference, (1, 1, 1), [1])
    assert not list(recwarn)


ones = np.ones((2, 2, 2), int)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"reference": np.ones((2, 2, 3), int)}, r"prediction has shape \(2, 2, 2\) and reference \(2, 2, 3\)"),
        ({"spacing": (1, 1)}, r"spacing \(1, 1\) does not fit 3 axes"),
        ({"spacing": (1, 1, 0)}, "one length above 0 mm per axis"),
        ({"prediction": ones * 0.5}, "prediction holds float64, expected integer labels"),
        ({"labels": [0, 1]}, "must be above 0, which is the background"),
        ({"empty": "skip"}, "empty: 'skip' is not one of nan, one, zero"),
        ({"tolerance": -1}, "tolerance: -1 is not a distance in mm"),
        ({"tolerance": math.nan}, "tolerance: nan is not a distance"),
    ],
)
def test_wrong_arguments_are_said(change, sentence):
    arguments = {"prediction": ones, "reference": ones, "spacing": (1, 1, 1), "labels": [1]} | change
    with pytest.raises(VptError, match=sentence):
        score_case(**arguments)


def test_importing_is_cheap():
    """The command line starts without MONAI, torch, scipy, nibabel and rich."""
    heavy = {"monai", "torch", "scipy", "nibabel", "rich"}
    code = f"import sys, vpt.use.evaluation.scoring; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_labels_that_are_scored_at_a_time_have_the_scores_that_they_have_alone(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 6, (20, 16, 12)).astype(np.uint8) for _ in range(2))
    threads = set()
    real = cases.score_places

    def seen(*args):
        threads.add(threading.get_ident())
        return real(*args)

    alone = score_case(first, second, (1, 1, 2), range(1, 8), workers=1)
    monkeypatch.setattr(cases, "score_places", seen)
    at_a_time = score_case(first, second, (1, 1, 2), range(1, 8), workers=3)

    assert threading.get_ident() not in threads
    assert list(at_a_time) == list(alone)
    assert repr(at_a_time) == repr(alone)  # the absent labels' NaN are alike too


# --- sheared grids, single slices -------------------------------------------------------------------------------------

TILTED = np.array([[1.0, 0, 0], [0, 1, 3 * math.tan(math.radians(20))], [0, 0, 3]])  # a gantry's tilt, steps as columns


def test_on_a_sheared_grid_distances_and_volumes_are_those_of_the_world():
    true, predicted = box((16, 18, 9), (3, 4, 2), (7, 8, 4)), box((16, 18, 9), (5, 3, 3), (6, 9, 5))
    found = score_case(predicted, true, TILTED, [1])[1]

    points = [np.argwhere(mask & ~binary_erosion(mask)) @ TILTED.T for mask in (predicted > 0, true > 0)]
    apart = np.linalg.norm(points[0][:, None] - points[1][None], axis=-1)
    there, back = apart.min(1), apart.min(0)
    assert found.hd95 == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
    assert found.assd == pytest.approx(np.concatenate([there, back]).mean())
    assert found.volume_ref_ml == pytest.approx(7 * 8 * 4 * 3 / 1000)
    assert score_lesions(predicted, true, TILTED, [1])[1].lesions[0].size == pytest.approx(found.volume_ref_ml)


def test_steps_at_right_angles_score_as_their_lengths():
    true, predicted = box((16, 18, 9), (3, 4, 2), (7, 8, 4)), box((16, 18, 9), (5, 3, 3), (6, 9, 5))
    lengths = (0.7, 1.1, 3.0)
    by_steps, by_lengths = (score_case(predicted, true, each, [1])[1] for each in (np.diag(lengths), lengths))
    assert astuple(by_steps) == pytest.approx(astuple(by_lengths))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_volume_of_one_slice_is_scored_by_its_outline_as_an_image_in_mm(axis):
    true, predicted = box((40, 30), (10, 8), (20, 9)), box((40, 30), (12, 7), (22, 8))
    flat = score_case(predicted, true, (0.5, 2.0), [1])[1]
    spacing = np.insert([0.5, 2.0], axis, 4.0)
    found = score_case(np.expand_dims(predicted, axis), np.expand_dims(true, axis), spacing, [1])[1]
    assert (found.hd95, found.assd, found.nsd, found.dice) == (flat.hd95, flat.assd, flat.nsd, flat.dice)
    assert found.volume_ref_ml == pytest.approx(20 * 9 * 4 / 1000)


def test_no_label_to_score_gives_no_score_whatever_the_masks_are_stored_as():
    for dtype in (np.uint8, np.int16, np.int64):
        masks = box((5, 5, 5), (1, 1, 1), (2, 2, 2)).astype(dtype), np.zeros((5, 5, 5), dtype)
        assert score_case(*masks, (1, 1, 1), []) == {}
