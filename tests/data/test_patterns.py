"""Sets of which dataset.json says by patterns which files count: published layouts with more masks than one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from tiny_run import ONE_STEP

from vpt.data.check import check_dataset
from vpt.data.layouts import is_labelled, survey
from vpt.data.layouts.patterns import is_paired
from vpt.data.splits import read_splits
from vpt.engine.run import train
from vpt.errors import VptError
from vpt.readers import reader_of
from vpt.use.evaluation.pairing import pair_masks
from vpt.use.evaluation.scoring import evaluate
from vpt.use.load import load


def put(root: Path, *names: str) -> None:
    """Scans, or masks where a name says so, of volumes and of pictures."""
    for seed, name in enumerate(names):
        path, is_mask = (
            root / name,
            any(
                word in name
                for word in ("seg", "manual", "label", "mask", "HO", ".ah", "Ids", "_gt", "wmh", ".OT.", "lesion")
            ),
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        flat = not name.endswith(".nii.gz")
        array = np.random.default_rng(seed).integers(40, 200, (12, 12, 1 if flat else 4)).astype(np.uint8)
        if is_mask:
            array[:] = 0
            array[2:6, 2 : 5 + seed % 3] = 255 if flat else 1
        Image.fromarray(array[..., 0]).save(path) if flat else nib.save(nib.Nifti1Image(array, np.eye(4)), path)


def say(root: Path, scans: Any, masks: Any, **more: Any) -> Path:
    (root / "dataset.json").write_text(json.dumps({"pairs": {"scans": scans, "masks": masks}, **more}))
    return root


SETS: dict[str, tuple[list[str], Any, Any, list[str], tuple[str, ...]]] = {
    "DRIVE": (
        [
            name
            for side, k in (("training", 1), ("training", 2), ("training", 3), ("test", 4), ("test", 5))
            for name in (
                f"{side}/images/0{k}_{side}.tif",
                f"{side}/mask/0{k}_{side}_mask.gif",
                f"{side}/1st_manual/0{k}_manual1.gif",
            )
        ],
        ["training/images/*_training.tif", "test/images/*_test.tif"],
        "**/1st_manual/*_manual1.gif",
        ["01", "02", "03", "04", "05"],
        ("grey",),
    ),
    "CHASE_DB1": (
        [f"Image_0{k}L{end}" for k in (1, 2, 3) for end in (".jpg", "_1stHO.png", "_2ndHO.png")],
        "*.jpg",
        "*_1stHO.png",
        ["Image_01L", "Image_02L", "Image_03L"],
        ("grey",),
    ),
    "KiTS23": (
        [
            f"dataset/case_0000{k}/{name}.nii.gz"
            for k in (0, 1, 2)
            for name in ("imaging", "segmentation", "instances/tumor_instance-1_annotation-1_seg")
        ],
        "dataset/*/imaging.nii.gz",
        "dataset/*/segmentation.nii.gz",
        ["case_00000", "case_00001", "case_00002"],
        ("image",),
    ),
    "OASIS": (
        [f"S{k}_MR1/{name}.nii.gz" for k in (1, 2, 3) for name in ("norm", "orig", "seg4", "seg35", "aligned_seg35")],
        {"norm": "*/norm.nii.gz", "orig": ["*/orig.nii.gz"]},
        "*/seg35.nii.gz",
        ["S1_MR1", "S2_MR1", "S3_MR1"],
        ("norm", "orig"),
    ),
    "ACDC": (
        [
            f"database/{side}/patient00{k}/patient00{k}_{name}.nii.gz"
            for side, k in (("training", 1), ("training", 2), ("testing", 3))
            for name in ("frame01", "frame01_gt", "frame12", "frame12_gt", "4d")
        ],
        "database/*/*/*_frame*.nii.gz",
        "database/*/*/*_frame*_gt.nii.gz",
        [f"patient00{k}_frame{frame}" for k in (1, 2, 3) for frame in ("01", "12")],
        ("image",),
    ),
    "WMH": (
        [
            f"training/{place}/{name}.nii.gz"
            for place in ("Utrecht/0", "Utrecht/2", "Amsterdam/GE3T/100")
            for name in ("pre/FLAIR", "pre/T1", "orig/FLAIR", "orig/3DT1", "orig/3DT1_mask", "wmh")
        ],
        {"FLAIR": "training/**/*/pre/FLAIR.nii.gz", "T1": "training/**/*/pre/T1.nii.gz"},
        "training/**/*/wmh.nii.gz",
        ["0", "100", "2"],
        ("FLAIR", "T1"),
    ),
    "ISLES 2015": (
        [
            f"SISS2015_Training/{k}/{name}.{k}{at}/{name}.{k}{at}.nii.gz"
            for k in (1, 2, 3)
            for at, name in enumerate(("VSD.Brain.XX.O.MR_DWI", "VSD.Brain.XX.O.MR_T1", "VSD.Brain_3more.XX.XX.OT"))
        ],
        {"DWI": "SISS2015_Training/*/**MR_DWI**.nii.gz", "T1": "SISS2015_Training/*/**MR_T1**.nii.gz"},
        "SISS2015_Training/*/**.OT.**.nii.gz",
        ["1", "2", "3"],
        ("DWI", "T1"),
    ),
    "PH2": (
        [
            f"PH2 Dataset images/IMD00{k}/IMD00{k}_{name}.bmp"
            for k in (2, 3, 4)
            for name in (f"Dermoscopic_Image/IMD00{k}", f"lesion/IMD00{k}_lesion", f"roi/IMD00{k}_R1_Label3")
        ],
        "**/*_Dermoscopic_Image/*.bmp",
        "**/*_lesion/*_lesion.bmp",
        ["IMD002", "IMD003", "IMD004"],
        ("grey",),
    ),
    "Cityscapes": (
        [
            name
            for side, city, k in (("train", "aachen", 1), ("train", "bochum", 2), ("val", "lindau", 3))
            for name in (
                f"leftImg8bit/{side}/{city}/{city}_{k}_leftImg8bit.png",
                f"gtFine/{side}/{city}/{city}_{k}_gtFine_labelIds.png",
                f"gtFine/{side}/{city}/{city}_{k}_gtFine_instanceIds.png",
            )
        ],
        "leftImg8bit/*/*/*_leftImg8bit.png",
        "gtFine/*/*/*_gtFine_labelIds.png",
        ["aachen_1", "bochum_2", "lindau_3"],
        ("grey",),
    ),
}


@pytest.mark.parametrize("called", SETS)
def test_published_sets_are_read_as_they_lie(called, tmp_path):
    files, scans, masks, names, channels = SETS[called]
    put(tmp_path, *files)
    dataset, problems = survey(say(tmp_path, scans, masks))

    assert ([case.name for case in dataset.cases], dataset.channels, problems) == (names, channels, [])
    assert not is_labelled(tmp_path)
    assert not [str(problem) for problem in check_dataset(tmp_path).problems if "not read" in str(problem)]


def test_folders_say_the_sides(tmp_path):
    for called, sides in (("DRIVE", (3, 0, 2)), ("Cityscapes", (2, 1, 0))):
        files, scans, masks, _, _ = SETS[called]
        put(tmp_path / called, *files)
        splits = read_splits(survey(say(tmp_path / called, scans, masks))[0])
        train, val, test = (len(splits.to_dict()[side]) for side in ("train", "val", "test"))
        assert (train + val, test) == (sides[0] + sides[1], sides[2])


@pytest.mark.parametrize(
    ("scans", "masks", "sentence"),
    [
        (
            "*/imagin.nii.gz",
            "*/segmentation.nii.gz",
            r"`pairs` names \*/imagin.nii.gz, which no file fits; files here are",
        ),
        ("*/imaging.nii.gz", "*/*/segmentation.nii.gz", "which no file fits"),
        (
            "case_*/imaging.nii.gz",
            "*/segmentation.nii.gz",
            r"pairs none of the files: `\*` stands for 0 in the first scan",
        ),
        ("**/imaging.nii.gz", "*/segmentation.nii.gz", r"for one case \(no \*\)"),
        ([], "*/segmentation.nii.gz", "`pairs` is not understood; expected"),
        ("*/imaging.nii.gz", 3, "`pairs` is not understood"),
        ({}, "*/segmentation.nii.gz", "`pairs` is not understood"),
    ],
)
def test_what_pairs_nothing_is_one_sentence(scans, masks, sentence, tmp_path):
    put(tmp_path, *(f"case_{k}/{name}.nii.gz" for k in (0, 1) for name in ("imaging", "segmentation")))

    with pytest.raises(VptError, match=sentence):
        survey(say(tmp_path, scans, masks))


def test_names_keep_what_lies_between_two_stars_and_says_whose_they_are(tmp_path):
    """`pat1_s1` and `pat1_s2` are of one patient, which 1 and 2, and pat1_1 and pat1_2, would not be."""
    for kind in ("im", "seg"):
        put(tmp_path, *(f"{kind}/pat{n // 2}_s{n}.nii.gz" for n in range(2, 8)))

    dataset, problems = survey(say(tmp_path, "im/*_s*.nii.gz", "seg/*_s*.nii.gz"))

    assert not problems
    assert [(case.name, dataset.patient(case.name)) for case in dataset.cases[:3]] == [
        ("pat1_s2", "pat1"),
        ("pat1_s3", "pat1"),
        ("pat2_s4", "pat2"),
    ]


@pytest.mark.parametrize(
    ("folders", "scans", "sentence"),
    [
        (["1"], "1/im.nii.gz", "`pairs` has no `*`, or it stands for nothing"),
        (["a/b_c", "a_b/c", "a/c"], "*/*/im.nii.gz", "`pairs` calls two cases a_b_c; rename"),
    ],
)
def test_cases_without_a_name_of_their_own_are_refused(folders, scans, sentence, tmp_path):
    put(tmp_path, *(f"{folder}/{kind}.nii.gz" for folder in folders for kind in ("im", "seg")))

    with pytest.raises(VptError, match=re.escape(sentence)):
        survey(say(tmp_path, scans, scans.replace("im", "seg")))


def test_what_lacks_is_one_error_of_its_kind(tmp_path):
    put(tmp_path, *(f"case_{k}/imaging.nii.gz" for k in range(4)), *(f"case_{k}/seg.nii.gz" for k in (0, 1, 5)))

    dataset, problems = survey(say(tmp_path, "*/imaging.nii.gz", "*/seg.nii.gz"))

    assert [case.name for case in dataset.cases] == ["case_0", "case_1"]
    assert [str(each).partition(": ")[2] for each in problems] == [
        "no scan by `pairs`; add what lacks, or name fewer by the patterns",
        "no mask by `pairs` and 1 other; add what lacks, or name fewer by the patterns, or leave them out with "
        '"unlabelled": "leave out" in `pairs`',
    ]


def test_many_masks_that_no_scan_has_are_one_error_with_the_way_out(tmp_path):
    files, *_ = SETS["DRIVE"]
    put(tmp_path, *files)

    _, problems = survey(tmp_path)

    (text,) = [str(problem) for problem in problems]
    assert "a mask without a scan by its name, and so are 4 others" in text
    assert 'say in dataset.json which files count: "pairs": {"scans": ' in text


def test_numbered_scans_and_masks_in_one_folder_of_many_are_paired(tmp_path):
    """BTCV, given from above."""
    names = [f"RawData/Training/{kind}/{kind}000{k}.nii.gz" for kind in ("img", "label") for k in (1, 2, 3)]
    put(tmp_path, *names)

    dataset, problems = survey(tmp_path)

    assert ([case.name for case in dataset.cases], problems) == (["img0001", "img0002", "img0003"], [])


@pytest.mark.parametrize(
    ("called", "predictions"),
    [
        ("DRIVE", ["04_test.png", "05_test.png"]),
        ("DRIVE", ["01.png", "05_mask.png"]),
        ("KiTS23", ["case_00000/imaging.nii.gz", "case_00002/imaging.nii.gz"]),
        ("KiTS23", ["dataset/case_00000/imaging.nii.gz", "case_00001.nii.gz"]),
        ("Cityscapes", ["lindau/lindau_3_leftImg8bit.png", "bochum/bochum_2_leftImg8bit.png"]),
    ],
)
def test_predictions_find_the_masks_that_count(called, predictions, tmp_path):
    files, scans, masks, names, _ = SETS[called]
    put(tmp_path / "set", *files)
    put(tmp_path / "pred", *predictions)

    matched = pair_masks(tmp_path / "pred", say(tmp_path / "set", scans, masks))

    assert len(matched.pairs) == 2
    assert {pair.case for pair in matched.pairs} <= {*names}
    own = {pair.case: pair.prediction.shown for pair in matched.pairs}
    assert all(case.split("_")[-1] in shown for case, shown in own.items())
    assert {*matched.missing} == {*names} - {*own}


def test_predictions_that_may_be_of_several_cases_are_refused(tmp_path):
    files, scans, masks, _, _ = SETS["KiTS23"]
    put(tmp_path / "set", *files)
    put(tmp_path / "pred", "imaging.nii.gz")

    with pytest.raises(VptError, match=r"no reference for imaging in .*; files are paired by the names of cases"):
        pair_masks(tmp_path / "pred", say(tmp_path / "set", scans, masks))


def test_a_damaged_dataset_json_beside_references_pairs_nothing(tmp_path):
    put(tmp_path / "set", "a_seg.nii.gz")
    put(tmp_path / "pred", "a.nii.gz")
    (tmp_path / "set" / "dataset.json").write_text("{")

    assert [pair.case for pair in pair_masks(tmp_path / "pred", tmp_path / "set").pairs] == ["a"]


def test_a_list_of_pairs_is_of_another_kind_of_set(tmp_path):
    """Registration's sets list `pairs` of images; what else the folder holds is read as without."""
    put(tmp_path, "p1/ct.nii.gz", "p1/seg.nii.gz", "p2/ct.nii.gz", "p2/seg.nii.gz")
    (tmp_path / "dataset.json").write_text(json.dumps({"pairs": [{"fixed": "p1", "moving": "p2"}]}))

    assert not is_paired(tmp_path)


