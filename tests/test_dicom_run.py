"""DICOM all the way: check, train, predict, evaluate; and the patient's name in nothing but DICOM."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from dicom_series import NAME, PATIENT_ID, as_series, write_series
from tiny_run import ONE_STEP

from vpt.artifact import read_artifact
from vpt.cli import main
from vpt.data.check import check_dataset
from vpt.data.layouts import read_dataset
from vpt.data.scans import find_scans
from vpt.data.slices.cached_slices import prepare_cases
from vpt.engine.run import train
from vpt.errors import VptError
from vpt.progress import silent
from vpt.readers import Naming, reader_of
from vpt.use.evaluation.scoring import evaluate
from vpt.use.load import load

CODES = {"rim": ["10200004", "SCT", "Liver"]}
PLANTED = (*NAME.lower().split("^"), PATIENT_ID.lower())


@pytest.fixture(scope="module")
def dicom_data(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny data set as series and segmentations. Read only."""
    root = tmp_path_factory.mktemp("dicom") / "set"
    content = json.loads((tiny_data / "dataset.json").read_text())
    labels = read_dataset(tiny_data).labels
    for case in read_dataset(tiny_data).cases:
        reader = reader_of(as_series(root / "imagesTr" / case.name, nib.load(case.images[0])))
        label = nib.load(case.label)
        back = nib.orientations.ornt_transform(
            nib.io_orientation(label.affine), nib.io_orientation(reader.grid().affine)
        )
        ids = nib.orientations.apply_orientation(np.asarray(label.dataobj), back)
        made = reader.mask_as("dicom-seg", ids, Naming(labels))
        (root / "labelsTr").mkdir(exist_ok=True)
        reader_of(made).write_mask(root / f"labelsTr/{case.name}.dcm", made)
    names = list(labels.values())[1:]
    content["codes"] = {names[0]: CODES["rim"]}
    (root / "dataset.json").write_text(json.dumps(content))
    shutil.copy(tiny_data / "split.json", root)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("sep", ["/", "\\"])
def test_a_list_names_the_folders_of_series(dicom_data: Path, tmp_path: Path, sep: str) -> None:
    rows = [
        f"{name},labels{sep}{name}.dcm" for name in sorted(each.name for each in (dicom_data / "imagesTr").iterdir())
    ]
    for name in (row.partition(",")[0] for row in rows):
        shutil.copytree(dicom_data / "imagesTr" / name, tmp_path / "scans" / name)
    shutil.copytree(dicom_data / "labelsTr", tmp_path / "labels")
    (tmp_path / "cases.csv").write_text("\n".join(["image,mask", *(f"scans{sep}{row}" for row in rows)]))

    found = check_dataset(tmp_path / "cases.csv")

    assert [problem.text for problem in found.problems if problem.severity == "error"] == []
    assert found.cases == len(rows)
    assert [label.cases for label in found.labels] == [label.cases for label in check_dataset(dicom_data).labels]


def test_a_series_by_itself_is_told_what_it_is_for(dicom_data: Path) -> None:
    series = sorted((dicom_data / "imagesTr").iterdir())[0]
    with pytest.raises(VptError, match=r"a scan by itself \(DICOM\), and no data set; `vpt predict -i .+labelsTr/CASE"):
        check_dataset(series)


