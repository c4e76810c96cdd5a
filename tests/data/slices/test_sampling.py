"""Where a label is rare, training draws it as often as the others; where none is, nothing changes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from vpt.data.layouts import read_dataset
from vpt.data.plan import ORIENTATIONS
from vpt.data.planned import EncoderInput, Wishes
from vpt.data.planning import make_plan
from vpt.data.slices.cached_slices import PreparedCase, prepare_cases
from vpt.data.slices.drawing import SliceDraw, draw_epoch
from vpt.data.slices.sampling import choose_sampling, held_by_slices
from vpt.progress import silent

ENCODER = EncoderInput(native_size=64, patch=8)


@pytest.fixture
def rare(make_dataset, save):
    """Three cases of 50 slices: the rim is in all, the core in one slice of the first case only."""
    root = make_dataset(cases=3)
    for number in range(3):
        label = np.zeros((8, 8, 50), np.uint8)
        label[2:6, 2:6] = 1
        label[3, 3, 20:21] = 2 if number == 0 else 1
        save(root / f"labelsTr/case_{number:02d}.nii.gz", label)
        image = np.random.default_rng(number).normal(100, 9, label.shape).astype(np.float32)
        save(root / f"imagesTr/case_{number:02d}_0000.nii.gz", image)
    return read_dataset(root)


def planned(dataset, **wishes):
    return make_plan(dataset, dataset.cases, ENCODER, Wishes(plane="axial", image_size=32, **wishes))


def drawn(cases: list[PreparedCase], sampling, steps: int = 100) -> list[SliceDraw]:
    batches = draw_epoch(cases, steps=steps, batch_size=20, foreground=0.6, seed=0, epoch=0, sampling=sampling)
    return [draw for batch in batches for draw in batch]


def test_a_label_in_one_of_fifty_slices_is_drawn_as_often_as_the_others(rare, tmp_path):
    plan = planned(rare)
    assert plan.sampling == "by_label"
    assert plan.reasons["sampling"] == (
        "core is in 0.0067 of the labelled slices, rim in 1, more than five times as often: "
        "every label is drawn as often as the others"
    )
    cases = prepare_cases(rare, rare.cases, plan, tmp_path / "cache", silent)
    by_label, even = (Counter((draw.case, draw.slice) for draw in drawn(cases, how)) for how in ("by_label", "even"))
    the_rare = (0, 20)
    assert cases[0].holding[1] == (the_rare[1],)
    assert by_label[the_rare] / 2000 == pytest.approx(0.6 / 2 + 0.7 / 150, abs=0.03)
    assert even[the_rare] / 2000 < 0.03
    others = Counter(
        case for (case, place), count in by_label.items() for _ in range(count) if (case, place) != the_rare
    )
    assert all(abs(others[case] / sum(others.values()) - 1 / 3) < 0.06 for case in range(3))


def test_every_label_is_seen_alike_whatever_else_its_slices_hold():
    """Four labels, each twenty times as rare as the one before it."""
    sizes = (400, 20, 2, 1)
    holding = tuple(tuple(range(size)) for size in sizes)
    case = PreparedCase("a", *[None] * 3, tuple(range(400)), 800, (8, 8), holding)  # type: ignore[arg-type]
    found = drawn([case], "by_label", steps=200)
    held = [np.mean([draw.slice in slices for draw in found]) for slices in holding]
    assert min(held) > 0.6 / 4 * 0.85
    assert max(held) < 0.9


def test_labels_that_no_case_has_and_cases_without_any_are_passed_over():
    full = PreparedCase("a", *[None] * 3, (1, 2), 9, (8, 8), ((1, 2), ()))  # type: ignore[arg-type]
    empty = PreparedCase("b", *[None] * 3, (), 9, (8, 8), ((), ()))  # type: ignore[arg-type]
    found = Counter(draw.case for draw in drawn([full, empty], "by_label"))
    assert found[0] / 2000 == pytest.approx(0.8, abs=0.04)
    assert {draw.case for draw in drawn([empty], "by_label")} == {0}


def test_which_slices_hold_which_labels():
    classes = np.array([[[0, 1], [-1, 1]], [[2, 0], [3, 0]], [[0, 0], [-1, 0]]], np.int16)
    assert held_by_slices(classes, 3).tolist() == [[True, False, False], [False, True, True], [False, False, False]]


@pytest.mark.slow
def test_a_crop_goes_around_each_of_a_slices_labels_as_often(rare, tmp_path):
    from vpt.data.slices.drawing import SliceDataset
    from vpt.data.transforms import identity

    label = np.ones((1, 64, 64), np.uint8)
    label[0, 60, 60] = 2
    np.save(tmp_path / "label.npy", label)
    np.save(tmp_path / "image.npy", np.zeros((1, 1, 64, 64), np.float16))
    case = PreparedCase("a", tmp_path / "image.npy", tmp_path / "label.npy", None, (0,), 1, (64, 64), ((0,), (0,)))
    plan = planned(rare).model_copy(update={"image_size": 8})
    seen = {}
    for sampling in ("by_label", "even"):
        samples = SliceDataset([case], plan.model_copy(update={"sampling": sampling}), identity)
        seen[sampling] = np.mean([bool((samples[SliceDraw(0, 0, seed)][1] == 2).any()) for seed in range(200)])
    assert seen["by_label"] > 0.4
    assert seen["even"] < 0.1


def test_labels_that_are_not_rare_are_drawn_as_ever(make_dataset):
    dataset = read_dataset(make_dataset())
    plan = planned(dataset)
    assert plan.sampling == "even"
    assert plan.reasons["sampling"] == (
        "core is in 0.5 of the labelled slices, rim in 1, at most five times as often: labelled slices are drawn alike"
    )
    assert planned(dataset, sampling="by_label").sampling == "by_label"


def test_one_label_is_never_rare_and_its_masks_are_not_read(make_images):
    dataset = read_dataset(make_images())
    assert choose_sampling(dataset, [], ORIENTATIONS["axial"], 40, silent)[0] == "even"


def test_a_label_in_none_of_the_cases_that_are_read_is_rare_if_there_are_others(rare):
    others = [*rare.cases[1:], rare.cases[0]]
    assert choose_sampling(rare, others, ORIENTATIONS["axial"], 2, silent)[0] == "by_label"
    assert choose_sampling(rare, others[:2], ORIENTATIONS["axial"], 2, silent)[0] == "even"  # in no case at all


@pytest.mark.slow
@pytest.mark.data
def test_hippocampus_is_drawn_as_ever(data_root):
    dataset = read_dataset(data_root / "hippocampus3d")
    sampling, why = choose_sampling(dataset, dataset.cases[::6], ORIENTATIONS["coronal"], 40, silent)
    assert sampling == "even", why
