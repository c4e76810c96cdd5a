"""Lesions by hand, by brute force over sets of voxels, and beside panoptica."""

from __future__ import annotations

import math

import numpy as np
import pytest
from label_scores import lesions_of
from scipy.ndimage import gaussian_filter, label

from vpt.errors import VptError
from vpt.scores.lesions import Lesion, LesionScores, score_lesions, sum_up


def tumours(seed, shape=(14, 15, 12)):
    rng = np.random.default_rng(seed)
    true = gaussian_filter(rng.normal(size=shape), 1.2)
    seen = true + 0.1 * seed * gaussian_filter(rng.normal(size=shape), 1.2)
    return seen > 1.2 * true.std(), true > 1.2 * true.std()


def parts_of(mask):
    """Components as sets of voxels, grown from seeds over all neighbours that touch with a corner."""
    left, parts = {tuple(map(int, place)) for place in np.argwhere(mask)}, []
    steps = np.argwhere(np.ones((3,) * mask.ndim)) - 1
    while left:
        part, ahead = set(), [left.pop()]
        while ahead:
            part.add(place := ahead.pop())
            near = {tuple(int(a + b) for a, b in zip(place, step, strict=True)) for step in steps} & left
            left -= near
            ahead += near
        parts.append(part)
    return parts


@pytest.mark.parametrize("overlap", [0.5, 0.1])
@pytest.mark.parametrize("seed", range(6))
def test_brute_force_over_sets_of_voxels(seed, overlap):
    predicted, true = tumours(seed, (14, 15, 12) if seed % 2 else (30, 30))
    mine, theirs = parts_of(predicted), parts_of(true)
    every = [(len(a & b) / len(a | b), i, k) for i, a in enumerate(theirs) for k, b in enumerate(mine)]
    pairs = sorted(every, reverse=True)
    found, taken = {}, set()
    for iou, i, k in pairs:
        if iou >= overlap and i not in found and k not in taken:
            found[i] = iou
            taken.add(k)
    scores = lesions_of(predicted, true, overlap=overlap)
    assert sorted(lesion.size for lesion in scores.lesions) == sorted(map(len, theirs))
    assert sorted(lesion.iou for lesion in scores.lesions if lesion.found) == pytest.approx(sorted(found.values()))
    assert (scores.found, scores.missed) == (len(found), len(theirs) - len(found))
    assert sorted(scores.false) == sorted(len(b) for k, b in enumerate(mine) if k not in taken)


@pytest.mark.parametrize("seed", range(6))
def test_panoptica_finds_the_same(seed):
    """Given components that touch with corners: in 2-D its own are those of 4 neighbours."""
    panoptica = pytest.importorskip("panoptica", reason="panoptica asks for other versions of numpy and rich")
    predicted, true = tumours(seed, (14, 15, 12) if seed % 2 else (30, 30))
    evaluator = panoptica.Panoptica_Evaluator(
        expected_input=panoptica.InputType.UNMATCHED_INSTANCE,
        instance_matcher=panoptica.NaiveThresholdMatching(),
        instance_metrics=[panoptica.Metric.DSC, panoptica.Metric.IOU],
        global_metrics=[],
    )
    given = [label(mask, np.ones((3,) * mask.ndim))[0].astype(np.uint16) for mask in (predicted, true)]
    theirs = evaluator.evaluate(*given, verbose=False)["ungrouped"]
    ours = sum_up([lesions_of(predicted, true)])
    assert (ours.found, ours.missed, ours.false) == (theirs.tp, theirs.fn, theirs.fp)
    if ours.found:
        assert ours.scores["Dice_found"] == pytest.approx(theirs.sq_dsc)
        assert ours.scores["F1"] == pytest.approx(theirs.rq)


def test_by_hand():
    """One found with an IoU of 2/3, one missed, one in two pieces of which the larger is the match, one made up."""
    true, predicted = np.zeros((1, 40), np.uint8), np.zeros((1, 40), np.uint8)
    true[0, 0:3] = predicted[0, 0:2] = 1
    true[0, 5:7] = 1
    true[0, 10:20] = 1
    predicted[0, 10:16] = predicted[0, 17:20] = 1
    predicted[0, 30:34] = 1
    true[0, 36:] = predicted[0, 36:] = 2  # of another label
    found = score_lesions(predicted, true, (1, 1), [1, 2, 3])
    assert found[1] == LesionScores(
        (Lesion(3, pytest.approx(2 / 3), pytest.approx(0.8)), Lesion(2), Lesion(10, 0.6, pytest.approx(0.75))), (3, 4)
    )
    assert found[2] == LesionScores((Lesion(4, 1, 1),), ())
    assert found[3] == LesionScores((), ())
    summary = sum_up([found[1]], edges=(3, 5))
    assert (summary.found, summary.missed, summary.false) == (2, 1, 2)
    assert summary.scores == pytest.approx(
        {"recall": 2 / 3, "precision": 0.5, "F1": 4 / 7, "Dice": 1.55 / 5, "Dice_found": 0.775}
    )
    assert [(each.low, each.lesions, each.found) for each in summary.sizes] == [(0, 1, 0), (3, 1, 1), (5, 1, 1)]


def test_corners_join_lesions_and_sizes_are_ml():
    mask = np.zeros((4, 4, 4), np.uint8)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[3, 3, 3] = 1
    lesions = score_lesions(mask, mask, (1, 2, 5), [1])[1].lesions
    assert sorted(lesion.size for lesion in lesions) == pytest.approx([0.01, 0.02])


def test_what_is_ignored_makes_no_lesion():
    predicted, true = np.ones((5, 5, 5), np.uint8), np.zeros((5, 5, 5), np.uint8)
    true[3:] = 255
    predicted[:3] = 0
    assert score_lesions(predicted, true, (1, 1, 1), [1], ignored=255)[1] == LesionScores((), ())
    assert len(score_lesions(predicted, true, (1, 1, 1), [1])[1].false) == 1


def test_intervals_draw_patients():
    """Two patients, one of whom has everything found: recall is between both, and cases alone would be narrower."""
    seen, unseen = LesionScores((Lesion(1, 1, 1),), ()), LesionScores((Lesion(1),), (1.0,))
    cases = [seen] * 10 + [unseen] * 10
    by_case = sum_up(cases).intervals["recall"]
    by_patient = sum_up(cases, ["a"] * 10 + ["b"] * 10).intervals["recall"]
    assert by_patient == (0, 1)
    assert 0.2 < by_case[0] < 0.5 < by_case[1] < 0.8
    assert all(map(math.isnan, sum_up([LesionScores((), ())] * 3).intervals["recall"]))


@pytest.mark.parametrize("overlap", [0, 1.1, math.nan])
def test_overlaps_that_are_none_are_said(overlap):
    with pytest.raises(VptError, match="expected an IoU above 0 and up to 1"):
        score_lesions(np.ones((2, 2), int), np.ones((2, 2), int), (1, 1), [1], overlap=overlap)
