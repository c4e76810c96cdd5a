"""Whose a case is: what is said counts, a guess is told as one, a regular expression settles it."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vpt.data.alike_names import below_sides
from vpt.data.check import check_dataset
from vpt.data.doubts.class_names import missing_among
from vpt.data.doubts.said import doubts_of
from vpt.data.layouts import read_dataset, read_labelled
from vpt.data.layouts.rows import stem_of
from vpt.data.patients import Patients, by_pattern, of_folders, that_differ
from vpt.data.splits import read_splits
from vpt.errors import VptError


def volumes(root: Path, *names: str, **described: object) -> Path:
    content = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "box": 1}, **described}
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    (root / "dataset.json").write_text(json.dumps(content))
    for number, name in enumerate(names):
        label = np.zeros((4, 4, 4), np.uint8)
        label[1:3, 1:3, 1:3] = 1
        nib.save(nib.Nifti1Image(label * 100 + number, np.eye(4)), root / f"imagesTr/{name}_0000.nii.gz")
        nib.save(nib.Nifti1Image(label, np.eye(4)), root / f"labelsTr/{name}.nii.gz")
    return root


def split(root: Path, **sides: list[str]) -> Path:
    (root / "split.json").write_text(json.dumps(sides))
    return root


@pytest.mark.parametrize(
    ("names", "patients", "said"),
    [
        (["brain_s00", "brain_s01", "brain_s02"], 3, "3 patients in 3 cases, guessed: _s00 of brain_s00 names its"),
        (["A_s01", "A_s02", "B_s01"], 2, "2 patients in 3 cases, guessed: _s01 of A_s01 is a session, frame or slice"),
        (["p1_frame01", "p1_frame12", "p2_frame01"], 2, "_frame01 of p1_frame01 is a session"),
        (["x-visit-1", "x-visit-2", "y-visit-1"], 2, "-visit-1 of x-visit-1 is a session"),
        (["sub-01_ses-1_T1w", "sub-01_ses-2_T1w", "sub-02_ses-1_T1w"], 2, "_ses-1_T1w of sub-01_ses-1_T1w is"),
        (["sub-01_acq-a_run-1_bold", "sub-01_acq-b_run-1_bold", "sub-02_acq-a_run-1_bold"], 2, "is a session"),
        (["sub-01_ses-1", "sub-01_ses-2"], 1, "1 patient in 2 cases"),
        (["BraTS-GLI-00000-000", "BraTS-GLI-00000-001", "BraTS-GLI-00002-000"], 2, "-000 of BraTS-GLI-00000-000 is"),
        (["a/BraTS-MET-00001-000", "a/BraTS-MET-00001-001", "b/BraTS-MET-00001-000"], 2, "-000 of a/BraTS-MET"),
        (["P001_L", "P001_R", "P002_L"], 2, "_L of P001_L is a session"),
        (["P001L", "P001R", "P002L"], 2, "L of P001L is a session"),
        (["P1_LCC", "P1_RMLO", "P2_LCC"], 2, "_LCC of P1_LCC is"),
        (["P_00004_LEFT_CC_1", "P_00004_RIGHT_MLO_2", "P_00009_LEFT_CC_1"], 2, "_LEFT_CC_1 of P_00004_LEFT_CC_1 is"),
        (["knee_left_1", "knee_left_2", "knee_right_3"], 3, ""),  # the numbers may be the patients'
        (["p1_v1", "p1_v2", "p2_v1"], 2, "_v1 of p1_v1 is"),
        (["p1_ED", "p1_ES", "p2_ED"], 2, "_ED of p1_ED is"),
        (["x_tile_0_1", "x_tile_1_1", "y_tile_0_1"], 2, "_tile_0_1 of x_tile_0_1 is"),
        (["ADNI_002_S_0295_m06", "ADNI_002_S_0295_m12", "ADNI_002_S_0413_m06"], 2, "_m06 of ADNI_002_S_0295_m06 is"),
        (["ADNI_002_S_0295", "ADNI_002_S_0413", "ADNI_003_S_0907"], 3, ""),  # S, a number: the subject's
        (["A_s01", "B_s01", "C_s02"], 3, ""),  # one each in any reading
        (["case_000", "case_001"], 2, ""),
        (["P 1 left", "P 1 right", "P 2 left"], 2, " left of P 1 left is"),
    ],
)
def test_what_names_are_guessed_to_say(names, patients, said):
    found = Patients(names, {}, {})
    assert len({found.of(name) for name in names}) == patients
    assert (said in found.guess()) if said else found.guess() == ""


@pytest.mark.parametrize(
    ("names", "stem"),
    [
        (["001_001", "001_002", "002_001"], "001"),
        (["P01_20200101", "P01_20210101", "P02_20200101"], "P01"),
        (["IM-0001-0001", "IM-0001-0002", "IM-0002-0001"], "IM-0001"),
        (["vol1-1", "vol1-2", "vol2-1"], "vol1"),
    ],
)
def test_a_bare_number_at_the_end_joins_nobody_but_is_said(names, stem):
    found = Patients(names, {}, {})
    assert [found.of(name) for name in names] == names
    (said,) = found.doubts()
    assert f"2 cases differ from another in the last number alone ({names[0]}, {names[1]})" in said
    assert f"if {stem} is a patient, --patients '(.*)[_-]' says so" in said
    assert by_pattern(names, "(.*)[_-]")[names[0]] == stem


@pytest.mark.parametrize(
    ("names", "said", "pattern"),
    [
        (["患者01_第1次", "患者01_第2次", "患者02_第1次"], "last word alone (患者01_第1次, 患者01_第2次)", "(.*)[_-]"),
        (["Pat1_Schicht1", "Pat1_Schicht2", "Pat2_Schicht1"], "last word alone (Pat1_S", "(.*)[_-]"),
        (["P1-termin-a", "P1-termin-b", "P2-termin-a"], "last word alone (P1-termin-a", "(.*)[_-]"),
        (["101A", "101B", "102A", "102B"], "4 cases differ from another in the last word alone (101A", "(.*).$"),
        (
            ["JD_2019-01-02", "JD_2020-02-03", "MK_2019-05-06"],
            "2 cases differ from another in the last date",
            "(.*?)[_-]",
        ),
        (["JD-20190102", "JD-20200203", "MK-20190506"], "last date alone (JD-20190102", "(.*?)[_-]"),
        (["r1_Q1", "r1_fast", "r2_fast", "r2_Q1"], "last word alone", "(.*)[_-]"),
        (["p1_01-02-2020", "p1_05-06-2021", "p2_01-02-2020"], "last date alone (p1_01-02-2020, p1_05", "^[^_-]+"),
        (["p1_1.2.2020", "p1_15.6.2021", "p2_1.2.2020"], "last date alone (p1_1.2.2020, p1_15", "^[^_-]+"),
        (["P1__1", "P1__2", "P2__1"], "last number alone (P1__1, P1__2)", "^[^_-]+"),
        (["L_P1", "R_P1", "L_P2", "R_P2"], "4 cases differ from another in the first word alone (L_P1", "^[^_ -]+"),
        (["scan1_P1", "scan2_P1", "scan1_P2", "scan2_P2"], "first word alone (scan1_P1, scan2_P1)", "^[^_ -]+"),
        (["2020_case1", "2021_case1", "2020_case2"], "first word alone (2020_case1, 2021_case1)", "^[^_ -]+"),
        (["p1_early_contrast", "p1_late_contrast", "p2_late_contrast", "p2_early_contrast"], "last word", "^[^_-]+"),
        (["2021-03-01_0012", "2021-03-09_0012", "2021-03-01_0015"], "first date alone (2021-03-01_0012, 2021-03-0", ""),
        (["20210301_MRN7", "20210309_MRN7", "20210301_MRN8"], "first date alone (20210301_MRN7, 20210309_M", ""),
        (["20210301_1", "20210301_2", "20210309_1"], "last number alone (20210301_1, 20210301_2)", "(.*)[_-]"),
        (["P1 first", "P1 second", "P2 first"], "last word alone (P1 first, P1 second)", "^.{2}"),
    ],
)
def test_a_word_or_a_date_at_the_end_joins_nobody_but_is_said(names, said, pattern):
    whose = Patients(names, {}, {})
    (text,) = whose.doubts()
    assert said in text
    assert f"--patients '{pattern}" in text
    assert len({whose.of(name) for name in names}) == len(names)
    settled = by_pattern(names, text.partition("--patients '")[2].partition("'")[0])
    assert len({*settled.values()}) == 2


@pytest.mark.parametrize(
    "names",
    [
        ["case_00000_left_kidney", "case_00001_tumour"],
        ["3f2a9c", "91bb0e", "a8d7aa"],
        ["20051019_38557_0100_PP", "20051020_43808_0100_PP"],
        ["2021-03-04_0012", "2021-03-04_0013", "2021-03-05_0014"],
        ["LIDC-IDRI-0001", "LIDC-IDRI-0002"],
        ["benign_case1", "malignant_case1", "benign_case2"],
        ["siteA_p1", "siteB_p1", "siteA_p2"],
        ["train_case1", "test_case1", "train_case2"],
        ["hospital_Meier", "hospital_Huber", "clinic_Meier"],
        ["cju0qx73cjw570799j4n5cjze", "cju0roawvklrq0799vmjorwfv"],
    ],
)
def test_words_that_only_name_the_cases_are_not(names):
    assert Patients(names, {}, {}).doubts() == []


def test_names_that_a_split_keeps_together_are_not_doubted():
    found = Patients(["001_001", "001_002", "002_001"], {}, {})
    assert found.doubts([{"train": ["001_001", "001_002"], "val": ["002_001"]}]) == []
    assert len(found.doubts([{"train": ["001_001"], "val": ["002_001", "001_002"]}])) == 1


@pytest.mark.parametrize("names", [["case_001", "case_002"], ["BraTS_2020_1", "BraTS_2020_2"], ["a1", "a2", "b1"]])
def test_numbers_that_only_count_the_cases_are_not(names):
    assert Patients(names, {}, {}).doubts() == []


def test_what_is_said_counts_before_a_guess():
    found = Patients(["A_s01", "A_s02", "B_s01"], {"A_s02": "Eve"}, {})
    assert [found.of(name) for name in ("A_s01", "A_s02", "B_s01")] == ["A", "Eve", "B"]
    assert (found.are_said("A_s02"), found.are_said("A_s01", "A_s02"), found.guess()) == (True, False, "")


@pytest.mark.parametrize("names", [["brain_s00", "brain_s01"], ["A_s01", "A_s02"], ["A_s01", "A_s02", "B_s01"]])
def test_a_given_split_is_doubted_but_never_refused_for_a_guess(tmp_path, names):
    root = split(volumes(tmp_path, *names), train=[names[0]], val=[names[1]])
    dataset, check = read_dataset(root), check_dataset(root)
    assert read_splits(dataset).val == (names[1],)
    assert check.ok
    assert check.patients == dataset.whose.guess() != ""
    assert check.patients in check.plain()
    doubted = [problem.text for problem in check.warnings if "may be on two sides" in problem.text]
    expected = len(names) > 2  # A's two sessions; names that differ in one number are patients
    assert bool(doubted) == expected
    assert doubts_of(dataset, read_splits(dataset)) == [check.patients, *doubted]


def test_patients_who_differ_in_one_number_are_drawn_apart(tmp_path):
    dataset = read_dataset(volumes(tmp_path, *(f"brain_s0{k}" for k in range(5))))
    assert len(read_splits(dataset, 4).val) == 1


@pytest.mark.parametrize(
    ("pattern", "patients"),
    [("^[A-Z]", "AAB"), ("_s(\\d+)", ["01", "02", "01"]), (".*", ["A_s01", "A_s02", "B_s01"]), ("(?i)[a-b]", "AAB")],
)
def test_a_regular_expression_settles_it(tmp_path, pattern, patients):
    dataset = read_dataset(volumes(tmp_path, "A_s01", "A_s02", "B_s01", patients={"A_s01": "Ann"}), pattern)
    assert [dataset.patient(case.name) for case in dataset.cases] == list(patients)
    assert dataset.whose.guess() == ""


def test_what_a_regular_expression_says_of_a_split_is_an_error(tmp_path):
    root = split(volumes(tmp_path, "A_s01", "A_s02", "B_s01"), train=["A_s01"], val=["A_s02"], test=["B_s01"])
    assert check_dataset(root).ok
    errors = check_dataset(root, patients="^[A-Z]").errors
    assert [error.text.partition(";")[0] for error in errors] == [
        "A_s01 in train and A_s02 in val are one patient's (A)"
    ]


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("(", r"patients '\(': no regular expression \(missing \)"),
        ("[A]", r"finds no patient in 1 name of 2 \(B_s01\); give a regular expression"),
        ("Z", r"finds no patient in 2 names of 2"),
        ("s(x?)", r"finds no patient in 2 names"),  # its group is empty
    ],
)
def test_a_pattern_that_does_not_fit_is_refused(pattern, sentence):
    with pytest.raises(VptError, match=sentence):
        by_pattern(["A_s01", "B_s01"], pattern)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.from_regex(r"[a-z]{1,3}([_-]s\d{1,2})?", fullmatch=True), min_size=1, max_size=8, unique=True))
def test_every_case_has_a_patient_and_a_guess_only_joins_stems(names):
    found = Patients(names, {}, {})
    assert all(found.of(name) in (name, found._stem(name)) for name in names)
    assert (found.guess() == "") or len(names) > 1


# --- labelled ---------------------------------------------------------------------------------------------------------


def table(root: Path, *lines: str, header: str = "path,label,split") -> Path:
    (root / "labels.csv").write_text("\n".join([header, *lines]))
    for number, line in enumerate(lines):
        Image.new("L", (4, 4), number + 1).save(root / line.split(",")[0])
    return root


def test_sides_in_a_csv_are_not_refused_for_a_guess(tmp_path):
    lines = ("a_s1.png,x,train", "a_s2.png,y,val", "b_s1.png,x,train", "c.png,y,train")
    found = read_labelled(table(tmp_path, *lines))
    assert found.sides["a_s2"] == "val"
    check = check_dataset(tmp_path)
    assert any("1 patient may be on two sides" in problem.text for problem in check.warnings)
    with pytest.raises(VptError, match="patient a is in val here and in train"):
        read_labelled(tmp_path, patients="^[a-z]")


@pytest.mark.parametrize("column", ["patient", "subject", "group"])
def test_a_column_of_the_csv_says_whose(tmp_path, column):
    header = f"path,label,{column}"
    found = read_labelled(table(tmp_path, "a_s1.png,x,P1", "a_s2.png,y,P2", "b.png,x,P2", header=header))
    assert [found.patient(name) for name in ("a_s1", "a_s2", "b")] == ["P1", "P2", "P2"]
    assert found.whose.guess() == ""


@pytest.mark.parametrize(
    ("one", "other"), [("1", "1.0"), ("Pos", "pos"), ("2", "02"), ("not sure", "not_sure"), ("grade-1", "Grade 1"),
     ("1e0", "1"), ("1", "True"), ("no", "0"), ("pos", "pos\u200b"), ("caf\u00e9", "cafe\u0301"), ("a\u2013b", "a-b"),
     ("'2'", "2")],
)  # fmt: skip
def test_classes_that_may_be_one_are_one_doubt(tmp_path, one, other):
    lines = (f"a.png,{one},train", f"b.png,{other},train", f"c.png,{one},val", "d.png,7,val")
    found = read_labelled(table(tmp_path, *lines))
    doubted = [problem.text for problem in check_dataset(tmp_path).warnings if "may be one" in problem.text]
    assert len(doubted) == 1
    assert repr(one) in doubted[0]
    assert repr(other) in doubted[0]
    assert doubted[0] in doubts_of(found, read_splits(found))


@pytest.mark.parametrize(
    "pair", [("1", "-1"), ("1", "10"), ("grade 2+", "grade 2"), ("a", "b"), ("1.5", "1"), ("-1", "+1"), ("yes", "no")]
)
def test_classes_that_differ_are_not_doubted(tmp_path, pair):
    table(
        tmp_path,
        *(
            f"{name}{k}.png,{label},{'train' if k else 'val'}"
            for k in (0, 1)
            for name, label in zip("ab", pair, strict=True)
        ),
    )
    assert not [problem for problem in check_dataset(tmp_path).warnings if "may be one" in problem.text]


@pytest.mark.parametrize(
    ("names", "patient"),
    [
        (("P00_L", "P00_R", "P01_L"), "P00"),
        (("P00-pre", "P00-post", "P01-pre"), "P00"),
        (("sub-01_ses-pre", "sub-01_ses-post", "sub-02_ses-pre"), "sub-01"),
        (("sub-01_ses-1_run-1", "sub-01_ses-2_run-1", "sub-02_ses-1_run-1"), "sub-01"),
        (("p1_t0", "p1_t1", "p2_t0"), "p1"),
        (("id7_left", "id7_right", "id8_left"), "id7"),
        (("p1_wk0", "p1_wk12", "p2_wk0"), "p1"),
        (("slide1_x0_y256", "slide1_x256_y0", "slide2_x0_y0"), "slide1"),
        (("img1", "img1_flip", "img2"), "img1"),
        (("img1", "img1_rot90", "img2"), "img1"),
        (("img1", "img1 copy", "img2"), "img1"),
        (("img1 copy", "img1 copy 2", "img2 copy"), "img1"),
        (("OAS2_0001_MR1", "OAS2_0001_MR2", "OAS2_0002_MR1"), "OAS2_0001"),
        (("p01_study1_view1_frontal", "p01_study2_view1_lateral", "p02_study1_view1_frontal"), "p01"),
        (("sub01_BL", "sub01_FU", "sub02_BL"), "sub01"),
        (("sub01_FU1", "sub01_FU2", "sub02_FU1"), "sub01"),
        (("A_exam1", "A_exam2", "B_exam1"), "A"),
        (("A_year1", "A_year2", "B_year1"), "A"),
        (("s1_acq1", "s1_acq2", "s2_acq1"), "s1"),
        (("s1_phase00", "s1_phase50", "s2_phase00"), "s1"),
        (("s1_supine", "s1_prone", "s2_supine"), "s1"),
        (("patient1visit1", "patient1visit2", "patient2visit1"), "patient1"),
        (("sub1ses1", "sub1ses2", "sub2ses1"), "sub1"),
        (("P7scan1", "P7scan2", "P8scan1"), "P7"),
        (("lung7-inhale", "lung7-exhale", "lung8-inhale"), "lung7"),
    ],
)
def test_visits_runs_and_sides_are_one_patients(names, patient):
    whose = Patients(names, {}, {})
    assert [whose.of(name) for name in names[:2]] == [patient] * 2
    assert whose.of(names[2]) != patient
    assert "2 patients in 3 cases, guessed" in whose.guess()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({}, ""),
        ({"a": "p", "b": "p"}, ""),
        ({"a": "p", "b": "p", "unlabelled": "q"}, ""),
        (
            {"a": "p", "B": "p"},
            "`patients` names 1 case that is not there (B) and says nothing of b; correct the names",
        ),
        (
            {"a.nii": "p", "b.nii": "p"},
            "`patients` names 2 cases that are not there (a.nii, b.nii) and says nothing of",
        ),
    ],
)
def test_patients_of_cases_that_are_not_there_are_told_where_others_are_nobodys(said, told):
    found = Patients(["a", "b"], said, {}).strangers()
    assert found.startswith(told) if told else found == ""


@pytest.mark.parametrize("pair", [("1", "1.0"), ("01", "1"), ("P1", "p1"), ("P 1", "P_1"), ("2", " 2")])
def test_patients_that_may_be_one_are_told(pair):
    (told,) = Patients(["a", "b", "c"], dict(zip("abc", (*pair, "other"), strict=True)), {}).doubts()
    assert told.startswith(f"patients {pair[0]!r} and {pair[1]!r} may be one, written in 2 ways")


@pytest.mark.parametrize("mark", ["nan", "NaN", "N/A", "null", "?"])
def test_marks_of_what_is_not_known_are_told(mark):
    told = Patients(["a", "b", "c"], dict(zip("abc", ("P1", mark, "P2"), strict=True)), {}).doubts()
    assert told == missing_among(["P1", mark, "P2"], "patients")
    assert told[0].startswith(f"patients hold {mark!r}, with which tables mark what is not known")


@pytest.mark.parametrize(("classes", "doubted"), [(["0", "1", "None"], True), (["0", "1", "2", "NA"], True),
    (["none", "mild", "severe"], False), (["NA", "K", "CL"], False), (["unknown", "cat", "dog"], False),
    (["0", "1", "2"], False)])  # fmt: skip
def test_none_is_a_class_among_words_and_a_mark_among_numbers(classes, doubted):
    assert bool(missing_among(classes)) == doubted


@pytest.mark.parametrize(("said", "told"), [({}, False), ({"a": "p"}, False), ({"a": "p", "b": "q", "c": "p"}, True),
    ({"a": "p", "b": "q"}, True), (dict.fromkeys("abcd", "p"), False)])  # fmt: skip
def test_a_few_whose_patient_is_not_said_are_told(said, told):
    assert any("is not said, as that of the other" in text for text in Patients([*"abcd"], said, {}).doubts()) == told


def test_what_is_no_folder_is_not_called_one():
    stems = {"0/21_left": "21", "0/21_right": "21", "1/22_left": "22"}
    guess = Patients([*stems], {}, stems).guess()
    assert guess.startswith("2 patients in 3 cases, guessed: _left of 0/21_left is a session, frame or slice of one")


def test_a_name_that_several_cases_share_is_no_guess():
    assert Patients(["segmentation"] * 3, {}, {}).guess() == ""


def test_a_number_behind_a_word_may_be_of_a_patients_image_but_not_where_the_word_says_patient():
    names = ["person1_virus_6", "person1_virus_7", "person3_bacteria_10"]
    said = Patients(names, {}, {}).bare_numbers()
    assert "2 cases differ from another in the last number alone (person1_virus_6, person1_virus_7)" in said
    assert len(set(by_pattern(names, said.partition("--patients '")[2].partition("'")[0]).values())) == 2
    assert Patients(["site1_patient_1", "site1_patient_2", "site2_patient_3"], {}, {}).bare_numbers() == ""


@pytest.mark.parametrize(
    ("names", "what", "patients"),
    [
        ("{p}_2CH_ED {p}_2CH_ES {p}_4CH_ED {p}_4CH_ES", "word", "patient000{} P{}0"),
        ("{p}_nodule0_slice0 {p}_nodule0_slice1 {p}_nodule1_slice2", "word", "P0{}"),
        ("{p}_0_slice0 {p}_0_slice1 {p}_1_slice2", "number", "00{}"),
        ("{p}_20190101_slice0 {p}_20190101_slice1 {p}_20200102_slice2", "date", "P0{}"),
    ],
)
def test_patients_that_are_guessed_too_many_are_said(names, what, patients):
    for patient in patients.split():
        every = [name.format(p=patient.format(k)) for k in (1, 2, 3) for name in names.split()]
        whose = Patients(every, {}, {})
        (text,) = whose.doubts()
        assert "patients, as guessed by the names, differ from another in the last" in text
        settled = by_pattern(every, text.partition("--patients '")[2].partition("'")[0])
        assert {*settled.values()} == {patient.format(k) for k in (1, 2, 3)}, (what, text)


@pytest.mark.parametrize(
    "name",
    [
        "{}.00{}",
        "{} {}",
        "{} ({})",
        "{}({})",
        "{}#{}",
        "{}img{}",
        "{}s00{}",
        "{}_{}_crop",
        "{} {} crop",
        "{}_{} left view",
        "{}_00{}_T2w",
        "{}_{}",
    ],
)
def test_numbers_of_slices_are_said_however_they_are_joined(name):
    names = [name.format(f"P0{k}", number) for k in (1, 2, 3) for number in range(3)]
    (text,) = Patients(names, {}, {}).doubts()
    assert "9 cases differ from another in the last number alone" in text
    settled = by_pattern(names, text.partition("--patients '")[2].partition("'")[0])
    assert {*settled.values()} == {"P01", "P02", "P03"}


@pytest.mark.parametrize("name", ["{}_{}", "{}-{}", "{} {}", "{} ({})"])
@pytest.mark.parametrize(
    "people", ["smith jones miller taylor brown", "JD MK ab XY QR", "anna_meier jo_huber a_b c_d e_f"]
)
def test_numbers_behind_many_words_may_be_of_one_person(name, people):
    names = [name.format(person, number) for person in people.split() for number in range(3)]
    (text,) = Patients(names, {}, {}).doubts()
    assert "15 cases differ from another in the last number alone" in text
    if "--patients" in text:
        settled = by_pattern(names, text.partition("--patients '")[2].partition("'")[0])
        assert {*settled.values()} == {*people.split()}


@pytest.mark.parametrize(("words", "numbers"), [("ct mr pet us", 9), ("liver spleen kidney lung colon heart", 10)])
def test_numbers_behind_few_words_or_many_numbers_count_the_cases(words, numbers):
    assert Patients([f"{word}_{k}" for word in words.split() for k in range(numbers)], {}, {}).doubts() == []


@pytest.mark.parametrize("name", ["benign ({})", "image{}", "IM000{}", "scan.{}", "a{}b"])
def test_numbers_that_count_the_cases_are_not(name):
    assert Patients([name.format(k) for k in range(9)], {}, {}).doubts() == []


@pytest.mark.parametrize(
    "names",
    [
        ["P01 (1)", "P01 (2)", "P02 (1)", "P02 (2)", "control1", "control2"],
        ["volume-1", "volume-2", "s3t1", "s3t2", "s4t1", "s4t2"],
    ],
)
def test_no_expression_is_proposed_that_would_join_others(names):
    (text,) = Patients(names, {}, {}).doubts()
    assert "--patients" not in text
    assert 'say so in dataset.json: "patients"' in text


def test_uids_and_decimals_are_no_slices_of_a_patient():
    for names in (["1.2.840.113.1", "1.2.840.113.2", "1.2.840.114.1"], ["img_1.25", "img_1.5", "img_2.25"]):
        assert Patients(names, {}, {}).doubts() == []


@pytest.mark.parametrize(
    ("folders", "patients"),
    [
        ({f"p{k}_{n}": (f"patient{k}", "patient1") for k in "123" for n in "01"}, 3),
        ({f"p{k}_{n}": (str(k), "1") for k in range(1, 7) for n in "01"}, 6),
        ({f"p{k}_{n}": ("dataset", f"{k:03}") for k in range(1, 7) for n in "01"}, 6),
    ],
)
def test_a_folder_in_which_all_lie_at_one_depth_parts_nobody(folders, patients) -> None:
    stems = of_folders(that_differ(folders))
    assert len({stems[case] for case in folders}) == patients
    assert all(stems[case] == stems[f"{case[:-1]}0"] for case in folders)


@pytest.mark.parametrize(
    ("names", "patient"),
    [
        (["train/pos/person3_virus_1", "test/pos/person3_virus_8", "test/pos/person4_virus_9"], "person3_virus"),
        (["train/neg/CNV-71-1", "train/pos/CNV-71-2", "test/pos/CNV-72-1", "train/neg/IM-7-1"], "CNV-71"),
        (["neg/OAS1_0001_MR1_mpr-1_100", "pos/OAS1_0001_MR2_mpr-3_101", "pos/OAS1_0002_MR1_mpr-1_100"], "OAS1_0001"),
    ],
)
def test_folders_of_classes_and_sides_part_no_patient(names: list[str], patient: str) -> None:
    own = {name: below_sides(name, ("pos", "neg")) for name in names}

    said = Patients(own, {}, {}, own).bare_numbers()

    assert said.startswith(f"2 cases differ from another in the last number alone ({names[0]}, {names[1]})")
    assert f"if {patient} is a patient, --patients '" in said
    settled = by_pattern(names, said.partition("--patients '")[2].partition("'")[0])
    assert settled[names[0]] == settled[names[1]] == patient
    assert len({*settled.values()}) == len(names) - 1


def test_one_name_in_two_classes_is_not_told() -> None:
    names = ["pos/image_0001", "neg/image_0001", "pos/1", "neg/1", *(f"{word}/{word}_1" for word in "abcdef")]
    own = {name: below_sides(name, ("pos", "neg", *"abcdef")) for name in names}
    assert Patients(own, {}, {}, own).bare_numbers() == ""


@pytest.mark.parametrize("name", ["P{}", "Patient {}", "subject_{}"])
def test_a_persons_name_in_two_classes_is_told(name: str) -> None:
    names = [f"{each}/{name.format(number)}" for each in ("post", "pre") for number in range(3)]
    own = {each: below_sides(each, ("pre", "post")) for each in names}

    text = Patients(own, {}, {}, own).bare_numbers()

    assert text.startswith(f"6 cases differ from another in the folder alone ({names[0]}, {names[3]})")
    settled = by_pattern(names, text.partition("--patients '")[2].partition("'")[0])
    assert {*settled.values()} == {name.format(number) for number in range(3)}


def test_a_persons_name_on_two_sides_of_one_class_is_not_told() -> None:
    names = [f"{side}/ill/P{number}" for side in ("train", "test") for number in range(3)]
    assert Patients(names, {}, {}, {each: below_sides(each, ("ill",)) for each in names}).bare_numbers() == ""


def test_a_slide_is_one_in_all_magnifications() -> None:
    names = [f"SOB/adenosis/14-2254{k}/{zoom}X/14-2254{k}-{zoom}-001" for k in "AB" for zoom in (40, 100)]
    stems = {name: stem_of(f"benign/{name}", "benign") for name in names}

    assert {*stems.values()} == {"SOB/adenosis/14-2254A", "SOB/adenosis/14-2254B"}
    assert stem_of("benign/40X/a-001", "benign") == ""


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("train/patient00001/study1/view1_frontal", "patient00001"),
        ("train/XR_WRIST/patient00011/study1_positive/image2", "patient00011"),
        ("patches/patient_004_node_4/patch_patient_004_node_4_x_32_y_7", "patient_004"),
        ("images/Subject 7/a", ""),
        ("patients/a", ""),
        ("inpatient3/a", ""),
        ("neg/p1/i0", ""),  # a part, likely
        ("patient3", ""),
    ],
)
def test_a_folder_that_is_called_as_a_patient_is_one(name: str, patient: str) -> None:
    assert stem_of(name, "XR_WRIST") == patient
