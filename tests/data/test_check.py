"""`vpt check` finds everything at once, says it with the file and the fix, and sums up what is there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from values import body

from vpt.data.check import Check, check_dataset
from vpt.data.doubts.said import doubts_of
from vpt.data.layouts import read_dataset
from vpt.data.splits import read_splits
from vpt.errors import VptError
from vpt.parallel import FEW

RAS = np.diag([1.0, 1.0, 2.0, 1.0])
LPS = np.diag([-1.0, -1.5, 3.0, 1.0])


def said(check: Check, severity: str) -> list[str]:
    return [f"{problem.file}: {problem.text}" for problem in check.problems if problem.severity == severity]


def write_split(root: Path, **sides: list[str]) -> None:
    (root / "split.json").write_text(json.dumps(sides))


def relabel(root: Path, name: str, change) -> None:
    image = nib.load(root / f"labelsTr/{name}.nii.gz")
    array = change(np.asarray(image.dataobj).copy())
    nib.save(nib.Nifti1Image(array, image.affine), root / f"labelsTr/{name}.nii.gz")


def test_sound_dataset_is_summed_up(make_dataset):
    seen = []
    root = make_dataset(cases=3, channels=2, affines=(RAS, LPS))
    check = check_dataset(root, progress=lambda *step: seen.append(step))
    assert check.ok
    assert check.problems == ()
    assert seen == [(1, 3, "case_00"), (2, 3, "case_01"), (3, 3, "case_02")]
    assert (check.cases, check.channels, check.orientations) == (3, ("MR0", "MR1"), {"RAS": 2, "LPS": 1})
    assert str(check.shape) == "12x10x6"
    assert str(check.spacing) == "1x1x2 to 1x1.5x3, median 1x1x2"
    rim, core = check.labels
    assert (rim.id, rim.name, rim.cases, rim.voxels) == (1, "rim", 3, 3 * (5 * 5 * 4 - 8))
    assert core.mean_ml == pytest.approx(8 * (2 + 4.5 + 2) / 3 / 1000)
    assert (check.splits, check.split_source) == (
        {"train": 2, "val": 1, "test": 0},
        "fold 0 of 3, drawn by patient, each with its share of every label, and of little and much foreground",
    )
    images = [np.asarray(nib.load(path).dataobj) for path in (root / "imagesTr").glob("*_0001.nii.gz")]
    assert check.intensity[1] == pytest.approx((min(map(np.min, images)), max(map(np.max, images))))


@pytest.mark.slow
def test_many_cases_are_read_in_processes_to_the_same_findings(make_dataset, monkeypatch):
    root = make_dataset(cases=FEW + 2, affines=(RAS, LPS))
    relabel(root, "case_03", lambda array: array * 0)
    (root / "labelsTr/case_05.nii.gz").write_bytes(b"no mask")
    in_processes = check_dataset(root)
    monkeypatch.setattr("vpt.parallel.FEW", 1000)

    assert in_processes.to_dict() == check_dataset(root).to_dict()
    assert any("case_05" in line for line in said(in_processes, "error"))
    assert any("case_03" in line for line in said(in_processes, "warning"))


def test_plain_text_and_table_say_the_same(make_dataset):
    root = make_dataset(cases=3)
    relabel(root, "case_01", lambda label: label * 3)
    check = check_dataset(root)
    console = Console(width=500, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(check.table())
    shown = [" ".join(line.split()) for line in console.export_text().splitlines()]
    assert shown == [" ".join(line.split()) for line in check.plain().splitlines()]
    assert shown[-1] == "not ready: 1 error, 0 warnings"
    assert "label 1 rim: in 2 of 3 cases, 184 voxels, mean 0.414 ml" in shown
    assert "error: labelsTr/case_01.nii.gz: label 3, 6 not in 0, 1, 2; add it to `labels` in dataset.json" in shown[-2]


def test_files_of_channels_that_dataset_json_does_not_name_are_told_as_such(make_dataset, save):
    root = make_dataset(cases=4)
    for name in ("case_00", "case_01"):
        save(
            root / f"imagesTr/{name}_0001.nii.gz",
            np.random.default_rng(0).integers(0, 99, (12, 10, 6)).astype(np.int16),
            LPS,
        )
    (root / "imagesTr/case_01_0000.nii.gz").unlink()

    errors = said(check_dataset(root), "error")

    assert any(
        "case_00 has the channel files 0000 0001, expected 0000, since dataset.json names one" in one for one in errors
    )
    assert any(
        "case_01 has the channel files 0001, expected 0000, since dataset.json names one" in one for one in errors
    )
    assert not any("an image without a label" in one for one in errors)


def test_every_problem_is_collected_not_only_the_first(make_dataset, save):
    root = make_dataset(cases=8)
    (root / "imagesTr/case_00_0000.nii.gz").write_bytes(b"")
    (root / "labelsTr/case_01.nii.gz").unlink()
    (root / "imagesTr/case_02_0000.nii.gz").unlink()
    save(root / "labelsTr/case_03.nii.gz", np.zeros((12, 10, 5), np.uint8), LPS)
    save(root / "imagesTr/case_04_0000.nii.gz", np.full((12, 10, 6), np.nan, np.float32), LPS)
    relabel(root, "case_05", lambda label: label * 0)
    save(root / "imagesTr/case_06_0000.nii.gz", np.full((12, 10, 6), 7, np.int16), LPS)
    write_split(root, train=["case_00", "case_03", "case_04"], val=["case_03", "case_99"])
    errors, warnings = (said(check_dataset(root), severity) for severity in ("error", "warning"))
    for expected in [
        "imagesTr/case_00_0000.nii.gz: an empty file",
        "imagesTr/case_01_0000.nii.gz: an image without a label; add labelsTr/case_01.nii.gz",
        "labelsTr/case_02.nii.gz: a label without an image",
        "labelsTr/case_03.nii.gz: not on the grid of imagesTr/case_03_0000.nii.gz: shape 12x10x5 against 12x10x6",
        "imagesTr/case_04_0000.nii.gz: 720 of 720 voxels are not finite",
        "split.json: case_03 is in train and in val",
        "split.json: val names 'case_99', which is no case",
    ]:
        assert sum(error.startswith(expected) for error in errors) == 1, expected
    assert len(errors) == 7
    for expected in [
        "labelsTr/case_05.nii.gz: an empty label",
        "imagesTr/case_06_0000.nii.gz: all voxels of MR0 are 7",
        "split.json: 3 labelled cases in no split: case_05, case_06, case_07",
    ]:
        assert sum(warning.startswith(expected) for warning in warnings) == 1, expected
    assert len(warnings) == 3


def test_label_of_an_unreadable_image_is_still_read(make_dataset):
    root = make_dataset()
    (root / "imagesTr/case_00_0000.nii.gz").write_bytes(b"")
    relabel(root, "case_00", lambda label: label + 5)
    assert len(check_dataset(root).errors) == 2


def test_no_foreground_anywhere_is_an_error(make_dataset):
    root = make_dataset()
    for number in range(4):
        relabel(root, f"case_{number:02d}", lambda label: label * 0)
    check = check_dataset(root)
    assert said(check, "error") == [
        f"{root}: no voxel of any label in 4 cases, so nothing can be learned; check the export"
    ]
    assert len(check.warnings) == 4


def test_where_no_split_can_be_made_there_is_none(make_dataset):
    plain = check_dataset(make_dataset(cases=1)).plain()
    assert "split none" in [" ".join(line.split()) for line in plain.splitlines()]


def test_label_in_no_case_is_a_warning(make_dataset):
    root = make_dataset()
    for number in range(4):
        relabel(root, f"case_{number:02d}", lambda label: np.minimum(label, 1))
    check = check_dataset(root)
    assert check.ok
    assert said(check, "warning")[0].startswith("dataset.json: label 2 (core) is in no case; remove it from `labels`")


@pytest.mark.parametrize(
    ("sides", "severity", "text"),
    [
        (
            {"train": ["case_00", "case_02"], "val": ["case_01"], "test": ["case_03"]},
            "error",
            "train and test then hold",
        ),
        ({"train": ["case_00", "case_03"], "val": ["case_01"], "test": ["case_02"]}, "warning", "remove one if it is"),
        (None, "error", "a drawn split can put them on two sides"),
    ],
)
def test_same_image_twice(make_dataset, sides, severity, text):
    root = make_dataset()
    shutil.copy(root / "imagesTr/case_00_0000.nii.gz", root / "imagesTr/case_03_0000.nii.gz")
    if sides:
        write_split(root, **sides)
    check = check_dataset(root)
    assert len(check.problems) == 1
    found = said(check, severity)[0]
    assert found.startswith("imagesTr/case_03_0000.nii.gz: the same voxels as case_00_0000.nii.gz")
    assert text in found


def test_third_copy_is_compared_with_all_earlier_ones(make_dataset):
    root = make_dataset()
    for number in (1, 2):
        shutil.copy(root / "imagesTr/case_00_0000.nii.gz", root / f"imagesTr/case_{number:02d}_0000.nii.gz")
    write_split(root, train=["case_01", "case_03"], val=["case_02"])
    assert [error for error in said(check_dataset(root), "error") if "train and val then hold the same" in error]


def test_doubtful_header_is_a_warning(make_dataset):
    sheared = LPS.copy()
    sheared[0, 2] = 0.9
    check = check_dataset(make_dataset(cases=2, affines=(LPS, sheared)))
    assert check.ok
    assert [warning.split(",")[0] for warning in said(check, "warning")] == [
        "imagesTr/case_01_0000.nii.gz: sheared by 16.7 degrees"
    ]


def test_folds_of_nnunet_are_all_checked(make_dataset):
    root = make_dataset()
    good, bad = {"train": ["case_00", "case_01"], "val": ["case_02"]}, {"train": ["case_03"], "val": ["case_3"]}
    (root / "splits_final.json").write_text(json.dumps([good, bad]))
    check = check_dataset(root)
    assert [problem.file for problem in check.errors] == ["splits_final.json"]
    assert check.split_source == "fold 0 of 2, splits_final.json"
    (root / "splits_final.json").write_text("{")
    assert "not valid JSON at line 1" in said(check_dataset(root), "error")[0]


def test_what_cannot_be_checked_at_all_is_raised(tmp_path):
    with pytest.raises(VptError, match=r"no dataset\.json"):
        check_dataset(tmp_path)


def test_check_starts_without_torch():
    code = "import sys, vpt.data.check; sys.exit('torch' in sys.modules or 'monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.data
def test_hippocampus_passes(data_root):
    check = check_dataset(data_root / "hippocampus3d")
    assert check.problems == ()
    assert (check.cases, check.orientations) == (230, {"RAS": 230})
    assert check.splits == {"train": 182, "val": 26, "test": 22}
    assert [label.cases for label in check.labels] == [230, 230]
    assert str(check.spacing) == "1x1x1"


# --- images -----------------------------------------------------------------------------------------------------------


def remask(root: Path, name: str, change) -> None:
    mask = np.array(Image.open(root / f"masks/{name}.png"))
    Image.fromarray(change(mask)).save(root / f"masks/{name}.png")


def test_a_sound_image_data_set_is_summed_up_in_pixels(make_images):
    check = check_dataset(make_images(cases=4, size=(24, 20)))
    assert check.ok
    lines = [" ".join(line.split()) for line in check.plain().splitlines()]
    assert lines[1:4] == ["images 4", "channels grey: 20 to 239", "size 20x24 px (columns x rows)"]
    assert "label 255 object: in 3 of 4 images, 11.2% of the image on average where present" in lines
    assert not any("mm" in line or "voxel" in line or " ml" in line for line in lines)
    assert said(check, "warning") == [
        "masks: 1 of 4 masks is empty (case_03); fine if nothing is there, otherwise annotate them"
    ]


def test_images_to_mend_are_found_together(make_images):
    root = make_images(cases=9)
    (root / "images/case_00.png").write_bytes((root / "images/case_00.png").read_bytes()[:200])
    (root / "masks/case_01.png").unlink()
    (root / "images/case_02.png").unlink()
    Image.new("L", (24, 20)).save(root / "masks/case_03.png")
    Image.fromarray(np.full((24, 20, 3), (255, 0, 0), np.uint8)).save(root / "masks/case_04.png")
    Image.new("L", (20, 24), 77).save(root / "images/case_05.png")
    shutil.copy(root / "images/case_06.png", root / "images/case_07.png")
    write_split(root, train=[f"case_{k:02d}.png" for k in (0, 1, 3, 4, 5, 6)], val=["case_07.png", "case_08.png"])
    check = check_dataset(root)
    errors, warnings = (said(check, severity) for severity in ("error", "warning"))
    for expected in [
        "images/case_00.png: truncated or damaged",
        "images/case_01.png: an image without a mask; add masks/case_01.png or remove the image",
        "masks/case_02.png: a mask without an image; add images/case_02.png or remove the mask",
        "masks/case_03.png: 24x20 pixels, but images/case_03.png has 20x24 (columns x rows)",
        "masks/case_04.png: a colour picture, expected one label id per pixel",
        "images/case_07.png: the same pixels as case_06.png; train and val then hold the same patient",
    ]:
        assert sum(error.startswith(expected) for error in errors) == 1, (expected, errors)
    assert len(errors) == 6
    assert any(warning.startswith("images/case_05.png: all pixels of grey are 77") for warning in warnings)


def test_masks_that_may_be_a_mistake_are_told_in_a_line_each(make_images):
    root = make_images(cases=8)
    for number in (0, 1):
        remask(root, f"case_{number:02d}", lambda mask: mask * 0)
    remask(root, "case_02", lambda mask: mask * 0 + 255)
    remask(root, "case_03", lambda mask: 255 * (np.arange(mask.size).reshape(mask.shape) < 3).astype(np.uint8))
    Image.open(root / "masks/case_04.png").save(root / "masks/case_04.jpg")
    (root / "masks/case_04.png").unlink()
    check = check_dataset(root)
    assert check.ok
    assert said(check, "warning") == [
        "masks: 3 of 8 masks are empty (case_00, case_01, case_07); fine if nothing is there, otherwise annotate them",
        "masks: 1 of 8 masks is of less than 10 pixels (case_03); are they slips of the mouse?",
        "masks: 1 of 8 masks is JPEG (case_04); their values are not exact, so above 127 counts as 255, the rest as 0: "
        "save masks as PNG",
        "masks: 1 of 8 masks is on more than 99% of the image (case_02); are they inverted?",
    ]
    dataset = read_dataset(root)
    assert any("is JPEG (case_04)" in text for text in doubts_of(dataset, read_splits(dataset)))  # of a training


@pytest.mark.parametrize(
    "change",
    [lambda hu: hu + 1024, lambda hu: hu - 1024, lambda hu: hu * 10, lambda hu: hu / 1000, lambda hu: hu % 65536],
)
def test_a_ct_whose_values_are_unlike_the_others(tmp_path, change):
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    for number in range(6):
        hu = body(number)
        image = change(hu) if number == 2 else hu
        nib.save(nib.Nifti1Image(image.astype(np.float32), np.eye(4)), tmp_path / f"imagesTr/c{number}_0000.nii.gz")
        nib.save(nib.Nifti1Image((hu > 50).astype(np.uint8), np.eye(4)), tmp_path / f"labelsTr/c{number}.nii.gz")
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1}}
    (tmp_path / "dataset.json").write_text(json.dumps(content))

    check = check_dataset(tmp_path)

    assert check.ok
    doubts = [each for each in check.warnings if "do not look like" in each.text]
    assert [each.file for each in doubts] == ["imagesTr/c2_0000.nii.gz"]
    assert "the HU of most other cases (-1" in doubts[0].text


def test_files_that_stand_for_two_are_told(make_dataset, tmp_path):
    root = make_dataset(cases=4)
    scans, masks = sorted((root / "imagesTr").iterdir()), sorted((root / "labelsTr").iterdir())
    lines = ["image_T1,image_T2,mask", *(f"{scan},{scan},{masks[0]}" for scan in scans)]
    (tmp_path / "cases.csv").write_text("\n".join(lines))

    texts = [problem.text for problem in check_dataset(tmp_path / "cases.csv").warnings]

    assert texts.count("two channels of this case are this one file; give each its own") == 4
    assert any(text.startswith("the mask of 4 cases (") for text in texts)


def test_a_label_that_is_in_no_case_is_not_said_to_stand_in_a_dataset_json_that_is_not_there(tmp_path):
    for number in range(4):
        (folder := tmp_path / f"s{number}").mkdir()
        for name in ("ct", "liver_mask", "spleen_mask"):
            voxels = np.zeros((9, 9, 4), np.uint8)
            voxels[2:6, 2:6, 1:3] = name != "spleen_mask"
            nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / f"{name}.nii.gz")
    (text,) = [str(each) for each in check_dataset(tmp_path).warnings if "is in no case" in each.text]
    assert text.endswith("label 2 (spleen) is in no case; add a case that has it")
    assert "dataset.json" not in text
