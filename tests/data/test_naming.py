"""Names of scans and masks as people write them are paired; what pairs by chance, or says no mask, is not."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from vpt.data.check import check_dataset
from vpt.data.check_labelled import check_labelled
from vpt.data.layouts import is_labelled, read_dataset, survey
from vpt.data.layouts.by_name import is_told_by_names
from vpt.data.layouts.named_files import named_files
from vpt.data.layouts.naming import PLAIN
from vpt.errors import VptError
from vpt.readers import reader_of


def volume(path: Path, number: int, is_mask: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(number).normal(200, 20, (8, 9, 4)).astype(np.float32)
    label = np.zeros((8, 9, 4), np.uint8)
    label[2:5, 2 : 5 + number % 3, 1:3] = 1
    nib.save(nib.Nifti1Image(label if is_mask else voxels + 90 * label, np.eye(4)), path)


def pairs(root: Path, scan: str, mask: str) -> Path:
    """Five cases of each, `#` is the number of the case."""
    for number in range(5):
        for name, is_mask in ((scan, False), (mask, True)):
            volume(root / f"{name.replace('#', str(number))}.nii.gz", number, is_mask)
    return root


@pytest.mark.parametrize(
    ("scan", "mask"),
    [
        ("P#", "P#_lbl"),
        ("P#", "P#-msk"),
        ("P#", "P# contour"),
        ("P#", "P#_ROI"),
        ("P#_T1", "P#_Maske"),
        ("P#img", "P#seg"),
        ("P#Image", "P#Mask"),
        ("case#CT", "case#CTLabel"),
        ("p#_T1", "P#_SEG"),
        ("Scan_Pat#", "scan_pat#_lbl"),
        ("vol#", "truth#"),
        ("volume-#", "segmentation-#"),
        ("img_00#", "lab_00#"),
        ("image#", "label#"),
        ("IMG#", "SEG#"),
        ("scan_00#", "mask_#"),
        ("CT.#", "RS.#"),
        ("CT#", "RTSTRUCT#"),
        ("ct_#", "seg_#"),
        ("mri_#", "lesion_mask_#"),
        ("input_#", "target_#"),
        ("Patient-#", "Patient-# (mask)"),
        ("a#_orig", "a#_lab"),
        ("img/a#", "ann/a#"),
        ("img/img_#", "lab/lab_#"),
        ("Images/scan#", "Labels/label#"),
        ("inputs/a#", "targets/a#"),
        ("raw/a#", "ROI/a#"),
        ("images/a#", "contours/a#_roi"),
    ],
)
def test_names_that_are_paired(tmp_path: Path, scan: str, mask: str) -> None:
    check = check_dataset(pairs(tmp_path, scan, mask))
    assert (check.cases, [label.cases for label in check.labels]) == (5, [5])
    assert [problem for problem in check.problems if problem.severity == "error"] == []


@pytest.mark.parametrize(
    ("scan", "mask"),
    [
        ("normal/img_#", "roi/roi_#"),
        ("P#", "Q#"),
        ("contour/#", "plain/#"),
        ("a/roi#", "b/roi#"),
        ("P#", "P#_flair"),
        ("lab/a#", "clinic/a#"),
        ("target/x#", "other/x#"),
        ("CT_#", "MR_#"),
        ("us1_#", "us2_#"),
    ],
)
def test_names_that_are_not(tmp_path: Path, scan: str, mask: str) -> None:
    pairs(tmp_path, scan, mask)
    assert is_told_by_names(tmp_path) == ("roi/" in mask)  # files called roi beside files called img are masks


@pytest.mark.parametrize("folder", ["Lung Segmentation", "Masks and Labels/data", "set_gt"])
@pytest.mark.parametrize(
    ("scan", "mask"), [("CXR/a#", "masks/a#"), ("Original/#", "Ground Truth/#"), ("train/images/a#", "train/labels/a#")]
)
def test_what_a_set_is_packed_in_says_nothing_of_its_files(tmp_path: Path, folder: str, scan: str, mask: str) -> None:
    pairs(tmp_path / folder, scan, mask)
    dataset = read_dataset(tmp_path)
    assert [len(dataset.cases), len(dataset.channels)] == [5, 1]
    assert {path.parent.name for case in dataset.cases for path in case.images} == {Path(scan).parent.name}


def test_a_pair_among_many_is_chance(tmp_path: Path) -> None:
    for number in range(5):
        volume(tmp_path / f"scan{number}.nii.gz", number, False)
    volume(tmp_path / "scan0_lbl.nii.gz", 0, True)
    assert not is_told_by_names(tmp_path)


@pytest.mark.parametrize(("scans", "mask"), [(("adc_#", "dwi_#"), "seg_#"), (("T1_#", "T2_#"), "lesion_mask_#")])
def test_a_sequence_may_stand_first(tmp_path: Path, scans: tuple[str, str], mask: str) -> None:
    pairs(tmp_path, scans[0], mask)
    for number in range(5):
        volume(tmp_path / f"{scans[1].replace('#', str(number))}.nii.gz", 50 + number, False)
    check = check_dataset(tmp_path)
    assert check.channels == tuple(scan.casefold().removesuffix("_#") for scan in scans)
    assert (check.cases, check.problems) == (5, ())


@pytest.mark.parametrize(
    ("scan", "mask"),
    [
        ("img_{}", "mask_{:02}"),
        ("scan{}", "scan{:02}_msk"),
        ("vol-{:02}", "truth-{}"),
        ("images/img{}", "masks/img{:02}"),
        ("ct_{}", "seg_{:02}"),
    ],
)
def test_few_pairs_by_chance_do_not_hide_the_others(tmp_path: Path, scan: str, mask: str) -> None:
    for number in range(5, 13):  # 10 to 12 are written alike where the others are not
        volume(tmp_path / f"{scan.format(number)}.nii.gz", number, False)
        volume(tmp_path / f"{mask.format(number)}.nii.gz", number, True)
    dataset, problems = survey(tmp_path)
    assert (len(dataset.cases), problems) == (8, [])


def test_sides_pair_by_rare_words_too(tmp_path: Path) -> None:
    for side, number in (("train", "1#"), ("val", "2#")):
        pairs(tmp_path, f"{side}/img/a{number}", f"{side}/ann/a{number}")
    dataset = read_dataset(tmp_path)
    assert sorted({*dataset.sides.values()}) == ["train", "val"]
    assert [case.images[0].name for case in dataset.cases] == [Path(case.label).name for case in dataset.cases]


@pytest.mark.parametrize(
    ("scan", "mask"),
    [
        ("Patient_0#/Patient_0#", "Patient_0#/GT"),
        ("train/Patient_0#/Patient_0#", "train/Patient_0#/gt"),
        ("pat0#/pat0#", "pat0#/mask"),
        ("p#/p#", "p#/p#_lbl"),
        ("p#/p#", "p#/lbl"),
        ("p#/x9#", "p#/seg"),
        ("p#/a b #", "p#/mask"),
        ("pat0#/pat0#_T1", "pat0#/gt"),
    ],
)
def test_a_scan_may_be_called_as_its_folder_or_be_alone_in_it(tmp_path: Path, scan: str, mask: str) -> None:
    check = check_dataset(pairs(tmp_path, scan, mask))
    assert (check.cases, check.channels, [label.cases for label in check.labels]) == (5, ("image",), [5])
    assert [problem for problem in check.problems if problem.severity == "error"] == []


def test_scans_called_as_their_folders_may_have_sequences(tmp_path: Path) -> None:
    pairs(tmp_path, "pat0#/pat0#_T1", "pat0#/gt")
    pairs(tmp_path, "pat0#/pat0#_T2", "pat0#/gt")
    dataset, problems = survey(tmp_path)
    assert (dataset.channels, len(dataset.cases), problems) == (("T1", "T2"), 5, [])


def test_masks_of_other_labels_in_each_folder_are_not_joined(tmp_path: Path) -> None:
    for number, label in enumerate(("liver", "spleen", "kidney")):
        volume(tmp_path / f"p{number}/x9{number}.nii.gz", number, False)
        volume(tmp_path / f"p{number}/{label}_mask.nii.gz", number, True)
    assert survey(tmp_path)[1]


@pytest.mark.parametrize(
    ("scan", "mask", "said"),
    [
        (
            "p#",
            "p#_m",
            "names differ in m, which does not say mask: if one is the mask's, call that mask, seg or label",
        ),
        ("p#_T1", "p#_tumor", "names differ in t1, tumor, which do not say mask"),
        ("mri_#", "lesion_#", "names differ in lesion, mri, which do not say mask"),
        ("volumes/v#", "segmentations/s#", "such as segmentations/s0.nii.gz say mask, but none is called as a scan"),
        ("img/x#", "ann/y#", "such as ann/y0.nii.gz say mask, but none is called as a scan, such as img/x0.nii.gz"),
        ("case_a#", "mask_b#", "such as mask_b0.nii.gz say mask, but none is called as a scan"),
    ],
)
def test_what_is_not_paired_says_how_it_is_settled(tmp_path: Path, scan: str, mask: str, said: str) -> None:
    pairs(tmp_path, scan, mask)
    assert not is_labelled(tmp_path)
    with pytest.raises(VptError) as caught:
        read_dataset(tmp_path)
    assert said in str(caught.value)
    assert "or list all in cases.csv with the columns image and mask" in str(caught.value)


@pytest.mark.parametrize("labels", [{"background": 0, "organ": 1.0}, {"0.0": "background", "1.0": "organ"}])
def test_whole_numbers_are_ids_however_they_are_written(tmp_path: Path, labels: dict[str, object]) -> None:
    pairs(tmp_path, "imagesTr/c#_0000", "labelsTr/c#")
    described = {"channel_names": {"0": "MR"}, "labels": labels, "file_ending": ".nii.gz", "numTraining": 5}
    (tmp_path / "dataset.json").write_text(json.dumps(described))
    assert [(label.id, label.name) for label in check_dataset(tmp_path).labels] == [(1, "organ")]


@pytest.mark.parametrize(
    "names", [("#/flair", "#/t1", "#/lesions"), ("sub-0#/anat/sub-0#_T1w", "sub-0#/anat/sub-0#_T2w")]
)
def test_folders_of_patients_are_no_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    for number in range(5):
        for place, name in enumerate(names):
            volume(tmp_path / f"{name.replace('#', str(number))}.nii.gz", number + 10 * place, False)
    found = [problem.text for problem in check_labelled(tmp_path).problems if "folders of patients" in problem.text]
    assert len(found) == 1
    assert "the 5 folders" in found[0]


def test_an_array_without_axes_is_one_sentence() -> None:
    with pytest.raises(VptError, match=r"shape \(\), expected \(rows, columns\)"):
        reader_of(np.array(3)).grid()


def test_names_of_which_none_says_mask_are_not_taken_apart(tmp_path):
    paths = [Path("images/a.png"), Path("images/b.png")]
    assert [*named_files(tmp_path, paths, PLAIN)] == []
    assert [file.path for file in named_files(tmp_path, [*paths, Path("a_mask.png")], PLAIN)][:2] == [
        tmp_path / path for path in paths
    ]
