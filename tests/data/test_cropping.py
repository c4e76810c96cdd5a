"""What is no background is found from the scan alone, is all that the encoder sees, and the mask lies where it did."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from masks import same_place, scan_plan, threshold, voxels
from plans import plan_with
from scans import label_map_of, voxels_of

from vpt.data.cropping import Part, choose_crop, foreground_box
from vpt.data.layouts import read_dataset
from vpt.data.plan import Window
from vpt.data.planned import EncoderInput, Wishes
from vpt.data.planning import make_plan
from vpt.data.sizes import TrainingForeground
from vpt.data.slices.cached_slices import prepare_cases
from vpt.errors import VptError
from vpt.progress import silent
from vpt.use.ensembles import together

ENCODER = EncoderInput(native_size=64, patch=8)


def sparse(shape=(40, 30, 20), first=(15, 12, 9), behind=(20, 16, 12), value=100.0, around=0.0) -> np.ndarray:
    array = np.full(shape, around, np.float32)
    array[tuple(map(slice, first, behind))] = value
    return array


def ends(box) -> list[tuple[int, int]]:
    return [(part.start, part.stop) for part in box]


def test_the_box_holds_the_foreground_and_5_mm_around_it_within_the_scan():
    found = foreground_box(voxels_of(sparse()[None], np.diag([1.0, 2.0, 5.0, 1.0])), ["T1"])
    assert ends(found) == [(10, 25), (9, 19), (8, 13)]
    assert ends(foreground_box(voxels_of(sparse(first=(0, 1, 19), behind=(3, 30, 20))[None]), ["T1"])) == [
        (0, 8),
        (0, 30),
        (14, 20),
    ]


def test_air_of_a_ct_is_background_and_zero_is_water():
    ct = sparse(value=0.0, around=-1000.0)
    assert ends(foreground_box(voxels_of(ct[None]), ["CT"]))[0] == (10, 25)
    assert ends(foreground_box(voxels_of(ct[None]), ["T1"]))[0] == (0, 40)  # -1000 is a value like others


def test_a_voxel_counts_if_any_channel_has_it_and_a_blank_scan_is_taken_whole():
    other = sparse(first=(30, 12, 9), behind=(31, 13, 10))
    assert ends(foreground_box(voxels_of(np.stack([sparse(), other])), ["T1", "T2"]))[0] == (10, 36)
    assert ends(foreground_box(voxels_of(np.zeros((1, 4, 5, 6), np.float32)), ["T1"])) == [(0, 4), (0, 5), (0, 6)]


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_what_is_cut_out_lies_where_it_lay_and_is_put_back_there(data):
    shape = tuple(data.draw(st.integers(1, 9)) for _ in range(3))
    box = tuple(
        slice(first, data.draw(st.integers(first + 1, n)))
        for n in shape
        for first in [data.draw(st.integers(0, n - 1))]
    )
    rng = np.random.default_rng(0)
    affine = np.eye(4)
    affine[:3] = rng.normal(size=(3, 4))
    label = label_map_of(rng.integers(0, 3, shape), affine)
    part = Part(shape, box)
    inside = part.of_labels(label)
    place = np.array([one.start for one in box])
    assert np.allclose(inside.grid.affine @ [0, 0, 0, 1], affine @ [*place, 1])
    back = part.placed(inside.array)
    assert back.shape == shape
    assert np.array_equal(back[box], label.array[box])
    assert np.count_nonzero(back) == np.count_nonzero(inside.array)
    assert Part.from_array(part.array()) == part


# --- the plan ---------------------------------------------------------------------------------------------------------


def fill(root, shape=(40, 30, 20), label_at=(slice(16, 19), slice(13, 15), slice(10, 11)), **how):
    """Volumes of one box in zeros, labels in the box."""
    dataset = read_dataset(root)
    for case in dataset.cases:
        affine = np.eye(4)
        label = np.zeros(shape, np.uint8)
        label[label_at] = 1
        nib.save(nib.Nifti1Image(sparse(shape, **how), affine), case.images[0])
        nib.save(nib.Nifti1Image(label, affine), case.label)
    return dataset


def test_the_plan_cuts_off_what_is_more_than_half_of_the_voxels_and_takes_the_pixel_of_what_is_left(make_dataset):
    dataset = fill(make_dataset(cases=3))
    plan = make_plan(dataset, dataset.cases, ENCODER)
    whole = make_plan(dataset, dataset.cases, ENCODER, Wishes(crop="none"))
    assert (plan.crop, whole.crop) == ("foreground", "none")
    assert "crop" not in whole.reasons
    assert "holds 11% of the voxels (median of 3 cases), 50% or less" in plan.reasons["crop"]
    assert plan.pixel_mm < whole.pixel_mm
    assert plan.foreground == TrainingForeground(share=0.11375, side=15)  # 15x14x13 of 40x30x20 mm
    assert make_plan(dataset, dataset.cases, ENCODER, Wishes(crop="foreground", image_size=64, pixel_mm=1)).foreground
    assert whole.foreground is None
    assert str(plan).startswith("axial slices of the foreground, ")


def test_the_plan_cuts_nothing_off_where_it_is_less_or_where_a_label_would_be_lost(make_dataset):
    dataset = fill(make_dataset(cases=2), first=(2, 2, 2), behind=(35, 28, 18))
    crop, why = choose_crop(dataset, dataset.cases, silent)
    assert (crop, why.partition(", more than 50%: ")[2]) == ("none", "nothing is cut off")
    dataset = fill(dataset.root, label_at=(slice(0, 3), slice(0, 3), slice(0, 3)))
    crop, why = choose_crop(dataset, dataset.cases, silent)
    assert crop == "none"
    assert "not all labelled voxels, of case_00 for instance" in why


def test_images_are_not_cropped(make_images):
    dataset = read_dataset(make_images())
    with pytest.raises(VptError, match=r"images are taken whole, only volumes are cropped; leave plan\.crop out"):
        make_plan(dataset, dataset.cases, ENCODER, Wishes(crop="foreground"))
    assert make_plan(dataset, dataset.cases, ENCODER).crop == "none"


# --- training and masks -----------------------------------------------------------------------------------------------


def test_a_case_is_prepared_within_its_box_and_scored_on_all_of_the_scan(make_dataset, tmp_path):
    dataset = fill(make_dataset(cases=1))
    plan = plan_with(crop="foreground", channels=("MR0",))
    for _ in range(2):  # made, and taken from the cache
        (case,) = prepare_cases(dataset, dataset.cases, plan, tmp_path / "cache", silent, native=True)
        images, labels = case.read()
        assert images.shape[0] == labels.shape[0] == case.depth == case.part.inside[0] == 13
        assert np.load(case.native).shape == case.part.shape == (20, 30, 40)
        assert np.array_equal(case.part.placed(labels), np.load(case.native))  # pixels are voxels here


def rotated(turn: np.ndarray) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = np.linalg.qr(turn)[0], turn[0] * 30
    return affine


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["axial", "coronal", "sagittal"]))
def test_a_network_that_copies_the_label_gives_it_back_on_the_scans_own_grid(seed, plane):
    rng = np.random.default_rng(seed)
    shape, affine = tuple(rng.integers(12, 30, 3)), rotated(rng.normal(size=(3, 3)))
    array = np.zeros(shape, np.int16)
    first = rng.integers(0, np.array(shape) - 4)
    inside = tuple(slice(a, a + n) for a, n in zip(first, rng.integers(1, 5, 3), strict=True))
    array[inside] = rng.choice([100, 900], array[inside].shape)
    image = nib.Nifti1Image(array, affine)
    mask = threshold(
        scan_plan(plane=plane, crop="foreground", neighbours=False, intensity=(Window(low=0, high=1000),))
    ).segment(image)
    same_place(mask, image)
    assert np.array_equal(voxels(mask) == 117, array == 900)


def test_hints_outside_of_the_foreground_are_refused():
    plan = scan_plan(crop="foreground", intensity=(Window(low=0, high=1000),))
    segmenter = threshold(plan)
    segmenter.model.head.takes_hints = True
    image = nib.Nifti1Image(sparse(value=900).astype(np.int16), np.eye(4))
    segmenter.forward = lambda batch, inner=segmenter.forward: inner({"images": batch["images"]})
    assert voxels(segmenter.segment(image, points=[(16, 13, 10)])).any()
    for places in ({"points": [(2, 2, 2)]}, {"box": ((0, 0, 0), (5, 5, 5))}):
        with pytest.raises(VptError, match=r"lies outside of the scan's foreground, .*plan\.crop=foreground"):
            segmenter.segment(image, **places)


def test_an_ensemble_averages_within_the_box():
    members = [threshold(scan_plan(crop="foreground", intensity=(Window(low=0, high=top),))) for top in (1000, 1100)]
    image = nib.Nifti1Image(sparse(value=900).astype(np.int16), np.eye(4))
    mask = together(members).segment(image)
    assert np.array_equal(voxels(mask) == 117, sparse() > 0)
