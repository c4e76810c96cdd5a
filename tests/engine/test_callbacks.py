"""Callbacks are told of a training as promised, refused before it where they are none, and cannot end it later."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image
from tiny_run import ONE_STEP, rows

import vpt
from vpt.config import load_config
from vpt.engine.callbacks import Told, load_callbacks
from vpt.engine.callbacks.base import End, Epoch, Start
from vpt.engine.checkpoint import Progress
from vpt.engine.run import train
from vpt.engine.signals import Interrupted
from vpt.errors import VptError

heard: list[Any] = []


class Listener(vpt.Callback):
    def on_start(self, start: Start) -> None:
        heard.append(start)

    def on_epoch(self, epoch: Epoch) -> None:
        heard.append(epoch)

    def on_end(self, end: End) -> None:
        heard.append(end)


class Hasty(vpt.Callback):
    def on_start(self, start: Start) -> None:
        raise ConnectionError("no server")


class Refused(Hasty):
    def on_check(self) -> None:
        raise PermissionError("no such key")


class Clumsy(Listener):
    def on_epoch(self, epoch: Epoch) -> None:
        raise ZeroDivisionError("division by zero")


class Mute:
    def on_start(self, start: Start) -> None: ...


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    heard.clear()
    module = ModuleType("listeners")
    module.Listener, module.Hasty, module.Clumsy, module.Mute = Listener, Hasty, Clumsy, Mute  # type: ignore[attr-defined]
    module.Refused = Refused  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "listeners", module)


def told_of(name: str, said: list[str]) -> Told:
    return Told(load_callbacks([name]), said.append)


@pytest.mark.slow
def test_a_run_tells_its_start_every_epoch_and_its_end_with_the_folder_complete(
    tiny_data: Path, tmp_path: Path
) -> None:
    run = train(
        tiny_data, tmp_path / "run", overrides=ONE_STEP | {"train.epochs": 2, "callbacks": "listeners:Listener"}
    )

    start, *epochs, end = heard
    assert (start.run, start.epoch, start.epochs) == (run, 0, 2)
    assert start.config["optim"]["prompt_lr"] == load_config(run / "config.yaml").optim.prompt_lr
    assert [each.epoch for each in epochs] == [1, 2]
    assert [each.scores["loss"] for each in epochs] == pytest.approx(
        [float(row["loss"]) for row in rows(run)], rel=1e-5
    )
    assert epochs[0].pictures["blobs_004"] == run / "previews" / "blobs_004" / "epoch_0001.png"
    best = max(epochs, key=lambda each: each.scores["dice"])
    assert best.best
    assert (end.outcome, end.epoch, end.reason) == ("done", 2, "")
    assert end.scores["dice"] == best.scores["dice"]
    assert load_config(run / "config.yaml").callbacks == ("listeners:Listener",)
    assert list((run / "tensorboard").glob("events*"))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("mlfow", "callbacks: none is called 'mlfow'; did you mean mlflow?"),
        ("nowhere_at_all:Tracker", "nowhere_at_all:Tracker cannot be imported or made (ModuleNotFoundError"),
        ("listeners:Other", "listeners:Other cannot be imported or made (AttributeError"),
        ("listeners:Mute", "listeners:Mute has no method on_epoch; derive it from vpt.Callback"),
        ("json:dumps", "json:dumps cannot be imported or made (TypeError"),
        ("listeners:Refused", "listeners:Refused cannot start (PermissionError: no such key); mend it or leave it out"),
    ],
)
def test_what_is_no_callback_is_refused_before_anything_is_written(
    tiny_data: Path, tmp_path: Path, name: str, sentence: str
) -> None:
    with pytest.raises(VptError) as caught:
        train(tiny_data, tmp_path / "run", overrides=ONE_STEP | {"callbacks": [name]})

    assert sentence in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_package_that_is_missing_is_named_with_the_command_that_brings_it(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("vpt.engine.callbacks.find_spec", lambda name: None)

    with pytest.raises(VptError, match=rf"{name} needs a package that is not installed; pip install 'vpt\[{name}\]'"):
        load_callbacks([name])


def test_names_that_are_none_are_refused_by_the_config(tiny_data: Path) -> None:
    with pytest.raises(VptError, match="callbacks"):
        load_config(tiny_data, {"callbacks": ["os.system('ls')"]})


@pytest.mark.slow
def test_one_that_cannot_start_ends_the_run_before_its_first_step_and_the_same_command_goes_on_without_it(
    tiny_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(VptError, match=r"listeners:Hasty cannot start \(ConnectionError: no server\)"):
        train(tiny_data, tmp_path / "run", overrides=ONE_STEP | {"callbacks": "listeners:Listener,listeners:Hasty"})

    assert [type(each) for each in heard] == [Start, End]
    assert (heard[1].outcome, heard[1].epoch) == ("failed", 0)
    run = train(tiny_data, tmp_path / "run", overrides=ONE_STEP)
    assert len(rows(run)) == 1


def test_one_that_fails_later_is_left_out_with_a_warning_and_the_others_are_told(tmp_path: Path) -> None:
    said: list[str] = []
    callbacks = Told(load_callbacks(["listeners:Clumsy", "listeners:Listener"]), said.append)

    with callbacks.until_end(tmp_path):
        callbacks.start(tmp_path, load_config(tmp_path), Progress())
        callbacks.epoch(Epoch(tmp_path, 1, 2, {}, True))
        callbacks.epoch(Epoch(tmp_path, 2, 2, {}, False))

    assert [sentence.partition("; ")[0] for sentence in said] == [
        "callbacks: listeners:Clumsy failed in on_epoch (ZeroDivisionError: division by zero)"
    ]
    assert [type(each) for each in heard] == [Start, Start, Epoch, Epoch, End]


@pytest.mark.parametrize(
    ("error", "outcome"), [(Interrupted(), "interrupted"), (VptError("the disk is full"), "failed")]
)
def test_the_end_says_how_it_came(tmp_path: Path, error: BaseException, outcome: str) -> None:
    callbacks, rows = told_of("listeners:Listener", []), [{"epoch": 1, "dice": 0.5}]
    callbacks.start(tmp_path, load_config(tmp_path), Progress(epoch=1, best_epoch=1, rows=rows))

    with pytest.raises(type(error)), callbacks.until_end(tmp_path):
        raise error

    end = heard[-1]
    assert (end.outcome, end.epoch, end.scores["dice"]) == (outcome, 1, 0.5)


# --- those of other packages, as they are -----------------------------------------------------------------------------


def follow(run: Path, name: str, resumed: bool) -> None:
    """An epoch of a run with a picture, told to the callback `name`: the first, which is interrupted, or the second."""
    (run / "state").mkdir(parents=True, exist_ok=True)
    said: list[str] = []
    Image.new("RGB", (8, 8)).save(run / "case.png")
    epoch = 2 if resumed else 1
    callbacks = told_of(name, said)
    try:
        with callbacks.until_end(run):
            callbacks.start(run, load_config(run), Progress(epoch=epoch - 1))
            scores = {"epoch": epoch, "dice": 0.1 * epoch}
            callbacks.epoch(Epoch(run, epoch, 2, scores, True, {"case": run / "case.png"}))
            if not resumed:
                raise Interrupted
    except Interrupted:
        pass
    assert said == []


@pytest.mark.slow
def test_mlflow_has_one_run_of_a_training_that_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    for resumed in (False, True):
        follow(run, "mlflow", resumed)

    found = MlflowClient().search_runs(["0"])
    assert [each.info.status for each in found] == ["FINISHED"]
    assert found[0].data.params["optim.prompt_lr"] == "0.005"
    history = MlflowClient().get_metric_history(found[0].info.run_id, "dice")
    assert [(each.step, each.value) for each in history] == [(1, 0.1), (2, 0.2)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_server_that_does_not_answer_is_told_before_anything_is_prepared(tmp_path: Path, name: str) -> None:
    pytest.importorskip(name)
    nobody = "http://127.0.0.1:9"
    env = os.environ | {"MLFLOW_TRACKING_URI": nobody, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    env |= {"WANDB_BASE_URL": nobody, "WANDB_API_KEY": "a" * 40, "WANDB_MODE": "online"}
    code = (
        "from vpt.engine.callbacks import check_callbacks, load_callbacks; from vpt.errors import VptError\n"
        f"try: check_callbacks(load_callbacks(['{name}']))\n"
        "except VptError as error: print(error)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, cwd=tmp_path)

    assert f"callbacks: {name} cannot start (" in done.stdout


@pytest.mark.slow
def test_wandb_writes_a_training_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = tmp_path / "run"
    for resumed in (False, True):
        follow(run, "wandb", resumed)
        time.sleep(1)  # the folder of each part is called by its second

    name = (run / "state" / "wandb_run").read_text()
    written = list((run / "wandb").glob(f"offline-run-*-{name}/run-{name}.wandb"))
    assert len(written) == 2  # of each part, for `wandb sync`
    until = time.monotonic() + 60  # its own process may still be writing
    while min(path.stat().st_size for path in written) <= 1000 and time.monotonic() < until:
        time.sleep(0.1)
    assert all(path.stat().st_size > 1000 for path in written)
