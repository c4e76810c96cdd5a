"""Analyze and NIfTI pairs: .hdr and .img are one scan, whose masks are single NIfTI files."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from vpt.data.scans import find_scans, unread_scans
from vpt.errors import VptError
from vpt.readers import is_part, reader_of

VOXELS = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
AFFINE = np.array([[0.0, -1.2, 0, 3], [0.8, 0, 0, 4], [0, 0, 2.5, 5], [0, 0, 0, 1]])
KINDS = {
    "nifti": nib.Nifti1Pair,
    "analyze": nib.AnalyzeImage,
    "spm99": nib.Spm99AnalyzeImage,
    "spm2": nib.Spm2AnalyzeImage,
}


def save(path: Path, kind: str = "nifti", voxels: np.ndarray = VOXELS) -> Path:
    affine = AFFINE if kind == "nifti" else np.diag([-0.8, 1.2, 2.5, 1])  # Analyze stores sizes only
    nib.save(KINDS[kind](voxels, affine), path)
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", [".hdr", ".img"])
def test_either_file_is_the_scan(tmp_path, kind, ending):
    save(tmp_path / "a.img", kind)
    reader, same = reader_of(tmp_path / f"a{ending}"), nib.load(tmp_path / "a.img")
    assert np.array_equal(reader.voxels(1).values()[0], VOXELS)
    assert np.allclose(reader.grid().affine, same.affine)
    assert any("orientation" in text for text in reader.doubts()) == (kind != "nifti")


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_is_one_nifti_at_the_scans_place(tmp_path, kind):
    reader = reader_of(save(tmp_path / "a.hdr", kind))
    labels = (VOXELS % 3).astype(np.uint8)
    assert reader.mask_endings == (".nii.gz", ".nii")
    reader.write_mask(tmp_path / "m.nii.gz", reader.mask(labels))
    found = reader_of(tmp_path / "m.nii.gz").labels()
    assert np.array_equal(found.array, labels)
    assert found.grid.matches(reader.grid())


def test_in_a_folder_the_two_are_one_case(tmp_path):
    save(tmp_path / "a.img")
    save(tmp_path / "b.img", "spm99")
    assert [(case.name, case.images[0].name) for case in find_scans(tmp_path, 1)] == [("a", "a.hdr"), ("b", "b.hdr")]
    assert unread_scans(tmp_path, 1, tmp_path / "out") == []
    assert (is_part(tmp_path / "a.img"), is_part(tmp_path / "a.hdr"), is_part(tmp_path / "c.img")) == (
        True,
        False,
        False,
    )
    assert [case.images[0].name for case in find_scans(tmp_path / "a.img", 1)] == ["a.img"]


@pytest.mark.parametrize(("gone", "kept"), [(".hdr", ".img"), (".img", ".hdr")])
def test_half_a_scan_is_refused(tmp_path, gone, kept):
    save(tmp_path / "a.img")
    (tmp_path / f"a{gone}").unlink()
    with pytest.raises(VptError, match=rf"a\{gone}: no such file, expected the other half of a\{kept}"):
        reader_of(tmp_path / f"a{kept}").grid()


@pytest.mark.parametrize("content", [b"#?RADIANCE\n" * 50, b"ENVI\nsamples = 3\n", b"\0" * 348, b""])
def test_another_hdr_is_refused(tmp_path, content):
    save(tmp_path / "a.img")
    (tmp_path / "a.hdr").write_bytes(content)
    with pytest.raises(VptError, match=r"a\.hdr: "):
        reader_of(tmp_path / "a.hdr").voxels(1)


def test_voxels_cut_short_are_refused(tmp_path):
    save(tmp_path / "a.img")
    (tmp_path / "a.img").write_bytes((tmp_path / "a.img").read_bytes()[:-7])
    with pytest.raises(VptError, match=r"a\.hdr: truncated or damaged"):
        reader_of(tmp_path / "a.hdr").voxels(1)
