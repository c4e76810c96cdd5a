"""A data set as its owner laid it out is read without a word of description, and what was guessed is said."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unicodedata import normalize

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from tiny_run import ONE_STEP

from vpt.cli import app
from vpt.data.check import check_dataset
from vpt.data.doubts.said import doubts_of
from vpt.data.groups import read_groupings
from vpt.data.label_maps import read_label
from vpt.data.layouts import is_labelled, read_dataset, read_labelled, survey, write_description
from vpt.data.splits import read_splits
from vpt.engine.run import train
from vpt.errors import VptError
from vpt.files import write_json
from vpt.use.runs import evaluate_run

CODES = {"object": ["4147007", "SCT", "Mass"]}


@pytest.fixture
def put(tmp_path) -> Callable[..., Path]:
    """put(name, label=0): a scan, or a mask with a box of a label, whose place in it follows from the label."""
    rng = np.random.default_rng(0)

    def write(name: str, label: int = 0) -> Path:
        path, flat = tmp_path / name, not name.endswith((".nii", ".nii.gz"))
        path.parent.mkdir(parents=True, exist_ok=True)
        array = np.zeros((20, 16, 1 if flat else 5), np.uint8)
        if label:
            array[label : label + 3, 2:6] = label
        else:
            array[:] = rng.integers(0, 255, array.shape)
        Image.fromarray(array[..., 0]).save(path) if flat else nib.save(nib.Nifti1Image(array, np.eye(4)), path)
        return path

    return write


def suffixes(put):
    for k in range(3):
        put(f"pat{k}_T1.nii.gz"), put(f"pat{k}_T2.nii.gz"), put(f"pat{k}_seg.nii.gz", 1)
    return ["pat0", "pat1", "pat2"], ("T1", "T2"), {0: "background", 1: "object"}


def numbered(put):
    for k in range(3):
        put(f"volume-{k}.nii"), put(f"segmentation-{k}.nii", 2)
    return ["volume-0", "volume-1", "volume-2"], ("image",), {0: "background", 2: "object"}


def patients(put):
    for k in range(3):
        put(f"case_{k:05d}/imaging.nii.gz"), put(f"case_{k:05d}/segmentation.nii.gz", 3)
    return ["case_00000", "case_00001", "case_00002"], ("image",), {0: "background", 3: "object"}


def sequences(put):
    for k in range(3):
        stem = f"GLI-{k:03d}/GLI-{k:03d}"
        put(f"{stem}-t1c.nii.gz"), put(f"{stem}-t2f.nii.gz"), put(f"{stem}-seg.nii.gz", 1)
    return ["GLI-000", "GLI-001", "GLI-002"], ("t1c", "t2f"), {0: "background", 1: "object"}


def a_file_per_label(put):
    for k in range(3):
        put(f"s{k}/ct.nii.gz"), put(f"s{k}/segmentations/liver.nii.gz", 1)
        put(f"s{k}/segmentations/lung_left.nii.gz", 9)
    return ["s0", "s1", "s2"], ("CT",), {0: "background", 1: "liver", 2: "lung_left"}


def two_folders(put):
    for k in range(3):
        put(f"images/x{k}.nii.gz"), put(f"labels/x{k}.nii.gz", 2)
    return ["x0", "x1", "x2"], ("image",), {0: "background", 2: "object"}


def frames(put):
    for k in range(2):
        for frame in (1, 12):
            stem = f"patient{k}/patient{k}_frame{frame:02d}"
            put(f"{stem}.nii.gz"), put(f"{stem}_gt.nii.gz", 4)
    names = [f"patient{k}_frame{frame:02d}" for k in range(2) for frame in (1, 12)]
    return names, ("image",), {0: "background", 4: "object"}


def pictures(put):
    for k in range(3):
        put(f"ISIC_Data/ISIC_{k}.png"), put(f"ISIC_GroundTruth/ISIC_{k}_segmentation.png", 7)
    return ["ISIC_0", "ISIC_1", "ISIC_2"], ("grey",), {0: "background", 7: "object"}


def beside_each_other(put):
    for folder in ("benign", "malignant"):
        for k in range(2):
            put(f"{folder}/{folder} ({k}).png"), put(f"{folder}/{folder} ({k})_mask.png", 5)
    return ["benign (0)", "benign (1)", "malignant (0)", "malignant (1)"], ("grey",), {0: "background", 5: "object"}


LAYOUTS = [
    suffixes,
    numbered,
    patients,
    sequences,
    a_file_per_label,
    two_folders,
    frames,
    pictures,
    beside_each_other,
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scans_and_masks_are_paired_by_their_names_and_the_guess_is_said(layout, put, tmp_path):
    names, channels, labels = layout(put)
    dataset = read_dataset(tmp_path)
    assert not is_labelled(tmp_path)
    assert [case.name for case in dataset.cases] == names
    assert (dataset.channels, dataset.labels) == (channels, labels)
    assert all(len(case.images) == len(channels) for case in dataset.cases)
    assert f"{len(names)} cases such as {names[0]}" in dataset.guess
    for case in dataset.cases:
        assert set(read_label(case.label, labels, None, case.name).ids) == set(labels)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_was_guessed_can_be_written_down_and_read_again(layout, put, tmp_path, capsys):
    layout(put)
    before = read_dataset(tmp_path)
    with pytest.raises(SystemExit) as done:
        app(["check", str(tmp_path), "--write", "dataset.json"])
    assert not done.value.code
    after = read_dataset(tmp_path)
    assert "guessed from the names" in capsys.readouterr().out
    assert (after.guess, after.channels, after.labels) == ("", before.channels, before.labels)
    assert [(case.name, [*map(Path.resolve, case.files)]) for case in after.cases] == [
        (case.name, [*map(Path.resolve, case.files)]) for case in before.cases
    ]
    assert after.kind == before.kind
    with pytest.raises(VptError, match="exists already"):
        app(["check", str(tmp_path), "--write", "dataset.json"], standalone_mode=False)


@pytest.mark.parametrize("said", [["liver"], "liver", "all", ["all"], ["liver", "spleen"]])
def test_a_case_without_a_labels_mask_is_refused_until_it_is_said_who_looked(put, tmp_path, said):
    for k in range(4):
        put(f"s{k}/ct.nii.gz"), put(f"s{k}/segmentations/liver.nii.gz", 1), put(f"s{k}/segmentations/spleen.nii.gz", 2)
    (tmp_path / "s2/segmentations/spleen.nii.gz").unlink()
    _, (problem,) = survey(tmp_path)
    name = next(case.name for case in survey(tmp_path)[0].cases if "s2" in case.name)
    assert f"{name} has masks of liver, but none of spleen" in str(problem)
    assert f'"annotated": {{"{name}": ["liver"]}}' in str(problem)

    (tmp_path / "dataset.json").write_text(json.dumps({"annotated": {name: said}}))
    assert not survey(tmp_path)[1]
    looked_for = {case.name: case.annotated for case in read_dataset(tmp_path).cases}[name]
    assert looked_for == ({1} if "liver" in said and len(said) != 2 else None)


def test_a_case_without_a_sequence_that_others_have_is_named(put, tmp_path):
    suffixes(put)
    (tmp_path / "pat1_T2.nii.gz").unlink()
    assert "pat1 has the scans T1, but not T2" in str(survey(tmp_path)[1][0])


@pytest.mark.parametrize(("lost", "said"), [("mask", "a scan without a mask"), ("img", "a mask without a scan")])
def test_one_file_too_few_is_named_and_the_others_stay_paired(put, tmp_path, lost, said):
    for k in range(5):
        put(f"case_{k}_img.png"), put(f"case_{k}_mask.png", 9)
    (tmp_path / f"case_3_{lost}.png").unlink()
    dataset, problems = survey(tmp_path)
    assert len(dataset.cases) == 4
    assert [said in str(problem) for problem in problems] == [True]


@pytest.mark.parametrize("count", [4, 6])
def test_many_scans_without_a_mask_that_are_alike_are_one_error(put, tmp_path, count):
    for k in range(count):
        stem = f"patient{k}/patient{k}"
        put(f"{stem}_frame01.nii.gz"), put(f"{stem}_frame01_gt.nii.gz", 4), put(f"{stem}_4d.nii.gz")
    problems = [str(problem) for problem in survey(tmp_path)[1]]
    assert len(problems) == (4 if count == 4 else 1)
    if count == 6:
        assert (
            "patient0_4d.nii.gz: a scan without a mask by its name, and so are 5 others called ..._4d (patient1_4d"
            in (problems[0])
        )
        assert (
            '; take all out, name their masks after them, or say in dataset.json which files count: "pairs": {"scans": '
            in problems[0]
        )


def test_masks_of_single_objects_are_no_labels(put, tmp_path):
    """A file for each nucleus, called by a hash (the Data Science Bowl of 2018): thousands of labels otherwise."""
    for k in range(4):
        put(f"train/a{k}/images/a{k}.png")
        for each in range(1 + k % 3):
            put(f"train/a{k}/masks/{k}f{each}e.png", 3 + each)
    with pytest.raises(
        VptError, match=r"one of 3 masks of a2\.png, and no other case has a mask called as any of them, "
    ) as e:
        survey(tmp_path)
    assert "merge those of each case into one mask" in str(e.value)


@pytest.mark.parametrize(
    ("organs", "said"),
    [("liver spleen kidney tumour", "P1 has masks of liver, spleen, but none of "), ("L1 L2 T8 T9", "(instances)")],
)
def test_labels_that_no_two_cases_share_are_read_once_it_is_said_who_looked_for_what(put, tmp_path, organs, said):
    held = {"P1": organs.split()[:2], "P2": organs.split()[2:]}
    for case, names in held.items():
        put(f"{case}/ct.nii.gz")
        for k, name in enumerate(names):
            put(f"{case}/masks/{name}.nii.gz", 3 + 4 * k)
    with pytest.raises(VptError, match=re.escape(said)):
        read_dataset(tmp_path)
    labels = {"background": 0, **{name: k for k, name in enumerate(organs.split(), 1)}}
    write_json(tmp_path / "dataset.json", {"labels": labels, "annotated": held})
    dataset = read_dataset(tmp_path)
    assert {*dataset.labels.values()} == {"background", *organs.split()}


@pytest.mark.parametrize(
    ("folder", "patients"),
    [
        ("Lesions/PETCT_{0}ab/0{1}-23-2003-NA-PET-CT tumour {0}{1}/x", 6),
        ("P_A{0}/2003-01-0{1}/x", 6),
        ("videos/video{0}/video{0}_000{1}/frame", 6),
        ("TCGA_CS_49{0}_1996/TCGA_CS_49{0}_1996_{1}", 6),
        ("part_{0}/part_{0}_{1}", 12),
        ("cat/cat_{0}{1}", 12),
        ("201{0}/201{0}_{1}", 12),
        ("2021-03-0{0}/2021-03-0{0}_{1}", 12),
        ("clinic{0}/clinic{0}_{1}", 12),
    ],
)
def test_folders_of_studies_videos_and_slices_are_of_one_patient(put, tmp_path, folder, patients):
    for k in range(6):
        for each in (1, 2):
            stem = folder.format(k, each)
            put(f"{stem}.png"), put(f"{stem}_seg.png", 1)
    found = read_dataset(tmp_path)
    assert len({found.patient(case.name) for case in found.cases}) == patients


@pytest.mark.parametrize("folder", ["", "benign/"])
def test_a_second_mask_of_an_image_is_to_be_merged(put, tmp_path, folder):
    for k in range(4):
        put(f"{folder}benign ({k}).png"), put(f"{folder}benign ({k})_mask.png", 5)
    put(f"{folder}benign (1)_mask_1.png", 9)
    (problem,) = survey(tmp_path)[1]
    assert str(problem).endswith(
        "benign (1)_mask_1.png: a second mask of the scan of benign (1)_mask.png by its name, which would be lost; "
        "merge both into one file, benign (1)_mask.png, and take this one out"
    )


def test_two_files_in_one_place_are_named(put, tmp_path):
    numbered(put)
    put("scan-1.nii")
    assert "by its name; keep one of the two" in str(survey(tmp_path)[1][0])


def test_classes_called_mask_are_classes(put, tmp_path):
    for folder in ("with_mask", "without_mask"):
        put(f"{folder}/0.png"), put(f"{folder}/1.png")
    assert is_labelled(tmp_path)


def test_folders_called_train_and_val_are_the_sides(put, tmp_path):
    for side in ("train", "val"):
        for k in range(2):
            put(f"{side}/images/{side}{k}.png"), put(f"{side}/masks/{side}{k}.png", 3)
    splits = read_splits(read_dataset(tmp_path))
    assert (splits.train, splits.val) == (("train0", "train1"), ("val0", "val1"))


def test_labels_in_files_of_their_own_may_not_overlap(put, tmp_path):
    a_file_per_label(put)
    put("s1/segmentations/lung_left.nii.gz", 2)
    found = [str(problem) for problem in check_dataset(tmp_path).errors]
    assert ["voxels are in liver.nii.gz too" in text and "s1/" in text for text in found] == [True]


def test_labels_in_files_of_their_own_lie_on_one_grid(put, tmp_path):
    a_file_per_label(put)
    path = tmp_path / "s2/segmentations/lung_left.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)), path)
    found = [str(problem) for problem in check_dataset(tmp_path).errors]
    assert ["lung_left" in text and "not on the grid" in text for text in found] == [True]


# --- lists ------------------------------------------------------------------------------------------------------------


def write_list(root: Path, ending: str, rows: list[dict[str, str]]) -> Path:
    path = root / f"cases{ending}"
    if ending == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        mark = "\t" if ending == ".tsv" else ","
        path.write_text("\n".join(mark.join(cells) for cells in [rows[0].keys(), *(row.values() for row in rows)]))
    return path


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl"])
def test_a_list_says_which_files_are_a_case(put, tmp_path, ending):
    rows = []
    for k in range(4):
        put(f"a/{k}.nii.gz"), put(f"b/{k}.nii.gz"), put(f"c/{k}.nii.gz", 1)
        rows.append({"image_T1": f"a/{k}.nii.gz", "image_T2": f"b/{k}.nii.gz", "mask": f"c/{k}.nii.gz"})
        rows[-1] |= {"case": f"case {k}", "patient": f"p{k // 2}", "split": "train" if k < 2 else "val"}
    path = write_list(tmp_path, ending, rows)
    dataset = read_dataset(path)
    assert not is_labelled(path)
    assert [case.name for case in dataset.cases] == ["case 0", "case 1", "case 2", "case 3"]
    assert [name.casefold() for name in dataset.channels] == ["t1", "t2"]
    assert dataset.patient("case 1") == "p0"
    assert read_splits(dataset).val == ("case 2", "case 3")


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl"])
@pytest.mark.parametrize("named", [True, False])
def test_what_else_a_list_says_is_written_down_too(put, tmp_path, ending, named):
    rows = []
    for k in range(4):
        put(f"a/{k}.nii.gz"), put(f"c/{k}.nii.gz", 1)
        rows.append(
            {"image": f"a/{k}.nii.gz", "mask": f"c/{k}.nii.gz", "sex": "MF"[k % 2], "site": "x, y" if k else ""}
        )
        rows[-1] |= {"case": f"case {k}"} if named else {}
    if ending != ".jsonl":
        rows = [{**row, "site": row["site"].replace(", ", "-")} for row in rows]
    before = read_dataset(write_list(tmp_path, ending, rows))

    written = write_description(before, Path("dataset.json"))

    after = read_dataset(tmp_path)
    names = [case.name for case in after.cases]
    assert [path.name for path in written] == ["dataset.json", "groups.csv"]
    for column in ("sex", "site"):
        (groups,) = read_groupings(
            column, names, after.patient, columns=after.columns, described=[tmp_path / "dataset.json"]
        )
        assert groups.of == before.columns[column]
    with pytest.raises(VptError, match="exists already"):
        write_description(before, Path("dataset.json"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mask": "masks/none.png"}, "line 3: no such file: masks/none.png"),
        ({"mask": "masks"}, "line 3: masks: a folder, and no DICOM series; give one file (slices as a stack"),
        ({"mask": ""}, "line 3: no mask"),
        ({"split": "trial"}, "line 3: split 'trial', expected train, val or test"),
        ({"case": "0"}, "line 3: the second case called 0"),
        ({"image": "notes.txt"}, "line 3: notes.txt: not a supported ending"),
    ],
)
def test_a_line_that_does_not_fit_is_named(put, tmp_path, change, said):
    (tmp_path / "notes.txt").touch()
    rows = []
    for k in range(3):
        put(f"images/{k}.png"), put(f"masks/{k}.png", 6)
        rows.append({"image": f"images/{k}.png", "mask": f"masks/{k}.png", "case": str(k), "split": "train"})
    rows[1] |= change
    _, problems = survey(write_list(tmp_path, ".csv", rows))
    assert said in str(problems[0])


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl"])
def test_a_list_is_trained_on_and_its_run_evaluated(put, tmp_path, ending):
    rows = []
    for side, names in {"train": "ab", "val": "c", "test": "d"}.items():
        for name in names:
            put(f"i/{name}.png"), put(f"m/{name}.png", 5)
            rows.append({"image": f"i/{name}.png", "mask": f"m/{name}.png", "split": side})
    path = write_list(tmp_path, ending, rows)
    run = train(path, tmp_path / "run", overrides=ONE_STEP, brief=True)
    report, _ = evaluate_run(run)
    assert [case.name for case in report.cases] == ["d"]


def test_many_channels_are_read_in_every_layout_up_to_what_a_model_mixes(put, tmp_path):
    for patient in ("pat0", "pat1"):
        put(f"four/{patient}_seg.nii.gz", 1), put(f"many/{patient}_seg.nii.gz", 1)
        for name in ("t1", "t2", "flair", "t1c"):
            put(f"four/{patient}_{name}.nii.gz")
        for number in range(17):
            put(f"many/{patient}_q{number:02d}.nii.gz")
    assert survey(tmp_path / "four")[0].channels == ("flair", "t1", "t1c", "t2")
    with pytest.raises(VptError, match=r"many: 17 channels \(q00, .*\), a model takes 16 at most"):
        survey(tmp_path / "many")


@pytest.mark.parametrize(
    ("column", "file", "channels"),
    [
        ("image", "{}.nii.gz", ("image",)),
        ("image", "{}_ct.nii.gz", ("CT",)),
        ("scan", "CT/{}.nii.gz", ("CT",)),
        ("image_ct", "{}.nii.gz", ("ct",)),
        ("image_T2", "{}.nii.gz", ("t2",)),
    ],
)
def test_the_only_channel_of_a_list_is_called_by_its_column_or_its_files(put, tmp_path, column, file, channels):
    rows = []
    for k in range(2):
        put(f"a/{file.format(k)}"), put(f"c/{k}.nii.gz", 1)
        rows.append({column: f"a/{file.format(k)}", "mask": f"c/{k}.nii.gz"})

    assert read_dataset(write_list(tmp_path, ".csv", rows)).channels == channels


def test_the_list_itself_is_no_file_that_is_left_out(put, tmp_path):
    rows = []
    for k in range(3):
        put(f"i/{k}.png"), put(f"m/{k}.png", 5)
        rows.append({"image": f"i/{k}.png", "mask": f"m/{k}.png"})

    found = check_dataset(write_list(tmp_path, ".jsonl", rows))

    assert not [str(problem) for problem in found.warnings if "not read" in str(problem)]


def test_a_list_of_classes_stays_one(put, tmp_path):
    put("0.png"), put("1.png")
    assert is_labelled(write_list(tmp_path, ".csv", [{"path": "0.png", "label": "a"}, {"path": "1.png", "label": "b"}]))


# --- what dataset.json and lists say ----------------------------------------------------------------------------------


def test_a_list_of_pairs_in_dataset_json_counts_and_not_the_names(put, tmp_path):
    for k in range(6):
        put(f"images/{k}.png"), put(f"masks/{k}.png", 1)
    listed = [{"image": f"images/{k}.png", "label": f"masks/{5 - k}.png"} for k in range(4)]
    labels = {"background": 0, "object": 1}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels, "training": listed}))

    found = read_dataset(tmp_path)

    assert [(case.name, case.images[0].name, case.label.name) for case in found.cases] == [
        (str(k), f"{k}.png", f"{5 - k}.png") for k in range(4)
    ]
    assert (found.channels, found.labels, found.kind) == (("grey",), {0: "background", 1: "object"}, "images")


def test_names_alone_in_dataset_json_leave_images_and_masks_paired_by_them(put, tmp_path):
    for k in range(3):
        put(f"images/{k}.png"), put(f"masks/{k}.png", 1)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "object": 1}}))
    assert [case.label.name for case in read_dataset(tmp_path).cases] == ["0.png", "1.png", "2.png"]


def _told(dataset):
    """What is known of each case: its files, and whose it is."""
    return {case.name: (case.images, case.label, dataset.patient(case.name)) for case in dataset.cases}


@pytest.mark.parametrize(
    "masks",
    ["images/{}.png labels/{}.png", "train/images/{}.png train/masks/{}.png", "patient{}/s.png patient{}/s_mask.png"],
)
def test_what_was_guessed_is_the_same_once_it_is_written(put, tmp_path, masks):
    image, mask = masks.split()
    for k in range(6):
        put(image.format(k)), put(mask.format(k), 1)
        if "train" in image:
            put(f"test/images/t{k}.png"), put(f"test/masks/t{k}.png", 1)
    guessed = read_dataset(tmp_path)
    before = read_splits(guessed)

    write_description(guessed, Path("dataset.json"))
    written = read_dataset(tmp_path)

    assert _told(written) == _told(guessed)
    assert read_splits(written) == before
    assert not [problem for problem in check_dataset(tmp_path).problems if problem.severity == "error"]


@pytest.mark.parametrize(
    ("folder", "patients"),
    [
        ("patient{}", ["patient0", "patient1"]),
        ("Patient {}", ["Patient_0", "Patient_1"]),
        ("P{}", ["P0", "P1"]),
        ("batch{}", ["0", "1", "2", "3", "4", "5"]),
    ],
)
def test_a_folder_of_a_patient_says_whose_its_images_are(put, tmp_path, folder, patients):
    for k in range(6):
        put(f"{folder.format(k % 2)}/images/{k}.png"), put(f"{folder.format(k % 2)}/masks/{k}.png", 1)

    found = read_dataset(tmp_path)

    assert sorted({found.patient(case.name) for case in found.cases}) == patients
    assert ("a folder of 0, names its patient" in found.whose.guess()) == (len(patients) == 2)


@pytest.mark.parametrize("label", ["gt/0.png", "/old/gt/0.png", "0.png"])
def test_a_list_whose_first_mask_is_missing_is_no_list_of_classes(put, tmp_path, label):
    for k in range(1, 4):
        put(f"im/{k}.png"), put(f"gt/{k}.png", 1)
    put("im/0.png")
    rows = [f"im/0.png,{label}", *(f"im/{k}.png,gt/{k}.png" for k in range(1, 4))]
    (tmp_path / "cases.csv").write_text("image,label\n" + "\n".join(rows))

    assert not is_labelled(tmp_path / "cases.csv")
    _, problems = survey(tmp_path / "cases.csv")
    assert [str(each) for each in problems] == [
        f"{tmp_path / 'cases.csv'}: line 2: no such file: {label}; correct the path, or remove the line"
    ]


@pytest.mark.parametrize("column", ["patient", "patient_id", "PatientID", "pid", "subject_id", "Subject"])
def test_a_column_of_patients_has_many_names_in_a_list(put, tmp_path, column):
    for k in range(4):
        put(f"{k}x.png"), put(f"{k}y.png", 1)
    rows = [f"{k}x.png,{k}y.png,{'case' if k < 2 else 'control'},P{k % 2}" for k in range(4)]
    (tmp_path / "cases.csv").write_text(f"image,mask,group,{column}\n" + "\n".join(rows))

    found = read_dataset(tmp_path / "cases.csv")

    assert [found.patient(case.name) for case in found.cases] == ["P0", "P1", "P0", "P1"]
    assert found.columns["group"] == {"0x": "case", "1x": "case", "2x": "control", "3x": "control"}


@pytest.mark.parametrize(
    ("column", "words", "sides"),
    [
        ("set", ["train", "val", "test"], True),
        ("subset", ["Training", "Validation", "Testing"], True),
        ("fold", ["train", "test", "test"], True),
        ("fold", ["0", "1", "2"], False),
        ("set", ["A", "train", "val"], False),
        ("set", ["train", "train", "train"], False),
    ],
)
def test_another_column_says_the_sides_where_all_its_words_are_such(put, tmp_path, column, words, sides):
    for k in range(6):
        put(f"{k}x.png"), put(f"{k}y.png", 1)
    rows = [f"{k}x.png,{k}y.png,{words[k % 3]}" for k in range(6)]
    (tmp_path / "cases.csv").write_text(f"image,mask,{column}\n" + "\n".join(rows))
    (tmp_path / "classes.csv").write_text(
        f"path,label,{column}\n" + "\n".join(f"{k}x.png,{'ab'[k // 3]},{words[k % 3]}" for k in range(6))
    )

    for found in (read_dataset(tmp_path / "cases.csv"), read_labelled(tmp_path / "classes.csv")):
        assert bool(found.sides) == sides
        assert (column in found.columns) != sides
        if sides and len({*words}) == 3:
            assert read_splits(found).to_dict() == {"train": ["0x", "3x"], "val": ["1x", "4x"], "test": ["2x", "5x"]}


def test_files_of_channels_follow_the_names_of_dataset_json(put, tmp_path):
    for k in range(3):
        put(f"p{k}_ct.nii.gz"), put(f"p{k}_pet.nii.gz"), put(f"p{k}_seg.nii.gz", 1)
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"0": "PET", "1": "CT"}}))

    found = read_dataset(tmp_path)

    assert found.channels == ("PET", "CT")
    assert [path.name for path in found.cases[0].images] == ["p0_pet.nii.gz", "p0_ct.nii.gz"]


def test_masks_are_not_given_to_the_slice_that_their_reader_has_the_number_of(put, tmp_path):
    for case in range(3):
        for k in range(4):
            put(f"case{case}/images/slice-{k}.png")
            for reader in range(4):
                put(f"case{case}/mask-{reader}/slice-{k}.png", 1 + reader)
    with pytest.raises(VptError, match="in this folder"):
        read_dataset(tmp_path)


def test_a_table_of_classes_may_be_parted_by_tabs(put, tmp_path):
    for k in range(4):
        put(f"{k}.png")
    (tmp_path / "classes.tsv").write_text("path\tlabel\n" + "".join(f"{k}.png\t{'ab'[k % 2]}\n" for k in range(4)))
    assert is_labelled(tmp_path / "classes.tsv")
    assert read_labelled(tmp_path / "classes.tsv").classes == ("a", "b")


@pytest.mark.parametrize(
    ("header", "swapped"), [("image,mask,segmentation", 2), ("image,label,seg", 2), ("image,path,mask", 1)]
)
def test_two_columns_for_one_file_that_say_different_ones_are_refused(put, tmp_path, header, swapped):
    names = header.split(",")
    rows = []
    for k in range(3):
        put(f"{k}x.png"), put(f"{k}y.png", k + 1)
        row = [f"{k}{'x' if name in ('image', 'path') else 'y'}.png" for name in names]
        rows.append(row)
    table = tmp_path / "cases.csv"
    table.write_text("\n".join([header, *map(",".join, rows)]))
    assert len(read_dataset(table).cases) == 3

    rows[1][swapped] = rows[0][swapped]
    table.write_text("\n".join([header, *map(",".join, rows)]))
    (problem,) = survey(table)[1]
    first = "image" if swapped == 1 else names[1]
    assert "line 3: different files in the columns " in str(problem)
    assert f"{first} (1" in str(problem)
    assert f"{names[swapped]} (0" in str(problem)


@pytest.mark.parametrize("masks", [True, False])
def test_a_column_of_patients_that_is_blank_throughout_says_nothing(put, tmp_path, masks):
    for k in range(4):
        put(f"{k}x.png"), put(f"{k}y.png", k + 1)
    own = "mask" if masks else "label"
    rows = [f"{k}x.png,{f'{k}y.png' if masks else 'ab'[k % 2]},,L{k // 2}" for k in range(4)]
    table = tmp_path / "list.csv"
    table.write_text("\n".join([f"image,{own},patient,lesion_id", *rows]))
    found = read_dataset(table) if masks else read_labelled(table)

    assert [found.patient(case.name) for case in found.cases] == ["L0", "L0", "L1", "L1"]


def test_a_name_that_is_in_the_list_twice_is_said_by_what_mends_it(put, tmp_path):
    for k in range(3):
        put(f"{k}x.png"), put(f"{k}y.png", 1)
    (tmp_path / "cases.csv").write_text("image,mask,case\n0x.png,0y.png,P\n1x.png,1y.png,P\n2x.png,2y.png,Q\n")
    _, problems = survey(tmp_path / "cases.csv")
    assert [str(each) for each in problems] == [
        f"{tmp_path / 'cases.csv'}: line 3: the second case called P; name each once"
    ]


@pytest.mark.parametrize(("names", "is_said"), [("12", True), (["liver", "spleen"], False), (["1a", "2a"], False)])
def test_masks_that_a_number_alone_tells_apart_are_said(put, tmp_path, names, is_said):
    for k in range(3):
        put(f"img{k}.png")
        for number, name in enumerate(names, start=1):
            put(f"img{k}_mask_{name}.png", 5 * number)
    said = [text for text in (problem.text for problem in check_dataset(tmp_path).warnings) if "a number alone" in text]
    assert len(said) == is_said
    assert not said or "--labels '{object: [1, 2]}'" in said[0]


def test_a_list_of_pairs_without_labels_has_those_of_its_masks(put, tmp_path):
    for k in range(3):
        put(f"images/{k}.png"), put(f"masks/{k}.png", 2)
    listed = [{"image": f"images/{k}.png", "label": f"masks/{2 - k}.png"} for k in range(3)]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": listed}))
    found = read_dataset(tmp_path)
    assert found.labels == {0: "background", 2: "object"}
    assert [case.label.name for case in found.cases] == ["2.png", "1.png", "0.png"]


def test_classes_in_the_place_of_masks_leave_the_names_to_pair(put, tmp_path):
    for k in range(3):
        put(f"images/{k}.png"), put(f"masks/{k}.png", 1)
    listed = [{"image": f"images/{k}.png", "label": k} for k in range(3)]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": listed}))
    assert [case.label.name for case in read_dataset(tmp_path).cases] == ["0.png", "1.png", "2.png"]


def test_classes_that_are_called_as_files_or_folders_are_classes(put, tmp_path, monkeypatch):
    for k in range(6):
        put(f"{k}.png")
    (tmp_path / "list.csv").write_text(
        "image,label\n" + "".join(f"{k}.png,{('dog.png', 'sick')[k % 2]}\n" for k in range(6))
    )
    monkeypatch.chdir(tmp_path)
    assert is_labelled("list.csv")


@pytest.mark.parametrize("folder", ["subset{}", "part{}", "phase{}", "polyp{}", "batch{}"])
def test_folders_of_parts_and_phases_are_nobodys(put, tmp_path, folder):
    for k in range(6):
        put(f"{folder.format(k % 2)}/im{k}.png"), put(f"{folder.format(k % 2)}/im{k}_mask.png", 1)
    found = read_dataset(tmp_path)
    assert len({found.patient(case.name) for case in found.cases}) == 6


@pytest.mark.parametrize(
    ("folder", "patients"),
    [
        ("{:03d}", 6),
        ("dataset/{:03d}", 6),
        ("P1/some data/{:03d}", 6),
        ("dataset/{:03d}/nifti", 6),
        ("Task_p7/patient{}", 6),
        ("train/{:03d}", 6),
        ("batch{}/001", 24),
        ("dataset/20{:02d}", 24),
    ],
)
def test_what_is_common_to_all_paths_changes_nobodys_patient(put, tmp_path, folder, patients):
    for k in range(6):
        for frame in ("SA_ED", "LA_ED", "SA_ES", "LA_ES"):
            stem = f"{folder.format(k)}/{k}{'xyz'[k % 3]}_{frame}"  # a patient's names alone would join LA with LA
            put(f"{stem}.png"), put(f"{stem}_gt.png", 1)
    found = read_dataset(tmp_path)
    of = {case.name: found.patient(case.name) for case in found.cases}
    assert len({*of.values()}) == min(patients, 12)
    if patients == 6:
        assert {len([each for each in of.values() if each == whose]) for whose in of.values()} == {4}


def test_numbers_below_the_sides_are_patients_of_their_own(put, tmp_path):
    for side, numbers in (("train", range(4)), ("test", range(3))):
        for k in numbers:
            for view in ("LA", "SA"):
                put(f"{side}/{k:03d}/{side}{k}_{view}.png"), put(f"{side}/{k:03d}/{side}{k}_{view}_gt.png", 1)
    found = read_dataset(tmp_path)
    splits = read_splits(found)
    assert len({found.patient(case.name) for case in found.cases}) == 7
    assert not {found.patient(name) for name in splits.train} & {found.patient(name) for name in splits.val}
    assert found.whose.guess().startswith("7 patients in 14 cases, guessed: test/000, a folder of test0_LA, names")


def test_one_folder_of_a_patient_is_written_as_nobodys(put, tmp_path):
    for k in range(6):
        put(f"patient1/im{k}.png"), put(f"patient1/im{k}_mask.png", 1)
    guessed = read_dataset(tmp_path)
    assert guessed.whose.guess() == ""
    write_description(guessed, Path("dataset.json"))
    assert len({read_dataset(tmp_path).patient(case.name) for case in guessed.cases}) == 6


@pytest.mark.parametrize("laid_out", ["by name", "list", "images"])
def test_dataset_json_beside_any_layout_says_patients_and_codes(put, tmp_path, laid_out):
    folder = {"by name": "", "list": "", "images": "masks/"}[laid_out]
    for k in range(3):
        if laid_out == "images":
            put(f"images/p{k}.png"), put(f"masks/p{k}.png", 1)
        else:
            put(f"p{k}.nii.gz"), put(f"p{k}_seg.nii.gz", 1)
    ending = ".png" if folder else ".nii.gz"
    said = {"labels": {"0": "background", "1": "object"}, "codes": CODES, "patients": {f"p0{ending}": "X", "p1": "X"}}
    (tmp_path / "dataset.json").write_text(json.dumps(said))
    source = tmp_path
    if laid_out == "list":
        source = tmp_path / "cases.csv"
        source.write_text("image,mask\n" + "".join(f"p{k}.nii.gz,p{k}_seg.nii.gz\n" for k in range(3)))

    found = read_dataset(source)

    assert found.codes == {"object": ("4147007", "SCT", "Mass")}
    assert found.patient("p0") == found.patient("p1") == "X" != found.patient("p2")


def test_a_folder_called_dev_is_the_validation_side(put, tmp_path):
    for side, count in (("train", 4), ("dev", 2), ("test", 2)):
        for k in range(count):
            for name in ("cat", "dog"):
                put(f"{side}/{name}/{side}{name}{k}.png")

    found = read_labelled(tmp_path)

    assert found.classes == ("cat", "dog")
    assert {*found.sides.values()} == {"train", "val", "test"}


@pytest.mark.parametrize("name", ["Screenshot 1.00\u202fPM", "a\xa0b", "a\xadb"])
def test_a_name_that_can_be_predicted_can_be_trained_with(put, tmp_path, name):
    for each in (name, "x", "y"):
        put(f"images/{each}.png"), put(f"masks/{each}.png", 1)

    assert name in {case.name for case in read_dataset(tmp_path).cases}


def test_a_word_of_the_folders_says_the_side_where_it_does_so_of_every_case(put, tmp_path):
    for side, count in (("Training", 4), ("Validation", 2), ("Test", 2)):
        for k in range(count):
            put(f"ISIC2018_Task1-2_{side}_Input/ISIC_{side}{k}.png")
            put(f"ISIC2018_Task1_{side}_GroundTruth/ISIC_{side}{k}_segmentation.png", 1)

    found = read_dataset(tmp_path)

    assert [*map([*found.sides.values()].count, ("train", "val", "test"))] == [4, 2, 2]
    put("others/ISIC_1.png"), put("others/ISIC_1_segmentation.png", 1)
    assert read_dataset(tmp_path).sides == {}  # of one nobody says it
    assert "2 of 9 cases are called test by a folder" in str(check_dataset(tmp_path).warnings)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("trainval-{}/{}", "test-{}/{}"),
        ("trainval/{}/{}", "test/{}/{}"),
        ("train_val/{}s/{}", "test/{}s/{}"),
        ("train+val_{}/{}", "testing_{}/{}"),
        ("my tests/Train2017_{}/{}", "my tests/TestA_{}/{}"),
    ],
)
@pytest.mark.parametrize("again", [False, True])
def test_the_folders_of_training_and_validation_together_leave_the_test_side_alone(put, tmp_path, train, test, again):
    for folder, count, first in ((train, 6, 0), (test, 2, 0 if again else 6)):
        for k in range(first, first + count):
            put(f"{folder.format('image', k)}.png"), put(f"{folder.format('mask', k)}.png", 1)

    found = read_dataset(tmp_path)
    splits = read_splits(found)

    assert [*map(len, (splits.train, splits.val, splits.test))] == [4, 2, 2]
    tested = {found.case(name).images[0].relative_to(tmp_path).as_posix() for name in splits.test}
    assert all("test/" in name or "test-" in name or "testing" in name or "TestA" in name for name in tested)


def test_images_may_be_called_by_their_side(put, tmp_path):
    for name in ("train_1", "train_2", "train_3", "train_4", "testA_1", "testB_1"):
        put(f"{name}.png"), put(f"{name}_anno.png", 1)
    splits = read_splits(read_dataset(tmp_path))
    assert (splits.test, len(splits.train), len(splits.val)) == (("testA_1", "testB_1"), 3, 1)


@pytest.mark.parametrize("laid_out", ["images/{}.png masks/{}.png", "{}.png {}_mask.png", "pics/{}.png list"])
def test_names_that_say_test_where_nothing_reads_it_are_told_of(put, tmp_path, laid_out):
    image, mask = laid_out.replace("list", "gt/{}.png").split()
    names = ["train_1", "train_2", "train_3", "x1", "test_1", "test_2"]
    for name in names:
        put(image.format(name)), put(mask.format(name), 1)
    if "list" in laid_out:
        (tmp_path / "cases.csv").write_text(
            "image,mask\n" + "".join(f"{image.format(name)},{mask.format(name)}\n" for name in names)
        )
    source = tmp_path / "cases.csv" if "list" in laid_out else tmp_path
    found, said = read_dataset(source), "2 of 6 cases are called test by a folder or the name"

    assert [said in each.text for each in check_dataset(source).warnings].count(True) == 1
    assert any(said in text for text in doubts_of(found, read_splits(found)))
    write_json(tmp_path / "split.json", {"train": names[:3], "val": ["x1"], "test": names[4:]})
    assert not any(said in each.text for each in check_dataset(source).warnings)


def test_the_side_that_all_cases_lie_in_is_drawn_from(put, tmp_path):
    for k in range(5):
        put(f"train/images/{k}.png"), put(f"train/masks/{k}.png", 1)
    splits = read_splits(read_dataset(tmp_path))
    assert (len(splits.train), len(splits.val), splits.test) == (4, 1, ())


def test_folders_that_are_all_called_so_say_no_side(put, tmp_path):
    for k in range(3):
        put(f"Training Batch {k}/volume-{k}.nii"), put(f"Training Batch {k}/segmentation-{k}.nii", 1)

    assert read_dataset(tmp_path).sides == {}


def test_codes_are_of_the_labels_as_they_are_named_in_the_end(put, tmp_path):
    for k in range(3):
        put(f"images/p{k}.png"), put(f"masks/p{k}.png", 1)
    (tmp_path / "dataset.json").write_text(json.dumps({"codes": CODES | {"liver": CODES["object"]}}))

    found, problems = survey(tmp_path, labels={"liver": 1})

    assert found.labels == {0: "background", 1: "liver"}
    assert ["`codes` names 'object', which is no label" in str(each) for each in problems] == [True]


def test_what_breaks_off_while_a_set_is_written_down_hides_no_side(
    put: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dataset.json alone would be read instead of the folders, which say the sides."""
    for side in ("train", "test"):
        for number in range(3):
            put(f"{side}/images/{side}{number}.png")
            put(f"{side}/masks/{side}{number}.png", 1 + number)
    before = read_dataset(tmp_path).sides
    written: list[Path] = []

    def full_after_one(path: Path, content: Any) -> None:
        if written:
            raise VptError(f"{path}: cannot be written (No space left on device)")
        written.append(path)
        write_json(path, content)

    monkeypatch.setattr("vpt.data.layouts.written.write_json", full_after_one)
    with pytest.raises(VptError, match="No space left"):
        write_description(read_dataset(tmp_path), tmp_path / "dataset.json")

    assert read_dataset(tmp_path).sides == before
    assert set(before.values()) == {"train", "test"}


