"""The command line: every command on tiny data, exit codes, and one sentence for every mistake."""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from commands import Told
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_run import SETTINGS, assert_same_run

from vpt.backbones.vit_models import MICRO_WEIGHTS
from vpt.cli import main
from vpt.config import load_config
from vpt.errors import VptError
from vpt.prompts.shallow import ShallowConfig
from vpt.use import scored_splits


def settings(**changes: Any) -> list[str]:
    """SETTINGS for `vpt train`, as --set options; prompts and epochs have options of their own."""
    chosen = {key: value for key, value in SETTINGS.items() if key not in ("prompts", "train.epochs")} | changes
    return [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]


# --- help -------------------------------------------------------------------------------------------------------------


def test_help_answers_without_loading_anything_heavy() -> None:
    code = (
        "import sys; sys.argv = ['vpt', '--help']\n"
        "from vpt.cli import main\n"
        "try: main()\n"
        "finally: print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    for command in ("check", "train", "predict", "evaluate", "info", "fetch", "demo", "doctor"):
        assert command in done.stdout
    heavy = {"torch", "monai", "timm", "lightning", "albumentations", "matplotlib", "cv2", "nibabel", "numpy", "scipy"}
    assert heavy & set(done.stderr.split()) == set()


@pytest.mark.parametrize(("command", "one"), [("compare", r"lora +LoRA"), ("continual", r"ranpac +RanPAC")])
def test_methods_are_listed_without_data(vpt: Callable[..., Told], command: str, one: str) -> None:
    told = vpt(command, "--methods", "list")
    assert told.code == 0
    assert re.search(f"(?m)^{one}", told.out)
    assert len({len(found) for found in re.findall(r"(?m)^\S+ +", told.out)}) == 1
    told = vpt(command, "--methods", "lora")
    assert (told.code, "usage: give a data set" in told.err) == (2, True)


def test_the_entry_point_is_installed() -> None:
    from importlib.metadata import entry_points

    (script,) = entry_points(group="console_scripts", name="vpt")
    assert script.load() is main


@pytest.mark.slow
def test_what_cannot_be_printed_is_said_and_a_reader_that_leaves_is_no_fault_of_the_data(
    tiny_data: Path, tmp_path: Path
) -> None:
    def run(line: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", "-c", line, "bash", sys.executable, "-m", "vpt.cli", "check", str(tiny_data)]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"TMPDIR": str(tmp_path)})

    told = run('"$@" > /dev/full')
    assert (told.returncode, told.stderr.count("\n")) == (1, 1)
    assert "No space left on device" in told.stderr
    told = run('"$@" | true; exit ${PIPESTATUS[0]}')
    assert (told.returncode, told.stderr) == (141, "")
    told = run('mkdir "$TMPDIR/gone"; cd "$TMPDIR/gone"; rmdir "$TMPDIR/gone"; "$@"')
    assert (told.returncode, told.stderr.count("\n")) == (1, 1)
    assert "the folder that this is started in is gone" in told.stderr
    for line in ('"$@" <&- >&-', 'COLUMNS=x "$@"', 'COLUMNS=0 "$@"'):
        told = run(line)
        assert (told.returncode, told.stderr) == (0, "")


# --- every command ----------------------------------------------------------------------------------------------------


def test_check(vpt: Callable[..., Told], tiny_data: Path, copied_data: Path) -> None:
    told = vpt("check", tiny_data)
    assert (told.code, told.err) == (0, "")
    assert "dark" in told.out
    (copied_data / "labelsTr" / "blobs_002.nii.gz").unlink()
    told = vpt("check", copied_data)
    assert told.code == 1
    assert "blobs_002_0000.nii.gz" in told.flat()
    assert "Traceback" not in told.err


def test_the_page_of_a_check_replaces_no_image(vpt: Callable[..., Told], tiny_data: Path, tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    image.write_bytes(b"an image")
    told = vpt("check", tiny_data, "--html", image)
    assert told.code == 2
    assert f"--html {image}: is the name of the page" in told.err
    assert image.read_bytes() == b"an image"


@pytest.mark.slow
def test_train_with_options(vpt: Callable[..., Told], tiny_data: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "[first]"  # brackets are no markup
    words = ("--out", run, "--prompts", "shallow:3", "--epochs", 1, "--seed", 7)
    told = vpt("train", tiny_data, *words, *settings(**{"train.max_steps": 1, "optim.lr": "1e-3"}))
    assert told.code == 0
    for path in (run, run / "best.safetensors", run / "progress.png", run / "validation" / "summary.json"):
        assert str(path) in told.out
        assert path.exists()
    assert "epoch 1/1: loss" in told.out
    config = load_config(run / "config.yaml")
    assert config.prompts == ShallowConfig(count=3)
    assert (config.train.epochs, config.seed, config.optim.lr) == (1, 7, 1e-3)


@pytest.mark.slow
def test_train_from_a_config_then_interrupted_then_resumed(
    vpt: Callable[..., Told], tiny_run: Path, tmp_path: Path, signal_at: Callable[..., None]
) -> None:
    config, run = shutil.copy(tiny_run / "config.yaml", tmp_path / "mine.yaml"), tmp_path / "run"
    signal_at(4, signal.SIGINT)
    told = vpt("train", config, "--out", run)
    assert told.code == 130
    assert f"continue with: vpt train --resume --out {run}" in told.out
    assert "Traceback" not in told.err
    assert vpt("train", "--resume", "--out", run).code == 0
    assert_same_run(run, tiny_run)


@pytest.mark.slow
def test_what_is_doubted_of_new_scans_is_said_once(
    vpt: Callable[..., Told], tiny_run: Path, copied_data: Path, tmp_path: Path
) -> None:
    scans = sorted((copied_data / "imagesTr").iterdir())
    for path in scans[:2]:
        image = nib.load(path)
        image.header["intent_code"] = 3
        nib.save(image, path)
    told = vpt("predict", "-i", copied_data / "imagesTr", "-o", tmp_path / "masks", "-m", tiny_run)
    assert (told.code, told.err.count("a statistical map")) == (0, 1)
    assert f"{scans[0]} (and 1 more file): a statistical map" in told.err


@pytest.mark.slow
def test_predict_one_scan_and_a_folder_then_evaluate_the_two_folders(
    vpt: Callable[..., Told], tiny_run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    scan = tiny_data / "imagesTr" / "blobs_003_0000.nii.gz"
    told = vpt("predict", "-i", scan, "-o", tmp_path / "one.nii.gz", "-m", tiny_run)
    assert told.code == 0
    assert "1 of 1 scans segmented" in told.out
    one = nib.load(tmp_path / "one.nii.gz")
    assert np.array_equal(one.affine, nib.load(scan).affine)

    masks = tmp_path / "masks"
    told = vpt("predict", "-i", tiny_data / "imagesTr", "-o", masks, "-m", tiny_run / "last.safetensors")
    assert told.code == 0
    assert sorted(path.name for path in masks.glob("*.nii.gz")) == [f"blobs_00{k}.nii.gz" for k in range(6)]

    told = vpt("evaluate", masks, tiny_data / "labelsTr", "--out", tmp_path / "scores")
    assert told.code == 0
    assert "foreground" in told.out
    assert str(tmp_path / "scores" / "summary.json") in told.out
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert len(summary["metric_per_case"]) == 6
    told = vpt("evaluate", masks, tiny_data / "labelsTr", "--labels", "1,2", "-o", tmp_path / "named")
    assert told.code == 0
    assert json.loads((tmp_path / "named" / "summary.json").read_text())["mean"].keys() == {"1", "2"}


def test_a_broken_scan_stops_no_other(
    vpt: Callable[..., Told], tiny_run: Path, copied_data: Path, tmp_path: Path
) -> None:
    broken = copied_data / "imagesTr" / "blobs_001_0000.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-500])
    told = vpt("predict", "-i", copied_data / "imagesTr", "-o", tmp_path / "masks", "-m", tiny_run)
    assert told.code == 1
    assert "5 of 6 scans segmented" in told.out
    failed = [line for line in told.err.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 1
    assert failed[0].startswith(f"failed: {broken}: truncated or damaged")
    assert sorted(path.name for path in (tmp_path / "masks").glob("*.nii.gz")) == [
        f"blobs_00{k}.nii.gz" for k in (0, 2, 3, 4, 5)
    ]


def test_masks_that_are_there_are_not_replaced_unasked(
    vpt: Callable[..., Told], tiny_run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    scan, mask = tiny_data / "imagesTr" / "blobs_003_0000.nii.gz", tmp_path / "mask.nii.gz"
    mask.write_bytes(b"by hand")
    told = vpt("predict", "-i", scan, "-o", mask, "-m", tiny_run)
    assert told.code == 1
    assert mask.read_bytes() == b"by hand"
    told = vpt("predict", "-i", scan, "-o", mask, "-m", tiny_run, "--skip-existing")
    assert "1 of 1 scans segmented" in told.out
    assert "1 of them had a mask before, which stays" in told.out
    assert (told.code, mask.read_bytes()) == (0, b"by hand")
    assert vpt("predict", "-i", scan, "-o", mask, "-m", tiny_run, "--overwrite").code == 0
    assert nib.load(mask).shape == nib.load(scan).shape


@pytest.mark.slow
def test_values_that_do_not_fit_are_refused_unless_forced(
    vpt: Callable[..., Told], tiny_run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    mask, out = tiny_data / "labelsTr" / "blobs_003.nii.gz", tmp_path / "mask.nii.gz"
    said = f"{mask}: values from 0 to 2 do not look like the values that the model was trained on"

    told = vpt("predict", "-i", mask, "-o", out, "-m", tiny_run)
    assert told.code == 1
    assert f"failed: {said}" in told.err
    assert "--force" in told.err
    assert not out.exists()
    told = vpt("predict", "-i", mask, "-o", out, "-m", tiny_run, "--force")
    assert told.code == 0
    assert f"warning: {said}" in told.err
    assert "UserWarning" not in told.err
    assert out.is_file()


def test_mirror_images_are_averaged_only_where_the_model_was_trained_on_them(
    vpt: Callable[..., Told], tiny_run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    told = vpt("predict", "-i", tiny_data / "imagesTr", "-o", tmp_path / "out", "-m", tiny_run, "--tta")
    assert told.code == 1
    assert "trained on no mirror images" in told.err
    assert not (tmp_path / "out").exists()
    told = vpt("evaluate", tiny_data / "labelsTr", tiny_data / "labelsTr", "--tta")
    assert told.code == 2
    assert "--tta needs a run, not folders of masks" in told.err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--split", "val"], "--split val: is of a run; of folders of masks all are scored"),
        (["--data", "x"], "--data x: is of a run"),
        (["--weights", "x"], "--weights x: is of a run"),
        (["--lesion-overlap", "0.3"], "--lesion-overlap 0.3: of which label's lesions? Add --lesions"),
    ],
)
def test_evaluate_ignores_no_option(
    vpt: Callable[..., Told], tiny_data: Path, options: list[str], sentence: str
) -> None:
    told = vpt("evaluate", tiny_data / "labelsTr", tiny_data / "labelsTr", *options)
    assert (told.code, sentence in told.err) == (2, True)


@pytest.mark.parametrize(
    ("folders", "options", "sentence"),
    [
        ("MM", ["--oracle-box"], "--oracle-box needs a run, not folders of masks"),
        ("MM", ["--postprocess", "none"], "--postprocess needs a run, not folders of masks"),
        ("MMM", ["--split", "val"], "--split val: is of a run"),
        ("RR", ["--folds", "--split", "val"], "--split val: every fold scores what it validates"),
        ("R", ["--strict"], "--strict: is of folders"),
        ("RR", ["--patients", "x"], "--patients x: a run knows its patients"),
        ("R", ["--labels", "x"], "--labels x: a run scores all that it was trained on"),
        ("RR", ["--by", "sex"], "--by sex: two are compared as a whole"),
        ("RR", ["--by", "auto"], "--by auto: two are compared as a whole"),
        ("MMM", ["--lesions", "all"], "--lesions all: are not compared"),
        ("RR", ["--quality"], "--quality: is of one run"),
        ("MM", ["--quality"], "--quality: is of one run"),
        ("RR", ["--mean", "--postprocess", "choose"], "--postprocess choose: is of one run"),
        ("R", ["--quality", "--oracle-box"], "--quality: is of masks that nobody helped with"),
        ("R", ["--groups", "x"], "--groups x: of which column? Add --by COLUMN"),
        ("R", ["--empty", "1"], "--empty 1: expected nan, one or zero"),
        ("R", ["--lesions", "all", "--lesion-overlap", "0"], "--lesion-overlap 0: expected an IoU above 0 and up to 1"),
        ("R", ["--out", "scores/a.json"], "--out scores/a.json: is a folder, in which summary.json"),
    ],
)
def test_evaluate_refuses_options_of_other_kinds(
    vpt: Callable[..., Told], tiny_run: Path, tiny_data: Path, folders: str, options: list[str], sentence: str
) -> None:
    of = {"R": tiny_run, "M": tiny_data / "labelsTr"}
    told = vpt("evaluate", *(of[each] for each in folders), *options)
    assert (told.code, sentence in told.err) == (2, True)


@pytest.mark.slow
def test_predict_takes_a_precision(vpt: Callable[..., Told], tiny_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    words = ("predict", "-i", tiny_data / "imagesTr" / "blobs_003_0000.nii.gz", "-m", tiny_run)
    assert vpt(*words, "-o", tmp_path / "mask.nii.gz", "--precision", "32-true").code == 0
    told = vpt(*words, "-o", tmp_path / "other.nii.gz", "--precision", "fp8")
    assert told.code == 2
    assert "--precision fp8: expected auto, 32-true, bf16-mixed, 16-mixed" in told.err
    assert not (tmp_path / "other.nii.gz").exists()


@pytest.mark.parametrize("of", ["masks", "comparison"])
def test_evaluate_replaces_no_page_of_others_and_says_so_before_it_scores(
    vpt: Callable[..., Told], tiny_data: Path, tmp_path: Path, of: str
) -> None:
    truth, page = tiny_data / "labelsTr", tmp_path / "report.html"
    page.write_text("<h1>Of the ward</h1>")
    told = vpt("evaluate", *[truth] * (2 if of == "masks" else 3), "--out", tmp_path)
    assert told.code == 1
    assert f"{page}: not of `vpt evaluate`, which would replace it" in told.err
    assert "Dice" not in told.out
    assert [*tmp_path.iterdir()] == [page]


def test_evaluate_says_before_it_scores_that_nothing_can_be_written(
    vpt: Callable[..., Told], tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, asked = tiny_data / "labelsTr", os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and asked(path, mode))  # root may write all
    told = vpt("evaluate", truth, truth, "--out", tmp_path / "deep" / "scores")
    assert told.code == 1
    assert f"scores: cannot be written ({tmp_path} is read-only here); give another folder for the scores" in told.err
    assert "Dice" not in told.out
    assert not [*tmp_path.iterdir()]


def test_evaluate_writes_no_masks_of_a_run_among_those_of_others(
    vpt: Callable[..., Told], tiny_data: Path, tiny_run: Path, tmp_path: Path
) -> None:
    drawn = Path(shutil.copy(tiny_data / "labelsTr" / "blobs_000.nii.gz", tmp_path / "blobs_005.nii.gz"))
    before = drawn.read_bytes()
    told = vpt("evaluate", tiny_run, "--out", tmp_path)
    assert told.code == 1
    assert f"{tmp_path}: holds blobs_005.nii.gz, and no scores of `vpt evaluate`" in told.err
    assert drawn.read_bytes() == before
    drawn.unlink()
    Image.new("L", (8, 8)).save(tmp_path / "overview.png")  # is no mask among volumes
    for _ in range(2):
        assert vpt("evaluate", tiny_run, "--out", tmp_path).code == 0


def test_an_evaluation_that_was_broken_off_is_run_again_into_its_folder(
    vpt: Callable[..., Told], tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(scored_splits, "evaluate", lambda *args, **how: signal.raise_signal(signal.SIGINT))
        assert vpt("evaluate", tiny_run, "--out", tmp_path).code != 0
    assert [*tmp_path.glob("*.nii.gz")]
    assert not (tmp_path / "cases.csv").exists()
    assert vpt("evaluate", tiny_run, "--out", tmp_path).code == 0
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


@pytest.mark.parametrize("command", ["check", "explain"])
def test_a_page_of_others_is_not_replaced(
    vpt: Callable[..., Told], tiny_data: Path, tiny_run: Path, tmp_path: Path, command: str
) -> None:
    page = tmp_path / "explain.html"
    page.write_text("<h1>Of the ward</h1>")
    scan = tiny_data / "imagesTr" / "blobs_000_0000.nii.gz"
    words = (tiny_data, "--html", page) if command == "check" else (tiny_run, scan, "-o", tmp_path)
    told = vpt(command, *words)
    assert (told.code, told.err) == (
        1,
        f"error: {page}: not of vpt, which would replace it; move it, or choose another place\n",
    )
    assert page.read_text() == "<h1>Of the ward</h1>"
    assert [*tmp_path.iterdir()] == [page]


def test_predict_replaces_no_page_of_others_and_says_so_before_it_predicts(
    vpt: Callable[..., Told], tiny_data: Path, tiny_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "report.html").write_text("<h1>Of the ward</h1>")
    told = vpt("predict", "-i", tiny_data / "imagesTr", "-o", tmp_path, "-m", tiny_run, "--report")
    assert told.code == 1
    assert "report.html: not of vpt, which would replace it" in told.err
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("of", ["masks", "run"])
def test_evaluate_replaces_nobodys_files_and_says_so_before_it_scores(
    vpt: Callable[..., Told], tiny_data: Path, tiny_run: Path, tmp_path: Path, of: str
) -> None:
    summary = tmp_path / "summary.json"
    summary.write_text('{"foreground_mean": {"Dice": 0.9}, "mean": {}, "metric_per_case": []}')  # nnU-Net's
    truth = tiny_data / "labelsTr"
    told = vpt("evaluate", *([tiny_run] if of == "run" else [truth, truth]), "--out", tmp_path)
    assert told.code == 1
    assert f"{summary}: not of `vpt evaluate`, which would replace it" in told.err
    assert "Dice" not in told.out
    assert [*tmp_path.iterdir()] == [summary]


def test_evaluate_replaces_no_qualities_of_others_and_says_so_before_it_scores(
    vpt: Callable[..., Told], tiny_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "quality.csv").write_text("scan,grade")
    told = vpt("evaluate", tiny_run, "--quality", "--out", tmp_path)
    assert told.code == 1
    assert "quality.csv: not of `vpt evaluate`, which would replace it" in told.err
    assert [file.name for file in tmp_path.iterdir()] == ["quality.csv"]


def test_evaluate_compares_two_folders_of_masks(vpt: Callable[..., Told], tiny_data: Path, tmp_path: Path) -> None:
    truth = tiny_data / "labelsTr"
    told = vpt("evaluate", truth, truth, truth, "-o", tmp_path / "compared")
    assert told.code == 0
    assert "of 6 cases A is better in 0, B in 0; 6 within 0.001" in told.out
    written = {path.name for path in (tmp_path / "compared").iterdir()}
    assert written == {"comparison.json", "comparison.csv", "comparison.md", "report.html"}


@pytest.mark.slow
def test_evaluate_by_lesion_and_by_label(vpt: Callable[..., Told], tiny_data: Path, tmp_path: Path) -> None:
    truth = tiny_data / "labelsTr"
    options = ("--lesions", "bright", "--tolerance", "2,dark=3", "--workers", 2)
    told = vpt("evaluate", truth, truth, "-o", tmp_path / "scores", *options)
    assert told.code == 0
    assert "lesions  found  missed  false" in told.out
    settings = json.loads((tmp_path / "scores" / "summary.json").read_text())["settings"]
    assert (settings["tolerance_mm"], settings["tolerances_mm"]) == (2, {"1": 3})


def test_evaluate_a_run(vpt: Callable[..., Told], tiny_run: Path, tmp_path: Path) -> None:
    told = vpt("evaluate", tiny_run, "--out", tmp_path / "test")
    assert told.code == 0
    assert "dark" in told.out
    assert {path.name for path in (tmp_path / "test").iterdir()} == {
        "blobs_005.nii.gz",
        "summary.json",
        "cases.csv",
        "evaluation.md",
        "report.html",
    }
    assert not (tiny_run / "test").exists()


def test_info_of_a_run_an_artifact_and_a_backbone(vpt: Callable[..., Told], tiny_run: Path) -> None:
    sha256 = vpt("info", "vit_micro")
    assert sha256.code == 0
    assert "1,619,584" in sha256.out
    for target in (tiny_run, tiny_run / "last.safetensors"):
        told = vpt("info", target)
        assert told.code == 0
        for part in (
            "vit_micro",
            "method deep",
            "count 4",
            "0 background, 1 dark, 2 bright",
            "trained parameters",
            "32 px",
            "vit_micro of this package, see its model card",
            "their licence",
        ):
            assert part in told.out


def test_info_and_doctor_as_json(vpt: Callable[..., Told], tiny_run: Path) -> None:
    of_run = json.loads(vpt("info", tiny_run, "--json").out)
    shown = vpt("info", tiny_run).out
    installed = json.loads(vpt("doctor", "--json").out)

    assert of_run["task"] == "segmentation"
    assert all(name in shown for name in of_run)
    assert installed["vpt"] == importlib.metadata.version("vpt")
    assert isinstance(installed["problems"], list)


def test_the_version(vpt: Callable[..., Told]) -> None:
    assert vpt("--version") == (0, f"vpt {importlib.metadata.version('vpt')}\n", "")


def test_info_of_no_encoder(vpt: Callable[..., Told]) -> None:
    told = vpt("info", "none")
    assert told.code == 0
    assert "none: the head reads the images alone" in told.out
    assert "licence" not in told.out
    assert "SHA-256" not in told.out


def test_fetch_prints_the_file_and_how_to_use_it(
    vpt: Callable[..., Told], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vpt.backbones.fetch import Source
    from vpt.backbones.sam_models import SOURCES

    (tmp_path / "sam.pth").write_bytes(b"weights")
    source = Source((tmp_path / "sam.pth").as_uri(), hashlib.md5(b"weights").hexdigest(), 7)
    monkeypatch.setitem(SOURCES, "sam_vit_b", source)
    told = vpt("fetch", "sam_vit_b", "--to", tmp_path / "models")
    file = tmp_path / "models" / "sam.pth"
    assert told.code == 0
    assert told.out.splitlines()[0] == str(file)
    assert f"--backbone sam_vit_b --weights {file}" in told.out
    assert file.read_bytes() == b"weights"


def test_doctor_names_versions_and_devices(vpt: Callable[..., Told]) -> None:
    told = vpt("doctor")
    assert told.code == (1 if "problem: " in told.err else 0)
    assert torch.__version__.partition("+")[0] in told.out
    for part in ("python", "timm", "monai", "lightning", "CPU", "precision auto", "attention in training"):
        assert part in told.out


@pytest.mark.slow
@pytest.mark.usefixtures("drawn")
def test_demo_shows_that_it_has_learned(vpt: Callable[..., Told], tmp_path: Path) -> None:
    told = vpt("demo", "--out", tmp_path / "demo")
    assert told.code == 0, told.err
    summary = json.loads((tmp_path / "demo" / "run" / "test" / "summary.json").read_text())
    assert summary["foreground_mean"]["Dice"] >= 0.85
    for part in ("trained parameters", "artifact", "foreground", str(tmp_path / "demo" / "run" / "test")):
        assert part in told.out
    assert list((tmp_path / "demo" / "run" / "validation" / "previews").glob("*.png"))


def test_demo_replaces_nothing_but_itself(vpt: Callable[..., Told], tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    for place in (tmp_path, tmp_path / "thesis.txt"):
        told = vpt("demo", "--out", place)
        assert told.code == 1
        assert "choose another one with --out" in told.err
    assert (tmp_path / "thesis.txt").read_text() == "mine"


# --- mistakes ---------------------------------------------------------------------------------------------------------


# What a person may get wrong -> the command, and the start of the one sentence that it earns.
NEW = "--out {tmp}/run"
MISTAKES = {
    f"train {{tmp}}/typo.yaml {NEW}": "{tmp}/typo.yaml: unknown key optim.learning_rate; ",
    f"train {{tmp}}/broken.yaml {NEW}": "{tmp}/broken.yaml: not readable as YAML (line 2",
    f"train {{data}} {NEW} --set optim.lrr=1": "config: unknown key optim.lrr; did you mean optim.lr?",
    f"train {{data}} {NEW} --set seed": "--set seed: expected KEY=VALUE",
    f"train {{data}} {NEW} --epochs 0": "config: train.epochs: Input should be greater than or equal to 1, found 0",
    f"train {{data}} {NEW} --prompts foo": "--prompts foo: expected class_queries:COUNT, conditioned:COUNT, ",
    f"train {{data}} {NEW} --backbone vit_micron": "backbone vit_micron: no such model or folder; did you mean",
    f"train {{data}} {NEW} --weights {{tmp}}/other.safetensors": (
        "{tmp}/other.safetensors: does not fit vit_micro: "
        "missing keys: norm.weight; left-over keys: norm.extra; choose the backbone"
    ),
    f"train {{data}} {NEW} --weights {{tmp}}/no.pth": "{tmp}/no.pth: no such file; give the path",
    f"train {{data}} {NEW} --device warp": "device warp: not available here",
    f"train {{tmp}}/nowhere {NEW}": "{tmp}/nowhere: no such file or folder; give a data set's folder",
    "check {tmp}/nowhere": "{tmp}/nowhere: no such folder",
    "fetch vit_micron --to {tmp}/models": "backbone vit_micron: no such model or folder; did you mean",
    "fetch vit_micro --to {tmp}/models": "vit_micro: ships with the package",
    f"train --resume {NEW}": "{tmp}/run: holds no state to resume",
    f"train --resume --epochs 3 {NEW}": "{tmp}/run: holds no state to resume",
    "train {data} --out {run}": "{run}: the folder is not empty; continue it with --resume",
    "predict -i {data}/imagesTr -o {tmp}/masks -m {tmp}/nowhere": "{tmp}/nowhere: no such file or folder; give a run's",
    "predict -i {tmp}/no.nii.gz -o {tmp}/masks -m {run}": "{tmp}/no.nii.gz: no such file or folder",
    "evaluate {tmp}": "{tmp}: not a run's folder (no splits.json)",
    "info {tmp}/nowhere": "backbone {tmp}/nowhere: no such model or folder",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    vpt: Callable[..., Told], tiny_data: Path, tiny_run: Path, tmp_path: Path, command: str
) -> None:
    (tmp_path / "typo.yaml").write_text(f"data:\n  path: {tiny_data}\noptim:\n  learning_rate: 1\n")
    (tmp_path / "broken.yaml").write_text("data: [\n")
    tensors = load_file(MICRO_WEIGHTS)
    tensors["norm.extra"] = tensors.pop("norm.weight")
    save_file(tensors, tmp_path / "other.safetensors")
    places = {"tmp": tmp_path, "data": tiny_data, "run": tiny_run}
    before = sorted(tmp_path.rglob("*"))
    told = vpt(*(word.format(**places) for word in command.split()))
    assert told.code == 1
    assert told.err.startswith(f"error: {MISTAKES[command].format(**places)}")
    assert told.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "said",
    ["can't start new thread", "[enforce fail] can't allocate memory: 262144 bytes", "could not create a primitive"],
)
def test_too_little_memory_anywhere_is_a_sentence(
    vpt: Callable[..., Told], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str
) -> None:
    def check(*_: Any, **__: Any) -> None:
        raise RuntimeError(f"{said}\nException raised from where it arose")

    monkeypatch.setattr("vpt.cli.app", check)
    told = vpt("check", tmp_path)
    ends = "close other programs, or use a machine with more; --debug shows where it arose"
    assert (told.code, told.err) == (1, f"error: too little memory ({said}); {ends}\n")
    monkeypatch.setattr("vpt.cli.app", lambda: [].pop())
    with pytest.raises(IndexError):
        main()


def test_a_permission_that_lacks_is_a_sentence(
    vpt: Callable[..., Told], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def check(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "run"))

    monkeypatch.setattr("vpt.cli.app", check)
    told = vpt("check", tmp_path)
    said = "this user may not read or write it; have the permission given, or run as who has it"
    assert (told.code, told.err) == (1, f"error: {tmp_path / 'run'}: {said}\n")


@pytest.mark.parametrize("place", [0, 2])
def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: int) -> None:
    words = ["check", str(tmp_path / "nowhere")]
    words.insert(place, "--debug")
    monkeypatch.setattr(sys, "argv", ["vpt", *words])
    with pytest.raises(VptError, match="no such folder"):  # unhandled, so Python prints where it arose
        main()


@pytest.mark.parametrize(
    "words",
    [
        ["fly"],
        ["check"],
        ["train"],
        ["fetch", "sam_vit_b"],
        ["train", "--resume"],
        ["train", "DATA", "--epochs", "many"],
        ["train", "DATA", "--lr", "1"],
        ["predict", "-i", "SCAN"],
        ["evaluate", "PRED", "REF", "--labels", "1,,2"],
        ["evaluate", "PRED", "REF", "--tolerance", "liver:3"],
        ["evaluate", "PRED", "REF", "--groups", "people.csv"],
        ["evaluate", "PRED", "REF", "--out", "scores.json"],
        ["evaluate", "PRED", "PRED", "REF", "--by", "sex"],
        ["evaluate", "PRED", "PRED", "REF", "--lesions", "all"],
        ["evaluate", "PRED", "REF", "--empty", "none"],
        ["evaluate", "PRED", "REF", "--lesion-overlap", "0"],
        ["evaluate", "RUN", "--labels", "1"],
        ["evaluate", "RUN", "--patients", "p"],
    ],
)
def test_wrong_usage_is_exit_code_2(vpt: Callable[..., Told], words: list[str]) -> None:
    told = vpt(*words)
    assert told.code == 2
    assert told.err
    assert "Traceback" not in told.err


@pytest.mark.parametrize("label", ["²", "9" * 5000])
def test_a_label_that_is_no_number_is_told(vpt: Callable[..., Told], tiny_data: Path, label: str) -> None:
    told = vpt("evaluate", tiny_data / "labelsTr", tiny_data / "labelsTr", "--labels", label)
    assert told.code == 1
    assert f"`labels`: {label[:20]}" in told.err
    assert "none of the labels dark, bright" in told.err
    assert "Traceback" not in told.err


def test_a_file_in_the_place_of_the_scores_is_refused_before_anything_is_read(
    vpt: Callable[..., Told], tmp_path: Path
) -> None:
    (tmp_path / "scores").write_text("")
    told = vpt("evaluate", tmp_path / "p", tmp_path / "r", "-o", tmp_path / "scores")
    assert told.code == 2
    assert "scores: is a file, in whose place no folder of scores can be made" in told.err


def test_ctrl_c_anywhere_is_exit_code_130(
    vpt: Callable[..., Told], tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import vpt.data.check as module

    monkeypatch.setattr(module, "check_dataset", lambda *args: os.kill(os.getpid(), signal.SIGINT))
    told = vpt("check", tiny_data)
    assert told.code == 130
    assert "Traceback" not in told.err


def test_check_takes_a_label_map_and_writes_it_down(vpt, make_dataset):
    root = make_dataset()
    (root / "dataset.json").rename(root / "old.json")
    for path in sorted((root / "labelsTr").iterdir()):
        path.rename(root / path.name.replace(".nii.gz", "_seg.nii.gz"))
    for path in sorted((root / "imagesTr").iterdir()):
        path.rename(root / path.name.replace("_0000", ""))
    code, said, _ = vpt("check", root, "--labels", "{organ: [1, 2]}", "--write", "dataset.json")
    assert code == 0
    assert "1, 2 are organ (1)" in said
    assert json.loads((root / "dataset.json").read_text())["labels"] == {"background": 0, "organ": [1, 2]}
    code, said, _ = vpt("check", root)
    assert code == 0
    assert "1, 2 are organ (1)" in said
    for wrong, sentence in (
        ("{organ: [1, 9]}", "organ names 9, which the files do not hold"),
        ("organ", "--labels organ: expected names with their values"),
        ("{organ: {1: 2}}", "expected names with their values"),
        ("{", "expected names with their values"),
    ):
        code, _, error = vpt("check", root, "--labels", wrong)
        assert code == 1
        assert sentence in error
