"""Masks find their references by name, and what finds none is named before a file is opened."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from vpt.errors import VptError
from vpt.use.evaluation import paired_names
from vpt.use.evaluation.pairing import pair_masks


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


def test_sequences_whose_names_say_another_order_are_refused(tmp_path):
    names = [f"p{number}" for number in range(3)]
    found, true = (
        [tmp_path / folder / f"{name}{end}" for name in names] for folder, end in (("a", ".png"), ("b", "_seg.png"))
    )
    assert [pair.case for pair in pair_masks(found, true).pairs] == ["p0_seg", "p1_seg", "p2_seg"]
    assert len(pair_masks([tmp_path / "x1.png", tmp_path / "x2.png"], true[:2]).pairs) == 2

    for others in (true[::-1], [true[1], true[2], true[0]]):
        with pytest.raises(VptError, match=r"^pair 1: .*p0.png and .*; give predictions and references in one order$"):
            pair_masks(found, others)
    with pytest.raises(VptError, match=r"pair 2: .*p0 is the name of reference 1 of 2"):
        pair_masks([found[0], found[0]], true[:2])
    assert len(pair_masks(found[:2], true[1:]).pairs) == 2  # each with the next, p0 with nobody else


@pytest.mark.parametrize("given", [None, 3])
def test_what_is_no_mask_is_refused_in_a_sentence(given):
    with pytest.raises(VptError, match=f"{type(given).__name__} is no mask; give a folder"):
        pair_masks(given, given)


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
    refused(f"{tmp_path / 'no'}: no such folder, expected one as {folders[1]} is", tmp_path / "no", folders[1])
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


@pytest.mark.parametrize(
    ("reference", "case"),
    [
        ("sub-01", "sub-01"),
        ("P 1.b__c_seg", "P 1.b__c"),
        ("mask-p-01", "p-01"),
        ("sub-01_label-lesion_mask", "sub-01_lesion"),
    ],
)
def test_a_case_paired_by_id_is_called_as_its_reference_with_its_own_separators(reference, case, tmp_path):
    mine = touch(tmp_path / "a", f"{reference}_pred.nii.gz")
    theirs = touch(tmp_path / "b", f"{reference}.nii.gz", "sub-09_seg.nii.gz")
    if not {"seg", "mask"} & {*reference.replace("_", "-").split("-")}:
        (theirs / "sub-09_seg.nii.gz").rename(theirs / "sub-09.nii.gz")
    matched = pair_masks(mine, theirs)
    assert [pair.case for pair in matched.pairs] == [case]
    assert matched.missing == ("sub-09",)
    assert matched.said.endswith(f"({case})")


def test_references_and_predictions_below_that_nothing_is_called_alike_in_are_told(tmp_path):
    mine, theirs = touch(tmp_path / "p", "x.nii.gz"), touch(tmp_path / "r", "x.nii.gz")
    touch(mine / "siteC", "z.nii.gz"), touch(mine / "previews", "x.png"), touch(mine / "pictures", "x.png")
    touch(theirs / "siteB", "y.nii.gz"), touch(theirs / "imagesTr", "x.nii.gz"), touch(theirs / "looks", "x.png")
    matched = pair_masks(mine, theirs)
    assert [pair.case for pair in matched.pairs] == ["x"]
    assert matched.missing == ("siteB/y",)
    assert matched.said == "not scored, since no reference called alike lies there: 1 folder (siteC)"


@pytest.mark.parametrize("inner", ["predictions", "references"])
def test_one_folder_inside_the_other_is_not_counted_as_a_part_of_it(inner, tmp_path):
    outer, below = (
        touch(tmp_path / "o", "x.nii.gz", "y.nii.gz"),
        touch(tmp_path / "o" / "deep" / "i", "x.nii.gz", "y.nii.gz"),
    )
    matched = pair_masks(*((below, outer) if inner == "predictions" else (outer, below)))
    assert ([pair.case for pair in matched.pairs], matched.missing, matched.said) == (["x", "y"], (), "")


def test_probabilities_that_nnunet_writes_beside_masks_are_passed_over(tmp_path):
    mine = touch(tmp_path / "p", "a.nii.gz", "a.npz", "a.pkl")
    theirs = touch(tmp_path / "r", "a.nii.gz")
    assert [pair.prediction.source for pair in pair_masks(mine, theirs).pairs] == [mine / "a.nii.gz"]
    (mine / "a.pkl").unlink()
    refused("a.npz: a.nii.gz has the same case name a; keep one of the two", mine, theirs)


@pytest.mark.parametrize("ending", ["_lbl", "_roi", "_dseg", "-labelmap", "_contour", "_mask_0", "_seg_1", ".jpg"])
def test_rarer_words_for_masks_are_left_out_where_nothing_pairs_else(ending, tmp_path):
    mine = touch(tmp_path / "p", "P-1.png", "P-2.png")
    theirs = touch(tmp_path / "r", f"P-1{ending}.png", f"P-2{ending}.png", f"P-3{ending}.png")
    matched = pair_masks(mine, theirs)
    assert [(pair.case, pair.reference.name) for pair in matched.pairs] == [
        ("P-1", f"P-1{ending}"),
        ("P-2", f"P-2{ending}"),
    ]
    assert matched.missing == ("P-3",)
    assert matched.said == f"paired by the id in the names: P-1.png with P-1{ending}.png (P-1)"


@pytest.mark.parametrize(
    ("predictions", "references", "sentence"),
    [
        (("p1.png",), ("p1_roi.png", "p1_lbl.png"), "no reference for p1 in"),
        (("p1.png",), ("p1_mask_0.png", "p1_mask_1.png"), "no reference for p1 in"),
        (("p1_roi.png", "p2.png"), ("p1.png",), "no reference for p1_roi, p2 in"),
        (("mask_1.png",), ("mask_2.png",), "no reference for mask_1 in"),
    ],
)
def test_rarer_words_that_leave_two_of_one_id_or_pair_not_all_change_nothing(
    predictions, references, sentence, tmp_path
):
    refused(sentence, touch(tmp_path / "p", *predictions), touch(tmp_path / "r", *references))


@pytest.mark.parametrize(
    ("predictions", "references"),
    [(("A", "B_seg"), ("A", "B")), (("A", "B"), ("A", "B_seg")), (("A", "B_seg"), ("A", "B_mask"))],
)
def test_equal_names_stay_pairs_where_others_say_mask(predictions, references, tmp_path):
    folders = [
        touch(tmp_path / side, *(f"{name}.nii.gz" for name in names))
        for side, names in (("p", predictions), ("r", references))
    ]
    matched = pair_masks(*folders)
    assert ([pair.case for pair in matched.pairs], matched.missing) == (["A", "B"], ())
    assert matched.said.endswith("(B)")


BRATS = ("B_0/B_0_seg.nii.gz", "B_0/B_0_t1.nii.gz", "B_1/B_1_seg.nii.gz", "B_1/B_1_t1.nii.gz", "B_2/B_2_seg.nii.gz")


@pytest.mark.parametrize(
    ("predictions", "references", "cases", "missing"),
    [
        (("B_0.nii.gz", "B_1.nii.gz"), BRATS, ["B_0", "B_1"], ("B_2",)),
        (("B_0_pred.nii.gz", "B_1_pred.nii.gz"), BRATS, ["B_0", "B_1"], ("B_2",)),
        (("p-1.nii.gz",), ("p-1/segmentation.nii.gz", "p-2/segmentation.nii.gz"), ["p-1"], ("p-2",)),
        (("sub-01.nii.gz",), ("sub-01/anat/sub-01_label-lesion_mask.nii.gz",), ["sub-01"], ()),
        (("P1/pred.nii.gz", "P2/pred.nii.gz"), ("P1/gt.nii.gz", "P2/gt.nii.gz"), ["P1", "P2"], ()),
        (("P1/pred.nii.gz",), ("P1.nii.gz", "P2.nii.gz"), ["P1"], ("P2",)),
        (("C_8/imaging.nii.gz",), ("C_8/segmentation.nii.gz", "C_9/segmentation.nii.gz"), ["C_8"], ("C_9",)),
        (
            ("sub-6/ses-1/anat/sub-6_ses-1_T1w.nii.gz", "sub-6/ses-2/anat/sub-6_ses-2_T1w.nii.gz"),
            ("sub-6/ses-1/anat/sub-6_ses-1_dseg.nii.gz", "sub-6/ses-2/anat/sub-6_ses-2_dseg.nii.gz"),
            ["sub-6_ses-1", "sub-6_ses-2"],
            (),
        ),
        (
            ("sub-9/anat/sub-9_T1w.nii.gz",),
            (
                "derivatives/manual/sub-9/anat/sub-9_space-T1w_dseg.nii.gz",
                "derivatives/manual/sub-9/anat/sub-9_desc-other_note.txt",
                "sub-9/anat/sub-9_T1w.nii.gz",
                "sub-9/anat/sub-9_FLAIR.nii.gz",
            ),
            ["sub-9"],
            (),
        ),
    ],
)
def test_masks_in_a_folder_for_each_case_are_paired_by_its_name(predictions, references, cases, missing, tmp_path):
    for side, names in (("p", predictions), ("r", references)):
        for name in names:
            touch((tmp_path / side / name).parent, Path(name).name)
    matched = pair_masks(tmp_path / "p", tmp_path / "r")
    assert ([pair.case for pair in matched.pairs], matched.missing) == (cases, missing)
    assert all("t1" not in pair.reference.name for pair in matched.pairs)
    assert matched.said.startswith(
        f"paired by the folder of each case: {predictions[0]} with {references[0]} ({cases[0]}"
    )


@pytest.mark.parametrize("references", [("p1/a.nii.gz", "p1/b.nii.gz"), ("labelsTr/p1.nii.gz",)])
def test_folders_that_are_no_cases_are_not_taken_for_them(references, tmp_path):
    for name in references:
        touch((tmp_path / "r" / name).parent, Path(name).name)
    mine = touch(tmp_path / "p", "p1.nii.gz", "p3.nii.gz")
    refused(f"{tmp_path / 'r'}: no volumes (.nii.gz, .nrrd, .mha, ...) or images", mine, tmp_path / "r")


@pytest.mark.parametrize(
    ("prediction", "reference", "names"),
    [
        ("p1.nii.gz", "p2/a.nii.gz", ("p1", "p2_a")),
        ("s9/ct.nii.gz", "s9/segmentations/liver.nii.gz", ("s9", "s9_liver")),
        ("p1/visit1/imaging.nii.gz", "p1/visit2/segmentation.nii.gz", ("p1_visit1", "p1_visit2")),
    ],
)
def test_folders_of_cases_of_which_none_pair_are_said_with_their_names(prediction, reference, names, tmp_path):
    for side, name in (("p", prediction), ("r", reference)):
        touch((tmp_path / side / name).parent, Path(name).name)
    own, other = names
    refused(
        f"{tmp_path / 'r'}: no reference for any mask in {tmp_path / 'p'}; they are paired by the folder of each case, "
        f"and {prediction} is of {own}, {reference} of {other}: rename",
        tmp_path / "p",
        tmp_path / "r",
    )


@pytest.mark.parametrize("lone", ["p2", "p2_T1"])
def test_scans_without_a_mask_in_folders_that_hold_scans_and_masks_are_passed_over_on_both_sides(lone, tmp_path):
    names = ("p1_T1.nii.gz", "p1_seg.nii.gz", f"{lone}.nii.gz")
    matched = pair_masks(touch(tmp_path / "p", *names), touch(tmp_path / "r", *names))
    assert [(pair.prediction.name, pair.reference.name) for pair in matched.pairs] == [("p1_seg", "p1_seg")]
    assert f"not taken for masks, since others say so: p1_T1.nii.gz, {lone}.nii.gz" in matched.said


def lay_out(folder, predictions, references):
    """Two folders of empty NIfTI files, which are given without their ending."""
    for side, names in (("p", predictions), ("r", references)):
        for name in names:
            path = folder / side / (name if Path(name).suffix else f"{name}.nii.gz")
            touch(path.parent, path.name)
    return folder / "p", folder / "r"


@pytest.mark.parametrize(
    ("predictions", "references"),
    [
        (("siteA/p1", "siteB/p2"), ("siteA/p3", "siteB/p4")),
        (("fold_0/a",), ("fold_0/b",)),
        (("T1/a",), ("T1/b",)),
        (("P1/P1_left",), ("P1/P1_right",)),
        (("P1_left/seg",), ("P1_right/seg",)),
        (("P1/left/seg",), ("P1/right/gt",)),
        (("P1",), ("P1/P1_left_seg",)),
        (("P1/visit1/seg",), ("P1/visit2/seg",)),
        (("P1/seg",), ("P1/visit2/gt",)),
        (("sub-01/ses-1/anat/sub-01_ses-1_dseg",), ("sub-01/ses-2/anat/sub-01_ses-2_dseg",)),
        (("sub-01",), ("sub-01/ses-2/anat/sub-01_ses-2_dseg",)),
        (("sub-01",), ("sub-01/ses-1/anat/sub-01_ses-1_dseg", "sub-01/ses-2/anat/sub-01_ses-2_dseg")),
        (("01_02/01_seg",), ("01_02/02_seg",)),
        (("P1/P2_seg", "P2/P1_seg"), ("P1/gt", "P2/gt")),
        (("P1/liver_seg",), ("P1/tumour_seg",)),
        (("P1_CT/pred",), ("P1_MR/gt",)),
        (("P1/T1/pred",), ("P1/T2/gt",)),
        (("0001/pred",), ("0000/gt",)),
        (("sub-01/sub-01_desc-lesion_mask",), ("sub-01/anat/sub-01_desc-brain_mask",)),
    ],
)
def test_folders_called_alike_do_not_pair_what_is_in_them(predictions, references, tmp_path):
    refused("r: no reference for any mask in", *lay_out(tmp_path, predictions, references))


@pytest.mark.parametrize(
    ("predictions", "references"),
    [
        (("labelsTr/a",), ("labelsTr/b",)),
        (("P1",), ("labelsTr/P1",)),
        (("P1",), ("P1/P1", "P1/P1_lesion")),
        (("P1",), ("P1/ct",)),
        (("P1",), ("P1/images/P1",)),
    ],
)
def test_folders_of_which_nobody_knows_whose_they_are_pair_nothing(predictions, references, tmp_path):
    refused("no volumes (.nii.gz, .nrrd, .mha, ...) or images", *lay_out(tmp_path, predictions, references))


@pytest.mark.parametrize(
    ("predictions", "references", "cases"),
    [
        (
            ("sub-01_ses-1",),
            ("sub-01/ses-1/anat/sub-01_ses-1_dseg", "sub-01/ses-2/anat/sub-01_ses-2_dseg"),
            ["sub-01_ses-1"],
        ),
        (("P1/visit1/seg",), ("P1/visit1/gt",), ["P1_visit1"]),
        (("P1_left", "P1_right"), ("P1/left_seg", "P1/right_seg"), ["P1_left", "P1_right"]),
        (("sub-01",), ("sub-01/anat/sub-01_T1w", "sub-01/anat/sub-01_dseg"), ["sub-01"]),
        (("sub-01",), ("sub-01/anat/sub-01_roi",), ["sub-01"]),
    ],
)
def test_what_folders_and_files_add_to_a_case_has_to_be_the_same(predictions, references, cases, tmp_path):
    matched = pair_masks(*lay_out(tmp_path, predictions, references))
    assert [pair.case for pair in matched.pairs] == cases
    assert all("T1w" not in pair.reference.name for pair in matched.pairs)


@pytest.mark.parametrize("word", ["mask", "seg", "label", "roi"])
@pytest.mark.parametrize(
    ("predictions", "references"),
    [
        (("p1_{}_2", "p2_{}_1"), ("p1_{}_1", "p2_{}_1")),
        (("vid_{}_2",), ("vid_{}_001", "vad_{}_002")),
        (("p1_{}_2", "p2"), ("p1_{}_1", "p2")),
        (("p1_{}_2",), ("p1_2_{}_1",)),
    ],
)
def test_other_masks_of_a_case_are_not_paired_by_leaving_their_numbers_out(word, predictions, references, tmp_path):
    folders = lay_out(tmp_path, *([name.format(word) for name in side] for side in (predictions, references)))
    refused(f"{folders[1]}: no reference for ", *folders)


@pytest.mark.parametrize(("ending", "case"), [("_mask_1", "p1_1"), ("_roi_7", "p1_7")])
def test_equal_numbers_behind_other_words_for_masks_are_paired(ending, case, tmp_path):
    number = ending[-1]
    matched = pair_masks(*lay_out(tmp_path, [f"p1_lbl_{number}"], [f"p1{ending}", f"p1{ending}0"]))
    assert [pair.case for pair in matched.pairs] == [case]


@pytest.mark.parametrize("entity", ["desc-gm,desc-wm", "space-native,space-mni", "res-1,res-2"])
def test_masks_that_differ_in_what_bids_says_of_them_are_paired_by_it(entity, tmp_path):
    names = [f"sub-{k}/sub-{k}_{each}" for k in "12" for each in entity.split(",")]
    predictions, references = ([f"{name}_{what}" for name in names] for what in ("pred", "mask"))
    matched = pair_masks(*lay_out(tmp_path, predictions, references))
    pairs = [(pair.prediction.name.removesuffix("_pred"), pair.reference.name) for pair in matched.pairs]
    assert len(pairs) == 4
    assert all(reference == f"{prediction}_mask" for prediction, reference in pairs)


def test_a_mask_that_lacks_its_reference_alone_is_named_with_what_bids_says_of_it(tmp_path):
    predictions = ["sub-1/sub-1_space-a_pred", "sub-1/sub-1_space-b_pred"]
    folders = lay_out(tmp_path, predictions, ["sub-1/anat/sub-1_space-a_mask"])
    refused("no reference for sub-1_space-b in", *folders)


def test_of_flat_predictions_beside_folders_of_cases_every_one_is_taken(tmp_path):
    matched = pair_masks(*lay_out(tmp_path, ("A", "B_seg", "C_T1", "C_seg"), ("A/gt", "B/gt", "C/gt", "D/gt")))
    assert [(pair.case, pair.prediction.name) for pair in matched.pairs] == [("A", "A"), ("B", "B_seg"), ("C", "C_seg")]
    assert matched.missing == ("D",)
    assert matched.said.endswith("1 file not taken for masks, since others say so: C_T1.nii.gz")


def test_folders_beside_flat_predictions_are_told_where_references_have_folders(tmp_path):
    matched = pair_masks(*lay_out(tmp_path, ("A", "extra/B"), ("A/gt", "B/gt")))
    assert [pair.case for pair in matched.pairs] == ["A"]
    assert matched.said.endswith("not scored, since no reference called alike lies there: 1 folder (extra)")


def test_references_below_flat_ones_are_missed_where_predictions_have_folders(tmp_path):
    matched = pair_masks(*lay_out(tmp_path, ("P1/pred",), ("P1", "siteB/P2", "imagesTs/P1")))
    assert ([pair.case for pair in matched.pairs], matched.missing) == (["P1"], ("siteB/P2",))


def test_a_lone_scan_is_no_mask_where_other_folders_have_one(tmp_path):
    references = ("P1/ct", "P1/gt", "P2/ct")
    refused(
        "no reference for P2 in {}; files are paired by the folder of each case, as P1: rename".format(tmp_path / "p"),
        *lay_out(tmp_path, ("P1", "P2"), references),
    )
    (tmp_path / "p" / "P2.nii.gz").unlink()
    matched = pair_masks(tmp_path / "p", tmp_path / "r")
    assert ([pair.case for pair in matched.pairs], matched.missing) == (["P1"], ())
    assert matched.said.endswith("2 files not taken for masks, since others say so: P1/ct.nii.gz, P2/ct.nii.gz")


@pytest.mark.parametrize(
    ("predictions", "references"),
    [
        (("c0.png", "c0.npz", "c0.pkl"), ("c0.png",)),
        (("P1/P1", "P1/P1.npz", "P1/P1.pkl"), ("P1/gt",)),
        (("P1/P1.npz", "P1/P1", "P1/P1.pkl"), ("P1",)),
        (("s/a", "s/a.npz", "s/a.pkl", "s/b"), ("s/a", "s/b")),
    ],
)
def test_probabilities_of_nnunet_are_passed_over_in_every_layout(predictions, references, tmp_path):
    matched = pair_masks(*lay_out(tmp_path, predictions, references))
    assert all(pair.prediction.source.suffix != ".npz" for pair in matched.pairs)
    assert len(matched.pairs) == len(references)


def test_probabilities_of_many_cases_cost_no_more_than_their_number(tmp_path, monkeypatch):
    named = []
    monkeypatch.setattr(paired_names, "case_name", lambda path: named.append(path) or Path(path).name.partition(".")[0])
    names = [f"c{number}" for number in range(50)]
    folders = lay_out(tmp_path, [f"{name}{end}" for name in names for end in ("", ".npz", ".pkl")], names)
    assert len(pair_masks(*folders).pairs) == 50
    assert len(named) < 50 * 20


@pytest.mark.parametrize("prediction", ["seg", "pred"])
def test_with_a_folder_for_each_case_on_both_sides_scans_are_no_references_and_it_is_said_once(prediction, tmp_path):
    numbers = range(5)
    references = [f"B_{k}/B_{k}_{what}" for k in numbers for what in ("seg", "t1", "t2")]
    matched = pair_masks(*lay_out(tmp_path, [f"B_{k}/B_{k}_{prediction}" for k in numbers[:4]], references))
    assert [pair.case for pair in matched.pairs] == ["B_0", "B_1", "B_2", "B_3"]
    assert matched.missing == ("B_4",)
    assert matched.missing_files == (tmp_path / "r/B_4/B_4_seg.nii.gz",)
    assert matched.said == (
        f"paired by the folder of each case: B_0/B_0_{prediction}.nii.gz with B_0/B_0_seg.nii.gz (B_0); 10 files not "
        "taken for masks, since others say so: B_0/B_0_t1.nii.gz, B_0/B_0_t2.nii.gz, B_1/B_1_t1.nii.gz, "
        "B_1/B_1_t2.nii.gz, B_2/B_2_t1.nii.gz and 5 more"
    )


def test_of_many_folders_called_alike_only_some_are_said(tmp_path):
    sites = [f"s{k}" for k in range(9)]
    predictions, references = (
        [f"{site}/{site}x{k}{what}" for site in sites for k in "12"] for what in ("_pred", "_seg")
    )
    matched = pair_masks(*lay_out(tmp_path, predictions, references))
    assert [pair.case for pair in matched.pairs] == [f"{site}/{site}x{k}" for site in sites for k in "12"]
    assert matched.said.count("paired by the id") == 3
    assert matched.said.endswith("; and so on in 6 folders more")


def test_scans_beside_masks_are_no_references_without_a_prediction(tmp_path):
    matched = pair_masks(*lay_out(tmp_path, ("p1_seg",), ("p1_seg", "p1_ct", "p2_seg", "p2_ct")))
    assert ([pair.case for pair in matched.pairs], matched.missing) == (["p1_seg"], ("p2_seg",))
    assert matched.said == "2 files not taken for masks, since others say so: p1_ct.nii.gz, p2_ct.nii.gz"


def test_scans_are_no_references_where_only_some_have_a_mask(tmp_path):
    folders = lay_out(tmp_path, ("p1", "p2", "p3"), ("p1", "p1_seg", "p2", "p2_seg", "p3"))
    refused("no reference for p3 in", *folders)


@pytest.mark.parametrize("folder", ["images", "volumes", "scans", "imagesTs"])
def test_predictions_are_told_and_references_left_out_in_folders_of_scans(folder, tmp_path):
    matched = pair_masks(*lay_out(tmp_path, ("a/x", f"{folder}/y"), ("a/x", "b/y", f"{folder}/z")))
    assert [pair.case for pair in matched.pairs] == ["a/x"]
    assert matched.missing == ("b/y",)
    assert matched.said == f"not scored, since no reference called alike lies there: 1 folder ({folder})"


@pytest.mark.parametrize("folder", ["dwi", "pet"])
def test_a_folder_of_bids_that_one_side_alone_has_is_no_part_of_the_case(folder, tmp_path):
    mine = [f"sub-{n}/ses-1/{folder}/sub-{n}_ses-1.nii.gz" for n in (1, 2)]
    theirs = [f"sub-{n}/ses-1/sub-{n}_ses-1_msk.nii.gz" for n in (1, 2)]
    for side, names in (("p", mine), ("r", theirs)):
        for name in names:
            touch((tmp_path / side / name).parent, Path(name).name)

    assert [pair.case for pair in pair_masks(tmp_path / "p", tmp_path / "r").pairs] == ["sub-1_ses-1", "sub-2_ses-1"]

    other = "pet" if folder == "dwi" else "dwi"
    for name in theirs:
        touch(tmp_path / "s" / Path(name).parent / other, Path(name).name)
    with pytest.raises(VptError, match="no reference for any mask"):
        pair_masks(tmp_path / "p", tmp_path / "s")


@pytest.mark.parametrize("derived", ["derivatives/manual", "derivatives"])
def test_raw_scans_of_bids_are_no_references_beside_masks_in_derivatives(derived, tmp_path):
    for n in (1, 2):
        touch(tmp_path / f"p/sub-{n}/ses-1/dwi", f"sub-{n}_ses-1.nii.gz")
        touch(tmp_path / f"r/sub-{n}/ses-1/dwi", *(f"sub-{n}_ses-1_{k}.nii.gz" for k in ("dwi", "adc")))
        touch(tmp_path / f"r/{derived}/sub-{n}/ses-1", f"sub-{n}_ses-1_msk.nii.gz")

    matched = pair_masks(tmp_path / "p", tmp_path / "r")

    assert [Path(pair.reference.shown).name for pair in matched.pairs] == [
        "sub-1_ses-1_msk.nii.gz",
        "sub-2_ses-1_msk.nii.gz",
    ]
    assert matched.missing == ()