def test_dataset_json_numbers_labels_in_files_of_their_own(put, tmp_path):
    for name in ("p1", "p2"):
        put(f"{name}/ct.nii.gz"), put(f"{name}/segmentations/liver.nii.gz", 1)
        put(f"{name}/segmentations/spleen.nii.gz", 9)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "spleen": 1, "liver": 4}}))

    assert read_dataset(tmp_path).labels == {0: "background", 1: "spleen", 4: "liver"}

    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "liver": 1}}))
    with pytest.raises(VptError, match="`labels` names no spleen, of which there are masks"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("files", "labels", "read"),
    [
        (("liver", "spleen"), ("Liver", "SPLEEN"), ("Liver", "SPLEEN")),
        (("Liver", "liver"), ("Liver", "liver"), ("Liver", "liver")),
        (("Liver", "liver"), ("Liver", "spleen"), None),  # the second is nobody's
        (("liver", "spleen"), ("Liver", "LIVER", "spleen"), None),
    ],
)
def test_labels_of_dataset_json_may_differ_from_their_files_in_capitals(put, tmp_path, files, labels, read):
    for name in ("p1", "p2"):
        put(f"{name}/ct.nii.gz")
        for k, file in enumerate(files):
            put(f"{name}/segmentations/{file}.nii.gz", 5 + k)
    numbered = {"background": 0, **{label: id for id, label in enumerate(labels, start=1)}}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": numbered}))

    if read is None:
        with pytest.raises(VptError, match="`labels` names no liver, of which there are masks"):
            read_dataset(tmp_path)
    else:
        assert read_dataset(tmp_path).labels == {0: "background", 1: read[0], 2: read[1]}


