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
    matched = pair_masks(str(folders[0]), folders[1])
    found = [
        (pair.reference.name, Path(pair.prediction.shown).name, pair.reference.source.name) for pair in matched.pairs
    ]
    assert found == [("a", "a.nii.gz", "a.nii"), ("b", "b.NII", "b.nii.gz")]
    assert matched.missing == ("c",)


def test_sequences_are_paired_in_their_order(folders):
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4))
    matched = pair_masks([image, folders[0] / "a.nii.gz"], [str(folders[1] / "c.nii"), image])
    assert [(pair.prediction.name, pair.reference.name) for pair in matched.pairs] == [
        ("image 1", "c"),
        ("a", "image 2"),
    ]
    assert (matched.missing, matched.said) == ((), "")


def test_references_that_share_a_name_are_told_apart(tmp_path):
    places = [touch(tmp_path / f"case_{k}", "seg.nii.gz") / "seg.nii.gz" for k in range(3)]
    mine = [touch(tmp_path / "pred", f"case_{k}.nii.gz") / f"case_{k}.nii.gz" for k in range(3)]
    names = [[pair.case for pair in pair_masks(given, places).pairs] for given in (mine, places, [places[0]] * 3)]
    assert names == [["case_0", "case_1", "case_2"], *[["case_0_seg", "case_1_seg", "case_2_seg"]] * 2]
    twice = pair_masks([places[0]] * 2, [places[0]] * 2).pairs
    assert [pair.case for pair in twice] == ["seg 1", "seg 2"]


def test_a_prediction_without_reference_is_said(folders):
    touch(folders[0], *(f"x{number}.nii.gz" for number in range(7)))
    refused(
        f"{folders[1]}: no reference for x0, x1, x2, x3, x4 and 2 more in {folders[0]}; files are paired by name, as "
        "a, b and 1 more: rename the predictions, take them out, or add their references",
        *folders,
    )


def test_folders_without_any_pair_are_said(folders, tmp_path):
    other = touch(tmp_path / "other", "a_left.nii.gz")
    refused(
        f"{folders[1]}: no reference for a_left in {other}; files are paired by name, as a, b and", other, folders[1]
    )


@pytest.mark.parametrize(
    ("predictions", "references"),
    [
        (("pat01_T1.nii.gz", "pat02_T1.nii.gz"), ("pat01_seg.nii.gz", "pat02_seg.nii.gz", "pat03_seg.nii.gz")),
        (("pat01_0000.nii.gz", "pat02_0000.nii.gz"), ("pat01.nii", "pat02.nii")),
        (("pred-pat01.nii.gz", "pred-pat02.nii.gz"), ("pat01_mask.nii.gz", "pat02_mask.nii.gz")),
        (("pat01.png", "pat02.png"), ("pat01_Annotation.png", "pat02_Annotation.png")),
        (
            ("pat01.nii.gz", "pat02.nii.gz"),
            ("pat01_T1.nii.gz", "pat01_seg.nii.gz", "pat02_T1.nii.gz", "pat02_seg.nii.gz"),
        ),
    ],
)
def test_folders_are_paired_by_what_names_say_of_the_case(predictions, references, tmp_path):
    matched = pair_masks(touch(tmp_path / "a", *predictions), touch(tmp_path / "b", *references))
    assert [pair.case for pair in matched.pairs] == ["pat01", "pat02"]
    assert all("T1" not in pair.reference.name for pair in matched.pairs)
    assert matched.said.startswith(f"paired by the id in the names: {sorted(predictions)[0]} with pat01")


def test_of_those_paired_by_id_only_what_finds_none_is_named(tmp_path):
    mine = touch(tmp_path / "a", "pat01_pred.nii.gz", "pat02_pred.nii.gz", "pat44_pred.nii.gz")
    truth = touch(tmp_path / "b", "pat01_seg.nii.gz", "pat02_seg.nii.gz", "pat03_seg.nii.gz")
    refused(f"no reference for pat44 in {mine}; files are paired by the id in their names, as pat01", mine, truth)


