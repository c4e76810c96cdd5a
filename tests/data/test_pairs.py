"""Masks find their references by name, and what finds none is named before a file is opened."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from vpt.data.pairs import pair_masks
from vpt.errors import VptError


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


@pytest.fixture
def folders(tmp_path):
    return touch(tmp_path / "pred", "a.nii.gz", "b.NII", "summary.json", "._c.nii.gz"), touch(
        tmp_path / "data" / "labelsTr", "b.nii.gz", "a.nii", "c.nii"
    )


def refused(sentence, predictions, references):
    """The sentence in full, so that a reader of the test sees what the user reads."""
    with pytest.raises(VptError) as caught:
        pair_masks(predictions, references)
    assert sentence in str(caught.value)


def test_folders_are_paired_by_case_name(folders):
    pairs, missing = pair_masks(str(folders[0]), folders[1])
    found = [(pair.reference.name, Path(pair.prediction.shown).name, pair.reference.source.name) for pair in pairs]
    assert found == [("a", "a.nii.gz", "a.nii"), ("b", "b.NII", "b.nii.gz")]
    assert missing == ("c",)


def test_sequences_are_paired_in_their_order(folders):
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4))
    pairs, missing = pair_masks([image, folders[0] / "a.nii.gz"], [str(folders[1] / "c.nii"), image])
    assert [(pair.prediction.name, pair.reference.name) for pair in pairs] == [("image 1", "c"), ("a", "image 2")]
    assert missing == ()


def test_a_prediction_without_reference_is_said(folders):
    touch(folders[0], *(f"x{number}.nii.gz" for number in range(7)))
    refused(
        f"{folders[1]}: no reference for x0, x1, x2, x3, x4 and 2 more in {folders[0]}; files are paired by name, as "
        "a, b and 1 more: rename the predictions, take them out, or add their references",
        *folders,
    )


def test_folders_without_any_pair_are_said(folders, tmp_path):
    other = touch(tmp_path / "other", "a_0000.nii.gz")
    refused(
        f"{folders[1]}: no reference for a_0000 in {other}; files are paired by name, as a, b and", other, folders[1]
    )


def test_folders_with_nothing_to_score_are_said(folders, tmp_path):
    empty = touch(tmp_path / "empty", "._a.nii.gz", "summary.json")
    refused(
        f"{empty}: no volumes (.nii.gz, .nrrd, .mha, ...) or images in this folder; give the folder that",
        empty,
        folders[1],
    )
    above = folders[1].parent
    refused(
        f"{above}: no volumes (.nii.gz, .nrrd, .mha, ...) or images in this folder; did you mean its folder labels",
        folders[0],
        above,
    )


def test_two_files_of_one_case_are_said(folders):
    touch(folders[0], "a.nii")
    refused(f"{folders[0] / 'a.nii.gz'}: a.nii has the same case name a; keep one of the two", *folders)


def test_things_that_do_not_pair_are_said(folders, tmp_path):
    file = folders[1] / "a.nii"
    refused(f"{file}: not a folder, but {folders[0]} is one; give two folders or two files", folders[0], file)
    refused(f"{tmp_path / 'no'}: not a folder, but {folders[1]} is one", tmp_path / "no", folders[1])
    refused(f"a list: not a folder, but {folders[0]} is one", folders[0], [file])
    refused("1 predictions but 2 references; give one of each, in one order", [file], [file, file])
    refused("no predictions and no references were given", [], [])
    refused("image 1: a ndarray, expected a path or a nibabel image", [np.zeros((2, 2, 2))], [file])
