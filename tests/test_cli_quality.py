"""`--quality` of `vpt evaluate` and `vpt predict`, as a person uses it, and in Python."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from commands import Told

from vpt.artifact import read_artifact
from vpt.scores.trust import COLUMNS
from vpt.tensor_files import read_tensors, write_tensors
from vpt.use.ensembles import SegmenterEnsemble
from vpt.use.folds import DONE, MARK
from vpt.use.known_cases import KnownCases
from vpt.use.load import load
from vpt.use.segmenter import Segmenter

Vpt = Callable[..., Told]


def rows_of(file: Path) -> list[dict[str, str]]:
    with open(file, newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(scope="module")
def seeds(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run, and another that learned a little otherwise. Read only, but for limits."""
    folder = tmp_path_factory.mktemp("seeds")
    runs = [Path(shutil.copytree(tiny_run, folder / name)) for name in ("a", "b")]
    tensors, metadata = read_tensors(runs[1] / "best.safetensors", "")
    torch.manual_seed(1)
    changed = {name: t + 0.05 * torch.randn_like(t) if t.is_floating_point() else t for name, t in tensors.items()}
    write_tensors(runs[1] / "best.safetensors", changed, metadata)
    return runs


@pytest.fixture(scope="module")
def evaluated(seeds: list[Path]) -> Path:
    from typer.testing import CliRunner

    from vpt.cli import app

    told = CliRunner().invoke(app, ["evaluate", *map(str, seeds), "--mean", "--quality", "--device", "cpu"])
    assert told.exit_code == 0, told.output
    folder = seeds[0].parent / "mean-a-b" / "test"
    (folder / "told.txt").write_text(told.output)
    return folder


@pytest.mark.slow
def test_an_ensemble_is_evaluated_with_its_quality_and_keeps_limits(seeds: list[Path], evaluated: Path) -> None:
    told, summary = (evaluated / "told.txt").read_text(), json.loads((evaluated / "summary.json").read_text())
    assert "Which cases to trust" in told
    assert f"mean of {seeds[0]}, {seeds[1]}: test split" in summary["settings"]["title"]
    curves = summary["quality"]["curves"]
    assert {"agreement", "distance", "random", "best possible"} <= curves.keys()
    rows = rows_of(evaluated / "quality.csv")
    assert [(row["case"], row["structure"]) for row in rows] == [
        ("blobs_005", "(case)"),
        ("blobs_005", "dark"),
        ("blobs_005", "bright"),
    ]
    assert all(0 <= float(row["agreement"]) <= 1 for row in rows)
    assert {row["flag"] for row in rows} <= {"yes", "no"}
    [limits] = seeds[0].glob("quality-*.json")
    assert json.loads(limits.read_text())["cases"] == 1
    page = (evaluated / "report.html").read_text()
    assert "Risk against coverage" in page
    assert "Which cases to trust" in page


@pytest.mark.slow
def test_an_evaluation_without_quality_leaves_none_of_an_earlier_one(vpt: Vpt, tiny_run: Path, tmp_path: Path) -> None:
    for written, kept in ((",".join(COLUMNS) + "\n", False), ("scan,sharpness\n", True)):
        (tmp_path / "quality.csv").write_text(written)
        assert vpt("evaluate", tiny_run, "--out", tmp_path, "--device", "cpu").code == 0
        assert (tmp_path / "quality.csv").exists() is kept


