"""BIDS as it is laid out by those who have it: scans of subjects, masks in derivatives, tables of labels and people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from vpt.cli import app
from vpt.data.check import check_dataset
from vpt.data.findings import Check
from vpt.data.groups import read_groupings
from vpt.data.layouts import is_labelled, read_dataset, survey
from vpt.errors import VptError

RAW, MANUAL = "sub-#/anat/sub-#", "derivatives/manual/sub-#/anat/sub-#"
SHAPE = (12, 13, 6)


def put(path: Path, seed: int, label: int = 0, shape: tuple[int, int, int] = SHAPE) -> None:
    """A scan, or a mask that holds 1, and 2 beside it, or (-1) 1 elsewhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask, other = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    mask[2:6, 2 : 5 + seed % 3, 1:4], other[7:9, 7:10, 1:4] = 1, 1
    scan = np.random.default_rng(seed).normal(200, 20, shape).astype(np.float32) + 90 * mask
    found = {0: scan, 1: mask, 2: mask + 2 * other, -1: other}[label]
    nib.save(nib.Nifti1Image(found, np.eye(4)), path)


def bids(root: Path, scans: Sequence[str], masks: Sequence[tuple[str, int]], subjects: int = 5) -> Path:
    for number in range(1, subjects + 1):
        for kind, (name, label) in enumerate([*((scan, 0) for scan in scans), *masks]):
            put(root / f"{name.replace('#', f'{number:02}')}.nii.gz", number + 100 * kind * (label == 0), label)
    (root / "dataset_description.json").write_text('{"Name": "a study", "BIDSVersion": "1.8.0"}')
    return root


def errors(check: Check) -> list[str]:
    return [str(problem) for problem in check.problems if problem.severity == "error"]


LESION = f"{MANUAL}_label-lesion_mask"
LAID_OUT = {  # scans, masks, channels, labels, cases, the first of them
    "a mask": ([f"{RAW}_T1w"], [(LESION, 1)], ("T1w",), ["lesion"], 5, "sub-01"),
    "sequences": ([f"{RAW}_T1w", f"{RAW}_FLAIR"], [(LESION, 1)], ("FLAIR", "T1w"), ["lesion"], 5, "sub-01"),
    "dseg": ([f"{RAW}_T1w"], [(f"{MANUAL}_dseg", 2)], ("T1w",), ["label 1", "label 2"], 5, "sub-01"),
    "a file per label": (
        [f"{RAW}_T1w"],
        [(LESION, 1), (f"{MANUAL}_label-edema_mask", -1)],
        ("T1w",),
        ["edema", "lesion"],
        5,
        "sub-01",
    ),
    "sessions": (
        [f"sub-#/ses-{k}/anat/sub-#_ses-{k}_T1w" for k in "ab"],
        [(f"derivatives/m/sub-#/ses-{k}/anat/sub-#_ses-{k}_label-lesion_mask", 1) for k in "ab"],
        ("T1w",),
        ["lesion"],
        10,
        "sub-01_ses-a",
    ),
    "runs": (
        [f"{RAW}_run-{k}_T1w" for k in (1, 2)],
        [(f"{MANUAL}_run-{k}_mask", 1) for k in (1, 2)],
        ("T1w",),
        ["object"],
        10,
        "sub-01_run-1",
    ),
    "behind the scan's name": (
        [f"{RAW}_T2w", f"{RAW}_T1w"],
        [("derivatives/labels/sub-#/anat/sub-#_T2w_seg-manual", 1)],
        ("T2w",),
        ["object"],
        5,
        "sub-01_T2w",
    ),
    "two planes": (
        [f"{RAW}_acq-ax_T2w", f"{RAW}_acq-sag_T2w"],
        [(f"derivatives/labels/sub-#/anat/sub-#_acq-{k}_T2w_label-cord_seg", 1) for k in ("ax", "sag")],
        ("T2w",),
        ["cord"],
        10,
        "sub-01_acq-ax_T2w",
    ),
    "all in derivatives": (
        ["derivatives/A/sub-#/ses-1/anat/sub-#_ses-1_space-MNI_T1w"],
        [("derivatives/A/sub-#/ses-1/anat/sub-#_ses-1_space-MNI_label-L_desc-T1lesion_mask", 1)],
        ("T1w",),
        ["L"],
        5,
        "sub-01_ses-1",
    ),
    "preprocessed": (
        [f"{RAW}_T1w", *(f"derivatives/f/sub-#/anat/sub-#_{k}desc-preproc_T1w" for k in ("", "space-MNI_"))],
        [("derivatives/f/sub-#/anat/sub-#_dseg", 2)],
        ("T1w",),
        ["label 1", "label 2"],
        5,
        "sub-01",
    ),
    "raw below rawdata": (["rawdata/" + RAW + "_T1w"], [(LESION, 1)], ("T1w",), ["lesion"], 5, "sub-01"),
    "msk": (
        ["sub-#/ses-1/dwi/sub-#_ses-1_dwi"],
        [("derivatives/sub-#/ses-1/sub-#_ses-1_msk", 1)],
        ("dwi",),
        ["object"],
        5,
        "sub-01_ses-1",
    ),
    "sequences in two folders": (
        ["sub-#/ses-1/anat/sub-#_ses-1_FLAIR", *(f"sub-#/ses-1/dwi/sub-#_ses-1_{k}" for k in ("dwi", "adc"))],
        [("derivatives/sub-#/ses-1/sub-#_ses-1_msk", 1)],
        ("FLAIR", "adc", "dwi"),
        ["object"],
        5,
        "sub-01_ses-1",
    ),
    "splits": (
        [f"rawdata/sub-#/sub-#_split-{k}_ct" for k in ("v20", "v21")],
        [(f"derivatives/sub-#/sub-#_split-{k}_seg-vert_msk", 2) for k in ("v20", "v21")],
        ("ct",),
        ["label 1", "label 2"],
        10,
        "sub-01_split-v20",
    ),
    "beside the scan": ([f"{RAW}_T1w"], [(f"{RAW}_mask", 1)], ("T1w",), ["object"], 5, "sub-01"),
    "other data": (
        [f"{RAW}_T1w", "sub-#/func/sub-#_task-rest_bold", "sub-#/pet/sub-#_run-1_pet", "sub-#/pet/sub-#_run-2_pet"],
        [("derivatives/lesions/sub-#/sub-#_label-lesion_mask", 1)],
        ("T1w",),
        ["lesion"],
        5,
        "sub-01",
    ),
}


