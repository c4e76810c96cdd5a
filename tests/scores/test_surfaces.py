"""Distances between surfaces against other implementations, on anisotropic voxels, at borders, of single voxels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from label_scores import surface_distances, surface_scores
from scipy.ndimage import binary_erosion, generate_binary_structure

from vpt.scores import surfaces


def blobs(seed, shape=(18, 22, 9)):
    """Two balls at random places, some of them cut by the border, and a spacing."""
    rng = np.random.default_rng(seed)
    grid = np.moveaxis(np.indices(shape), 0, -1)
    center = rng.uniform(0, 1, len(shape)) * shape
    radii = rng.uniform(9, 40, 2)
    masks = [((grid - center - rng.uniform(-2, 2, len(shape))) ** 2).sum(-1) < radius for radius in radii]
    return *masks, tuple(rng.uniform(0.4, 5.0, len(shape)))


def surface_of(mask):
    """The voxels of a mask (bool) that have a face in common with its outside, or with the volume's border."""
    return mask & surfaces.edges_of(mask)


CASES = [blobs(seed) for seed in range(5)] + [blobs(seed, (30, 25)) for seed in range(3)]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_pairs_of_voxels_by_brute_force(case):
    """Every voxel of one surface against every voxel of the other."""
    first, second, spacing = CASES[case]
    faces = generate_binary_structure(first.ndim, 1)
    points = [np.argwhere(mask & ~binary_erosion(mask, faces)) * spacing for mask in (first, second)]
    apart = np.linalg.norm(points[0][:, None] - points[1][None], axis=-1)
    there, back = surface_distances(first, second, spacing)
    assert there == pytest.approx(apart.min(1))
    assert back == pytest.approx(apart.min(0))


@pytest.mark.parametrize("case", range(len(CASES)))
def test_monai_finds_the_same(case):
    import torch
    from monai.metrics import (
        compute_average_surface_distance,
        compute_hausdorff_distance,
        compute_surface_dice,
    )

    first, second, spacing = CASES[case]
    given = {
        "y_pred": torch.from_numpy(first)[None, None],
        "y": torch.from_numpy(second)[None, None],
        "include_background": True,
        "spacing": list(spacing),
    }
    ours = surface_scores(first, second, spacing, tolerance=1.5)
    assert ours.hd95 == pytest.approx(float(compute_hausdorff_distance(**given, percentile=95)), rel=1e-5)
    assert ours.assd == pytest.approx(float(compute_average_surface_distance(**given, symmetric=True)), rel=1e-5)
    assert ours.nsd == pytest.approx(float(compute_surface_dice(**given, class_thresholds=[1.5])), rel=1e-5)


@pytest.mark.parametrize("case", range(5))
def test_simpleitk_finds_the_same(case):
    """Its contours (of a padded volume, whose border it does not count) and its Maurer distance map."""
    itk = pytest.importorskip("SimpleITK", reason="SimpleITK (extra `dicom`) is not installed")
    first, second, spacing = CASES[case]
    images, contours = [], []
    for mask in (first, second):
        image = itk.GetImageFromArray(np.pad(mask, 1).astype(np.uint8).transpose())
        image.SetSpacing(spacing)
        images.append(image)
        contours.append(itk.LabelContour(image, fullyConnected=False))
    found = []
    for own, other in ((0, 1), (1, 0)):
        distance = itk.SignedMaurerDistanceMap(contours[other], squaredDistance=False, useImageSpacing=True)
        values = np.maximum(itk.GetArrayFromImage(distance), 0)
        found.append(values[itk.GetArrayFromImage(contours[own]) > 0])
    ours = surface_scores(first, second, spacing, tolerance=1.5)
    assert ours.hd95 == pytest.approx(max(np.percentile(each, 95) for each in found), rel=1e-5)
    assert ours.assd == pytest.approx(np.concatenate(found).mean(), rel=1e-5)
    assert ours.nsd == pytest.approx(np.mean(np.concatenate(found) <= 1.5))


