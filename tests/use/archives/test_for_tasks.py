"""Several tasks over an archive: a folder and a record for each, or one mask of all; the masks of each one alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from banks import DEEP, LATE, WINDOW, trained
from commands import Told
from masks import scan, scan_plan

OTHER = {0: "background", 1: "core", 2: "whole"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    plan = scan_plan(intensity=WINDOW)
    first = trained(folder / "first.safetensors", 1, plan, prompts=DEEP)
    second = trained(folder / "second.safetensors", 2, plan, OTHER, LATE)
    return [f"first={first}", f"second={second}"]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good ones, and one that cannot be read."""
    folder = tmp_path_factory.mktemp("scans")
    for number in range(2):
        nib.save(scan(seed=number), folder / f"s{number}.nii.gz")
    (folder / "torn.nii.gz").write_bytes((folder / "s0.nii.gz").read_bytes()[:300])
    return folder


Predict = Callable[..., Told]


@pytest.fixture
def predict(vpt: Callable[..., Told]) -> Predict:
    def call(models: list[str], scans: Path, out: Path, *more: str, code: int = 1) -> Told:
        given = [word for model in models for word in ("-m", model)]
        told = vpt("predict", "-i", scans, "-o", out, *given, "--device", "cpu", "--precision", "32-true", *more)
        assert told.code == code, told
        return told

    return call


def mask(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


@pytest.fixture
def apart(predict: Predict, models: list[str], scans: Path, tmp_path: Path) -> Path:
    """OUT/first and OUT/second, by one command."""
    predict(models, scans, tmp_path / "apart")
    return tmp_path / "apart"


@pytest.mark.slow
def test_each_task_has_the_masks_and_the_record_that_it_has_alone(
    predict: Predict, models: list[str], scans: Path, apart: Path, tmp_path: Path
) -> None:
    for model in models:
        name, _, path = model.partition("=")
        predict([path], scans, tmp_path / name)
        for case in ("s0", "s1"):
            alone = mask(tmp_path / name / f"{case}.nii.gz")
            assert len(np.unique(alone)) > 1
            assert (mask(apart / name / f"{case}.nii.gz") == alone).mean() > 0.999
        records = json.loads((apart / name / "predictions.json").read_text())
        assert {record["case"]: record["status"] for record in records["cases"]} == {
            "s0": "done",
            "s1": "done",
            "torn": "failed",
        }
        assert "torn" in (apart / name / "failures.json").read_text()
    # what is done stands, and the rest goes on task by task
    (apart / "second" / "s1.nii.gz").unlink()
    before = (apart / "first" / "s1.nii.gz").stat().st_mtime_ns
    predict(models, scans, apart, "--continue")
    assert (apart / "second" / "s1.nii.gz").exists()
    assert (apart / "first" / "s1.nii.gz").stat().st_mtime_ns == before


@pytest.mark.slow
def test_one_mask_of_all_tasks_in_which_the_first_counts(
    predict: Predict, models: list[str], scans: Path, apart: Path, tmp_path: Path
) -> None:
    out = tmp_path / "merged"
    predict(models, scans, out, "--merge")
    first, second, merged = (mask(folder / "s0.nii.gz") for folder in (apart / "first", apart / "second", out))
    expected = np.select([first == 3, first == 117, second == 1, second == 2], [1, 2, 3, 4], 0)
    assert (merged == expected).mean() > 0.999
    records = json.loads((out / "predictions.json").read_text())["cases"]
    volumes = next(record["volumes_ml"] for record in records if record["case"] == "s0")
    assert list(volumes) == ["rim", "first core", "second core", "whole"]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--tta",), "--tta: not for several models side by side"),
        (("--compile",), "--compile: not for several"),
        (("--merge", "--mean"), "--merge: goes with several models, and without --mean"),
        (("--merge", "--probabilities"), "several tasks in one mask have none in common"),
    ],
)
def test_what_does_not_go_together_is_said(
    predict: Predict, models: list[str], scans: Path, tmp_path: Path, more: Any, sentence: str
) -> None:
    assert sentence in predict(models, scans, tmp_path / "out", *more, code=2).err


def test_names_of_tasks_are_those_of_runs_or_given_ones(
    predict: Predict, models: list[str], scans: Path, tmp_path: Path
) -> None:
    first = models[0].partition("=")[2]
    assert "there is a task called first already" in predict([first, first], scans, tmp_path / "out", code=2).err
    assert "cannot be the name of a folder" in predict([f"../x={first}", first], scans, tmp_path / "out", code=2).err