def test_a_label_that_dataset_json_calls_the_background_in_other_capitals_is_refused(put, tmp_path):
    put("p1/ct.nii.gz")
    for file in ("liver", "spleen"):
        put(f"p1/segmentations/{file}.nii.gz", 5)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"Liver": 0, "spleen": 1}}))

    with pytest.raises(VptError, match="0 is always the background, but it is Liver, of which there are masks"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(("listed", "there"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_may_be_letters_of_their_own_in_a_list_of_cases_or_in_files(put, tmp_path, listed, there):
    for k in range(2):
        put(normalize(there, f"\u00e9{k}.nii.gz")), put(normalize(there, f"m/\u00e9{k}.nii.gz"), 1)
    lines = [normalize(listed, f"\u00e9{k}.nii.gz,m/\u00e9{k}.nii.gz") for k in range(2)]
    (tmp_path / "list.csv").write_text("\n".join(["image,mask", *lines]))

    assert len(read_dataset(tmp_path / "list.csv").cases) == 2


def test_paths_of_a_list_of_cases_may_be_written_as_on_windows(put, tmp_path):
    put("images/a.nii.gz"), put("masks/a.nii.gz", 1)
    (tmp_path / "list.csv").write_text("image,mask\nimages\\a.nii.gz,masks\\a.nii.gz\n")

    assert [case.name for case in read_dataset(tmp_path / "list.csv").cases] == ["a"]


@pytest.mark.parametrize("header", ["image,mask", "Image;Mask"])
def test_a_list_of_masks_without_a_line_is_told_as_such(tmp_path: Path, header: str) -> None:
    (tmp_path / "cases.csv").write_text(f"{header}\n")

    assert not is_labelled(tmp_path / "cases.csv")
    with pytest.raises(VptError, match=r"cases\.csv: no line in it, expected a header with `image` and `mask`"):
        read_dataset(tmp_path / "cases.csv")


@pytest.mark.parametrize("above", ["", "unpacked/nnUNet_raw/"])
def test_folders_that_dataset_json_describes_are_not_read_by_names_from_above(put, tmp_path, above):
    inner = [f"{above}Dataset{number}_{organ}" for number, organ in ((501, "Liver"), (502, "Lung"))]
    for folder in inner:
        for k in range(3):
            put(f"{folder}/imagesTr/a{k}_0000.nii.gz"), put(f"{folder}/labelsTr/a{k}.nii.gz", 1)
        says = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1}, "file_ending": ".nii.gz"}
        write_json(tmp_path / folder / "dataset.json", {**says, "numTraining": 3})

    with pytest.raises(VptError) as caught:
        read_dataset(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: no data set by itself, but the folders in it are, each by its dataset.json; give one of them "
        f"({tmp_path / inner[0]}, {tmp_path / inner[1]})"
    )
    shutil.rmtree(tmp_path / inner[1])
    with pytest.raises(VptError, match="but the folder in it is one; give that") as caught:
        read_dataset(tmp_path)
    given = read_dataset(Path(str(caught.value).rpartition("(")[2].removesuffix(")")))
    assert (given.channels, given.labels) == (("CT",), {0: "background", 1: "organ"})


@pytest.mark.parametrize("content", ['{"labels": {}}', "{damaged"])
def test_a_dataset_json_in_a_folder_that_describes_nothing_leaves_the_names_to_pair(put, tmp_path, content):
    for k in range(3):
        put(f"P{k}/ct.nii.gz"), put(f"P{k}/seg.nii.gz", 1)
    (tmp_path / "P1/dataset.json").write_text(content)
    (tmp_path / "P1/again").symlink_to(tmp_path / "P1")

    assert len(read_dataset(tmp_path).cases) == 3