# --- a file for each label --------------------------------------------------------------------------------------------

BY_LABEL: dict[str, tuple[list[str], Any, dict[str, Any], list[str], list[str]]] = {
    "IDRiD": (
        [
            name
            for side, k in (("a. Training Set", 1), ("a. Training Set", 2), ("b. Testing Set", 55))
            for name in (
                f"1. Original Images/{side}/IDRiD_{k:02}.jpg",
                *(
                    f"2. All Segmentation Groundtruths/{side}/{folder}/IDRiD_{k:02}_{word}_mask.tif"
                    for folder, word in (("1. Microaneurysms", "MA"), ("2. Haemorrhages", "HE"))
                ),
            )
        ],
        "1. Original Images/*/*.jpg",
        {
            "microaneurysm": "2. All Segmentation Groundtruths/*/1. Microaneurysms/*_MA_mask.tif",
            "haemorrhage": "2. All Segmentation Groundtruths/*/2. Haemorrhages/*_HE_mask.tif",
        },
        ["IDRiD_01", "IDRiD_02", "IDRiD_55"],
        ["background", "haemorrhage", "microaneurysm"],
    ),
    "Montgomery": (
        [
            f"MontgomerySet/{folder}/MCUCXR_000{k}_0.png"
            for k in (1, 2)
            for folder in ("CXR_png", "ManualMask/leftMask_mask", "ManualMask/rightMask_mask")
        ],
        "MontgomerySet/CXR_png/*.png",
        {"left": "MontgomerySet/ManualMask/leftMask_mask/*.png", "right": ["**/rightMask_mask/*.png"]},
        ["MCUCXR_0001_0", "MCUCXR_0002_0"],
        ["background", "left", "right"],
    ),
    "volumes": (
        [f"s{k}/{name}.nii.gz" for k in (1, 2) for name in ("ct", "liver_seg", "spleen_seg", "liver_seg_2")],
        "*/ct.nii.gz",
        {"spleen": "*/spleen_seg.nii.gz", "liver": "*/liver_seg.nii.gz"},
        ["s1", "s2"],
        ["background", "liver", "spleen"],
    ),
}


