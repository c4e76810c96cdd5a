"""Labels are merged, dropped and ignored as a dataset.json or `data.labels` says, and every slip in it is told."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scans import label_map_of

from vpt.data.check import check_dataset
from vpt.data.label_maps import positions, read_label
from vpt.data.label_values import IGNORED, LabelValues
from vpt.data.layouts import read_dataset
from vpt.data.layouts.description import labels_of
from vpt.data.slices.cached_slices import prepare_cases
from vpt.data.thumbnails import thumbnail
from vpt.errors import VptError
from vpt.progress import silent
from vpt.readers import Relabelled, reader_of

ORGANS = LabelValues({0: "background", 1: "left", 2: "right", 5: "liver", 255: "cut"})


def test_values_of_one_name_are_one_label_with_the_lowest_of_them_as_id():
    read = ORGANS.read_as({"lung": [2, 1], "background": 5, "ignore": "cut"}, "here")
    assert read.labels == {0: "background", 1: "lung"}
    assert read.ids == ((0, 0), (1, 1), (2, 1), (5, 0), (255, 255))
    assert read.ignored == 255
    assert str(read) == "5 is background; 1, 2 are lung (1); 255 is ignored"
    assert not read.is_plain


def test_what_is_not_named_keeps_its_name_and_others_are_all_that_is_not_named():
    assert ORGANS.read_as({"lung": ["left", "right"]}, "here").labels == {
        0: "background",
        1: "lung",
        5: "liver",
        255: "cut",
    }
    assert ORGANS.read_as({"liver": 5, "background": "others"}, "here").labels == {0: "background", 5: "liver"}
    read = ORGANS.read_as({"liver": "liver", "ignore": "others"}, "here")
    assert (read.labels, read.ignored) == ({0: "background", 5: "liver"}, 1)
    assert dict(read.ids) == {0: 0, 1: 1, 2: 1, 5: 5, 255: 1}


def test_labels_of_their_own_are_left_as_they_are():
    assert ORGANS.is_plain
    assert ORGANS.ids == tuple((value, value) for value in ORGANS.names)
    assert str(ORGANS) == ""


@pytest.mark.parametrize(
    ("claims", "sentence"),
    [
        (
            {"lung": [1, 9]},
            "here: lung names 9, which the files do not hold; they hold 0 (background), 1 (left), 2 (right)",
        ),
        ({"lung": [1, 2], "all": [2, 5]}, "here: lung and all both name 2; every value is one label"),
        ({"lung": [1], "right": [5]}, "here: 2 is called right too; name it as well to merge both"),
        ({"lung": [0, 1]}, "here: lung names 0, which is the background"),
        ({"ignore": 0}, "here: ignore names 0, which is the background"),
        ({"background": [1, 2, 5, 255]}, "here: no label is left, all is background or ignored"),
        ({"background": 1, "ignore": "others"}, "here: no label is left"),
        ({"background": "others", "ignore": "others"}, "here: background, ignore are all `others`"),
        ({"Background": 1}, "'Background' would be a label like others; write `background`"),
        ({"IGNORE": 2}, "'IGNORE' would be a label like others; write `ignore`"),
        ({" ignore": 2}, "' ignore' would be a label like others; write `ignore`"),
        ({"": 1}, "a label without a name"),
        ({"lung": []}, "lung names no value"),
    ],
)
def test_slips_are_told_with_what_the_files_hold(claims, sentence):
    with pytest.raises(VptError, match=re.escape(sentence)):
        ORGANS.read_as(claims, "here")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([0, 1, 2, 7, 300, 2**31]), min_size=1, max_size=12))
def test_classes_are_places_of_ids_whatever_their_size_and_the_ignored_is_its_own(values):
    ids = (0, 2, 300, 2**31) if 2**31 in values else (0, 1, 2, 300)
    of = {id: place for place, id in enumerate(ids)} | {7: IGNORED}
    array = np.array([value for value in values if value in of] or [0], np.int64)[:, None, None]
    assert positions(array, ids, 7).ravel().tolist() == [of[int(id)] for id in array.ravel()]


def test_ignored_labels_are_background_where_they_must_count_as_something():
    label = label_map_of(np.array([[[0, 1, 9]]], np.uint8))
    assert label.counted is label.array
    ignoring = type(label)(label.array, label.ids, label.grid, label.name, 9)
    assert ignoring.oriented("LPS").counted.tolist() == [[[0, 1, 0]]]
    assert ignoring.counted.dtype == np.uint8


# --- data sets --------------------------------------------------------------------------------------------------------


@pytest.fixture
def dataset(make_dataset):
    """Four cases of rim 1 and core 2; in the first a slab of 4 and one of 7."""
    import nibabel as nib

    root = make_dataset()
    path = root / "labelsTr/case_00.nii.gz"
    image = nib.load(path)
    array = np.asarray(image.dataobj).copy()
    array[:, :, 0], array[:, :, 5] = 4, 7
    nib.save(nib.Nifti1Image(array, image.affine), path)
    described(root, {"background": 0, "rim": 1, "core": 2, "bed": 4, "blur": 7})
    return root


def described(root, labels) -> None:
    source = root / "dataset.json"
    source.write_text(json.dumps(json.loads(source.read_text()) | {"labels": labels}))


def label_of(dataset, case: str = "case_00") -> np.ndarray:
    return read_label(dataset.case(case).label, dataset.labels, None, case).array


MERGED = {"background": [0, 4], "tumour": [1, 2], "ignore": 7}


def test_a_dataset_json_and_the_config_say_the_same(dataset):
    by_config = read_dataset(dataset, labels={"background": 4, "tumour": ["rim", "core"], "ignore": "blur"})
    described(dataset, MERGED)
    by_json = read_dataset(dataset)
    assert by_config.labels == by_json.labels == {0: "background", 1: "tumour"}
    assert by_config.ignores
    assert by_json.ignores
    stored = reader_of(dataset / "labelsTr/case_00.nii.gz").labels().array
    expected = np.select([stored == 7, np.isin(stored, (1, 2))], [7, 1])
    assert np.array_equal(label_of(by_config), expected)
    assert np.array_equal(label_of(by_json), expected)


def test_a_data_set_without_a_map_is_as_it_was(dataset):
    found = read_dataset(dataset)
    assert found.label_values is None
    assert not found.ignores
    assert not any(isinstance(case.label, Relabelled) for case in found.cases)


def test_cached_classes_leave_out_what_is_ignored(dataset, tmp_path):
    from plans import plan_with

    described(dataset, MERGED)
    found = read_dataset(dataset)
    plan = plan_with(channels=("MR0",), pixel_mm=None)
    first, second = prepare_cases(found, found.cases[:2], plan, tmp_path / "cache", silent, native=True)
    assert first.foreground == second.foreground
    _, labels = first.read()
    native = np.load(first.native)
    assert set(np.unique(labels)) == set(np.unique(native)) == {IGNORED, 0, 1}
    assert np.count_nonzero(native == IGNORED) == 120
    assert np.unique(second.read()[1]).tolist() == [0, 1]


def test_a_file_value_that_the_map_does_not_name_is_told_with_those_that_it_does(dataset):
    described(dataset, {"background": 0, "tumour": [1, 2], "ignore": 7})
    with pytest.raises(VptError, match=r"case_00\.nii\.gz: label 4 not in 0, 1, 2, 7; add it to `labels`"):
        label_of(read_dataset(dataset))


def test_check_says_the_map_in_one_line_and_what_is_in_no_file(dataset):
    described(dataset, MERGED | {"tumour": [1, 2, 3]})
    check = check_dataset(dataset)
    assert check.ok
    assert ("label values", "4 is background; 1, 2, 3 are tumour (1); 7 is ignored") in check.facts()
    assert check.to_dict()["label_values"].startswith("4 is background")
    assert [(label.name, label.cases, label.voxels) for label in check.labels] == [("tumour", 4, 4 * 100)]
    assert [str(problem) for problem in check.problems] == [
        "warning: dataset.json: label 3 (tumour) is in no file, they hold 0, 1, 2, 4, 7; correct `labels`"
    ]


def test_masks_of_images_and_labels_in_a_file_each_are_merged_too(make_images, save, tmp_path):
    root = make_images()
    (root / "dataset.json").write_text(json.dumps({"labels": {"polyp": [255, 128]}}))
    merged = read_dataset(root)
    assert merged.labels == {0: "background", 128: "polyp"}
    assert np.unique(label_of(merged, merged.cases[0].name)).tolist() == [0, 128]
    assert thumbnail(merged.cases[0].images, 1, merged.cases[0].label, merged.labels)
    assert check_dataset(root).ok
    for case in ("s1", "s2"):
        save(tmp_path / f"parts/{case}/ct.nii.gz", np.random.default_rng(0).normal(0, 9, (8, 8, 4)).astype(np.int16))
        for place, name in enumerate(("left", "right", "liver")):
            mask = np.zeros((8, 8, 4), np.uint8)
            mask[place] = 1
            save(tmp_path / f"parts/{case}/segmentations/{name}.nii.gz", mask)
    parts = read_dataset(tmp_path / "parts", labels={"lungs": ["left", "right"], "background": "others"})
    assert list(parts.labels.values()) == ["background", "lungs"]
    assert np.unique(np.nonzero(label_of(parts, "s1"))[0]).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (
            {"background": 1, "a": 0, "b": 2},
            "0 is always the background, but it is a; write that with an id from 1 on, and the background as 0, here "
            "and in the masks",
        ),
        ({"Background": 1, "a": 2}, "'Background' would be a label like others"),
        ({"background": 0, "a": 1, "Ignore": 2}, "'Ignore' would be a label like others; write `ignore`"),
        ({"0": "background", "1": ""}, "a label without a name"),
    ],
)
def test_names_that_would_be_read_otherwise_than_meant_are_refused(labels, sentence):
    with pytest.raises(VptError, match=re.escape(sentence)):
        labels_of({"labels": labels}, Path("dataset.json"))


def test_the_background_may_be_called_otherwise_where_it_is_0():
    assert labels_of({"labels": {"0": "Background", "1": "a"}}, Path("dataset.json"))[1] == "a"
    assert labels_of({"labels": {"other": 0, "a": 1}}, Path("dataset.json"))[1] == "a"