@pytest.mark.parametrize("laid_out", LAID_OUT)
def test_scans_masks_and_labels_are_those_of_the_names(tmp_path: Path, laid_out: str) -> None:
    scans, masks, channels, labels, cases, first = LAID_OUT[laid_out]
    bids(tmp_path, scans, masks)

    check = check_dataset(tmp_path)

    assert errors(check) == []
    assert (check.channels, [label.name for label in check.labels], check.cases) == (channels, labels, cases)
    assert [label.cases for label in check.labels] == [cases] * len(labels)
    dataset = check.dataset
    assert dataset is not None
    assert dataset.cases[0].name == first
    assert {dataset.patient(case.name) for case in dataset.cases} == {f"sub-0{k}" for k in range(1, 6)}


def test_what_was_read_is_said_written_down_and_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bids(tmp_path, [f"{RAW}_T1w", f"{RAW}_FLAIR"], [(LESION, 1)])
    (tmp_path / "participants.tsv").write_text("participant_id\tsex\nsub-01\tF\nsub-02\tM\nsub-03\tn/a\n")
    before = read_dataset(tmp_path)
    with pytest.raises(SystemExit) as done:
        app(["check", str(tmp_path), "--write", "dataset.json"])
    assert done.value.code == 0
    said = " ".join(capsys.readouterr().out.split())  # a terminal breaks lines
    assert "read as BIDS: 5 cases such as sub-01, with the scans sub-01/anat" in said
    after = read_dataset(tmp_path)
    assert (after.cases, after.channels, after.labels, after.patients) == (
        before.cases,
        before.channels,
        before.labels,
        before.patients,
    )
    names = [case.name for case in after.cases]
    (groups,) = read_groupings(
        "sex", names, after.patient, columns=after.columns, described=[tmp_path / "dataset.json"]
    )
    assert (groups.of, groups.without) == ({"sub-01": "F", "sub-02": "M"}, ("sub-03", "sub-04", "sub-05"))