def put_by_label(root: Path, called: str) -> Path:
    """The set of that name, whose labels lie beside each other."""
    files, scans, masks, *_ = BY_LABEL[called]
    put(root, *files)
    for name in files:
        word = next((at for at, each in enumerate(("HE", "right", "spleen")) if each in name), None)
        if word is not None and name.endswith(".nii.gz"):
            array = np.zeros((12, 12, 4), np.uint8)
            array[7:10, 2:5] = 1
            nib.save(nib.Nifti1Image(array, np.eye(4)), root / name)
        elif word is not None:
            array = np.zeros((12, 12), np.uint8)
            array[7:10, 2:5] = 255
            Image.fromarray(array).save(root / name)
    return say(root, scans, masks)


@pytest.mark.parametrize("called", BY_LABEL)
def test_a_file_for_each_label_is_one_label_map(called, tmp_path):
    *_, names, labels = BY_LABEL[called]
    dataset, problems = survey(put_by_label(tmp_path, called))

    assert ([case.name for case in dataset.cases], [*dataset.labels.values()], problems) == (names, labels, [])
    for case in dataset.cases:
        assert reader_of(case.label).labels().ids == (0, 1, 2)
    assert not check_dataset(tmp_path).errors
    sides = read_splits(dataset).to_dict()
    assert ("IDRiD_55" in sides["test"]) is (called == "IDRiD")


