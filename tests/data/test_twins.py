"""Nearly the same image on two sides is a warning, but not one patient's where a draw keeps them together."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from vpt.data.check import check_dataset


@pytest.fixture
def copies(make_dataset):
    """make(n): eight cases, of which the first n after case_00 are that one with a little noise."""

    def make(count: int):
        root = make_dataset(cases=16)
        first = nib.load(root / "imagesTr/case_00_0000.nii.gz")
        for number in range(1, count + 1):
            noise = np.random.default_rng(number).normal(0, 0.1, first.shape)
            image = nib.Nifti1Image((np.asarray(first.dataobj) + noise).astype(np.float32), first.affine)
            nib.save(image, root / f"imagesTr/case_{number:02d}_0000.nii.gz")
        return root

    return make


def near(root):
    return [(each.file, each.text) for each in check_dataset(root).warnings if "nearly the same" in each.text]


@pytest.mark.slow
def test_of_a_drawn_split_it_is_asked_whose_they_are(copies):
    root = copies(1)
    assert near(root) == [
        (
            "imagesTr/case_01_0000.nii.gz",
            "nearly the same image as case_00_0000.nii.gz; "
            "say in `patients` that they are one patient's, or remove one",
        )
    ]
    content = json.loads((root / "dataset.json").read_text())
    patients = {f"case_{number:02d}": str(max(1, number)) for number in range(16)}
    (root / "dataset.json").write_text(json.dumps(content | {"patients": patients}))
    assert near(root) == []


@pytest.mark.slow
def test_of_a_given_split_only_those_on_two_sides_are_told(copies):
    root = copies(2)
    names = [f"case_{number:02d}" for number in range(16)]
    (root / "split.json").write_text(json.dumps({"train": names[:10], "val": names[10:], "test": []}))
    assert near(root) == []
    (root / "split.json").write_text(json.dumps({"train": names[2:], "val": names[:2], "test": []}))
    assert [file for file, _ in near(root)] == ["imagesTr/case_02_0000.nii.gz"] * 2
    assert all("on two sides (val and train)" in text for _, text in near(root))


@pytest.mark.parametrize("noise", [0, 0.1])
def test_files_of_one_name_are_told_by_their_folders(tmp_path, noise):
    for number in range(5):
        (folder := tmp_path / f"case_{number}").mkdir()
        rng = np.random.default_rng(max(1, number))
        scan = (rng.normal(0, 9, (16, 16, 6)) + noise * number).astype(np.float32)
        mask = np.zeros((16, 16, 6), np.uint8)
        mask[3:8, 3:8, 2:4] = 1
        nib.save(nib.Nifti1Image(scan, np.eye(4)), folder / "imaging.nii.gz")
        nib.save(nib.Nifti1Image(mask, np.eye(4)), folder / "segmentation.nii.gz")
    (text,) = [each.text for each in check_dataset(tmp_path).problems if "case_1/imaging" in each.file]
    assert text.startswith(f"{'nearly the same image' if noise else 'the same voxels'} as case_0/imaging.nii.gz; ")


def test_many_are_ten_lines_and_how_many_more(copies):
    told = near(copies(5))
    assert len(told) == 11
    assert "(so 5 more: " in told[-1][1]
