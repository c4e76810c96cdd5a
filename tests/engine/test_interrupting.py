"""`vpt train` from the outside: exit codes, launchers' environments, and settings that go with `--resume`."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_run import assert_same_run

GIVEN = (
    *("--epochs", "2", "--prompts", "deep:4", "--device", "cpu", "--set", "train.max_steps=3"),
    *("--set", "train.batch_size=4", "--set", "train.workers=0", "--set", "plan.image_size=32"),
    *("--set", "prompts.dropout=0.1"),
)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_has_its_exit_code_and_one_line_for_requeueing_goes_on(
    tiny_data: Path, tiny_run: Path, tmp_path: Path, signal_at: Callable[..., None], vpt, number: int, code: int
) -> None:
    again = ("train", tiny_data, "--out", tmp_path / "run", "--resume", *GIVEN)
    signal_at(4, number)
    told = vpt(*again)
    assert told.code == code
    assert f"interrupted in epoch 2, step 1; continue with: vpt train --resume --out {tmp_path / 'run'}" in told.out
    signal_at(10**5)
    assert vpt(*again).code == 0
    assert_same_run(tmp_path / "run", tiny_run)


@pytest.mark.slow
def test_a_job_with_two_tasks_that_starts_one_is_one(tiny_data: Path, tmp_path: Path, monkeypatch, vpt) -> None:
    for name, value in {"SLURM_NTASKS": "2", "SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "job"}.items():
        monkeypatch.setenv(name, value)
    assert vpt("train", tiny_data, "--out", tmp_path / "run", *GIVEN, "--set", "train.max_steps=1").code == 0


def test_one_of_several_that_cannot_find_the_others_says_so(tiny_data: Path, tmp_path: Path, monkeypatch, vpt) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    told = vpt("train", tiny_data, "--out", tmp_path / "run", *GIVEN)
    assert (told.code, told.err.count("\n")) == (1, 1)
    assert "MASTER_PORT='' in the environment, expected a number" in told.err
    assert not (tmp_path / "run").exists()


def test_resume_alone_takes_what_changes_nothing_and_more_epochs(tiny_run: Path, vpt) -> None:
    told = vpt("train", "--resume", "--out", tiny_run, "--seed", "3")
    assert (told.code, "--resume takes the run's own settings" in told.err) == (2, True)
    told = vpt("train", "--resume", "--out", tiny_run, "--epochs", "9")
    assert (told.code, "fall as a cosine that ends after 2 epochs" in told.err) == (1, True)


def test_how_often_is_a_number_of_batches_or_minutes(tiny_data: Path, tmp_path: Path, vpt) -> None:
    told = vpt("train", tiny_data, "--out", tmp_path / "run", "--set", "train.save_every=soon")
    assert told.code == 1
    assert "train.save_every" in told.err
    assert not (tmp_path / "run").exists()
