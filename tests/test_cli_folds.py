"""The command line on folds: all trained, summed up over all cases, and used as one."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from tiny_classes import ONE_CLASS_STEP

from vpt.config import load_config
from vpt.engine.folds import train_folds
from vpt.use.load import load


@pytest.fixture(scope="module")
def folder(tiny_scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds of eight volumes of two classes. Read only."""
    config = load_config(tiny_scans, ONE_CLASS_STEP | {"data.folds": 2, "plan.slices": 2})
    return train_folds(config, tmp_path_factory.mktemp("folds") / "scans")


@pytest.mark.slow
def test_folds_are_trained_scored_and_used_as_one(vpt, tiny_scans, tmp_path):
    out, scan = tmp_path / "folds", tiny_scans / "ill" / "scan1.nii.gz"
    settings = ONE_CLASS_STEP | {"plan.slices": 2, "train.mirror": "horizontal"}
    own = [f"--set={key}={json.dumps(value)}" for key, value in settings.items()]
    code, said, wrong = vpt("train", tiny_scans, "--folds", 2, "--out", out, *own)
    assert code == 0, wrong
    assert f"vpt evaluate {out}" in said
    assert f"vpt predict -m {out}" in said
    assert vpt("train", tiny_scans, "--folds", 2, "--out", out, *own)[0] == 0
    code, said, _ = vpt("evaluate", out, "--device", "cpu")
    assert code == 0
    assert "2 folds, every case scored by the one that had not" in " ".join(said.split())
    with open(out / "cross_validation" / "cases.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 8
    before = (out / "cross_validation" / "summary.json").read_text()
    code, said, _ = vpt("evaluate", out, "--device", "cpu", "--tta")
    assert code == 0
    assert "mean over mirror images" in " ".join(said.split())
    assert (out / "cross_validation_tta" / "summary.json").is_file()
    assert (out / "cross_validation" / "summary.json").read_text() == before  # another question, another answer
    assert vpt("predict", "-i", scan, "-o", tmp_path / "p.csv", "-m", out, "--device", "cpu")[0] == 0
    with open(tmp_path / "p.csv", newline="") as file:
        row = next(csv.DictReader(file))
    alone = [load(out / f"fold-{fold}", "cpu").classify(scan)["ill"] for fold in range(2)]
    assert float(row["p_ill"]) == pytest.approx(np.mean(alone), abs=1e-4)


@pytest.mark.slow
def test_every_fold_has_its_share_of_the_classes(folder):
    for fold in range(2):
        held = json.loads((folder / f"fold-{fold}" / "splits.json").read_text())["val"]
        assert len(held) == 4
        assert sum(name.startswith("ill") for name in held) == 2


def test_runs_of_folds_are_evaluated_together(vpt, folder, tmp_path):
    runs = [folder / "fold-0", folder / "fold-1"]
    code, said, _ = vpt("evaluate", *runs, "--folds", "--device", "cpu", "-o", tmp_path)
    assert code == 0
    assert json.loads((tmp_path / "summary.json").read_text())
    assert "8 cases" in said


def test_a_run_without_a_test_side_is_evaluated_on_its_validation_and_says_so(vpt, folder, tmp_path):
    code, said, _ = vpt("evaluate", folder / "fold-0", "--device", "cpu", "-o", tmp_path)
    assert code == 0
    assert "val split, which chose the epoch (it has no test cases)" in " ".join(said.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("watch", "a", "--out", "b", "-m", "A", "-m", "B"), "several models; add --mean"),
        (("train", "DATA", "--folds", "1"), "--folds 1: expected all, or a number of 2 and more"),
        (("train", "DATA", "--folds", "all", "--fold", "2"), "--folds trains them all; give one of the two"),
        (("train", "--folds", "all"), "--folds needs a data set's folder"),
        (
            ("evaluate", "A", "B", "C", "D"),
            "4 folders: expected a run, masks and their truth, or two of these",
        ),
        (("evaluate", "A", "--folds", "--split", "val"), "every fold scores what it validates; leave it out"),
    ],
)
def test_what_does_not_go_together_is_wrong_usage(vpt, words, said):
    code, _, error = vpt(*words)
    assert code == 2
    assert said in error
