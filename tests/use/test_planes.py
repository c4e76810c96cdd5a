"""`plan.planes=all`: slices of all three planes train, and the mean of what is found in each decides."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import nibabel as nib
import numpy as np
import pytest
import torch
from banks import trained
from masks import LABELS, image_plan, same_place, scan, scan_plan, threshold, tiny, voxels
from tiny_run import ONE_STEP

import vpt
from vpt.config import load_config
from vpt.data.plan import ORIENTATIONS, Plan, Window
from vpt.engine.run import train
from vpt.engine.segmenting import Segmenting
from vpt.engine.setup import prepare_setup
from vpt.errors import VptError
from vpt.use.planes import SegmenterInPlanes, segmenter_of
from vpt.vocabulary import Plane

WINDOW = (Window(low=100, high=500),)
OBLIQUE = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])  # 37 degrees
TURNED = nib.affines.from_matvec(OBLIQUE @ np.array([[0, -1.4, 0], [-1.0, 0, 0], [0, 0, 2.0]]), (7, 3, -5))
CROPPED = {"crop": "foreground", "intensity": WINDOW}


def framed() -> nib.Nifti1Image:
    """A turned, oblique scan with air around it."""
    inside, whole = scan((11, 14, 9)), np.zeros((27, 30, 31), np.int16)
    whole[8:19, 9:23, 10:19] = voxels(inside)
    return nib.Nifti1Image(whole, TURNED)


def in_one_plane(path: Path, plan: Plan, plane: Plane) -> Path:
    """The same prompts and head in a model that looks in that plane alone."""
    return trained(path, 1, plan.model_copy(update={"plane": plane, "planes": "one"}))


@pytest.mark.slow
@pytest.mark.parametrize("own", get_args(Plane))
@pytest.mark.parametrize("more", [{"intensity": WINDOW}, CROPPED], ids=["whole", "cropped"])
def test_it_is_the_mean_over_the_planes_on_the_scans_own_grid(tmp_path: Path, own: Plane, more: dict) -> None:
    plan, given, size = scan_plan(plane=own, planes="all", **more), framed(), len(LABELS)
    three = vpt.load(trained(tmp_path / "all.safetensors", 1, plan), "cpu", precision="32-true")
    assert type(three) is SegmenterInPlanes
    mean = np.zeros((size, *given.shape))
    masks = []
    for plane in ORIENTATIONS:
        one = vpt.load(in_one_plane(tmp_path / f"{plane}.safetensors", plan, plane), "cpu", precision="32-true")
        prepared = one.prepare(given)
        found = np.stack([each.numpy() for each in one.probabilities_of(prepared)], -1)  # (K, rows, columns, slices)
        masks.append(voxels(one.segment(given)))
        inside = np.stack([_back(np.moveaxis(each, -1, 0), prepared.oriented.affine, given) for each in found])
        mean += inside / 3
    box = tuple(slice(place.min(), place.max() + 1) for place in np.nonzero(mean.sum(0)))
    expected = np.zeros(given.shape, int)
    expected[box] = np.array(sorted(LABELS))[mean.argmax(0)][box]

    answered = three.segment(given)
    same_place(answered, given)
    assert not all(np.array_equal(voxels(answered), mask) for mask in masks)
    assert (voxels(answered) == expected).mean() > 0.9995  # ties may round otherwise
    prepared = three.prepare(given)
    told = np.stack([each.numpy() for each in three.probabilities_of(prepared)], 1)
    whole = [_back(each, prepared.oriented.affine, given) for each in told]
    np.testing.assert_allclose(np.stack(whole), mean, atol=1e-5)


def _back(volume: np.ndarray, affine: np.ndarray, scan: nib.Nifti1Image) -> np.ndarray:
    """A volume of a part of a scan, by nibabel alone -> on the scan's own grid, 0 around it."""
    wanted = nib.io_orientation(scan.affine)
    image = nib.Nifti1Image(volume.astype(np.float64), affine)
    turned = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(affine), wanted))
    corner = np.rint(np.linalg.inv(scan.affine) @ turned.affine @ [0, 0, 0, 1]).astype(int)[:3]
    whole = np.zeros(scan.shape)
    whole[tuple(slice(at, at + length) for at, length in zip(corner, turned.shape, strict=True))] = turned.get_fdata()
    return whole


@pytest.mark.parametrize("planes", ["one", "all"])
def test_a_network_that_knows_bright_voxels_finds_just_these(planes: str) -> None:
    plan = scan_plan(planes=planes, neighbours=False, intensity=WINDOW, pixel_mm=1.0, image_size=128)
    rule = threshold(plan)
    kind = type(rule) if planes == "one" else SegmenterInPlanes
    segmenter = kind(rule.model, rule.forward, plan, LABELS, rule.device, 32)
    bright = np.kron(np.random.default_rng(0).random((3, 4, 3)) > 0.5, np.ones((7, 7, 7), bool))
    given = nib.Nifti1Image(np.where(bright, 480, 120).astype(np.int16), np.diag([-1.0, 1, -1, 1])[[1, 2, 0, 3]])
    assert np.array_equal(voxels(segmenter.segment(given)) == 117, bright)