@pytest.mark.parametrize(
    ("said", "annotated", "having"),
    [
        (["lesion"], {2}, [4, 5]),
        ("lesion", {2}, [4, 5]),
        ("all", None, [4, 5]),
        (["all"], None, [4, 5]),
        (["edema", "lesion"], None, [4, 5]),
    ],
)
def test_a_case_that_lacks_a_labels_mask_is_refused_until_it_is_said_who_looked(
    tmp_path: Path, said: object, annotated: set[int] | None, having: list[int]
) -> None:
    bids(tmp_path, [f"{RAW}_T1w"], [(LESION, 1), (f"{MANUAL}_label-edema_mask", -1)])
    (tmp_path / "derivatives/manual/sub-03/anat/sub-03_label-edema_mask.nii.gz").unlink()
    _, (problem,) = survey(tmp_path)
    assert "sub-03 has masks of lesion, but none of edema" in str(problem)
    assert '"annotated": {"sub-03": ["lesion"]}, or "all" in the place of the list' in str(problem)

    (tmp_path / "dataset.json").write_text(json.dumps({"annotated": {"sub-03": said}}))
    check = check_dataset(tmp_path)

    assert errors(check) == []
    assert check.dataset is not None
    assert {case.name: case.annotated for case in check.dataset.cases}["sub-03"] == annotated
    assert [label.cases for label in check.labels] == having


# --- tables -----------------------------------------------------------------------------------------------------------


def test_participants_give_groups(tmp_path: Path) -> None:
    bids(tmp_path, LAID_OUT["sessions"][0], LAID_OUT["sessions"][1])
    rows = "".join(f"sub-{k:02}\t{'MF'[k % 2]}\t{'n/a' if k == 2 else 40 + k}\n" for k in range(1, 9))
    (tmp_path / "participants.tsv").write_text(f"participant_id\tsex\tAge\n{rows}")
    columns = read_dataset(tmp_path).columns
    assert columns["sex"]["sub-03_ses-b"] == "F"
    assert columns["age"] == {f"sub-{k:02}_ses-{s}": str(40 + k) for k in (1, 3, 4, 5) for s in "ab"}


@pytest.mark.parametrize(
    ("table", "where"),
    [
        ("index\tname\tcolor\n0\tBackground\t#000\n1\tliver\t#f00\n2\tspleen\t#0f0\n", "derivatives/manual/dseg.tsv"),
        ("index\tname\n1\tliver\n2\tspleen\n", "derivatives/manual/desc-organs_dseg.tsv"),
        ("name\tindex\nliver\t1.0\nspleen\t2.0\n", "dseg.tsv"),
        ("index\tname\tabbr\n2\tspleen\tSP\n1\tliver\tLI\n", "derivatives/manual/sub-01/anat/sub-01_dseg.tsv"),
        ("Index\tName\r\n0\tUnknown\r\n1\tliver\r\n2\tspleen\r\n", "derivatives/dseg.tsv"),
    ],
)
def test_numbers_of_a_dseg_are_named_by_its_table(tmp_path: Path, table: str, where: str) -> None:
    bids(tmp_path, [f"{RAW}_T1w"], [(f"{MANUAL}_dseg", 2)])
    (tmp_path / where).write_bytes(table.encode())
    check = check_dataset(tmp_path)
    assert [(label.id, label.name) for label in check.labels] == [(1, "liver"), (2, "spleen")]
    assert check.problems == ()


def test_tables_that_differ_or_lack_a_column_are_refused(tmp_path: Path) -> None:
    bids(tmp_path, [f"{RAW}_T1w"], [(f"{MANUAL}_dseg", 2)])
    (tmp_path / "dseg.tsv").write_text("index\tname\n1\tliver\n2\tspleen\n")
    (tmp_path / "derivatives/manual/dseg.tsv").write_text("index\tname\n1\tspleen\n")
    with pytest.raises(VptError, match=r"1 is spleen, but liver in .*dseg\.tsv; correct one of the two"):
        survey(tmp_path)
    (tmp_path / "derivatives/manual/dseg.tsv").write_text("value\tname\n1\tspleen\n")
    with pytest.raises(VptError, match="expected index and name"):
        survey(tmp_path)


