"""No case is on two sides, whoever decides the sides; what is wrong with a split is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from vpt.data.cases import SegmentationSet
from vpt.data.labelled import LabelledSet
from vpt.data.layouts import read_dataset, read_labelled, survey
from vpt.data.splits import (
    Splits,
    fold_count,
    fold_in_words,
    read_splits,
    source_in_words,
    split_source,
    survey_folds,
    survey_splits,
)
from vpt.errors import VptError


def write_split(root: Path, content: object, name: str = "split.json") -> Path:
    (root / name).write_text(json.dumps(content))
    return root


def test_a_fixed_split_is_honoured_and_folds_are_drawn_over_its_train_and_val(make_dataset):
    split = {"train": ["case_03", "case_01"], "val": ["case_00"], "test": ["case_02"]}
    dataset = read_dataset(write_split(make_dataset(), split))
    assert read_splits(dataset).to_dict() == split
    assert fold_in_words(dataset, None, None, read_splits(dataset)) == ""
    folds = [read_splits(dataset, fold) for fold in range(fold_count(dataset))]
    assert sorted(each.val for each in folds) == [("case_00",), ("case_01",), ("case_03",)]
    assert all(each.test == ("case_02",) and len(each.train) == 2 for each in folds)
    assert fold_in_words(dataset, 1, None, folds[1]) == (
        "fold 1 of 3, drawn by patient over train and val of split.json (its test side, 1 case, stays apart), each "
        "with its share of every label, and of little and much foreground"
    )
    with pytest.raises(VptError, match="there is no fold 3, expected 0 to 2"):
        read_splits(dataset, fold=3)
    with pytest.raises(VptError, match="4 folds of 3 patients"):
        read_splits(dataset, 0, folds=4)


def test_a_fixed_split_needs_no_validation_side_for_folds_but_two_patients(make_dataset):
    dataset = read_dataset(write_split(make_dataset(), {"train": ["case_00", "case_01"], "test": ["case_02"]}))
    assert read_splits(dataset, 0, 2).test == ("case_02",)
    write_split(dataset.root, {"train": ["case_00"], "test": ["case_02"]})
    with pytest.raises(VptError, match=r"1 patient in train and val of split\.json, expected at least 2"):
        read_splits(dataset, 0)
    write_split(dataset.root, {"train": ["case_00", "case_1"], "val": ["case_02"]})
    with pytest.raises(VptError, match="train names 'case_1', which is no case"):
        read_splits(dataset, 0, 2)


def test_folds_of_nnunet(make_dataset):
    folds = [{"train": ["case_00", "case_01"], "val": ["case_02"]}, {"train": ["case_02"], "val": ["case_01"]}]
    dataset = read_dataset(write_split(make_dataset(), folds, "splits_final.json"))
    assert read_splits(dataset) == Splits(("case_00", "case_01"), ("case_02",), ())
    assert read_splits(dataset, fold=1).val == ("case_01",)
    with pytest.raises(VptError, match="there is no fold 2, expected 0 to 1"):
        read_splits(dataset, fold=2)
    write_split(dataset.root, {"train": []}, "splits_final.json")
    with pytest.raises(VptError, match="expected a list of folds"):
        read_splits(dataset)


def test_drawn_folds_validate_every_case_once_and_are_always_the_same(make_dataset):
    dataset = read_dataset(make_dataset(cases=11))
    names = {case.name for case in dataset.cases}
    folds = [read_splits(dataset, fold) for fold in range(5)]
    assert sorted(name for each in folds for name in each.val) == sorted(names)
    assert all(set(each.train) == names - set(each.val) and not each.test for each in folds)
    assert read_splits(dataset, None) == folds[0] == read_splits(dataset, 0)
    with pytest.raises(VptError, match="there is no fold 5, expected 0 to 4"):
        read_splits(dataset, 5)


def test_few_cases_give_few_folds_and_one_gives_none(make_dataset):
    dataset = read_dataset(make_dataset(cases=3))
    assert len(read_splits(dataset, 2).val) == 1
    with pytest.raises(VptError, match="there is no fold 3, expected 0 to 2"):
        read_splits(dataset, 3)
    (dataset.root / "imagesTr/case_00_0000.nii.gz").unlink()
    (dataset.root / "imagesTr/case_01_0000.nii.gz").unlink()
    with pytest.raises(VptError, match=r"cases of 1 patient, expected at least 2"):
        read_splits(survey(dataset.root)[0])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"train": ["case_00"], "val": ["case_00"]}, "case_00 is in train and in val; keep it in one of them"),
        ({"train": ["case_00", "case_00"], "val": ["case_01"]}, "case_00 is listed twice in train"),
        ({"train": ["case_0"], "val": ["case_01"]}, "train names 'case_0', which is no case; did you mean case_0"),
        ({"train": ["case_00"]}, "no case in val; name at least one"),
        ({"train": ["case_00"], "valid": ["case_01"]}, "found 'valid'; did you mean val"),
        ({"train": "case_00", "val": ["case_01"]}, r'expected \{"train": \[names\]'),
    ],
)
def test_wrong_split_is_named_with_the_fix(make_dataset, content, sentence):
    dataset = read_dataset(write_split(make_dataset(), content))
    with pytest.raises(VptError, match=sentence) as caught:
        read_splits(dataset)
    assert str(caught.value).startswith(f"{dataset.root / 'split.json'}: ")


def test_all_split_problems_are_collected(make_dataset):
    content = {"train": ["case_00", "x"], "val": ["case_00"], "test": ["case_00"]}
    dataset = read_dataset(write_split(make_dataset(), content))
    assert len(survey_splits(dataset)[1]) == 3
    with pytest.raises(VptError, match="2 more of this kind"):
        read_splits(dataset)


@pytest.mark.data
def test_hippocampus_has_a_fixed_split(data_root):
    splits = read_splits(read_dataset(data_root / "hippocampus3d"))
    assert (len(splits.train), len(splits.val), len(splits.test)) == (182, 26, 22)


# --- patients ---------------------------------------------------------------------------------------------------------


def with_patients(dataset: SegmentationSet, names: dict[str, str]) -> SegmentationSet:
    """The data set with its cases renamed."""
    cases = tuple(replace(case, name=names[case.name]) for case in dataset.cases)
    return replace(dataset, cases=cases)


def test_a_patient_of_two_scans_is_on_one_side_of_every_fold(make_dataset):
    dataset = read_dataset(make_dataset(cases=10))
    names = [f"patient{k // 2:03d}_frame{k % 2 + 1:02d}" for k in range(10)]
    dataset = with_patients(dataset, dict(zip((case.name for case in dataset.cases), names, strict=True)))
    for fold in range(5):
        splits = read_splits(dataset, fold)
        assert len(splits.val) == 2
        assert not {dataset.patient(name) for name in splits.val} & {dataset.patient(name) for name in splits.train}


def test_a_fixed_split_that_parts_a_patient_is_refused(make_dataset):
    root = write_split(make_dataset(), {"train": ["case_03", "case_01"], "val": ["case_00"], "test": ["case_02"]})
    content = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps(content | {"patients": {"case_03": "Ann", "case_00": "Ann"}}))
    with pytest.raises(VptError, match=r"case_03 in train and case_00 in val are one patient's \(Ann\)"):
        read_splits(read_dataset(root))


# --- labelled sets ----------------------------------------------------------------------------------------------------


def labelled(root: Path, *lines: str, header: str = "path,label,split,patient") -> LabelledSet:
    root.mkdir(exist_ok=True)
    (root / "labels.csv").write_text("\n".join([header, *lines]))
    for line in lines:
        Image.new("L", (4, 4)).save(root / line.split(",")[0])
    return read_labelled(root)


def test_a_split_may_name_the_files_of_class_folders(tmp_path):
    for name in ("cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / name)
    write_split(tmp_path, {"train": ["cat/a.png", "dog/c"], "val": ["cat/b.png"], "test": ["dog/d.png"]})
    found = read_labelled(tmp_path)
    assert read_splits(found) == Splits(("cat/a", "dog/c"), ("cat/b",), ("dog/d",))
    write_split(tmp_path, {"train": ["cat/a.png", "dog/a.png"], "val": ["cat/b.png"]})
    with pytest.raises(VptError, match=r"train names 'dog/a\.png', which is no case"):
        read_splits(found)


def test_the_sides_of_a_csv_are_honoured_after_split_json(tmp_path):
    lines = ("a.png,x,train,1", "b.png,y,val,2", "c.png,x,test,3", "d.png,y,,4", "e.png,y,train,1")
    found = labelled(tmp_path / "set", *lines)
    assert (fold_count(found), split_source(found)) == (2, "labels.csv")
    assert read_splits(found) == Splits(("a", "e"), ("b",), ("c",))
    assert [read_splits(found, fold).test for fold in range(2)] == [("c",)] * 2
    assert sorted(name for fold in range(2) for name in read_splits(found, fold).val) == ["a", "b", "e"]
    write_split(found.root, {"train": ["d"], "val": ["c"]})
    assert read_splits(found).train == ("d",)
    with pytest.raises(VptError, match=r"labels\.csv: no case in train; name at least one"):
        read_splits(labelled(tmp_path / "two", "a.png,x,val,1", "b.png,y,test,2"))
    parted = replace(found, root=tmp_path, patients={"a": "Ann", "b": "Ann"})
    with pytest.raises(VptError, match=r"labels\.csv: a in train and b in val are one patient's \(Ann\)"):
        read_splits(parted)


def test_a_set_of_train_and_test_is_surveyed_by_the_folds_that_training_has(tmp_path):
    lines = [f"i{k:02d}.png,{'ab'[k % 2]},{'train' if k < 10 else 'test'}" for k in range(15)]
    found = labelled(tmp_path, *lines, header="path,label,split")
    folds, problems = survey_folds(found)
    assert (len(folds), problems) == (fold_count(found), [])
    assert [read_splits(found, fold) for fold in range(len(folds))] == folds
    assert source_in_words(found, folds) == "fold 0 of 5, labels.csv"
    assert fold_in_words(found, None, None, folds[0]).startswith("fold 0 of 5, drawn by patient over train and val of")


def test_drawn_folds_hold_each_class_in_proportion_and_whole_patients(tmp_path):
    lines = [f"i{k:02d}.png,{'rare' if k < 10 else 'often'},p{k // 2}" for k in range(50)]
    found = labelled(tmp_path, *lines, header="path,label,patient")
    folds, problems = survey_folds(found)
    assert (len(folds), problems, split_source(found)) == (
        5,
        [],
        "drawn by patient, each with its share of every class",
    )
    for splits in folds:
        assert [found.case(name).target for name in splits.val].count((1,)) == 2
        assert (len(splits.val), len(splits.train), splits.test) == (10, 40, ())
        assert not {found.patient(name) for name in splits.val} & {found.patient(name) for name in splits.train}
    assert sorted(name for each in folds for name in each.val) == [case.name for case in found.cases]
    assert read_splits(read_labelled(tmp_path), 3) == folds[3]


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("caltech101_vtab", (800, 199, 990)),
        ("cifar10_1k", (800, 200, 1000)),
        ("cxr_pneumonia", (929, 133, 264)),
        ("brain_tumor_mri4", (896, 128, 256)),
        ("busi", (534, 77, 151)),
    ],
)
def test_labelled_sets_with_a_fixed_split(data_root, name, counts):
    splits = read_splits(read_labelled(data_root / name))
    assert (len(splits.train), len(splits.val), len(splits.test)) == counts


def test_a_split_that_is_a_link_to_nothing_is_no_other_split(make_dataset) -> None:
    """Data sets of git-annex or DVC, of which the files were not fetched."""
    root = make_dataset()
    (root / "split.json").symlink_to("../.git/annex/objects/split.json")
    with pytest.raises(VptError, match=r"split\.json: a link to what is not there, expected a file"):
        read_splits(read_dataset(root))


def test_of_a_train_and_a_test_side_alone_a_fold_of_train_validates(tmp_path):
    lines = [f"i{k:02d}.png,{'xy'[k % 2]},{'test' if k > 19 else 'train'},p{k // 2}" for k in range(24)]
    found = labelled(tmp_path, *lines)
    sides = read_splits(found)
    assert sides == read_splits(found, 0)
    assert (len(sides.train), len(sides.val), sides.test) == (16, 4, ("i20", "i21", "i22", "i23"))
    assert fold_in_words(found, None, None, sides).startswith(
        "fold 0 of 5, drawn by patient over train and val of labels"
    )
    write_split(found.root, {"train": ["i00"], "test": ["i23"]})  # who writes a split says who validates
    with pytest.raises(VptError, match=r"split\.json: no case in val; name at least one"):
        read_splits(found)
