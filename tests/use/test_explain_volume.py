"""Attention to a prompt over a whole scan lies on the scan's own grid, and is what each slice's own pass says."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

import vpt
from vpt.data.framing import placement_of
from vpt.errors import VptError
from vpt.explaining import read_prompts
from vpt.tasks.images import Normalise
from vpt.use import explain_volume
from vpt.use.explain import explain
from vpt.use.explain_volume import write_volumes
from vpt.use.segmenter import Segmenter
from vpt.use.watched import slice_image


def turned(degrees: float, axes: tuple[int, int]) -> np.ndarray:
    matrix, angle = np.eye(4), np.deg2rad(degrees)
    a, b = axes
    matrix[a, a] = matrix[b, b] = np.cos(angle)
    matrix[a, b], matrix[b, a] = -np.sin(angle), np.sin(angle)
    return matrix


@pytest.fixture
def oblique(tiny_data: Path, tmp_path: Path) -> Path:
    """A scan of the data set whose slices fit the encoder, oblique in space and stored along other axes."""
    return stored_oblique(tiny_data, tmp_path / "oblique.nii.gz", 44)


def stored_oblique(data: Path, path: Path, most: int) -> Path:
    image = nib.load(sorted((data / "imagesTr").iterdir())[0]).slicer[:most, :most, :most]
    affine = turned(17, (0, 1)) @ turned(-12, (1, 2)) @ image.affine
    affine[:3, 3] = (31.5, -80.25, 12)
    found = nib.Nifti1Image(np.asarray(image.dataobj), affine).as_reoriented([[2, -1], [0, 1], [1, -1]])
    nib.save(found, path)
    return path


def segmenter_of(run: Path) -> Segmenter:
    found = vpt.load(run, "cpu", precision="32-true")
    assert isinstance(found, Segmenter)
    return found


@pytest.mark.slow
def test_maps_lie_where_the_scan_does(tiny_run: Path, oblique: Path, tmp_path: Path) -> None:
    found = explain(tiny_run, oblique, leave_out=False, volumes=tmp_path / "maps")
    scan, segmenter = nib.load(oblique), segmenter_of(tiny_run)
    assert not np.allclose(scan.affine[:3, :3], np.diag(np.diag(scan.affine)[:3]))
    assert [path.name for path in found.volumes[3:5]] == ["block00_prompt03.nii.gz", "block01_prompt00.nii.gz"]
    assert len(found.volumes) == len(found.prompts) == 32
    for path, prompt in zip(found.volumes, found.prompts, strict=True):
        image = nib.load(path)
        assert image.shape == scan.shape
        np.testing.assert_allclose(image.affine, scan.affine, atol=1e-5)
        assert 0 < image.get_fdata().max() <= 1
        assert path.name == f"block{prompt.block:02d}_prompt{prompt.number:02d}.nii.gz"
    # what a slice's own pass says, laid out by nibabel alone
    prepared, plan = segmenter.prepare(oblique), segmenter.plan
    assert max(prepared.slices.size) <= plan.image_size
    place, block, number = len(prepared.slices) // 3, 5, 2
    seen = slice_image(segmenter, prepared, place, np.zeros(prepared.slices.size, bool))
    with torch.no_grad():
        weights = read_prompts(segmenter.model, Normalise.of(segmenter.model)(seen))[block].weights[:, :, ..., number]
    whole = F.interpolate(weights.mean(1, keepdim=True), size=(plan.image_size, plan.image_size), mode="bilinear")
    own = placement_of(prepared.slices.size, plan).crop(whole)
    expected = F.interpolate(own, size=prepared.oriented.shape[1:], mode="bilinear")[0, 0]
    stored = nib.load(tmp_path / "maps" / "block05_prompt02.nii.gz").get_fdata()
    turn = ornt_transform(io_orientation(scan.affine), axcodes2ornt(plan.orientation))
    as_viewed = nib.orientations.apply_orientation(stored, turn)
    np.testing.assert_allclose(as_viewed[place], expected.numpy(), atol=2e-3 * float(expected.max()))


@pytest.mark.slow
def test_a_scan_stored_along_other_axes_has_the_same_maps(tiny_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    """Whole slices, which are tiled."""
    oblique = stored_oblique(tiny_data, tmp_path / "oblique.nii.gz", 60)
    segmenter, scan = segmenter_of(tiny_run), nib.load(oblique)
    assert max(segmenter.prepare(oblique).slices.size) > segmenter.plan.image_size
    back = nib.Nifti1Image(np.asarray(scan.dataobj), scan.affine).as_reoriented([[1, -1], [2, 1], [0, 1]])
    nib.save(back, tmp_path / "back.nii.gz")
    one = write_volumes(segmenter, oblique, tmp_path / "one")[6]
    other = write_volumes(segmenter, tmp_path / "back.nii.gz", tmp_path / "other")[6]
    expected = nib.load(one).as_reoriented([[1, -1], [2, 1], [0, 1]])
    np.testing.assert_allclose(nib.load(other).affine, expected.affine, atol=1e-4)
    np.testing.assert_allclose(nib.load(other).get_fdata(), expected.get_fdata(), atol=1e-4)


def test_what_memory_does_not_hold_is_refused_before_it_is_read(
    tiny_run: Path, oblique: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain_volume, "total_memory", lambda device: 10_000)
    with pytest.raises(VptError, match=r"slices to all prompts takes .* leave it out with --no-volume"):
        write_volumes(segmenter_of(tiny_run), oblique, tmp_path / "maps")
    assert not (tmp_path / "maps").exists()


@pytest.mark.slow
def test_of_an_image_there_is_no_volume(class_run: Path, tiny_classes: Path, tmp_path: Path) -> None:
    image = sorted(tiny_classes.rglob("*.png"))[0]
    assert explain(class_run, image, leave_out=False, volumes=tmp_path / "maps").volumes == ()
    assert not (tmp_path / "maps").exists()
