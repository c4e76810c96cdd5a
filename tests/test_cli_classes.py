"""The command line on images with classes: from the check of the data to a table of probabilities."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Told
from tiny_classes import CLASS_SETTINGS, CLASSES
from tiny_run import assert_same_run

from vpt.config import load_config
from vpt.engine import classifying
from vpt.use.load import load


def settings(**changes: Any) -> list[str]:
    """CLASS_SETTINGS for `vpt train`, as --set options; prompts and epochs have options of their own."""
    chosen = {key: value for key, value in CLASS_SETTINGS.items() if key not in ("prompts", "train.epochs")} | changes
    return [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


# --- check ------------------------------------------------------------------------------------------------------------


def test_check_of_a_labelled_set(vpt: Callable[..., Told], tiny_classes: Path, copied_classes: Path) -> None:
    code, out, err = vpt("check", tiny_classes)
    assert (code, err) == (0, "")
    for name in CLASSES:
        assert name in out
    broken = copied_classes / "lying" / "im1.png"
    broken.write_bytes(broken.read_bytes()[:60])
    code, out, err = vpt("check", copied_classes)
    assert code == 1
    assert "lying/im1.png" in "".join(out.split())
    assert "Traceback" not in err


@pytest.mark.parametrize("which", ["tiny_labels", "tiny_npz", "tiny_scans", "tiny_grades"])
def test_check_of_every_layout(vpt: Callable[..., Told], which: str, request: pytest.FixtureRequest) -> None:
    code, out, err = vpt("check", request.getfixturevalue(which))
    assert (code, err) == (0, ""), out


# --- train ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_train_with_task_shots_and_head(vpt: Callable[..., Told], tiny_classes: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "[first]"  # brackets are no markup
    words = ("--task", "classification", "--shots", 2, "--head", "mlp", "--prompts", "shallow:3", "--epochs", 1)
    code, out, err = vpt("train", tiny_classes, "--out", run, *words, *settings(**{"train.max_steps": 1}))
    assert code == 0, err
    for path in (run, run / "best.safetensors", run / "progress.png", run / "validation" / "summary.json"):
        assert str(path) in out
        assert path.exists()
    assert "classification, 6 training and 6 validation cases" in out
    config = load_config(run / "config.yaml")
    assert config.head is not None
    assert (config.task, config.data.shots, config.head.kind) == ("classification", 2, "mlp")
    assert config.head.model_dump() == {"kind": "mlp", "pool": "auto", "hidden": 256, "start": "normal"}


@pytest.mark.slow
def test_the_pictures_are_where_it_says(vpt: Callable[..., Told], tiny_classes: Path, tmp_path: Path) -> None:
    code, out, _ = vpt(
        "train", tiny_classes, "-o", tmp_path / "run", "--epochs", 1, *settings(**{"train.max_steps": 1})
    )
    assert code == 0
    place = Path(out.rpartition("pictures in ")[2].strip())
    assert sorted(path.name for path in place.glob("*.png")) == ["confusion.png", "reliability.png"]


@pytest.mark.slow
def test_train_on_an_npz_is_named_after_it(
    vpt: Callable[..., Told], tiny_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = vpt("train", tiny_npz, "--epochs", 1, *settings(**{"train.max_steps": 1}))
    assert code == 0, err
    assert (tmp_path / "runs" / "stripesmnist" / "best.safetensors").is_file()


@pytest.mark.slow
def test_interrupted_then_resumed(
    vpt: Callable[..., Told], class_run: Path, tmp_path: Path, class_signal_at: Callable[..., None]
) -> None:
    config, run = shutil.copy(class_run / "config.yaml", tmp_path / "mine.yaml"), tmp_path / "run"
    class_signal_at(4, signal.SIGINT)
    code, out, err = vpt("train", config, "--out", run)
    assert code == 130
    assert f"continue with: vpt train --resume --out {run}" in out
    assert "Traceback" not in err
    assert vpt("train", "--resume", "--out", run)[0] == 0
    assert_same_run(run, class_run)


MISTAKES = {
    "--head mask": "head.kind=mask is not for classification; choose linear or mlp",
    "--task segmentation": "{data}: ",
    "--task segmentation --head linear": "head.kind=linear is not for segmentation; choose mask, readout, sam_decoder "
    "or unet",
    "--task sorting": "config: task: Input should be 'segmentation' or 'classification', found 'sorting'",
    "--shots 9": "{data}: 4 training examples of flat, fewer than 9 shots; lower data.shots",
    "--shots 0": "config: data.shots: Input should be greater than or equal to 1, found 0",
    "--set loss.class_weights=[1,2]": "loss.class_weights: 2 weights for 3 classes (flat, lying, standing)",
    "--set loss.class_weights=rare": "config: loss.class_weights",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    vpt: Callable[..., Told], tiny_classes: Path, tmp_path: Path, words: str
) -> None:
    code, _, err = vpt("train", tiny_classes, "--out", tmp_path / "run", *words.split(), "--device", "cpu")
    assert code == 1
    assert err.startswith(f"error: {MISTAKES[words].format(data=tiny_classes)}")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


# --- predict ----------------------------------------------------------------------------------------------------------


def test_predict_a_folder_into_a_table(
    vpt: Callable[..., Told], class_run: Path, tiny_classes: Path, tmp_path: Path
) -> None:
    folder = tiny_classes / "lying"
    code, out, err = vpt("predict", "-i", folder, "-o", tmp_path / "found", "-m", class_run, "--device", "cpu")
    assert (code, err) == (0, "")
    path = tmp_path / "found" / "predictions.csv"
    assert "8 of 8 scans classified" in out
    assert str(path) in out
    found = table(path)
    assert list(found[0]) == ["name", "prediction", *(f"p_{name}" for name in CLASSES)]
    assert [row["name"] for row in found] == [f"im{k}" for k in range(8)]
    classifier = load(class_run, "cpu")
    for row in found:
        expected = classifier.classify(folder / f"{row['name']}.png")
        assert {name: float(row[f"p_{name}"]) for name in CLASSES} == pytest.approx(expected, abs=1e-4)
        assert row["prediction"] == max(expected, key=expected.__getitem__)


@pytest.mark.slow
def test_predict_one_image_into_a_file_and_not_over_another_unasked(
    vpt: Callable[..., Told], class_run: Path, tiny_classes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "mine.csv"
    words = ("predict", "-i", tiny_classes / "flat" / "im0.png", "-o", out, "-m", class_run, "--device", "cpu")
    assert vpt(*words)[0] == 0
    assert [row["name"] for row in table(out)] == ["im0"]
    out.write_text("by hand")
    code, _, err = vpt(*words)
    assert code == 1
    assert err == f"error: {out}: exists already; add --overwrite, or choose another output\n"
    assert out.read_text() == "by hand"
    code, _, err = vpt(*words, "--skip-existing")
    assert code == 2
    assert "--skip-existing: classes go into one CSV" in err
    assert vpt(*words, "--overwrite")[0] == 0
    assert [row["name"] for row in table(out)] == ["im0"]
    assert [path.name for path in out.parent.iterdir()] == ["mine.csv"]


@pytest.mark.parametrize("number", [0, 3, 7])
def test_an_image_that_is_damaged_fails_alone(
    vpt: Callable[..., Told], class_run: Path, copied_classes: Path, tmp_path: Path, number: int
) -> None:
    broken = copied_classes / "lying" / f"im{number}.png"
    broken.write_bytes(broken.read_bytes()[:60])
    out = tmp_path / "found.csv"
    code, told, err = vpt("predict", "-i", broken.parent, "-o", out, "-m", class_run, "--device", "cpu")
    assert code == 1
    assert "7 of 8 scans classified" in told
    assert err.startswith(f"failed: {broken}: ")
    assert err.count("\n") == 1
    assert [row["name"] for row in table(out)] == [f"im{k}" for k in range(8) if k != number]


def test_where_no_image_can_be_read_there_is_no_table_but_the_reason(
    vpt: Callable[..., Told], class_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    out = tmp_path / "found.csv"
    code, told, err = vpt("predict", "-i", tmp_path / "bad.png", "-o", out, "-m", class_run, "--device", "cpu")
    assert code == 1
    assert "0 of 1 scans classified" in told
    assert err.startswith(f"failed: {tmp_path / 'bad.png'}: ")
    assert not out.exists()


@pytest.mark.slow
def test_predict_volumes_and_several_labels(
    vpt: Callable[..., Told], scan_run: Path, label_run: Path, tiny_scans: Path, tiny_labels: Path, tmp_path: Path
) -> None:
    code, _, err = vpt("predict", "-i", tiny_scans / "ill", "-o", tmp_path / "s.csv", "-m", scan_run, "--device", "cpu")
    assert code == 0, err
    assert [row["name"] for row in table(tmp_path / "s.csv")] == [f"scan{k}" for k in (1, 3, 5, 7)]
    code, _, err = vpt("predict", "-i", tiny_labels, "-o", tmp_path / "l.csv", "-m", label_run, "--device", "cpu")
    assert code == 0, err
    for row in table(tmp_path / "l.csv"):
        named = [name for name in ("lying", "standing") if float(row[f"p_{name}"]) > 0.5]
        assert row["prediction"] == "|".join(named)


def test_classes_replace_nobodys_files_unasked(
    vpt: Callable[..., Told], class_run: Path, tiny_classes: Path, tmp_path: Path
) -> None:
    image = tiny_classes / "flat" / "im0.png"
    (tmp_path / "failures.json").write_text("by hand")
    for out, text in (
        (tmp_path, "failures.json: not of a batch"),
        (tmp_path / "a.xlsx", "a.xlsx: no answer is written"),
    ):
        code, _, err = vpt("predict", "-i", image, "-o", out, "-m", class_run, "--device", "cpu")
        assert (code, text in err) == (1, True)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("failures.json", "by hand")]


def test_the_name_of_a_mask_is_refused(
    vpt: Callable[..., Told], class_run: Path, tiny_classes: Path, tmp_path: Path
) -> None:
    image = tiny_classes / "flat" / "im0.png"
    code, _, err = vpt("predict", "-i", image, "-o", tmp_path / "mask.png", "-m", class_run, "--device", "cpu")
    assert code == 1
    assert err.startswith(f"error: {tmp_path / 'mask.png'}: the model classifies")
    assert list(tmp_path.iterdir()) == []


# --- evaluate and info ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_evaluate_a_run(vpt: Callable[..., Told], class_run: Path, tmp_path: Path) -> None:
    code, out, err = vpt("evaluate", class_run, "--out", tmp_path / "test", "--device", "cpu")
    assert (code, err) == (0, "")
    for part in ("balanced accuracy", "AUROC", *CLASSES, str(tmp_path / "test" / "summary.json")):
        assert part in out
    written = {path.name for path in (tmp_path / "test").iterdir()}
    pictures = {"confusion.png", "reliability.png"}
    assert written == {"summary.json", "cases.csv", "evaluation.md", "report.html"} | pictures
    assert not (class_run / "test").exists()
    summary = json.loads((tmp_path / "test" / "summary.json").read_text())
    found = table(tmp_path / "test" / "cases.csv")
    assert summary["n"] == len(found) == 6
    right = sum(row["reference"] == row["prediction"] for row in found)
    assert summary["scores"]["accuracy"] == pytest.approx(right / 6)

    people = "\n".join(f"{row['name']},{'fm'[k % 2]}" for k, row in enumerate(found[:5]))
    (tmp_path / "people.csv").write_text(f"case,sex\n{people}\n")
    by = ("--by", "sex", "--groups", tmp_path / "people.csv")
    code, out, err = vpt("evaluate", class_run, "--out", tmp_path / "by", "--device", "cpu", *by)
    assert (code, err) == (0, "")
    assert "Scores by sex" in out
    assert f"1 case without sex, in no group: {found[5]['name']}" in " ".join(out.split())
    rows = json.loads((tmp_path / "by" / "summary.json").read_text())["by_group"][0]["rows"]
    assert [(row["group"], row["cases"]) for row in rows] == [("f", 3), ("m", 2)]
    assert "## Scores by sex" in (tmp_path / "by" / "evaluation.md").read_text()


@pytest.mark.slow
def test_evaluate_replaces_no_pictures_of_others_and_says_so_before_it_scores(
    vpt: Callable[..., Told], class_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "confusion.png").write_bytes(b"of the ward")
    told = vpt("evaluate", class_run, "--out", tmp_path, "--device", "cpu")
    assert (told.code, told.out) == (1, "")
    assert "confusion.png: not of `vpt evaluate`, which would replace it" in told.err


@pytest.mark.slow
def test_evaluate_the_validation_side_into_the_run(vpt: Callable[..., Told], class_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(class_run, tmp_path / "run")
    assert vpt("evaluate", run, "--split", "val", "--device", "cpu")[0] == 0
    assert (run / "val" / "summary.json").is_file()
    code, _, err = vpt("evaluate", run, "--oracle-box", "--device", "cpu")
    assert code == 1
    assert err == f"error: {run}: classifies, so it takes no boxes; leave --oracle-box out\n"
    code, _, err = vpt("evaluate", run, "--viewer", "--out", tmp_path / "viewed")
    assert (code, err) == (2, "usage: --viewer: shows masks, and the run classifies; leave it out\n")
    assert not (tmp_path / "viewed").exists()


def test_info_of_a_run(vpt: Callable[..., Told], class_run: Path, scan_run: Path, tiny_classes: Path) -> None:
    code, out, _ = vpt("info", class_run)
    assert code == 0
    for part in (
        "classification, classes",
        "kind linear, pool auto",
        "0 flat, 1 lying, 2 standing",
        "images, longer side 32 px",
        "8-bit images: all values from 0 to 255",
    ):
        assert part in " ".join(out.split())
    code, out, _ = vpt("info", scan_run)
    assert code == 0
    assert "0 ill, 1 well" in out


@pytest.mark.slow
def test_info_says_the_temperature(
    vpt: Callable[..., Told], tiny_classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = settings(**{"train.max_steps": 1, "train.calibrate": "true"})
    monkeypatch.setattr(classifying, "fit_temperature", lambda *_: 2.5)
    code, out, _ = vpt("train", tiny_classes, "--out", tmp_path / "run", "--epochs", 1, *words)
    assert code == 0
    fitted = out.partition("temperature ")[2].partition(",")[0]
    assert fitted == "2.5"
    code, out, _ = vpt("info", tmp_path / "run")
    assert code == 0
    assert ["temperature", fitted] in [line.split() for line in out.splitlines()]