# --- what cannot be told ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("masks", "first"),
    [
        ([(LESION, 1), (f"{MANUAL}_dseg", 2)], "derivatives/manual/*_dseg.nii.gz"),
        (
            [(LESION, 1), (f"{MANUAL}_desc-brain_mask", 1)],
            "derivatives/manual/*_desc-brain_mask.nii.gz",
        ),
        ([(f"derivatives/{k}/sub-#/anat/sub-#_mask", 1) for k in ("one", "two")], "derivatives/one/*_mask.nii.gz"),
        ([(f"{RAW}_mask", 1), (LESION, 1)], "*_mask.nii.gz"),
        ([(f"{RAW}_T1w_seg", 1), (f"{RAW}_T1w_lesion", 1)], "*_lesion.nii.gz"),
    ],
)
def test_several_kinds_of_masks_are_refused_until_one_is_named(
    tmp_path: Path, masks: list[tuple[str, int]], first: str
) -> None:
    bids(tmp_path, [f"{RAW}_T1w"], masks)
    with pytest.raises(VptError, match="2 kinds of masks") as caught:
        survey(tmp_path)
    assert f'"bids": {{"masks": "{first}"}}' in str(caught.value)

    pattern = first if first != "*_mask.nii.gz" else "sub-*_mask.nii.gz"
    (tmp_path / "dataset.json").write_text(json.dumps({"bids": {"masks": pattern}}))
    dataset, problems = survey(tmp_path)
    assert (len(dataset.cases), problems) == (5, [])


def test_masks_that_were_named_are_of_one_kind_whatever_else_their_names_say(tmp_path: Path) -> None:
    bids(tmp_path, [f"{RAW}_T1w"], [], subjects=4)
    for number, rater in enumerate(("AB", "AB", "CD", "EF"), start=1):
        put(tmp_path / f"derivatives/sub-{number:02}/sub-{number:02}_rater-{rater}_mask.nii.gz", number, 1)
    with pytest.raises(VptError, match="3 kinds of masks"):
        survey(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps({"bids": {"masks": "derivatives/*_mask.nii.gz"}}))
    dataset, problems = survey(tmp_path)
    assert ([case.name for case in dataset.cases], problems) == (["sub-01", "sub-02", "sub-03", "sub-04"], [])

    put(tmp_path / "derivatives/sub-01/sub-01_rater-CD_mask.nii.gz", 1, 1)
    with pytest.raises(
        VptError, match=r"`bids` names 2 masks of sub-01 \(derivatives/.*rater-AB.*, .*rater-CD.*\), exp"
    ):
        survey(tmp_path)


def test_a_picture_beside_the_mask_of_a_volume_is_no_scan(tmp_path: Path) -> None:
    bids(tmp_path, ["rawdata/sub-#/sub-#_ct"], [("derivatives/sub-#/sub-#_seg-vert_mask", 2)])
    for number in range(1, 6):
        Image.new("L", (9, 9)).save(tmp_path / f"derivatives/sub-0{number}/sub-0{number}_seg-vert_snp.png")
    check = check_dataset(tmp_path)
    assert (check.kind, check.channels, errors(check)) == ("volumes", ("ct",), [])


def test_repeated_scans_of_one_mask_are_refused_until_one_is_named(tmp_path: Path) -> None:
    bids(tmp_path, [f"{RAW}_run-{k}_T1w" for k in (1, 2)], [(LESION, 1)])
    with pytest.raises(VptError, match="is of one of run-1, run-2, and does not say of which"):
        survey(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps({"bids": {"scans": ["*_run-1*.nii.gz"]}}))
    dataset, problems = survey(tmp_path)
    assert (dataset.cases[0].images[0].name, problems) == ("sub-01_run-1_T1w.nii.gz", [])


def test_a_subject_that_lacks_a_sequence_is_named_and_left_out(tmp_path: Path) -> None:
    bids(tmp_path, [f"{RAW}_T1w", f"{RAW}_FLAIR"], [(LESION, 1)])
    (tmp_path / "sub-03/anat/sub-03_FLAIR.nii.gz").unlink()
    dataset, (problem,) = survey(tmp_path)
    assert len(dataset.cases) == 4
    assert "sub-03 has the scans T1w, but not FLAIR" in str(problem)
    assert '"bids": {"scans": "*_T1w.nii.gz"}' in str(problem)