@pytest.mark.slow
@pytest.mark.parametrize("more", [{"intensity": WINDOW}, CROPPED], ids=["whole", "cropped"])
def test_a_model_of_each_plane_together_is_the_mean_over_the_planes_too(tmp_path: Path, more: dict) -> None:
    """Of the same prompts and head, they are one model that looks in all three."""
    plan, given = scan_plan(planes="all", **more), framed()
    three = vpt.load(trained(tmp_path / "all.safetensors", 1, plan), "cpu", precision="32-true")
    paths = [in_one_plane(tmp_path / f"{plane}.safetensors", plan, plane) for plane in ORIENTATIONS]
    together = vpt.load(paths, "cpu", precision="32-true")
    assert (three.held, together.held) == (1, 2)
    found = [torch.stack(list(each.probabilities_of(each.prepare(given)))) for each in (three, together)]
    torch.testing.assert_close(*found, atol=1e-5, rtol=0)
    mask, quality = together.segment_with_quality(given)
    assert (voxels(mask) == voxels(three.segment(given))).mean() > 0.9995
    assert 0 < quality.whole.agreement < 1


@pytest.mark.slow
def test_it_is_answered_alone_in_ensembles_and_in_a_bank(tmp_path: Path) -> None:
    given = scan((20, 18, 12))
    paths = [trained(tmp_path / f"{k}.safetensors", k, scan_plan(planes="all", intensity=WINDOW)) for k in (1, 2)]
    other = trained(tmp_path / "one.safetensors", 3, scan_plan(intensity=WINDOW))
    alone = [vpt.load(path, "cpu", precision="32-true") for path in paths]
    mask, quality = alone[0].segment_with_quality(given)
    assert np.array_equal(voxels(mask), voxels(alone[0].segment(given)))
    assert 0 < quality.whole.entropy < np.log(3)
    both = vpt.load(paths, "cpu", precision="32-true")
    means = zip(*(each.probabilities_of(each.prepare(given)) for each in alone), strict=True)
    found = both.probabilities_of(both.prepare(given))
    for mean, each in zip(means, found, strict=True):
        torch.testing.assert_close(each, (mean[0] + mean[1]) / 2)
    bank = vpt.Bank("vit_micro", "cpu", precision="32-true")
    bank.add("all", paths[0])
    bank.add("one", other)
    assert np.array_equal(voxels(bank.segment(given)["all"]), voxels(alone[0].segment(given)))


def test_a_case_trains_in_each_plane_and_is_named_with_it(tiny_data: Path, tmp_path: Path) -> None:
    setup = prepare_setup(load_config(tiny_data, ONE_STEP | {"plan.planes": "all", "plan.neighbours": True}))
    job, count = Segmenting(tmp_path, setup, tmp_path / "cache"), len(setup.splits.train)
    job.read()
    assert len(job.training) == 3 * count
    assert [case.name for case in job.in_own_plane] == list(setup.splits.train)
    scans = [nib.load(setup.dataset.case(name).images[0]) for name in setup.splits.train]
    depths = [nib.as_closest_canonical(scan).shape for scan in scans]
    for k, case in enumerate(job.training):
        assert case.depth == depths[k % count][(2, 1, 0)[k // count]]  # axial, coronal, sagittal of RAS
        assert (case.read()[1] > 0).any()
    draws = [draw for batch in job.draw(0) for draw in batch]
    assert {name.split()[1] for name in job.names(draws)} == set(get_args(Plane))
    assert "axial, coronal and sagittal slices" in str(setup.plan)


@pytest.mark.slow
def test_a_run_trains_and_answers_in_all_planes(tiny_data: Path, tmp_path: Path) -> None:
    run = train(tiny_data, tmp_path / "run", overrides=ONE_STEP | {"plan.planes": "all"})
    loaded = vpt.load(run, "cpu")
    assert type(loaded) is SegmenterInPlanes
    assert loaded.known is not None
    given = next((tiny_data / "imagesTr").glob("*.nii.gz"))
    mask, quality = loaded.segment_with_quality(given)
    assert np.array_equal(voxels(mask), voxels(loaded.segment(given)))
    assert np.isfinite(quality.distance)


def test_what_it_cannot_be_is_refused(make_images, tiny_data: Path, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(VptError, match="images have one plane"):
        prepare_setup(load_config(make_images(), {"plan.planes": "all"}))
    hinted = {"plan.planes": "all", "backbone.name": "sam_micro", "head.kind": "sam_decoder", "head.hints": True}
    with pytest.raises(VptError, match="a box lies in one plane"):
        prepare_setup(load_config(tiny_data, hinted))
    plan = scan_plan(planes="all")
    segmenter = segmenter_of(tiny(plan)[0], plan, LABELS, torch.device("cpu"))
    monkeypatch.setattr("vpt.use.inference.total_memory", lambda device: 20_000)
    one = segmenter_of(tiny(scan_plan())[0], scan_plan(), LABELS, torch.device("cpu"))
    one.prepare(scan())  # 2,160 voxels: a byte each, the mask twice, a slice
    with pytest.raises(VptError, match="20x18x6 voxels take at least"):
        segmenter.prepare(scan())


def test_an_image_has_one_plane() -> None:
    assert image_plan().others == ()