def test_labels_of_dataset_json_number_the_files(tmp_path):
    put_by_label(tmp_path, "volumes")
    _, scans, masks, *_ = BY_LABEL["volumes"]
    say(tmp_path, scans, masks, labels={"background": 0, "Liver": 7, "spleen": 2})

    dataset, problems = survey(tmp_path)

    assert (dataset.labels, problems) == ({0: "background", 2: "spleen", 7: "Liver"}, [])
    assert reader_of(dataset.cases[0].label).labels().ids == (0, 2, 7)


def test_a_label_that_a_case_has_no_file_of_is_told_once_until_dataset_json_says_what_that_means(tmp_path):
    put_by_label(tmp_path, "IDRiD")
    _, scans, masks, names, _ = BY_LABEL["IDRiD"]
    for path in [*tmp_path.rglob("IDRiD_01_HE*"), *tmp_path.rglob("IDRiD_55_HE*")]:
        path.unlink()

    (problem,) = (str(each) for each in survey(tmp_path)[1])
    assert "IDRiD_01 has masks of microaneurysm, but none of haemorrhage, which other cases have" in problem
    assert 'or of 2 cases that lack one say "missing": "absent" in `pairs`' in problem

    pairs = {"scans": scans, "masks": masks}
    (tmp_path / "dataset.json").write_text(json.dumps({"pairs": pairs | {"missing": "absent"}}))
    dataset, problems = survey(tmp_path)
    assert ([case.name for case in dataset.cases], problems) == (names, [])
    assert [reader_of(case.label).labels().ids for case in dataset.cases] == [(0, 2), (0, 1, 2), (0, 2)]
    assert all(case.annotated is None for case in dataset.cases)

    looked_for = {"IDRiD_01": ["microaneurysm"], "IDRiD_55": "all"}
    (tmp_path / "dataset.json").write_text(json.dumps({"pairs": pairs, "annotated": looked_for}))
    dataset, problems = survey(tmp_path)
    assert ([case.annotated for case in dataset.cases], problems) == ([{2}, None, None], [])