def test_sequences_on_another_grid_than_the_masks_are_left_out_and_said(tmp_path: Path) -> None:
    bids(tmp_path, [f"{RAW}_T1w", f"{RAW}_FLAIR"], [(LESION, 1)])
    for number in range(1, 6):
        put(tmp_path / f"sub-{number:02}/anat/sub-{number:02}_FLAIR.nii.gz", number + 50, 0, (20, 20, 4))
    check = check_dataset(tmp_path)
    assert (check.channels, errors(check)) == (("T1w",), [])
    assert check.dataset is not None
    assert "left out: FLAIR, on another grid than the masks" in check.dataset.guess


def test_of_other_folders_what_lies_on_the_masks_grid_in_every_case_is_read(tmp_path: Path) -> None:
    """As ISLES 2022 lies: FLAIR in anat/ has a grid of its own; files of several channels are no sequences."""
    dwi = [f"sub-#/dwi/sub-#_{k}" for k in ("dwi", "adc")]
    bids(tmp_path, [f"{RAW}_FLAIR", *dwi, "sub-#/perf/sub-#_asl"], [("derivatives/sub-#/sub-#_msk", 1)])
    for number in range(1, 6):
        put(tmp_path / f"sub-{number:02}/anat/sub-{number:02}_FLAIR.nii.gz", number, 0, (20, 20, 4))
        nib.save(
            nib.Nifti1Image(np.ones((*SHAPE, 3)), np.eye(4)),
            tmp_path / f"sub-{number:02}/perf/sub-{number:02}_asl.nii.gz",
        )
    dataset, problems = survey(tmp_path)
    assert (dataset.channels, problems) == (("adc", "dwi"), [])
    assert "left out: FLAIR, on another grid than the masks" in dataset.guess

    (tmp_path / "sub-03/dwi/sub-03_adc.nii.gz").unlink()
    assert survey(tmp_path)[0].channels == ("dwi",)


def test_subjects_without_a_mask_are_left_out_and_said(tmp_path: Path) -> None:
    bids(tmp_path, [f"{RAW}_T1w"], [(LESION, 1)])
    put(tmp_path / "sub-20/anat/sub-20_T1w.nii.gz", 20)
    assert "left out: 1 subject without a mask (sub-20)" in read_dataset(tmp_path).guess


def test_subjects_without_any_mask_are_no_classes(tmp_path: Path) -> None:
    bids(tmp_path, [f"{RAW}_T1w", f"{RAW}_T2w"], [])
    assert not is_labelled(tmp_path)
    with pytest.raises(VptError, match=r"subjects of BIDS .* but no mask of them"):
        survey(tmp_path)


@pytest.mark.parametrize("given", [{"mask": "*"}, {"masks": []}, {"scans": 3}, ["*"]])
def test_what_is_no_pattern_is_one_sentence(tmp_path: Path, given: object) -> None:
    bids(tmp_path, [f"{RAW}_T1w"], [(LESION, 1)])
    (tmp_path / "dataset.json").write_text(json.dumps({"bids": given}))
    with pytest.raises(VptError, match=r"`bids` .*expected"):
        survey(tmp_path)


def test_what_describes_files_is_not_left_out(tmp_path: Path) -> None:
    bids(tmp_path, [f"{RAW}_T1w"], [(LESION, 1)])
    for path in list(tmp_path.rglob("*.nii.gz")):
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text("{}")
    (tmp_path / "derivatives/manual/dataset_description.json").write_text("{}")
    assert check_dataset(tmp_path).problems == ()
    (tmp_path / "sub-01/anat/notes.json").write_text("{}")
    assert [problem.text[:23] for problem in check_dataset(tmp_path).problems] == ["1 .json file is not rea"]


def test_the_folder_of_a_set_that_was_packed_in_another_is_named(tmp_path: Path) -> None:
    """ISLES 2022, whose masks lie in derivatives, given the folder that its archive was unpacked in."""
    bids(tmp_path / "ISLES-2022", [f"{RAW}_dwi"], [("derivatives/sub-#/sub-#_msk", 1)])
    with pytest.raises(VptError) as caught:
        survey(tmp_path)
    assert f"; ISLES-2022 in it is BIDS: give {tmp_path / 'ISLES-2022'} in the place of this folder" in str(
        caught.value
    )
    assert len(read_dataset(tmp_path / "ISLES-2022").cases) == 5
