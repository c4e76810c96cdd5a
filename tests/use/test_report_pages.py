"""The page of a run or an evaluation says what came out, shows the worst cases first, and loads nothing else."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from tiny_run import ONE_STEP

from vpt.engine.run import train
from vpt.errors import VptError
from vpt.readers import Relabelled
from vpt.use.pages import planes
from vpt.use.pages.evaluation import write_evaluation_page, write_run_page

AFFINE = np.diag([-1.0, -1.5, 3.0, 1.0])


def read(folder: Path) -> str:
    return html.unescape((folder / "report.html").read_text(encoding="utf-8"))


def headings(page: str) -> list[str]:
    """Names of the cases with pictures, in order."""
    return re.findall(r'<article class="case">\s*<header><h3>(.*?)</h3>', page)


@pytest.fixture
def scored(tmp_path, make_dataset, save, vpt):
    """Masks of four cases beside their truth, evaluated: all right, shifted, empty, and one label alone."""
    import nibabel as nib

    root = make_dataset(cases=4)
    for number in range(4):
        truth = np.asarray(nib.load(root / f"labelsTr/case_{number:02d}.nii.gz").dataobj)
        found = [truth, np.roll(truth, 2, 0), np.zeros_like(truth), np.minimum(truth, 1)][number]
        save(tmp_path / f"masks/case_{number:02d}.nii.gz", found, AFFINE)
    told = vpt("evaluate", tmp_path / "masks", root / "labelsTr")
    assert told.code == 0, told.err
    assert "report.html" in told.out
    return tmp_path / "masks"


def test_a_run_ends_with_its_page(tiny_run) -> None:
    page, summary = read(tiny_run), json.loads((tiny_run / "validation/summary.json").read_text())
    assert f"Mean Dice {summary['foreground_mean']['Dice']:.3f}" in page
    assert "Training loss" in page
    assert "axial slices" in page  # the plan in words
    assert sha256((tiny_run / "best.safetensors").read_bytes()).hexdigest() in page
    assert "their licence" in page
    assert "For research use only" in page
    assert len(headings(page)) == len(summary["metric_per_case"])


def test_nothing_is_loaded_from_elsewhere(tiny_run, class_run) -> None:
    for page in (read(tiny_run), read(class_run)):
        assert not re.search(r'(src|href)="(?!data:image|#)', page)
        assert "default-src 'none'" in page
        assert "http:" not in page
        assert len(page) < 5_000_000


def test_the_worst_cases_come_first_and_say_what_was_not_found(scored) -> None:
    page = read(scored)
    assert headings(page) == ["case_02", "case_01", "case_03", "case_00"]
    worst, *others = page.split('<article class="case">')[1:]
    assert 'class="badge error">nothing predicted' in worst
    assert "Dice 0.000; 0 ml predicted, 0.414 ml true" in worst
    assert all('class="badge error">' not in other for other in others)
    assert "in 1 case nothing was predicted" in page


@pytest.mark.slow
def test_a_case_is_shown_in_three_planes_with_its_errors(scored) -> None:
    shifted, _, right = page_of_cases(read(scored))[1:4]
    assert [name for name in ("axial", "coronal", "sagittal") if f"<figcaption>{name}, slice" in shifted] == [
        "axial",
        "coronal",
        "sagittal",
    ]
    assert "<figcaption>errors, " in shifted
    assert "largest error" in shifted
    assert "errors, " not in right  # of what is all right there are none
    assert all(f">{letter}</text>" in shifted for letter in "RLAPSI")
    assert " mm</text>" in shifted


def page_of_cases(page: str) -> list[str]:
    return page.split('<article class="case">')[1:]


def test_labels_taken_for_another_are_counted(scored) -> None:
    assert "Which label is taken for which" in read(scored)
    assert "over 4 cases" in read(scored)


def test_scans_of_a_data_set_are_behind_the_outlines_of_compared_masks(scored) -> None:
    flat = page_of_cases(read(scored))
    shutil.rmtree(scored.parent / "nnunet/imagesTr")
    write_evaluation_page(scored)
    blank = page_of_cases(read(scored))
    assert len(flat) == len(blank) == 4
    assert len("".join(blank)) < len("".join(flat))  # outlines on grey, for want of scans


@pytest.mark.slow
def test_scans_beside_the_truth_are_found_although_predictions_lie_there_too(tmp_path, make_dataset, vpt) -> None:
    """project/scans, project/truth, project/found: no data set, since scans and predictions are called alike."""
    root = make_dataset(cases=4)
    for name in ("found", "truth"):
        shutil.copytree(root / "labelsTr", tmp_path / "project" / name)
    assert vpt("evaluate", tmp_path / "project/found", tmp_path / "project/truth", "--viewer").code == 0
    page = read(tmp_path / "project/found")
    assert "0 of 4 cases are in this page. Of 4 the scan is not known" in page
    assert "such as a folder scans or imagesTr beside theirs" in page

    (tmp_path / "project/scans").mkdir()
    for scan in (root / "imagesTr").iterdir():  # what the page asks for
        shutil.copy(scan, tmp_path / "project/scans" / scan.name.replace("_0000", ""))
    assert vpt("evaluate", tmp_path / "project/found", tmp_path / "project/truth", "--viewer").code == 0
    assert "are inside this page" in read(tmp_path / "project/found")


def test_a_page_without_volumes_says_how_to_have_them(scored, tmp_path) -> None:
    page = read(scored)
    assert '<a href="#viewer">Volumes</a>' in page
    assert f"<code>vpt evaluate {scored} {tmp_path}/nnunet/labelsTr --viewer</code>" in page


def test_without_the_masks_the_page_says_so_and_keeps_the_scores(scored) -> None:
    before = read(scored)
    (scored / "case_01.nii.gz").unlink()
    write_evaluation_page(scored)
    page = read(scored)
    assert "case_01.nii.gz: the mask is no longer there" in page
    assert re.findall(r"<h3>case_0.</h3>", page) == re.findall(r"<h3>case_0.</h3>", before)


def test_names_are_escaped(scored) -> None:
    summary = json.loads((scored / "summary.json").read_text())
    summary["settings"]["title"] = "<script>alert(1)</script>"
    summary["labels"]["1"] = "<b>rim</b>"
    (scored / "summary.json").write_text(json.dumps(summary))
    write_evaluation_page(scored)
    raw = (scored / "report.html").read_text()
    assert raw.count("<script>") == 1
    assert "<b>" not in raw


def test_a_classification_has_its_matrix_its_calibration_and_the_worst_answers(class_run) -> None:
    page = read(class_run)
    assert "Which class is taken for which" in page
    assert "Calibration" in page
    given = [float(each) for each in re.findall(r", given ([\d.]+)</p>", page)]
    assert given == sorted(given)
    assert len(given) == 6
    assert page.count("data:image/jpeg;base64,") == 6


@pytest.mark.parametrize("run", ["label_run", "grade_run", "scan_run"])
def test_every_target_has_a_page(request, run) -> None:
    page = read(request.getfixturevalue(run))
    assert "validation case" in page
    assert "nan" not in re.sub(r"data:image[^\"]*", "", page.partition("<style>")[0] + page.partition("</style>")[2])


def test_a_run_whose_data_are_gone_keeps_its_page(tiny_run, tmp_path) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    config = (run / "config.yaml").read_text()
    artifact = run / "best.safetensors"
    assert str(artifact) not in config
    write_run_page(run, {}, "dice")
    assert "Data and plan" in read(run)


@pytest.mark.slow
def test_a_training_in_which_nothing_validates_says_so(tiny_data, tmp_path) -> None:
    run = train(tiny_data, tmp_path / "run", overrides=ONE_STEP | {"data.use_val": True})
    assert "Nothing was scored" in read(run)


@pytest.mark.slow
def test_images_are_shown_once_in_colour_with_a_bar_of_pixels(make_images, tmp_path, vpt) -> None:
    root = make_images(colour=True)
    assert vpt("evaluate", root / "masks", root / "masks", "-o", tmp_path / "out").code == 0
    page = read(tmp_path / "out")
    assert "<figcaption>image" in page
    assert " px</text>" in page
    assert "axial" not in page
    assert "nothing to find" in page  # the last mask is empty


@pytest.mark.slow
def test_merged_and_ignored_labels_are_shown_as_they_count(copied_data, tmp_path) -> None:
    labels = {"blob": ["dark"], "ignore": ["bright"]}
    run = train(copied_data, tmp_path / "run", overrides=ONE_STEP | {"data.labels": labels})
    page = read(run)
    assert "no picture" not in page
    assert "blob" in page
    assert "no report.html" not in (run / "train.log").read_text()


@pytest.fixture
def compared(tmp_path, make_dataset, save, vpt):
    """Masks of three cases, all right in A; in B right, shifted, and empty: evaluated against each other."""
    import nibabel as nib

    root = make_dataset(cases=3)
    for number in range(3):
        truth = np.asarray(nib.load(root / f"labelsTr/case_{number:02d}.nii.gz").dataobj)
        save(tmp_path / f"A/case_{number:02d}.nii.gz", truth, AFFINE)
        found = [truth, np.roll(truth, 2, 0), np.zeros_like(truth)][number]
        save(tmp_path / f"B/case_{number:02d}.nii.gz", found, AFFINE)
    told = vpt("evaluate", tmp_path / "A", tmp_path / "B", root / "labelsTr", "-o", tmp_path / "out")
    assert (told.code, "comparison.md, report.html" in told.out) == (0, True)
    return tmp_path / "out"


@pytest.mark.slow
def test_two_that_are_compared_are_shown_over_the_same_planes(compared) -> None:
    page = read(compared)
    assert headings(page) == ["case_02", "case_01", "case_00"]
    worst, shifted, same = page_of_cases(page)
    assert "A is better by 1.000" in worst
    assert re.findall(r"<li>([AB]: .*?)</li>", worst) == ["A: Dice 1.000", "B: Dice 0.000, nothing predicted"]
    assert re.search(r"largest difference of [\w ]+: 0\.\d+ ml", worst)
    assert "alike in both" in same
    assert "largest difference" not in same
    assert shifted.count('<figure class="panel"') == 6  # three planes, twice
    assert shifted.count("<image ") == shifted.count('<use href="#p2-') == 3  # each scan's plane is there once
    places = re.findall(r"<figcaption>(.*?)</figcaption>", shifted)
    assert places[:3] == places[3:]
    mine, theirs = shifted.split('<p class="whose">')[1:]
    assert mine.count('class="edge truth"') == theirs.count('class="edge truth"')
    assert re.findall(r'class="edge found".*? d="(.*?)"', mine) != re.findall(
        r'class="edge found".*? d="(.*?)"', theirs
    )


@pytest.mark.slow
def test_without_a_mask_of_the_two_the_page_says_so(tmp_path, compared, vpt) -> None:
    from vpt.use.pages.paired import write_paired_page
    from vpt.use.paired import compare_masks

    report = compare_masks(tmp_path / "A", tmp_path / "B", tmp_path / "nnunet/labelsTr")
    (tmp_path / "B/case_02.nii.gz").unlink()
    page = html.unescape(write_paired_page(compared, report).read_text())
    assert "no picture: " in page_of_cases(page)[0]
    assert "no picture" not in page_of_cases(page)[1]


@pytest.mark.slow
def test_two_runs_are_compared_on_a_page(tiny_run, class_run, tmp_path, vpt) -> None:
    for run, cases in ((tiny_run, 1), (class_run, 0)):
        out, copied = tmp_path / f"{run.name} {cases}", shutil.copytree(run, tmp_path / f"run {cases}")
        assert vpt("evaluate", copied, copied, "--split", "val", "-o", out, "--device", "cpu").code == 0
        page = read(out)
        assert page.count('<article class="case">') >= cases
        assert "no picture" not in page
        assert "A - B is +0.000" in page


def test_confusion_counts_every_voxel_once_however_the_volume_is_cut(tmp_path, save, monkeypatch) -> None:
    rng = np.random.default_rng(0)
    truth, found = (rng.choice([0, 2, 300], size=(5, 7, 11)).astype(np.int16) for _ in range(2))
    truth[rng.random(truth.shape) < 0.2] = 9
    files = [save(tmp_path / f"{name}.nii.gz", ids, AFFINE) for name, ids in (("truth", truth), ("found", found))]
    sources = [
        Relabelled(file, ((0, 0), (2, 2), (300, 300), *more), ignored)
        for file, more, ignored in zip(files, [((9, 301),), ()], [301, None], strict=True)
    ]
    expected = [[int(((truth == a) & (found == b)).sum()) for b in (0, 2, 300)] for a in (0, 2, 300)]
    for slab in (1, 80, 1_000_000):
        monkeypatch.setattr(planes, "SLAB", slab)
        counted = planes.count_confusion(planes.CaseFiles("a", None, *sources), {2: "a", 300: "b"})
        assert counted.tolist() == expected


def test_a_page_of_masks_says_what_was_compared_and_how_to_repeat_it(scored) -> None:
    page = read(scored)
    assert "<h1>masks against labelsTr</h1>" in page
    assert f"<dd>vpt evaluate {scored} " in page
    assert "numpy 2" in page
    assert "NSD within 1 mm, HD95" in page
    masks = sorted(scored.glob("*.nii.gz"))
    printed = "".join(f"{sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in masks)
    assert f"4 files, SHA-256 of their `sha256sum` {sha256(printed.encode()).hexdigest()}" in page


def test_a_page_calls_cases_as_the_tables_do_and_says_what_its_scores_leave_out(scored, tmp_path, vpt) -> None:
    """Paired by id: neither by the mask's name nor by the reference's. Label 2 is in no mask of one case."""
    import nibabel as nib

    for path in (*scored.glob("*.nii.gz"), *(truth := tmp_path / "nnunet/labelsTr").glob("*.nii.gz")):
        mask = nib.load(path)
        if path.name.startswith("case_03"):
            nib.save(nib.Nifti1Image(np.minimum(np.asarray(mask.dataobj), 1), mask.affine), path)
        path.rename(path.with_name(path.name.replace(".nii", "_pred.nii" if path.parent == scored else "_seg.nii")))
    told = vpt("evaluate", scored, truth, "--tolerance", "1,core=2.5", "--empty", "one")
    assert "case_00_pred.nii.gz with case_00_seg.nii.gz (case_00)" in " ".join(told.out.split()), told.err
    page = read(scored)
    assert headings(page) == ["case_02", "case_01", "case_00", "case_03"]
    assert "1 absent in truth and prediction (scored 1)" in page
    assert "NSD within 1 mm (core: 2.5 mm)" in page
    assert "1 case without it in truth and prediction left out" in page


@pytest.mark.slow
def test_a_run_at_its_end_is_given_the_viewer_and_stays_as_it_was(tiny_run, tmp_path, vpt) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    assert 'id="volumes"' not in read(run)
    before = (run / "best.safetensors").read_bytes()
    told = vpt("train", "--resume", "--out", run, "--viewer")
    assert told.code == 0, told.err
    assert 'id="volumes"' in read(run)
    assert (run / "best.safetensors").read_bytes() == before


@pytest.mark.slow
def test_evaluating_nifti_imports_no_dicom_and_a_dicom_header_inside_nifti_is_no_matter(tmp_path) -> None:
    import nibabel

    ids = np.zeros((6, 6, 6), np.uint8)
    ids[2:4, 2:4, 2:4] = 1
    mask = nibabel.Nifti1Image(ids, np.eye(4))
    mask.header.extensions.append(nibabel.nifti1.Nifti1Extension(2, b"no DICOM at all"))
    for folder in ("masks", "truth"):
        (tmp_path / folder).mkdir()
        nibabel.save(mask, tmp_path / folder / "a.nii.gz")
    program = (
        "import sys; from vpt.cli import main; sys.argv = ['vpt', 'evaluate', 'masks', 'truth']\n"
        "try: main()\nfinally: print('pydicom' in sys.modules); import pydicom; print(pydicom.dcmread.__name__)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert "foreground  1.000" in told.stdout, told.stderr
    assert told.stdout.endswith("False\ndcmread\n")


@pytest.mark.slow
def test_lesions_and_groups_are_tables_of_the_page(scored, tmp_path, vpt) -> None:
    (tmp_path / "who.csv").write_text("case,sex\n" + "".join(f"case_0{k},{'fm'[k % 2]}\n" for k in range(4)))
    asked = ("--lesions", "all", "--by", "sex", "--groups", tmp_path / "who.csv")
    assert vpt("evaluate", scored, tmp_path / "nnunet/labelsTr", *asked).code == 0
    page = read(scored)
    assert "<h3>Lesions</h3>" in page
    assert "found by size" in page
    assert "<h3>Dice by sex</h3>" in page
    assert '<tr><th scope="row">f *</th>' in page


@pytest.mark.slow
def test_pages_of_compared_masks_and_the_viewer_start_without_torch() -> None:
    program = "import sys, vpt.use.pages.evaluation, vpt.view.server; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"


def test_a_folder_without_an_evaluation_is_refused(tmp_path) -> None:
    with pytest.raises(VptError, match="holds no evaluation"):
        write_evaluation_page(tmp_path)