@pytest.fixture(scope="module")
def dicom_run(dicom_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step on it. Read only."""
    return train(dicom_data, tmp_path_factory.mktemp("dicom") / "run", overrides=ONE_STEP)


@pytest.fixture
def vpt(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """vpt("check", folder): exit code, and everything that was printed."""

    def call(*words: Any) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["vpt", *map(str, words)])
        with pytest.raises(SystemExit) as exit:
            main()
        return int(exit.value.code or 0), "".join(capfd.readouterr())

    return call


def assert_nameless(*texts: str | Path) -> None:
    """The patient is named in no text, and in no file of a folder but DICOM."""
    for text in texts:
        files = [file for file in text.rglob("*") if file.is_file()] if isinstance(text, Path) else []
        contents = [file.read_bytes().lower() for file in files if file.suffix != ".dcm"]
        for content in contents if files else [str(text).lower().encode()]:
            assert not any(part.encode() in content for part in PLANTED)


@pytest.mark.slow
def test_a_set_of_series_and_segmentations_passes_check(dicom_data, vpt):
    code, said = vpt("check", dicom_data)

    assert (code, "ready to train: 0 errors, 0 warnings" in said) == (0, True), said
    assert_nameless(said)


@pytest.mark.slow
def test_it_is_prepared_as_its_nifti_twin(dicom_data, dicom_run, tiny_data, tmp_path):
    plan = read_artifact(dicom_run).plan
    twins = [
        prepare_cases(dataset, dataset.cases[:4], plan, tmp_path / name, silent)
        for name, dataset in (("nifti", read_dataset(tiny_data)), ("dicom", read_dataset(dicom_data)))
    ]

    for one, other in zip(*twins, strict=True):
        assert np.array_equal(np.load(one.labels), np.load(other.labels))
        assert np.allclose(np.load(one.images), np.load(other.images), atol=2e-3)


@pytest.mark.slow
def test_what_is_wrong_with_a_series_is_an_error_of_check(dicom_data, tmp_path):
    root = shutil.copytree(dicom_data, tmp_path / "set")
    case = sorted(each.name for each in (root / "imagesTr").iterdir())[0]
    (root / f"imagesTr/{case}/3_004.dcm").unlink()
    (root / "imagesTr/notes").mkdir()
    (root / "imagesTr/notes/a.txt").write_text("x")

    found = check_dataset(root)

    assert [(problem.file, problem.text.split(" (")[0]) for problem in found.errors] == [
        (f"imagesTr/{case}", "1 slice is missing between 3_003.dcm and 3_005.dcm")
    ]


@pytest.mark.slow
def test_masks_come_back_on_the_series_as_nifti_and_as_segmentation(dicom_data, dicom_run, vpt, tmp_path):
    scans, names = tmp_path / "scans", ["blobs_000", "blobs_003"]
    for name in names:
        shutil.copytree(dicom_data / "imagesTr" / name, scans / name)
    code, said = vpt("predict", "-i", scans, "-o", tmp_path / "nifti", "-m", dicom_run)
    assert code == 0, said
    again, also = vpt("predict", "-i", scans, "-o", tmp_path / "seg", "-m", dicom_run, "--as", "dicom-seg")
    assert again == 0, also

    assert sorted(each.name for each in (tmp_path / "nifti").glob("*.nii.gz")) == [f"{name}.nii.gz" for name in names]
    assert sorted(each.name for each in (tmp_path / "seg").glob("*.dcm")) == [f"{name}.dcm" for name in names]
    for name in names:
        scan, mask = reader_of(scans / name), reader_of(tmp_path / f"nifti/{name}.nii.gz")
        assert mask.grid().matches(scan.grid())
        segmentation = reader_of(tmp_path / f"seg/{name}.dcm").labels_on(scan.grid())
        assert np.array_equal(segmentation.array, mask.labels().array)
    assert_nameless(said, also, tmp_path / "nifti", dicom_run)


def test_the_code_of_a_label_goes_from_the_data_set_into_the_segmentation(dicom_data, dicom_run):
    segmenter = load(dicom_run, "cpu")
    case = read_dataset(dicom_data).cases[0]

    made = segmenter.segment(case.images[0], form="dicom-seg")

    types = [segment.SegmentedPropertyTypeCodeSequence[0] for segment in made.SegmentSequence]
    assert [code.CodingSchemeDesignator for code in types] == ["SCT", "99VPT"]
    assert types[0].CodeMeaning == "Liver"
    image = segmenter.segment(str(case.images[0]))
    assert isinstance(image, nib.Nifti1Image)


@pytest.mark.parametrize(
    ("codes", "sentence"),
    [
        ([], "`codes` is no object"),
        ({"livre": ["1", "SCT", "Liver"]}, "`codes` names 'livre', which is no label"),
        ({"rim": ["1", "SCT"]}, r"the code of rim is \['1', 'SCT'\]; expected .*value, scheme, meaning"),
    ],
)
def test_codes_that_are_none_are_said(make_dataset, codes, sentence):
    root = make_dataset(cases=1)
    content = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps(content | {"codes": codes}))

    with pytest.raises(VptError, match=sentence):
        read_dataset(root)


def test_a_nifti_is_compared_with_a_segmentation_that_leaves_empty_slices_out(tmp_path):
    reader = reader_of(write_series(tmp_path / "ct"))
    labels = np.zeros(reader.grid().shape, np.uint8)
    labels[1:5, 1:4, 2:4] = 1
    made = reader.mask_as("dicom-seg", labels, Naming({0: "background", 1: "liver"}))
    reader_of(made).write_mask(tmp_path / "true.dcm", made)
    labels[1, 1, 2] = 0
    nib.save(reader.mask(labels), tmp_path / "found.nii.gz")

    one = evaluate(tmp_path / "found.nii.gz", tmp_path / "true.dcm")
    other = evaluate(tmp_path / "true.dcm", tmp_path / "found.nii.gz")

    assert one.cases[0].scores[1].dice == other.cases[0].scores[1].dice == pytest.approx(2 * 23 / (23 + 24))


# --- which scans ------------------------------------------------------------------------------------------------------


def test_a_folder_is_one_scan_or_many(tmp_path, save):
    write_series(tmp_path / "all/p1")
    write_series(tmp_path / "all/p2_0001")
    save(tmp_path / "all/z.nii.gz", np.zeros((2, 2, 2), np.int16))
    shutil.make_archive(str(tmp_path / "all/packed"), "zip", tmp_path / "all/p1")

    assert [case.name for case in find_scans(tmp_path / "all", 1)] == ["p1", "p2_0001", "packed", "z"]
    assert [case.name for case in find_scans(tmp_path / "all/p1", 1)] == ["p1"]
    assert [case.name for case in find_scans(tmp_path / "all/p1/3_000.dcm", 1)] == ["3_000"]
    write_series(tmp_path / "disc/DICOM/ST000/SE001")
    shutil.copy(tmp_path / "all/p1/3_000.dcm", tmp_path / "disc/DICOMDIR")
    assert [case.name for case in find_scans(tmp_path / "disc", 1)] == ["SE001"]
    assert find_scans(tmp_path / "all/p1", 1, "largest")[0].scan[0].series == "largest"


@pytest.mark.slow
def test_a_mixed_folder_is_predicted_once_a_series_is_chosen(dicom_data, dicom_run, vpt, tmp_path):
    folder = shutil.copytree(sorted((dicom_data / "imagesTr").iterdir())[0], tmp_path / "study")
    write_series(folder, series=8, description=f"second look at {NAME}")
    model = ["-m", dicom_run]

    code, said = vpt("predict", "-i", folder, "-o", tmp_path / "out", *model)
    assert (code, "failed: " in said, "2 series, expected one: 3 'thorax'" in said) == (1, True, True), said
    chosen, told = vpt("predict", "-i", folder, "-o", tmp_path / "out", *model, "--series", "3")

    assert (chosen, "warning: " in told, "series 3 'thorax'" in told) == (0, True, True), told
    assert (tmp_path / "out/study.nii.gz").is_file()
    assert_nameless(said, told)


def test_another_form_than_the_scan_has_is_a_usage_error_or_refused(dicom_run, tiny_data, vpt, tmp_path):
    scan = sorted((tiny_data / "imagesTr").iterdir())[0]

    assert vpt("predict", "-i", scan, "-o", tmp_path, "-m", dicom_run, "--as", "gif")[0] == 2
    code, said = vpt("predict", "-i", scan, "-o", tmp_path, "-m", dicom_run, "--as", "dicom-seg")
    assert (code, "no DICOM series, of which a DICOM SEG could be made" in said) == (1, True)
