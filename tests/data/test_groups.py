"""Columns of CSVs and lists as groups of cases."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
from PIL import Image

from vpt.data.groups import read_grouping, read_groupings
from vpt.data.layouts import read_dataset, read_labelled
from vpt.errors import VptError, VptWarning


def whole(name):
    return f"patient of {name}"


def refused(sentence, **options):
    with pytest.raises(VptError) as caught:
        read_grouping("sex", ["a", "b"], whole, **options)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "case,sex\na,f\nb,m\n",
        "Sex;Image\nf;scans/a.nii.gz\nm;scans\\b.nii.gz\n",
        "patient\tsex\npatient of a\tf\npatient of b\tm\npatient of b\tm\n",
        "sex,id,age\nf,a\nm,b,3\n",
        "Image Index,sex\na.png,f\nb.png,m\n",
        "image_id,sex\na,f\nb,m\n",
        "patient,sex,image_id\npatient of a,f,1\npatient of b,m,2\n",
        "patient_id,sex\npatient of a,f\npatient of b,m\n",
        "PID,sex\npatient of a,f\npatient of b,m\n",
    ],
)
def test_lines_are_found_by_case_file_or_patient(text, tmp_path):
    (tmp_path / "people.csv").write_text(text)
    found = read_grouping("sex", ["a", "b", "c"], whole, file=tmp_path / "people.csv")
    assert (found.of, found.without) == ({"a": "f", "b": "m"}, ("c",))


@pytest.mark.parametrize(("said", "given"), [("sub-{}", "{}"), ("{}", "sub-{}"), ("{}", "{}")])
def test_participants_are_named_with_and_without_the_word(said, given, tmp_path):
    (tmp_path / "participants.tsv").write_text(
        "participant_id\tsex\n" + "".join(f"{given.format(x)}\tf\n" for x in "ab")
    )
    found = read_grouping("sex", ["a", "b", "c"], said.format, file=tmp_path / "participants.tsv")
    assert (found.of, found.without) == ({"a": "f", "b": "f"}, ("c",))


def test_what_cannot_be_read_is_said(tmp_path):
    file = tmp_path / "people.csv"
    for text, sentence in (
        ("case,age\na,3\n", f"--by sex: {file} has the columns age; give a CSV that has it with --groups"),
        ("person,sex\na,f\n", f"{file}: no column `case` or `patient` among person, sex"),
        ("case,sex\nx,f\n", f"--by sex: {file} says nothing of a, b; name cases in a column `case`"),
        ("case,sex\na,f\na,m\n", f"{file}: line 3: sex of a is 'm', and 'f' further up; keep one of the two"),
        ("", f"{file}: no column `case`"),
    ):
        file.write_text(text)
        refused(sentence, file=file)
    refused(f"{tmp_path / 'no.csv'}: No such file", file=tmp_path / "no.csv")
    refused("--by sex: the data set has no columns")
    (tmp_path / "dataset.json").write_text(json.dumps({"groups": {"a": "f"}}))
    refused("`groups` is a dict; expected the name of a CSV", described=[tmp_path / "dataset.json"])


def test_files_in_folders_are_told_apart(tmp_path):
    file = tmp_path / "people.csv"
    file.write_text("path,sex\nill/1.png,f\nwell/1.png,m\nwell/2.png,m\n")
    names = ["ill/1", "well/1", "2"]
    assert list(read_grouping("sex", names, whole, file=file).of.values()) == ["f", "m", "m"]
    with pytest.raises(VptError, match="ill/1, well/1 are both called 1; name the cases in a column `case`"):
        read_grouping("sex", ["1"], whole, file=file)


def test_ages_are_cut_into_quarters_and_few_numbers_are_not(tmp_path):
    names = [f"c{k:02}" for k in range(12)]
    of = {name: str(20 + 3 * k) for k, name in enumerate(names)}
    found = read_grouping("age", names, whole, columns={"age": of})
    assert [list(found.of.values()).count(group) for group in ("20 to 26", "29 to 35", "38 to 44", "47 to 53")] == [
        3
    ] * 4
    few = {name: str(k % 10) for k, name in enumerate(names)}
    assert read_grouping("age", names, whole, columns={"age": few}).of == few


def test_a_list_of_masks_has_columns(tmp_path):
    for name in ("s1", "s2", "s3"):
        for kind in ("image", "mask"):
            volume = nibabel.Nifti1Image(np.ones((3, 3, 3), np.uint8), np.eye(4))
            nibabel.save(volume, tmp_path / f"{name}_{kind}.nii.gz")
    rows = [
        f"{name}_image.nii.gz,{name}_mask.nii.gz,{name},ann,{group}"
        for name, group in zip(("s1", "s2"), "xy", strict=True)
    ]
    rows.append("s3_image.nii.gz,s3_mask.nii.gz,s3,bob,")
    (tmp_path / "cases.csv").write_text("image,mask,case,patient,Group\n" + "\n".join(rows))
    found = read_dataset(tmp_path / "cases.csv")
    assert found.columns == {"patient": {"s1": "ann", "s2": "ann", "s3": "bob"}, "group": {"s1": "x", "s2": "y"}}
    assert found.patient("s2") == "ann"
    grouping = read_grouping("Group", ["s1", "s2", "s3"], found.patient, columns=found.columns)
    assert (grouping.of, grouping.without) == ({"s1": "x", "s2": "y"}, ("s3",))


def test_a_list_of_classes_has_columns_and_groups_that_are_taken_for_patients_are_refused(tmp_path):
    for name in "abcd":
        Image.fromarray(np.full((4, 4), ord(name), np.uint8)).save(tmp_path / f"{name}.png")
    lines = [f"{name}.png,{label},{site}" for name, label, site in zip("abcd", "0101", "xxyy", strict=True)]
    (tmp_path / "labels.csv").write_text("path,label,group\n" + "\n".join(lines))
    found = read_labelled(tmp_path)
    assert found.columns == {"group": {"a": "x", "b": "x", "c": "y", "d": "y"}}
    with pytest.raises(VptError, match="the data set takes it for the patients, so no group has two; say whose"):
        read_grouping("group", "abcd", found.patient, columns=found.columns)
    (tmp_path / "labels.csv").write_text(
        "path,label,group,patient\n" + "\n".join(f"{each},p{k}" for k, each in enumerate(lines))
    )
    found = read_labelled(tmp_path)
    assert found.patient("b") == "p1"
    assert read_grouping("group", "abcd", found.patient, columns=found.columns).of["d"] == "y"


def test_several_columns_are_several_groupings(tmp_path):
    file = tmp_path / "people.csv"
    file.write_text("case,sex,site\na,f,x\nb,m,\n")
    sex, site = read_groupings("sex, site", ["a", "b"], whole, file=file)
    assert (sex.column, sex.of, sex.without) == ("sex", {"a": "f", "b": "m"}, ())
    assert (site.column, site.of, site.without) == ("site", {"a": "x"}, ("b",))
    assert read_groupings(["site"], ["a", "b"], whole, file=file) == (site,)
    assert read_groupings(None, ["a"], whole) == ()
    file.write_text("case,sex\na,f\nb,F\n")
    with pytest.warns(
        VptWarning, match=r"--by sex: groups 'f' and 'F' may be one, written in 2 ways; write them alike"
    ):
        read_groupings("sex", ["a", "b"], whole, file=file)
    file.write_text("case,sex,site\na,f,x\nb,m,\n")
    for by in ("", "sex,", "sex,Sex", []):
        with pytest.raises(VptError, match="expected names of columns with commas between, each once"):
            read_groupings(by, ["a", "b"], whole, file=file)
    with pytest.raises(VptError, match=r"--by age: .* has the columns sex, site"):
        read_groupings("sex,age", ["a", "b"], whole, file=file)