@pytest.mark.slow
def test_an_evaluation_that_ends_between_masks_and_scores_is_known_as_one(
    vpt: Vpt, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    monkeypatch.setattr("vpt.use.runs.judge", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    ask = ("evaluate", run, "--out", tmp_path / "out", "--quality", "--device", "cpu")
    assert vpt(*ask).code != 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {".vpt-evaluation", "blobs_005.nii.gz"}
    monkeypatch.undo()
    assert vpt(*ask).code == 0
    assert not (tmp_path / "out" / ".vpt-evaluation").exists()


@pytest.mark.slow
def test_new_scans_are_flagged_by_the_limits_of_the_same_models_in_any_order(
    vpt: Vpt, seeds: list[Path], evaluated: Path, tiny_data: Path, tmp_path: Path
) -> None:
    scan = tiny_data / "imagesTr" / "blobs_005_0000.nii.gz"
    image = nib.load(scan)
    other = np.random.default_rng(0).permuted(np.asarray(image.dataobj), axis=0)  # the same values, nothing in place
    nib.save(nib.Nifti1Image(other, image.affine, image.header), tmp_path / "other.nii.gz")
    words = ("predict", "-i", scan, "-i", tmp_path / "other.nii.gz", "-o", tmp_path / "out", "--mean", "--quality")
    models = ("-m", seeds[1], "-m", seeds[0], "--device", "cpu")

    told = vpt(*words, *models)

    assert (told.code, "nothing is flagged" in told.err) == (0, False)
    assert f"{tmp_path / 'out/quality.csv'}: " in told.out
    assert " flagged" in told.out
    rows = {row["case"]: row for row in rows_of(tmp_path / "out/quality.csv") if row["structure"] == "(case)"}
    assert rows["other"]["flag"] == "yes"
    assert "distance" in rows["other"]["beyond"]
    assert float(rows["other"]["distance"]) > float(rows["blobs_005"]["distance"])
    [known] = [row for row in rows_of(evaluated / "quality.csv") if row["structure"] == "(case)"]
    assert float(rows["blobs_005"]["agreement"]) == pytest.approx(float(known["agreement"]), abs=1e-3)
    record = json.loads((tmp_path / "out/predictions.json").read_text())
    assert all(case["quality"]["case"].keys() >= {"agreement", "entropy", "distance"} for case in record["cases"])
    assert "2 of them were done before" in vpt(*words, *models, "--continue").out


@pytest.mark.slow
def test_without_limits_scores_are_written_nothing_is_flagged_and_that_is_said(
    vpt: Vpt, tiny_run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    words = ("predict", "-i", tiny_data / "imagesTr/blobs_005_0000.nii.gz", "-o", tmp_path / "out", "-m", tiny_run)
    assert vpt(*words, "--device", "cpu").code == 0
    assert not (tmp_path / "out/quality.csv").exists()

    told = vpt(*words, "--device", "cpu", "--continue", "--quality")

    assert f"no limits yet, so nothing is flagged; choose them: vpt evaluate {tiny_run} --quality" in told.err
    assert "done before" not in told.out  # it had no quality yet
    row = rows_of(tmp_path / "out/quality.csv")[0]
    assert (row["agreement"], row["flag"]) == ("", "")
    assert float(row["distance"]) > 0


def test_folds_have_no_limits_and_none_are_advised(
    vpt: Vpt, seeds: list[Path], tiny_data: Path, tmp_path: Path
) -> None:
    """`vpt evaluate --mean` would refuse them: none validates what the others have not trained on."""
    for fold, run in enumerate(seeds[:2]):
        (tmp_path / f"folds/fold-{fold}").mkdir(parents=True)
        shutil.copy(run / "best.safetensors", tmp_path / f"folds/fold-{fold}")
        (tmp_path / f"folds/fold-{fold}" / DONE).write_text("{}")
    (tmp_path / "folds" / MARK).write_text('{"folds": 2}')
    scan = next((tiny_data / "imagesTr").iterdir())
    told = vpt("predict", "-i", scan, "-o", tmp_path / "out", "-m", tmp_path / "folds", "--quality")
    assert told.code == 0
    assert "folds have no limits, since each has trained on what another validates" in told.err
    assert "vpt evaluate" not in told.err


def test_an_artifact_of_before_has_no_distance_and_that_is_said(
    vpt: Vpt, tiny_run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    tensors, metadata = read_tensors(tiny_run / "best.safetensors", "")
    header = json.loads(metadata["vpt"])
    assert header.pop("familiar")["width"] > 0
    old = tmp_path / "old.safetensors"
    write_tensors(old, tensors, metadata | {"vpt": json.dumps(header)})
    assert read_artifact(old).familiar is None
    scan = tiny_data / "imagesTr/blobs_005_0000.nii.gz"
    told = vpt("predict", "-i", scan, "-o", tmp_path / "out", "-m", old, "--quality", "--device", "cpu")
    assert (told.code, "no distance: the model keeps no training cases" in told.err) == (0, True)
    assert rows_of(tmp_path / "out/quality.csv")[0]["distance"] == ""


@pytest.mark.slow
def test_in_python_the_mask_is_the_same_and_its_quality_comes_with_it(seeds: list[Path], tiny_data: Path) -> None:
    model, scan = load(seeds, "cpu"), tiny_data / "imagesTr/blobs_005_0000.nii.gz"
    mask, quality = model.segment_with_quality(scan)  # type: ignore[union-attr]
    assert np.array_equal(np.asarray(mask.dataobj), np.asarray(model.segment(scan).dataobj))  # type: ignore[union-attr]
    assert quality.whole.voxels == np.count_nonzero(np.asarray(mask.dataobj))
    alone = [load(run, "cpu") for run in seeds]
    masks = [np.asarray(each.segment(scan).dataobj) for each in alone]  # type: ignore[union-attr]
    for label, name in ((1, "dark"), (2, "bright")):
        a, b = (mask == label for mask in masks)
        dice = 2 * (a & b).sum() / (a.sum() + b.sum()) if a.any() or b.any() else 1.0
        assert quality.structures[name].agreement == pytest.approx(dice, abs=2e-3)
    apart = [each.distance_of(each.prepare(scan)) for each in alone]  # type: ignore[union-attr]
    assert quality.distance == pytest.approx(np.mean(apart), rel=1e-3)


@pytest.mark.slow
def test_models_that_see_a_scan_otherwise_each_look_for_themselves(tiny_run: Path, tiny_data: Path) -> None:
    """One with the slices above and below it in its channels, one without: no distance is the other's."""
    first, other = (load(tiny_run, "cpu", precision="32-true") for _ in "ab")
    assert isinstance(first, Segmenter)
    assert isinstance(other, Segmenter)
    assert other.known is not None
    other.plan = other.plan.model_copy(update={"neighbours": not other.plan.neighbours})
    other.known = KnownCases.of(other.model, other.known.familiar, other.plan, "32-true", other.device, 2)
    both = SegmenterEnsemble([first, other])
    scan = both.prepare(tiny_data / "imagesTr/blobs_005_0000.nii.gz")
    apart = [each.distance_of(scan) for each in (first, other)]
    assert apart[0] != pytest.approx(apart[1], rel=1e-3)
    assert both.distance_of(scan) == pytest.approx(np.mean(apart), rel=1e-3)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("predict", "-i", "SCAN", "-o", "one.nii.gz", "-m", "A", "--quality"), 2, "--quality is of a folder"),
        (("predict", "-i", "SCAN", "-o", "out", "-m", "A", "-m", "B", "--quality"), 2, "or --mean"),
        (("evaluate", "MASKS", "MASKS", "--quality"), 2, "--quality: is of one run, or with --mean"),
        (("evaluate", "A", "B", "--quality"), 2, "--quality: is of one run, or with --mean"),
        (("evaluate", "A", "--quality", "--oracle-box"), 2, "leave --oracle-box out"),
        (("evaluate", "A", "--mean"), 2, "--mean: expected several runs on one split"),
        (("evaluate", "A", "A", "--mean", "--quality"), 1, "which agrees with itself; give each once"),
        (("predict", "-i", "SCAN", "-o", "out", "-m", "A", "-m", "A", "--mean", "--quality"), 1, "agrees with itself"),
        (("evaluate", "A", "OTHER", "--mean"), 1, "another train side than"),
    ],
)
def test_mistakes_end_in_a_sentence(
    vpt: Vpt, seeds: list[Path], tiny_data: Path, tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    splits = json.loads((seeds[0] / "splits.json").read_text())
    (other / "splits.json").write_text(json.dumps(splits | {"train": splits["train"][1:]}))
    known = {
        "SCAN": tiny_data / "imagesTr/blobs_005_0000.nii.gz",
        "A": seeds[0],
        "B": seeds[1],
        "OTHER": other,
        "MASKS": tiny_data / "labelsTr",
        "out": tmp_path / "out",
        "one.nii.gz": tmp_path / "one.nii.gz",
    }
    told = vpt(*(known.get(word, word) for word in words))
    assert (told.code, said in told.err) == (code, True), told.err


@pytest.mark.slow
def test_a_classifier_says_how_sure_it_is_itself(vpt: Vpt, class_run: Path, tiny_classes: Path, tmp_path: Path) -> None:
    image = next((tiny_classes / "flat").glob("*.png"))
    told = vpt("predict", "-i", image, "-o", tmp_path / "out", "-m", class_run, "--quality", "--device", "cpu")
    assert (told.code, "the model classifies" in told.err) == (2, True)
    told = vpt("evaluate", class_run, "--quality", "--device", "cpu")
    assert (told.code, "its probabilities say how sure it is" in told.err) == (1, True)


@pytest.mark.slow
def test_classifiers_are_evaluated_as_one_too(vpt: Vpt, class_run: Path, tmp_path: Path) -> None:
    same = shutil.copytree(class_run, tmp_path / "same")  # the mean of equals is each of them
    told = vpt("evaluate", class_run, same, "--mean", "-o", tmp_path / "out", "--device", "cpu")
    assert told.code == 0, told.err
    alone = vpt("evaluate", class_run, "-o", tmp_path / "alone", "--device", "cpu")
    assert alone.code == 0
    scores = [json.loads((tmp_path / name / "summary.json").read_text())["scores"] for name in ("out", "alone")]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)


@pytest.mark.slow
def test_limits_that_are_none_are_refused_by_name(
    vpt: Vpt, seeds: list[Path], evaluated: Path, tiny_data: Path, tmp_path: Path
) -> None:
    runs = [Path(shutil.copytree(run, tmp_path / run.name)) for run in seeds]
    [limits] = runs[0].glob("quality-*.json")
    limits.write_text('{"case": 1}')
    scan = tiny_data / "imagesTr/blobs_005_0000.nii.gz"
    models = ("-m", runs[0], "-m", runs[1], "--mean", "--device", "cpu")
    told = vpt("predict", "-i", scan, "-o", tmp_path / "out", *models, "--quality")
    assert (told.code, f"{limits}: holds no limits" in told.err) == (1, True)