def test_a_case_without_any_of_its_masks_is_one_without_a_mask(tmp_path):
    put_by_label(tmp_path, "IDRiD")
    _, scans, masks, *_ = BY_LABEL["IDRiD"]
    for path in tmp_path.rglob("IDRiD_01_*"):
        path.unlink()
    (tmp_path / "dataset.json").write_text(json.dumps({"pairs": {"scans": scans, "masks": masks, "missing": "absent"}}))

    dataset, (problem,) = survey(tmp_path)

    assert [case.name for case in dataset.cases] == ["IDRiD_02", "IDRiD_55"]
    assert "IDRiD_01.jpg: no mask by `pairs`; add what lacks" in str(problem)


def test_labels_that_overlap_are_told(tmp_path):
    files, scans, masks, *_ = BY_LABEL["volumes"]
    put(tmp_path, *files)

    (told, *_) = check_dataset(say(tmp_path, scans, masks)).errors
    assert re.search(r"\d+ of its voxels are in liver_seg.nii.gz too", str(told))


def test_labels_that_overlap_in_files_of_one_name_are_told_by_their_folders(tmp_path):
    put(tmp_path, "scans/c.png", "mask_a/c.png", "mask_b/c.png")
    say(tmp_path, "scans/*.png", {"a": "mask_a/*.png", "b": "mask_b/*.png"})

    told = map(str, check_dataset(tmp_path).errors)
    assert any(re.search(r"mask_b/c.png: \d+ of its voxels are in .*mask_a/c.png too", text) for text in told)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"masks": {"a": "*/*_seg.nii.gz", "b": "*/*_seg.nii.gz"}}, "pairs` names .* as a mask of a and of b; give"),
        ({"masks": {"a": "*/*_seg.nii.gz", "b": "*/*_seg.nii.gz"}}, "pairs` names s1/liver_seg.nii.gz as a mask"),
        ({"masks": {"background": "*/liver_seg.nii.gz"}}, "`pairs` names masks of background; expected those of label"),
        ({"masks": {"": ["*/liver_seg.nii.gz", 3]}}, "`pairs` is not understood"),
        ({"masks": {}}, "`pairs` is not understood"),
        ({"masks": {"": "*/liver_seg.nii.gz", "b": "*/tumour_seg.nii.gz"}}, "`pairs` is not understood"),
        ({"masks": {"Ignore": "*/liver_seg.nii.gz"}}, "'Ignore' would be a label like others"),
        ({"masks": {"a": "*/lver_seg.nii.gz"}}, "which no file fits"),
        ({"missing": "empty"}, "`missing` is 'empty' in `pairs`; expected \"absent\", or take it out"),
        ({"masks": "*/liver_seg.nii.gz", "missing": "absent"}, "`missing` in `pairs` is of masks of a file for each"),
        ({"unlabelled": True}, '`unlabelled` is True in `pairs`; expected "leave out", or take it out'),
        ({"unlabeled": "leave out"}, "nothing reads `unlabeled` in `pairs`; did you mean unlabelled"),
        ({"images": "*"}, "nothing reads `images` in `pairs`; there are scans, masks, unlabelled, missing"),
    ],
)
def test_what_pairs_says_of_labels_and_is_not_understood_is_one_sentence(changes, sentence, tmp_path):
    files, scans, masks, *_ = BY_LABEL["volumes"]
    put(tmp_path, *files)
    (tmp_path / "dataset.json").write_text(json.dumps({"pairs": {"scans": scans, "masks": masks, **changes}}))

    with pytest.raises(VptError, match=sentence):
        survey(tmp_path)