def test_files_beside_those_that_say_mask_are_named(tmp_path):
    mine = touch(tmp_path / "a", "pat01_seg.nii.gz", "pat01_T1.nii.gz", "pat44_pred.nii.gz")
    matched = pair_masks(mine, touch(tmp_path / "b", "pat01_mask.nii.gz"))
    assert [pair.case for pair in matched.pairs] == ["pat01"]
    assert matched.said.endswith("2 files not taken for masks, since others say so: pat01_T1.nii.gz, pat44_pred.nii.gz")


@pytest.mark.parametrize(
    ("predictions", "references", "both"),
    [
        (("p1_T1.nii.gz", "p1_T2.nii.gz"), ("p1_seg.nii.gz",), "p1_T1.nii.gz and p1_T2.nii.gz are both of p1"),
        (("p1.nii.gz",), ("p1_seg.nii.gz", "p1_label.nii.gz"), "p1_label.nii.gz and p1_seg.nii.gz are both of p1"),
    ],
)
def test_names_that_fit_twice_are_refused_with_both(predictions, references, both, tmp_path):
    refused(both, touch(tmp_path / "a", *predictions), touch(tmp_path / "b", *references))


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [("s1_visit1", "s1_visit2"), ("s1_left", "s1_right"), ("case_1", "case_10"), ("a1", "b1")],
)
def test_names_of_other_cases_are_not_paired(prediction, reference, tmp_path):
    folders = touch(tmp_path / "a", f"{prediction}.nii.gz"), touch(tmp_path / "b", f"{reference}.nii.gz")
    refused(f"no reference for {prediction} in", *folders)


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
    refused("1 prediction but 2 references; give one of each, in one order", [file], [file, file])
    refused("no predictions and no references were given", [], [])
    refused("image 1: a ndarray, expected a path or a nibabel image", [np.zeros((2, 2, 2))], [file])


def test_folders_below_that_are_called_alike_are_paired_too(tmp_path):
    mine = touch(tmp_path / "pred", "p1.nii.gz")
    touch(mine / "site/a", "p1.nii.gz"), touch(mine / "probabilities", "p1.nii.gz"), touch(mine / "old", "q.nii.gz")
    theirs = touch(tmp_path / "ref", "p1.nii.gz", "p2.nii.gz")
    touch(theirs / "site/a", "p1.nii.gz", "p3.nii.gz"), touch(theirs / "probabilities", "p1.nii.gz")
    touch(theirs / "b", "p9.nii.gz")

    matched = pair_masks(mine, theirs)

    assert [pair.case for pair in matched.pairs] == ["p1", "site/a/p1"]
    assert matched.pairs[1].prediction.source == mine / "site/a/p1.nii.gz"
    assert matched.pairs[1].reference.source == theirs / "site/a/p1.nii.gz"
    assert matched.missing == ("p2", "site/a/p3", "b/p9")


def test_a_prediction_in_a_folder_below_needs_its_reference_as_well(tmp_path):
    mine, theirs = touch(tmp_path / "pred/a", "p1.nii.gz", "p2.nii.gz"), touch(tmp_path / "ref/a", "p1.nii.gz")
    refused(f"{theirs}: no reference for p2 in {mine}", tmp_path / "pred", tmp_path / "ref")


def test_masks_below_alone_are_enough(tmp_path):
    touch(tmp_path / "pred/a", "p1_seg.nii.gz"), touch(tmp_path / "ref/a", "p1.nii.gz")
    assert [pair.case for pair in pair_masks(tmp_path / "pred", tmp_path / "ref").pairs] == ["a/p1"]


def test_predictions_in_folders_without_a_reference_are_said(tmp_path):
    (
        touch(tmp_path / "pred/a", "p1.nii.gz"),
        touch(tmp_path / "pred/b", "p2.nii.gz"),
        touch(tmp_path / "ref/a", "p1.nii.gz"),
    )
    matched = pair_masks(tmp_path / "pred", tmp_path / "ref")
    assert [pair.case for pair in matched.pairs] == ["a/p1"]
    assert matched.said == "not scored, since no reference called alike lies there: 1 folder (b)"
