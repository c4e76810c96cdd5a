"""A finished run on one side of its split."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from tiny_run import ONE_STEP

from vpt.engine.run import train
from vpt.errors import VptError
from vpt.use.runs import evaluate_run


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_run, tmp_path / "run")


@pytest.mark.slow
def test_the_test_split_is_segmented_and_scored(run: Path, tiny_data: Path) -> None:
    report, folder = evaluate_run(run)
    assert folder == run / "test"
    assert [case.name for case in report.cases] == ["blobs_005"]
    assert report.labels == {1: "dark", 2: "bright"}
    assert sorted(path.name for path in folder.iterdir()) == ["blobs_005.nii.gz"]
    mask, scan = nib.load(folder / "blobs_005.nii.gz"), nib.load(tiny_data / "imagesTr" / "blobs_005_0000.nii.gz")
    assert mask.shape == scan.shape
    assert np.array_equal(mask.affine, scan.affine)
    assert nib.aff2axcodes(mask.affine) == ("P", "S", "R")


def test_the_validation_split_scores_as_at_the_end_of_training(run: Path) -> None:
    report, folder = evaluate_run(run, split="val")
    assert folder == run / "val"
    told = json.loads((run / "validation" / "summary.json").read_text())["foreground_mean"]["Dice"]
    assert report.mean() == told


@pytest.mark.slow
def test_scans_of_one_patient_are_drawn_together(run: Path, copied_data: Path) -> None:
    names = ["blobs_003", "blobs_004", "blobs_005"]
    file = copied_data / "dataset.json"
    visits = {"patients": {"blobs_003": "ann", "blobs_004": "ann", "blobs_005": "bob"}}
    file.write_text(json.dumps(json.loads(file.read_text()) | visits))
    splits = json.loads((run / "splits.json").read_text())
    (run / "splits.json").write_text(json.dumps(splits | {"test": names}))
    report, _ = evaluate_run(run, data=copied_data)
    assert report.groups == ("ann", "ann", "bob")
    assert report.summary()["confidence_intervals"]["method"].startswith("percentile bootstrap over patients")
    assert "3 cases of 2 patients x 2 labels" in report.text()


@pytest.mark.slow
def test_masks_go_where_they_are_asked_and_settings_reach_the_report(run: Path, tmp_path: Path) -> None:
    done: list[tuple[int, int, str]] = []
    report, folder = evaluate_run(
        run, out=tmp_path / "deep" / "masks", tolerance=2.5, progress=lambda *what: done.append(what)
    )
    assert folder == tmp_path / "deep" / "masks"
    assert (folder / "blobs_005.nii.gz").is_file()
    assert report.settings.tolerance == 2.5
    assert done == [(1, 1, "blobs_005")]
    assert not (run / "test").exists()


@pytest.mark.parametrize("linked", [False, True], ids=["folder", "link"])
def test_no_mask_is_written_over_the_truth(run: Path, copied_data: Path, tmp_path: Path, linked: bool) -> None:
    out, truth = copied_data / "labelsTr", copied_data / "labelsTr" / "blobs_005.nii.gz"
    if linked:
        out = tmp_path / "link"
        out.symlink_to(copied_data / "labelsTr")
    before = truth.read_bytes()
    with pytest.raises(VptError, match=r"would replace the scans or true masks themselves \(blobs_005\.nii\.gz\)"):
        evaluate_run(run, data=copied_data, out=out)
    assert truth.read_bytes() == before


def test_a_split_without_test_cases(run: Path) -> None:
    (run / "splits.json").write_text(json.dumps({"train": ["blobs_000"], "val": ["blobs_004"], "test": []}))
    with pytest.raises(VptError, match="run: its split has no test cases; evaluate another side with --split"):
        evaluate_run(run, split="test")
    assert not (run / "test").exists()
    report, folder = evaluate_run(run)
    assert folder == run / "val"
    assert "val split, which chose the epoch (it has no test cases)" in report.settings.title


def test_scans_that_cannot_be_read_leave_the_results_that_are_there(run: Path, copied_data: Path) -> None:
    report, folder = evaluate_run(run)
    report.save(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for scan in (copied_data / "imagesTr").iterdir():
        scan.write_bytes(b"no scan")
    with pytest.raises(VptError, match="blobs_005"):
        evaluate_run(run, data=copied_data, to_save=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.slow
def test_data_that_were_moved(run: Path, copied_data: Path, tmp_path: Path) -> None:
    config = run / "config.yaml"
    lines = config.read_text().splitlines()
    gone = tmp_path / "gone"
    config.write_text("\n".join(f"  path: {gone}" if line.startswith("  path:") else line for line in lines))
    with pytest.raises(VptError, match=r"gone: the run's data set is not there; say where it lies now with --data"):
        evaluate_run(run)
    report, _ = evaluate_run(run, data=copied_data)
    assert report.cases[0].reference_file == str(copied_data / "labelsTr" / "blobs_005.nii.gz")


def test_data_that_number_the_labels_of_the_run_otherwise_are_refused(run: Path, copied_data: Path) -> None:
    file = copied_data / "dataset.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"labels": {"background": 0, "bright": 1, "dark": 2}}))
    with pytest.raises(VptError, match=r"otherwise than the run \(dark is 2 there and 1 in the run, bright is 1 there"):
        evaluate_run(run, data=copied_data)
    assert not (run / "test").exists()


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({"dark": 1, "spleen": 2}, r"\(2 is spleen there and bright in the run\), and masks are compared by number"),
        (
            {"liver": 1, "spleen": 2},
            r"\(1 is liver there and dark in the run, 2 is spleen there and bright in th",
        ),
        ({"Bright": 1, "dark_": 2}, r"\(dark is 2 there and 1 in the run, bright is 1 there and 2 in the run\)"),
    ],
)
def test_data_whose_numbers_are_other_labels_than_the_runs_are_refused(
    run: Path, copied_data: Path, labels: dict[str, int], told: str
) -> None:
    file = copied_data / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"labels": {"background": 0} | labels}))
    with pytest.raises(VptError, match=f"numbers labels otherwise than the run {told}"):
        evaluate_run(run, data=copied_data)
    assert not (run / "test").exists()


@pytest.mark.slow
def test_data_that_write_the_labels_of_the_run_otherwise_are_scored(run: Path, copied_data: Path) -> None:
    expected = evaluate_run(run)[0].mean()
    file = copied_data / "dataset.json"
    for labels in ({"Dark ": 1, "BRIGHT": 2}, {"label 1": 1, "label 2": 2}):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"labels": {"background": 0} | labels}))
        report, _ = evaluate_run(run, data=copied_data)
        assert (report.labels, report.mean()) == ({1: "dark", 2: "bright"}, expected)


def test_what_is_not_a_run(tmp_path: Path, tiny_run: Path) -> None:
    with pytest.raises(VptError, match=r"not a run's folder \(no splits\.json\); give a run of `vpt train`, or two"):
        evaluate_run(tmp_path)
    with pytest.raises(VptError, match="split train: expected test or val"):
        evaluate_run(tiny_run, split="train")


@pytest.mark.slow
def test_a_test_case_that_cannot_be_read_is_named(run: Path, copied_data: Path) -> None:
    scan = copied_data / "imagesTr" / "blobs_005_0000.nii.gz"
    scan.write_bytes(scan.read_bytes()[:-500])
    with pytest.raises(VptError, match=r"blobs_005_0000\.nii\.gz: truncated or damaged"):
        evaluate_run(run, data=copied_data)
    assert list((run / "test").iterdir()) == []


@pytest.mark.slow
def test_a_place_where_no_masks_can_lie(run: Path) -> None:
    with pytest.raises(VptError, match=r"config\.yaml.*: cannot be made a folder"):
        evaluate_run(run, out=run / "config.yaml" / "masks")


# --- images -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("colour", [False, True])
def test_a_run_on_images_from_the_data_to_its_scores(make_images, tmp_path, colour):
    data = make_images(cases=6, colour=colour, size=(70, 90))
    sides = {
        "train": [f"case_{k:02d}" for k in range(4)],
        "val": ["case_04.png"],
        "test": ["case_03.png", "case_05.png"],
    }
    sides["train"].remove("case_03")
    (data / "split.json").write_text(json.dumps(sides))
    run = train(data, tmp_path / "run", overrides=ONE_STEP)
    plan = json.loads((run / "plan.json").read_text())
    assert (plan["kind"], plan["pixel_mm"], plan["neighbours"]) == ("images", None, False)
    assert len(plan["channels"]) == (3 if colour else 1)
    assert Image.open(run / "validation/case_04.png").size == (90, 70)
    preview = np.asarray(Image.open(run / "validation/previews/case_04.png").convert("RGB")).astype(int)
    left = preview[: preview.shape[0] * 4 // 5, : preview.shape[1] // 2]  # the image alone, without the legend
    assert ((left.max(-1) - left.min(-1)).max() > 60) == colour
    report, folder = evaluate_run(run)
    assert sorted(path.name for path in folder.iterdir()) == ["case_03.png", "case_05.png"]
    assert (report.settings.unit, report.labels) == ("px", {255: "object"})
    assert set(np.unique(np.asarray(Image.open(folder / "case_03.png")))) <= {0, 255}
    assert report.counts(255)["cases"] == 2
    told, _ = evaluate_run(run, split="val")
    saved = json.loads((run / "validation" / "summary.json").read_text())
    assert saved["foreground_mean"]["Dice"] == told.mean()
    assert saved["settings"]["tolerance_px"] == 1


@pytest.mark.slow
def test_merged_and_ignored_labels_go_from_the_config_to_the_scores(copied_data: Path, tmp_path: Path) -> None:
    """What is ignored is not missed; plan, log and artifact say so."""
    labels = {"blob": ["dark"], "ignore": ["bright"]}
    run = train(copied_data, tmp_path / "run", overrides=ONE_STEP | {"data.labels": labels})
    assert "labels: 2 is ignored" in (run / "train.log").read_text()
    values = {"0": "background", "1": "blob", "2": "ignore"}
    assert json.loads((run / "plan.json").read_text())["label_values"] == values
    path = copied_data / "labelsTr" / "blobs_005.nii.gz"
    stored = nib.load(path)
    report, folder = evaluate_run(run)
    assert report.labels == {1: "blob"}
    score = report.cases[0].scores[1]
    bright = np.asarray(stored.dataobj) == 2
    assert score.tp + score.fp + score.fn + score.tn == bright.size - bright.sum()
    everything = np.where(np.asarray(stored.dataobj) == 1, 0, 2).astype(np.uint8)  # nothing but what is ignored
    nib.save(nib.Nifti1Image(everything, stored.affine), path)
    empty, _ = evaluate_run(run, out=folder.with_name("again"))
    assert empty.cases[0].scores[1].n_ref == 0