def test_predictions_are_scored_against_files_of_a_label_each(tmp_path):
    put_by_label(tmp_path / "set", "volumes")
    dataset, _ = survey(tmp_path / "set")
    (tmp_path / "pred").mkdir()
    for case in dataset.cases:
        array = reader_of(case.label).labels().array
        nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "pred" / f"{case.name}.nii.gz")

    report = evaluate(tmp_path / "pred", tmp_path / "set")

    assert dict(report.labels) == {1: "liver", 2: "spleen"}
    assert report.mean("Dice") == 1.0


@pytest.mark.slow
def test_a_set_of_a_file_for_each_label_trains_and_is_predicted(tmp_path):
    """Four radiographs with two lungs, of which one case has only the left."""
    root, shades = tmp_path / "set", np.random.default_rng(0)
    for k in range(6):
        image = shades.integers(90, 130, (32, 32)).astype(np.uint8)
        for at, side in ((4, "left"), (18, "right")):
            mask = np.zeros((32, 32), np.uint8)
            mask[6:26, at : at + 10] = 255
            image[mask > 0] //= 3
            (root / "masks" / side).mkdir(parents=True, exist_ok=True)
            if (k, side) != (0, "right"):
                Image.fromarray(mask).save(root / "masks" / side / f"p{k}.png")
        (root / "cxr").mkdir(exist_ok=True)
        Image.fromarray(image).save(root / "cxr" / f"p{k}.png")
    Image.fromarray(image).save(root / "cxr" / "p9.png")
    pairs = {"scans": "cxr/*.png", "masks": {"left": "masks/left/*.png", "right": "masks/right/*.png"}}
    more = {"unlabelled": "leave out", "missing": "absent"}
    (root / "dataset.json").write_text(json.dumps({"pairs": pairs | more}))

    run = train(root, tmp_path / "run", overrides=ONE_STEP)
    mask = load(run, device="cpu").segment(root / "cxr" / "p9.png")

    assert "left out, as it says: 1 case without a mask (p9)" in (run / "train.log").read_text()
    assert json.loads((run / "validation" / "summary.json").read_text())["metric_per_case"]
    assert {*np.unique(np.asarray(mask))} <= {0, 1, 2}