def test_how_medpys_conventions_differ():
    """A voxel near and a plate far: MedPy's `hd95` takes the percentile of both lists in one."""
    first, second = np.zeros((30, 30, 3), bool), np.zeros((30, 30, 3), bool)
    first[0, 0, 0] = True
    second[20:, 20:, :] = second[0, 0, 0] = True
    there, back = surface_distances(first, second, (1, 1, 1))
    assert (len(there), there.max()) == (1, 0)
    assert surface_scores(first, second, (1, 1, 1)).hd95 == np.percentile(back, 95)
    assert np.percentile(np.r_[there, back], 95) < np.percentile(back, 95)
    medpy = pytest.importorskip("medpy.metric.binary", reason="MedPy is no dependency")
    assert medpy.hd95(first, second) == np.percentile(np.r_[there, back], 95)
    assert medpy.assd(first, second) == pytest.approx(surface_scores(first, second, (1, 1, 1)).assd)


def test_single_voxels():
    first, second = np.zeros((4, 5, 6), bool), np.zeros((4, 5, 6), bool)
    first[0, 0, 0] = second[3, 4, 5] = True
    far = math.dist((0, 0, 0), (3 * 0.5, 4 * 2, 5 * 3))
    for tolerance, nsd in ((far - 0.01, 0), (far, 1)):
        found = surface_scores(first, second, (0.5, 2, 3), tolerance)
        assert (found.hd95, found.assd, found.nsd) == (pytest.approx(far), pytest.approx(far), nsd)
    assert surface_scores(first, first, (1, 1, 1), 0).hd95 == 0


@pytest.mark.parametrize("absent", [math.nan, 1.0, 0.0])
def test_empty_masks_have_no_distance(absent):
    some, none = np.ones((2, 2, 2), bool), np.zeros((2, 2, 2), bool)
    for pair, nsd in (((some, none), 0), ((none, some), 0), ((none, none), absent)):
        found = surface_scores(*pair, (1, 1, 1), absent=absent)
        assert math.isnan(found.hd95)
        assert math.isnan(found.assd)
        assert found.nsd == pytest.approx(nsd, nan_ok=True)


@pytest.mark.parametrize("slab", [1, 60, 10**6])
@pytest.mark.parametrize("lies", ["C", "F", "turned", "cut out"])
def test_surfaces_of_all_labels_are_those_of_each_alone(monkeypatch, slab, lies):
    monkeypatch.setattr(surfaces, "SLAB", slab)
    rng = np.random.default_rng(0)
    volume = np.kron(rng.choice([0, 1, 2, 7, 70_000, -3], size=(4, 5, 3)), np.ones((3, 3, 3), np.int32))
    volume[rng.random(volume.shape) < 0.1] = 2
    volume = {"C": volume, "F": np.asfortranarray(volume), "turned": volume[::-1].transpose(2, 0, 1)}.get(
        lies, np.pad(volume, 1, constant_values=7)[1:-1, 1:-1, 1:-1]
    )
    found = surfaces.surfaces_of(volume, [2, 7, 70_000, 9])
    assert list(found) == [2, 7, 70_000, 9]
    assert len(found[9]) == 0
    for label, places in found.items():
        expected = np.argwhere(surface_of(volume == label))
        assert sorted(map(tuple, places.tolist())) == sorted(map(tuple, expected.tolist()))


@pytest.mark.parametrize("shape", [(6, 7, 8), (1, 6, 6), (6, 1, 1), (9, 9)])
def test_a_surface_is_what_erosion_takes_away(shape):
    mask = np.random.default_rng(0).random(shape) < 0.7
    faces = generate_binary_structure(len(shape), 1)
    assert np.array_equal(surface_of(mask), mask & ~binary_erosion(mask, faces))
    assert surface_of(np.ones(shape, bool)).sum() == np.prod(shape) - np.prod([max(n - 2, 0) for n in shape])
