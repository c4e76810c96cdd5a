"""Files are found and paired as their owners laid them out, and what does not fit is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from vpt.data.cases import Case, case_name
from vpt.data.layouts import read_dataset, survey
from vpt.data.layouts.description import read_labels
from vpt.data.scans import find_scans
from vpt.errors import VptError
from vpt.words import listed


def edit(root: Path, **changes: object) -> None:
    """Change keys of dataset.json; None removes one."""
    content = json.loads((root / "dataset.json").read_text()) | changes
    kept = {key: value for key, value in content.items() if value is not None}
    (root / "dataset.json").write_text(json.dumps(kept))


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


@pytest.mark.parametrize("layout", ["nnunet", "msd"])
def test_both_layouts_give_the_same_dataset(make_dataset, layout):
    root = make_dataset(layout, cases=3)
    dataset = read_dataset(str(root))
    image = "case_01_0000.nii.gz" if layout == "nnunet" else "case_01.nii.gz"
    assert dataset.channels == ("MR0",)
    assert dataset.labels == {0: "background", 1: "rim", 2: "core"}
    assert [case.name for case in dataset.cases] == ["case_00", "case_01", "case_02"]
    assert dataset.case("case_01") == Case("case_01", (root / "imagesTr" / image,), root / "labelsTr/case_01.nii.gz")


def test_unknown_case_suggests_close_names(make_dataset):
    with pytest.raises(VptError, match=r"no case is called 'case_9'; did you mean case_0"):
        read_dataset(make_dataset()).case("case_9")


def test_channel_files_are_joined_in_order(make_dataset):
    case = read_dataset(make_dataset(channels=3)).cases[0]
    assert [path.name for path in case.images] == [f"case_00_{channel:04d}.nii.gz" for channel in range(3)]


def test_listed_images_may_lie_there_with_channel_suffixes(make_dataset):
    root = make_dataset("nnunet", channels=2)
    names = [f"case_{number:02d}" for number in range(4)]
    edit(root, training=[{"image": f"imagesTr/{n}.nii.gz", "label": f"labelsTr/{n}.nii.gz"} for n in names])
    assert [len(case.images) for case in read_dataset(root).cases] == [2, 2, 2, 2]
    edit(root, training=[f"./imagesTr/{name}_0000.nii.gz" for name in names])
    assert read_dataset(root).case("case_02").label == root / "labelsTr/case_02.nii.gz"


def number_cases(root: Path) -> list[dict[str, str]]:
    """Rename case_00 to scan_0000 and so on, and list them."""
    names = [path.name for path in sorted((root / "labelsTr").iterdir())]
    for folder in ("imagesTr", "labelsTr"):
        for number, name in enumerate(names):
            (root / folder / name).rename(root / folder / f"scan_{number:04d}.nii.gz")
    numbered = [f"scan_{number:04d}.nii.gz" for number in range(len(names))]
    return [{"image": f"imagesTr/{name}", "label": f"labelsTr/{name}"} for name in numbered]


def test_listed_cases_with_numbers_are_not_taken_for_channels(make_dataset):
    root = make_dataset("msd", cases=2, channels=2)
    edit(root, training=number_cases(root))
    assert [(case.name, len(case.images)) for case in read_dataset(root).cases] == [("scan_0000", 1), ("scan_0001", 1)]
    edit(root, modality={"0": "MR"})
    (root / "imagesTr/scan_0001.nii.gz").unlink()
    with pytest.raises(VptError, match=r"scan_0001\.nii\.gz: no such file"):  # and not silently scan_0000
        read_dataset(root)


def test_folder_without_suffixes_and_with_numbered_cases(make_dataset):
    """Files named like their labels carry no suffix, even if they end in four digits."""
    root = make_dataset("msd", cases=2)
    number_cases(root)
    edit(root, training=None)
    dataset = read_dataset(root)
    assert [case.name for case in dataset.cases] == ["scan_0000", "scan_0001"]
    assert dataset.cases[1].images == (root / "imagesTr/scan_0001.nii.gz",)


def test_hidden_files_of_macos_are_no_scans(make_dataset):
    root = make_dataset()
    touch(root / "imagesTr", "._case_00_0000.nii.gz")
    assert len(read_dataset(root).cases) == 4


def test_label_ids_are_sorted_and_need_not_be_consecutive(make_dataset):
    root = make_dataset()
    edit(root, labels={"spleen": 117, "liver": 5})
    assert list(read_dataset(root).labels.items()) == [(0, "background"), (5, "liver"), (117, "spleen")]
    edit(root, labels={"117": "spleen", "0": "air", "5": "liver"})
    assert list(read_dataset(root).labels.items()) == [(0, "air"), (5, "liver"), (117, "spleen")]


def test_labels_alone_are_read_from_a_dataset_json(make_dataset):
    source = make_dataset() / "dataset.json"
    assert read_labels(source) == {0: "background", 1: "rim", 2: "core"}
    source.write_text('{"name": "mine"}')
    assert read_labels(source) is None
    source.write_text('{"labels": {"all": [1, 2], "background": [0, 5], "ignore": 9}}')
    assert read_labels(source) == {0: "background", 1: "all", 2: "all", 5: "background", 9: "ignore"}
    source.write_text('{"labels": {"rim": []}}')
    with pytest.raises(VptError, match="neither id -> name nor name -> id"):
        read_labels(source)


def test_long_lists_are_cut():
    assert [listed(range(number), 3) for number in (0, 1, 3, 5)] == ["", "0", "0, 1, 2", "0, 1, 2 and 2 more"]


@pytest.mark.data
def test_hippocampus_has_230_cases(data_root):
    dataset = read_dataset(data_root / "hippocampus3d")
    assert (len(dataset.cases), dataset.channels) == (230, ("MRI",))
    assert dataset.labels == {0: "background", 1: "Anterior", 2: "Posterior"}
    assert all(case.images[0].name == f"{case.name}.nii.gz" == case.label.name for case in dataset.cases)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"labels": None}, r"dataset\.json: no labels; add \"labels\""),
        ({"labels": {"background": 0}}, "labels hold only the background"),
        (
            {"labels": {"background": 0, "whole": [1, 2], "core": [2]}},
            "label 2 is in whole and in core; give every label one name, or add nnU-Net's `regions_class_order`",
        ),
        ({"labels": {"background": [0, 1], "ignore": 2}}, "labels hold only the background"),
        ({"labels": {"background": 5, "rim": 1, "ignore": 0}}, "`ignore` is 0, which is the background"),
        ({"labels": {"background": 0, "rim": [1, 1]}}, "name the same id twice"),
        ({"labels": {"background": 0, "rim": 1, "core": 1}}, "label 1 is in rim and in core"),
        ({"labels": {"0": "background", "1": "rim", "2": "rim"}}, r"the same name twice; .* merge .*: \[1, 2\]"),
        ({"labels": {"background": 0, "rim": -1}}, "neither id -> name nor name -> id"),
        ({"labels": {"background": 0, "rim": "one"}}, "neither id -> name nor name -> id"),
        ({"channel_names": None}, 'no channels; add "channel_names"'),
        ({"channel_names": {"1": "MR"}}, "numbered from 0 without gaps"),
        ({"file_ending": ".mgz"}, r"file_ending '\.mgz' is not supported; convert"),
        ({"training": {"image": "a"}}, "`training` is not a list"),
        ({"training": [7]}, "training entry 0 is not"),
    ],
)
def test_unusable_dataset_json_is_named_with_the_fix(make_dataset, changes, sentence):
    root = make_dataset()
    edit(root, **changes)
    with pytest.raises(VptError, match=sentence) as caught:
        read_dataset(root)
    assert str(caught.value).startswith(f"{root / 'dataset.json'}: ")


def test_missing_folder_or_json(tmp_path):
    with pytest.raises(VptError, match="nowhere: no such folder"):
        read_dataset(tmp_path / "nowhere")
    with pytest.raises(VptError, match=r"no dataset\.json in this folder; supported are MSD .* and nnU-Net raw"):
        read_dataset(tmp_path)


def test_broken_json_says_where(make_dataset):
    root = make_dataset()
    (root / "dataset.json").write_text('{"labels": {\n  "0": "background"\n  "1": "rim"}}')
    with pytest.raises(VptError, match="not valid JSON at line 3, column 3"):
        read_dataset(root)
    (root / "dataset.json").write_bytes(b'\xff\xfe{"labels": 1}')
    with pytest.raises(VptError, match="cannot be read as UTF-8"):
        read_dataset(root)
    (root / "dataset.json").write_text("[1, 2]")
    with pytest.raises(VptError, match="a list at the top, expected an object"):
        read_dataset(root)


@pytest.mark.parametrize("layout", ["nnunet", "msd"])
def test_image_without_label_and_label_without_image_are_named(make_dataset, layout):
    root = make_dataset(layout)
    suffix = "_0000" if layout == "nnunet" else ""
    label, image = root / "labelsTr/case_01.nii.gz", root / f"imagesTr/case_02{suffix}.nii.gz"
    label.unlink()
    image.unlink()
    without_label = f"imagesTr/case_01{suffix}.nii.gz: an image without a label; add {label}"
    without_image = f"{image}: no such file" if layout == "msd" else "labelsTr/case_02.nii.gz: a label without an image"
    dataset, problems = survey(root)
    assert len(problems) == 2
    assert any(without_label in str(problem) for problem in problems)
    assert any(without_image in str(problem) for problem in problems)
    assert dataset.case("case_01").label is None
    assert [case.name for case in dataset.cases] == ["case_00", "case_01", "case_03"]
    with pytest.raises(VptError, match="1 more of this kind; `vpt check"):
        read_dataset(root)


def test_names_used_twice_are_refused(make_dataset, tmp_path):
    root = make_dataset("msd")
    pair = {"image": "imagesTr/case_00.nii.gz", "label": "labelsTr/case_00.nii.gz"}
    edit(root, training=[pair, pair])
    with pytest.raises(VptError, match="the second case called case_00"):
        read_dataset(root)
    edit(root, training=None)
    for folder in ("imagesTr", "labelsTr"):
        shutil.copy(root / folder / "case_00.nii.gz", root / folder / "case_00.nii")
    messages = " ".join(map(str, survey(root)[1]))
    assert "the second image of case_00" in messages
    assert "the second label of case_00" in messages


def test_missing_channel_is_named(make_dataset):
    root = make_dataset(channels=3)
    (root / "imagesTr/case_02_0001.nii.gz").unlink()
    with pytest.raises(VptError, match="case_02 has the channel files 0000 0002, expected 0000 0001 0002") as caught:
        read_dataset(root)
    assert "more of this kind" not in str(caught.value)  # its label is not reported as well


def test_no_scans_at_all(make_dataset):
    root = make_dataset(cases=0)
    with pytest.raises(VptError, match=r"imagesTr: no scans found"):
        read_dataset(root)


# --- scans to predict -------------------------------------------------------------------------------------------------


def test_one_file_is_one_scan(tmp_path):
    folder = touch(tmp_path, "a_0000.nii.gz", "a_0001.nii.gz", "b.nii")
    assert find_scans(folder / "b.nii", 1) == (Case("b", (folder / "b.nii",), None),)
    assert find_scans(str(folder / "a_0000.nii.gz"), 1)[0].name == "a"
    both = (folder / "a_0000.nii.gz", folder / "a_0001.nii.gz")
    assert find_scans(both[0], 2) == find_scans(both[::-1], 2) == (Case("a", both, None),)


def test_plain_files_in_the_number_of_channels_are_one_scan_in_the_order_given(tmp_path):
    folder = touch(tmp_path, "t2.nii.gz", "flair.nii.gz")
    paths = (folder / "t2.nii.gz", folder / "flair.nii.gz")
    assert find_scans(paths, 2) == (Case("t2", paths, None),)
    assert [case.name for case in find_scans(paths, 1)] == ["flair", "t2"]
    assert len(find_scans(folder, 2)) == 2  # a folder: whole scans, 4-D


def test_folder_is_grouped_by_channels(tmp_path):
    touch(tmp_path, "b_0000.nii.gz", "b_0001.nii.gz", "a_0001.nii.gz", "a_0000.nii.gz", "notes.txt", "._a.nii.gz")
    cases = find_scans(tmp_path, 2)
    assert [(case.name, [path.name for path in case.images]) for case in cases] == [
        ("a", ["a_0000.nii.gz", "a_0001.nii.gz"]),
        ("b", ["b_0000.nii.gz", "b_0001.nii.gz"]),
    ]
    (tmp_path / "b_0001.nii.gz").unlink()
    with pytest.raises(VptError, match="b has the channel files 0000, expected 0000 0001"):
        find_scans(tmp_path, 2)


def test_with_one_channel_a_lone_suffix_is_dropped_but_numbers_are_kept(tmp_path):
    touch(tmp_path, "a_0000.nii.gz", "b.nii.gz", "scan_0000.nii.gz", "scan_0001.nii.gz")
    assert [case.name for case in find_scans(tmp_path, 1)] == ["a", "b", "scan_0000", "scan_0001"]


def test_nothing_found_says_what_is_supported(tmp_path):
    touch(tmp_path / "set" / "imagesTs", "a.nii.gz")
    with pytest.raises(
        VptError,
        match=r"no scans found, supported are \.nii, .*DICOM .*, and images: .*; did you mean .*imagesTs\?",
    ):
        find_scans(tmp_path / "set", 1)
    touch(tmp_path, "a.mgz", "c.nii", "c.nii.gz")
    with pytest.raises(VptError, match=r"a\.mgz: not a supported ending; supported are \.nii, \.nii\.gz, \.nrrd"):
        find_scans(tmp_path / "a.mgz", 1)
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    with pytest.raises(VptError, match="DICOMDIR: lists the DICOM files of a disk, and is no scan; give the folder"):
        find_scans(tmp_path / "DICOMDIR", 1)
    with pytest.raises(VptError, match="gone: no such file or folder"):
        find_scans(tmp_path / "gone", 1)
    with pytest.raises(VptError, match="the second scan called c"):
        find_scans(tmp_path, 1)


def test_case_name_drops_only_the_ending():
    assert [case_name(name) for name in ("a.b.nii.gz", "x/a.NII", "a.txt")] == ["a.b", "a", "a.txt"]