# --- scans without a mask ---------------------------------------------------------------------------------------------


def test_scans_without_a_mask_are_left_out_where_dataset_json_says_so_and_that_is_told(tmp_path):
    put(tmp_path, *(f"case_{k}/imaging.nii.gz" for k in range(6)), *(f"case_{k}/seg.nii.gz" for k in (0, 1)))
    pairs = {"scans": "*/imaging.nii.gz", "masks": "*/seg.nii.gz", "unlabelled": "leave out"}
    (tmp_path / "dataset.json").write_text(json.dumps({"pairs": pairs}))

    dataset, problems = survey(tmp_path)

    assert ([case.name for case in dataset.cases], problems) == (["case_0", "case_1"], [])
    assert dataset.guess == (
        "paired by dataset.json; left out, as it says: 4 cases without a mask (case_2, case_3, case_4 and 1 more)"
    )
    put(tmp_path, "case_7/seg.nii.gz")
    assert "no scan by `pairs`" in str(survey(tmp_path)[1][0])  # of that nothing is said


def test_where_every_scan_has_a_mask_nothing_is_told(tmp_path):
    put(tmp_path, *(f"case_{k}/{name}.nii.gz" for k in range(2) for name in ("imaging", "seg")))
    pairs = {"scans": "*/imaging.nii.gz", "masks": "*/seg.nii.gz", "unlabelled": "leave out"}
    (tmp_path / "dataset.json").write_text(json.dumps({"pairs": pairs}))
    assert survey(tmp_path)[0].guess == ""
