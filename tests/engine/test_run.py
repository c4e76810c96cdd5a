"""A run from data to folder: what it holds, what interrupts it, what it refuses, what it leaves alone."""

from __future__ import annotations

import csv
import json
import os
import platform
import re
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny_run import ONE_STEP, SETTINGS, as_trained, assert_same_run, rows

import vpt.engine.job as job
import vpt.engine.segmenting as engine
from vpt.artifact import read_artifact
from vpt.backbones import load_backbone
from vpt.backbones.weights import sha256_of
from vpt.config import load_config
from vpt.engine.folder import DESCRIBED, RUNNING
from vpt.engine.run import train
from vpt.engine.signals import Interrupted
from vpt.engine.training import scores_told
from vpt.errors import VptError
from vpt.machine.precision import choose_precision
from vpt.restoring import restore_model
from vpt.tasks.batch import Batch, Output
from vpt.tasks.segmentation import dice_ce
from vpt.tensor_files import read_tensors, write_tensors

# --- the folder -------------------------------------------------------------------------------------------------------


def test_the_folder_holds_what_is_promised_and_nothing_else(tiny_run: Path) -> None:
    found = {path.relative_to(tiny_run).as_posix() for path in tiny_run.rglob("*") if path.is_file()}
    events = {name for name in found if name.startswith("tensorboard/events.out.tfevents.")}
    assert len(events) == 1
    assert found - events == {
        "config.yaml",
        "plan.json",
        "splits.json",
        "environment.json",
        "model_card.md",
        "train.log",
        "metrics.csv",
        "progress.png",
        "report.html",
        "best.safetensors",
        "last.safetensors",
        "state/last.safetensors",
        "state/previous.safetensors",
        "state/.lock",
        "state/data.json",
        "validation/summary.json",
        "validation/cases.csv",
        "validation/evaluation.md",
        "validation/blobs_004.nii.gz",
        "validation/previews/blobs_004.png",
        "previews/blobs_004/epoch_0001.png",
        "previews/blobs_004/epoch_0002.png",
    }
    assert {path.name for path in tiny_run.iterdir() if path.is_dir()} == {
        "tensorboard",
        "state",
        "validation",
        "previews",
    }


def test_config_yaml_is_the_whole_config_and_reads_back(tiny_run: Path, tiny_data: Path) -> None:
    config = load_config(tiny_run / "config.yaml").resolved("segmentation")
    assert config == load_config(tiny_data, SETTINGS).resolved("segmentation")
    assert config.data.path == tiny_data
    assert config == read_artifact(tiny_run).config


def test_plan_splits_and_environment(tiny_run: Path, tiny_data: Path) -> None:
    assert json.loads((tiny_run / "plan.json").read_text())["image_size"] == 32
    assert json.loads((tiny_run / "splits.json").read_text()) == json.loads((tiny_data / "split.json").read_text())
    environment = json.loads((tiny_run / "environment.json").read_text())
    assert environment["versions"]["torch"] == version("torch")
    assert environment["device"] == "cpu"


def test_metrics_has_a_row_per_epoch(tiny_run: Path) -> None:
    with open(tiny_run / "metrics.csv", newline="") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == ["epoch", "loss", "lr", "seconds", "steps", "dice", "dice_dark", "dice_bright"]
    assert [row["epoch"] for row in found] == ["1", "2"]
    assert all(0 <= float(row["dice"]) <= 1 and float(row["loss"]) > 0 for row in found)


def test_tensorboard_shows_the_same_numbers(tiny_run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(tiny_run / "tensorboard"))
    board.Reload()
    for key in ("loss", "dice", "dice_dark"):
        shown = {event.step: event.value for event in board.Scalars(key)}
        assert shown == pytest.approx({int(row["epoch"]): float(row[key]) for row in rows(tiny_run)}, rel=1e-4)


def test_validation_is_of_the_best_artifact(tiny_run: Path) -> None:
    summary = json.loads((tiny_run / "validation" / "summary.json").read_text())
    best = read_artifact(tiny_run).scores["validation"]
    assert summary["foreground_mean"]["Dice"] == pytest.approx(best["dice"], abs=0.02)  # training scores in bfloat16
    assert best["dice"] == pytest.approx(max(float(row["dice"]) for row in rows(tiny_run)), rel=1e-4)


def test_the_log_says_what_was_trained(tiny_run: Path) -> None:
    text = (tiny_run / "train.log").read_text()
    for part in ("4 training and 1 validation case,", "vit_micro", "epoch 2/2: loss", "done: best validation Dice"):
        assert part in text


# --- learning, and what it leaves alone -------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_learns(tiny_data: Path, tmp_path: Path) -> None:
    more = {"train.epochs": 6, "train.max_steps": 12, "train.batch_size": 8, "prompts": {"method": "deep"}}
    found = rows(train(tiny_data, tmp_path / "run", overrides=SETTINGS | more, brief=True))
    assert float(found[-1]["loss"]) < float(found[0]["loss"]) - 0.25
    assert float(found[-1]["dice"]) > max(0.6, float(found[0]["dice"]) + 0.1)


@pytest.mark.slow
def test_the_backbone_is_bit_identical_after_training_and_the_rest_is_not(
    tiny_data: Path, tmp_path: Path, keep_models: Callable[..., Any]
) -> None:
    kept = keep_models(job)
    train(tiny_data, tmp_path / "run", overrides=ONE_STEP, brief=True)
    ((model, start),) = kept
    fresh = load_backbone("vit_micro", image_size=32)
    assert sha256_of(model.backbone) == sha256_of(as_trained(fresh))
    assert not model.backbone.training
    changed = {name for name, tensor in model.trained_state().items() if not torch.equal(tensor, start[name])}
    assert changed == start.keys()


@pytest.mark.slow
def test_memory_for_time_is_asked_for_in_the_config(
    tiny_data: Path, tiny_run: Path, tmp_path: Path, keep_models: Callable[..., Any]
) -> None:
    """Checkpointing changes no step; batches that share an update do; the plan says that blank slices are skipped."""
    kept, more = keep_models(job), {"train.accumulate": 3, "plan.skip_blank": True}
    saving = train(tiny_data, tmp_path / "saving", overrides=SETTINGS | {"train.checkpoint": True}, brief=True)
    sharing = train(tiny_data, tmp_path / "sharing", overrides=SETTINGS | more, brief=True)

    assert [model.checkpointing for model, _ in kept] == [True, False]
    assert_same_run(saving, tiny_run)
    first, other = (load_file(run / "last.safetensors") for run in (tiny_run, sharing))
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert [read_artifact(run).plan.skip_blank for run in (tiny_run, sharing)] == [False, True]


@pytest.mark.slow
def test_a_run_may_compile_its_blocks(tiny_data: Path, tmp_path: Path) -> None:
    plain = train(tiny_data, tmp_path / "plain", overrides=ONE_STEP)
    compiled = train(tiny_data, tmp_path / "compiled", overrides=ONE_STEP | {"train.compile": True})
    losses = [float(rows(run)[0]["loss"]) for run in (plain, compiled)]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


@pytest.mark.slow
def test_the_test_split_is_never_read(copied_data: Path, tmp_path: Path, tiny_run: Path) -> None:
    """Its files are replaced by bytes that no reader accepts, and nothing changes."""
    for name in json.loads((copied_data / "split.json").read_text())["test"]:
        (copied_data / "imagesTr" / f"{name}_0000.nii.gz").write_bytes(b"not to be read")
        (copied_data / "labelsTr" / f"{name}.nii.gz").write_bytes(b"not to be read")
    run = train(copied_data, tmp_path / "run", overrides=SETTINGS)
    assert_same_run(run, tiny_run)


@pytest.mark.slow
def test_equal_seeds_make_equal_artifacts_and_a_worker_changes_nothing(
    tiny_data: Path, tmp_path: Path, tiny_run: Path
) -> None:
    run = train(tiny_data, tmp_path / "run", overrides=SETTINGS | {"train.workers": 1}, brief=True)
    assert_same_run(run, tiny_run)


@pytest.mark.slow
def test_another_seed_makes_another_artifact(tiny_data: Path, tmp_path: Path) -> None:
    found = [
        load_file(
            train(tiny_data, tmp_path / str(seed), overrides=ONE_STEP | {"seed": seed}, brief=True) / "best.safetensors"
        )
        for seed in (0, 1)
    ]
    assert not any(
        torch.equal(found[0][name], found[1][name]) for name in ("prompts.table.tokens", "head.mix.0.weight")
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "trained"),
    [
        ({"prompts": {"method": "none"}}, {"head"}),
        ({"prompts": {"method": "shallow", "count": 3}}, {"prompts", "head"}),
        ({"prompts": {"method": "deep", "count": 3, "blocks": "last:2", "project": 8}}, {"prompts", "head"}),
        ({"tuning": "full"}, {"prompts", "head", "backbone"}),
        ({"backbone.weights": "random"}, {"prompts", "head"}),
    ],
    ids=["none", "shallow", "deep last blocks", "full", "random weights"],
)
def test_every_method_and_control_trains_and_its_artifact_loads(
    tiny_data: Path, tmp_path: Path, change: dict[str, Any], trained: set[str]
) -> None:
    run = train(tiny_data, tmp_path / "run", overrides=ONE_STEP | change)
    artifact = read_artifact(run)
    assert {name.partition(".")[0] for name in artifact.tensors} == trained
    state = restore_model(artifact).trained_state()
    assert all(torch.equal(state[name], tensor) for name, tensor in artifact.tensors.items())
    summary = json.loads((run / "validation" / "summary.json").read_text())
    assert 0 <= summary["foreground_mean"]["Dice"] <= 1


@pytest.mark.slow
def test_early_stopping_with_patience(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "validate", lambda *args: {"dice": 0.5, "dice_dark": 0.5, "dice_bright": 0.5})
    change = {"train.epochs": 4, "train.max_steps": 1, "train.patience": 1}
    run = train(tiny_data, tmp_path / "run", overrides=SETTINGS | change, brief=True)
    assert [row["epoch"] for row in rows(run)] == ["1", "2"]


@pytest.mark.slow
def test_where_dice_cannot_choose_the_last_epoch_is_the_best(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "validate", lambda *args: {"dice": 0.0, "dice_dark": 0.0, "dice_bright": 0.0})
    run = train(tiny_data, tmp_path / "run", overrides=SETTINGS | {"train.epochs": 2, "train.max_steps": 1}, brief=True)
    assert read_artifact(run).scores["validation"]["epoch"] == 2


@pytest.mark.slow
def test_a_rate_that_is_much_too_high_is_said_and_not_trained_on(tiny_data: Path, tmp_path: Path) -> None:
    change = {"optim.lr": 1e30, "optim.prompt_lr": 1e30, "optim.warmup": 0.0, "train.max_steps": 6}
    said = r"in epoch 1, step \d the loss is nan \(blobs_00.*, for the 3rd time in a row; lower optim\.lr"
    with pytest.raises(VptError, match=said):
        train(tiny_data, tmp_path / "run", overrides=SETTINGS | change)
    assert not (tmp_path / "run" / "best.safetensors").exists()


@pytest.mark.parametrize("wanted", ["32-true", "bf16-mixed"])
def test_a_chosen_precision_is_taken(wanted: str) -> None:
    assert choose_precision(wanted, torch.device("cpu")) == wanted
    assert choose_precision("auto", torch.device("cpu")) in ("32-true", "bf16-mixed")


# --- interrupted and resumed ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "number"),
    [(2, signal.SIGINT), (5, signal.SIGTERM), (3, signal.SIGINT)],
    ids=["SIGINT in the first epoch", "SIGTERM in the second", "SIGINT at the end of an epoch"],
)
def test_an_interrupted_run_resumed_equals_one_that_was_not(
    tiny_data: Path, tiny_run: Path, tmp_path: Path, signal_at: Callable[..., None], step: int, number: int
) -> None:
    signal_at(step, number)
    with pytest.raises(Interrupted):
        train(tiny_data, tmp_path / "run", overrides=SETTINGS)
    assert f"step {(step - 1) % 3 + 1}; continue with: vpt train --resume" in (tmp_path / "run/train.log").read_text()
    torch.manual_seed(12345)  # as a new process would start, elsewhere
    assert train(None, tmp_path / "run", resume=True) == tmp_path / "run"
    assert_same_run(tmp_path / "run", tiny_run)
    assert not (tmp_path / "run" / "cache").exists()
    for name in ("validation/summary.json", "validation/previews/blobs_004.png", "progress.png"):
        assert (tmp_path / "run" / name).is_file()


@pytest.mark.slow
def test_a_run_that_was_killed_continues_from_the_end_of_its_last_epoch(
    tiny_data: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As kill -9 or a power cut in the second epoch leave it: nothing is saved on the way out."""

    class PowerCut(BaseException):
        pass

    def loss(output: Output, batch: Batch) -> torch.Tensor:
        if next(calls) == 5:
            raise PowerCut
        return real(output, batch)

    calls, real = iter(range(1, 100)), dice_ce()
    monkeypatch.setattr(engine, "dice_ce", lambda *settings: loss)
    with pytest.raises(PowerCut):
        train(tiny_data, tmp_path / "run", overrides=SETTINGS)
    assert [row["epoch"] for row in rows(tmp_path / "run")] == ["1"]
    monkeypatch.undo()
    train(None, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", tiny_run)


@pytest.mark.slow
def test_a_run_interrupted_after_training_is_finished_by_resume(tiny_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    shutil.rmtree(run / "validation")
    train(None, run, resume=True)
    assert_same_run(run, tiny_run)
    assert (run / "validation" / "summary.json").is_file()


@pytest.mark.slow
def test_resume_may_repeat_the_settings_but_not_change_them(tiny_data: Path, tiny_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    with pytest.raises(
        VptError, match=r"run: optim.lr \(0.002 in the run, 1.0 wanted\), seed \(0 in the run, 5 wanted\) differ from"
    ):
        train(tiny_data, run, overrides=SETTINGS | {"seed": 5, "optim.lr": 1.0}, resume=True)
    train(tiny_data, run, overrides=SETTINGS, resume=True)
    assert_same_run(run, tiny_run)


def test_resume_without_a_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        VptError,
        match=r"empty: holds no state to resume \(state/last\.safetensors\), and no config.yaml; give the data",
    ):
        train(None, tmp_path / "empty", resume=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_signal_while_the_data_are_prepared_leaves_what_the_same_call_goes_on_from(
    tiny_data: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = engine.prepare_cases

    def interrupt(*args: Any, **kwargs: Any) -> None:
        prepare(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(engine, "prepare_cases", interrupt)
    with pytest.raises(Interrupted) as stop:
        train(tiny_data, tmp_path / "run", overrides=SETTINGS)
    assert stop.value.code == 143
    assert len(list((tmp_path / "run" / "cache").iterdir())) == 8  # of four cases
    assert "interrupted; continue with: vpt train --resume" in (tmp_path / "run" / "train.log").read_text()
    monkeypatch.undo()
    with pytest.raises(VptError, match=r"run: seed \(0 in the run, 7 wanted\) differ"):
        train(tiny_data, tmp_path / "run", overrides=SETTINGS | {"seed": 7})
    (tmp_path / "run" / "cache" / ".part-17-blobs.npy").write_text("of a killed writer")
    train(None, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", tiny_run)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {path.name for path in tiny_run.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "names", [("config.yaml", "plan.json", ".part-12-plan.json", "cache/"), ("cache/", ".part-1-a")]
)
def test_what_version_0_3_left_when_it_was_killed_is_not_in_the_way(
    tiny_data: Path, tiny_run: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in names:
        if name.endswith("/"):
            (run / name).mkdir()
        elif (tiny_run / name).is_file():
            shutil.copy(tiny_run / name, run / name)
        else:
            (run / name).write_text("")
    train(tiny_data, run, overrides=SETTINGS, resume=len(names) > 2)
    assert_same_run(run, tiny_run)
    assert not list(run.rglob(".part-*"))


@pytest.mark.slow
def test_the_same_call_goes_on_after_a_signal_but_not_after_the_end(
    tiny_data: Path, tiny_run: Path, tmp_path: Path, signal_at: Callable[..., None]
) -> None:
    signal_at(2, signal.SIGTERM)
    with pytest.raises(Interrupted):
        train(tiny_data, tmp_path / "run", overrides=SETTINGS)
    signal_at(10**5)
    train(tiny_data, tmp_path / "run", overrides=SETTINGS)
    assert_same_run(tmp_path / "run", tiny_run)
    with pytest.raises(VptError, match="not empty; continue it with --resume"):
        train(tiny_data, tmp_path / "run", overrides=SETTINGS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["splits.json", "plan.json", "state", "labels", "scan", "mask of the same size"])
def test_a_run_does_not_go_on_with_what_another_decided(
    copied_data: Path, tmp_path: Path, signal_at: Callable[..., None], name: str
) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    for folder, more in ((run, {}), (other, {"seed": 3}))[: 1 + (name == "state")]:
        signal_at(2, signal.SIGTERM)
        with pytest.raises(Interrupted):
            train(copied_data, folder, overrides=SETTINGS | more)
    said, changed = name, []
    if name == "splits.json":
        sides = json.loads((run / name).read_text())
        (run / name).write_text(json.dumps(sides | {"train": sides["train"][1:]}))
    elif name == "plan.json":
        plan = json.loads((run / name).read_text())
        (run / name).write_text(json.dumps(plan | {"pixel_mm": plan["pixel_mm"] * 1.5}))
    elif name == "labels":
        described = json.loads((copied_data / "dataset.json").read_text())
        labels = {"background": 0, "bright": 1, "dark": 2}
        (copied_data / "dataset.json").write_text(json.dumps(described | {"labels": labels}))
        said = "set of labels"
    elif name == "scan":
        scan = copied_data / "imagesTr" / f"{json.loads((run / 'splits.json').read_text())['train'][0]}_0000.nii.gz"
        image = nib.load(scan)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj) + 500, image.affine, image.header), scan)
        said = "data, of which a file is larger or smaller"
        changed.append(scan)
    elif name == "mask of the same size":
        mask = copied_data / "labelsTr" / f"{json.loads((run / 'splits.json').read_text())['train'][0]}.nii.gz"
        content = bytearray(mask.read_bytes())
        content[-8] ^= 1
        mask.write_bytes(content)
        said = "data, of which a file holds something else"
        changed.append(mask)
    else:
        shutil.rmtree(run / "state")
        shutil.copytree(other / "state", run / "state")
        said = r"splits.json|config.yaml \(seed\)"
    files = 2 * sum(len(json.loads((run / "splits.json").read_text())[side]) for side in ("train", "val"))
    signal_at(10**5)
    with pytest.raises(VptError, match=rf"was saved by a run with another ({said}); put back the one") as told:
        train(None, run, resume=True)
    assert all(f" started with (1 of {files} changed: {file}), or " in str(told.value) for file in changed)
    if changed:  # beside a state of a version that kept one digest of all
        (run / "state" / "data.json").unlink()
        with pytest.raises(VptError, match=rf"({said}); put back the one it was started with, or the state"):
            train(None, run, resume=True)


@pytest.mark.slow
def test_a_run_whose_best_artifact_is_gone_does_not_go_on(tiny_run: Path, tmp_path: Path) -> None:
    """Its state is of the last epoch, so that nothing makes the artifact of the best one again."""
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    (run / "best.safetensors").unlink()
    with pytest.raises(VptError, match=r"best.safetensors: is gone, the artifact of epoch \d, the best so far; put it"):
        train(None, run, resume=True)


def test_a_run_whose_best_artifact_is_damaged_does_not_go_on(tiny_run: Path, tmp_path: Path) -> None:
    """It would be told after the last epoch."""
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    content = (run / "best.safetensors").read_bytes()
    (run / "best.safetensors").write_bytes(content[: len(content) // 2])
    before = (run / "state" / "last.safetensors").read_bytes()
    with pytest.raises(VptError, match=r"best.safetensors: not a readable safetensors file"):
        train(None, run, resume=True)
    assert (run / "state" / "last.safetensors").read_bytes() == before


def test_a_run_whose_best_artifact_is_another_runs_does_not_go_on(tiny_run: Path, tmp_path: Path) -> None:
    """It would be what the run answers with, under this run's scores."""
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    artifact = run / "best.safetensors"
    tensors, metadata = read_tensors(artifact, "")
    header = json.loads(metadata["vpt"])
    header["scores"]["validation"]["dice"] += 0.01
    write_tensors(artifact, tensors, metadata | {"vpt": json.dumps(header)})
    before = artifact.read_bytes()
    with pytest.raises(
        VptError, match=r"best.safetensors: of epoch \d with Dice 0\.\d+, where the best .* put it back"
    ):
        train(None, run, resume=True)
    assert artifact.read_bytes() == before


def test_a_run_whose_cases_are_gone_says_so(tiny_run: Path, copied_data: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    written = yaml.safe_load((run / "config.yaml").read_text())
    written["data"]["path"] = str(copied_data)
    (run / "config.yaml").write_text(yaml.safe_dump(written))
    case = json.loads((run / "splits.json").read_text())["train"][0]
    (copied_data / "imagesTr" / f"{case}_0000.nii.gz").unlink()
    (copied_data / "labelsTr" / f"{case}.nii.gz").unlink()
    said = rf"was begun with 1 case that .*blobs does not hold any more \({case}\); put the data back as they were"
    with pytest.raises(VptError, match=said):
        train(None, run, resume=True)


@pytest.mark.slow
def test_a_damaged_state_falls_back_to_the_one_before_and_says_so(
    tiny_data: Path, tiny_run: Path, tmp_path: Path, signal_at: Callable[..., None]
) -> None:
    signal_at(5, signal.SIGTERM)
    with pytest.raises(Interrupted):
        train(tiny_data, tmp_path / "run", overrides=SETTINGS | {"train.save_every": "1"})
    signal_at(10**5)
    state = tmp_path / "run" / "state" / "last.safetensors"
    content = bytearray(state.read_bytes())
    content[-2000:-1900] = bytes(100)
    state.write_bytes(content)
    train(None, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", tiny_run)
    assert "last.safetensors: damaged" in (tmp_path / "run" / "train.log").read_text()


@pytest.mark.slow
def test_more_epochs_where_the_schedule_says_how(tiny_data: Path, tiny_run: Path, tmp_path: Path) -> None:
    growing = SETTINGS | {"optim.schedule": "constant"}
    straight = train(tiny_data, tmp_path / "straight", overrides=growing, brief=True)
    run = train(tiny_data, tmp_path / "run", overrides=growing | {"train.epochs": 1}, brief=True)
    train(tiny_data, run, overrides=growing, resume=True, brief=True)
    assert_same_run(run, straight)
    assert load_config(run / "config.yaml").train.epochs == 2
    with pytest.raises(VptError, match=r"train.epochs=1, but the run was started with 2; a run is given more"):
        train(tiny_data, run, overrides=growing | {"train.epochs": 1}, resume=True)
    with pytest.raises(VptError, match=r"train.epochs=5, but the rates of this run fall as a cosine that ends after 2"):
        train(tiny_data, tiny_run, overrides=SETTINGS | {"train.epochs": 5}, resume=True)


# --- two at once, and a folder that goes away -------------------------------------------------------------------------


@pytest.mark.slow
def test_a_second_training_in_the_folder_is_refused_with_who_is_there(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, finish, said = tmp_path / "run", engine.Segmenting.finish, []

    def meanwhile(*args: Any) -> None:
        for resume in (True, False):
            with pytest.raises(VptError) as refused:
                train(tiny_data, run, overrides=ONE_STEP, resume=resume)
            said.append(str(refused.value))
        finish(*args)

    monkeypatch.setattr(engine.Segmenting, "finish", meanwhile)
    train(tiny_data, run, overrides=ONE_STEP)
    assert len(said) == 2
    who = (
        rf"another training is at work in it \(process {os.getpid()} on {platform.node()}, since 20.*; wait for its end"
    )
    assert all(re.search(who, sentence) for sentence in said)
    assert (run / "validation" / "summary.json").is_file()


@pytest.mark.slow
def test_a_lock_of_a_killed_training_is_no_lock(tiny_data: Path, tiny_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    (run / RUNNING).write_text(json.dumps({"process": 2**22 + 1, "host": "elsewhere", "since": "2026-01-01 00:00:00"}))
    train(tiny_data, run, overrides=SETTINGS)
    assert not (run / RUNNING).exists()


@pytest.mark.slow
def test_a_folder_that_is_deleted_meanwhile_is_a_sentence(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loss(output: Output, batch: Batch) -> torch.Tensor:
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        return real(output, batch)

    real = dice_ce()
    monkeypatch.setattr(engine, "dice_ce", lambda *settings: loss)
    with pytest.raises(VptError, match=r"run: the run's folder is gone, so the training ends"):
        train(tiny_data, tmp_path / "run", overrides=ONE_STEP)


# --- refused before anything is trained or written --------------------------------------------------------------------


def test_a_folder_that_is_not_empty_is_left_alone(tiny_data: Path, tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(VptError, match="the folder is not empty; choose another --out"):
        train(tiny_data, tmp_path, overrides=ONE_STEP)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(VptError, match="not empty; continue it with --resume, or choose another --out"):
        train(tiny_data, tiny_run, overrides=ONE_STEP)


def test_a_file_in_the_place_of_the_folder(tiny_data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(VptError, match="run: a file, expected a folder for the run; choose another --out"):
        train(tiny_data, tmp_path / "run", overrides=ONE_STEP)
    with pytest.raises(VptError, match="run's folder cannot be made"):
        train(tiny_data, tmp_path / "run" / "below", overrides=ONE_STEP)
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
def test_names_that_are_not_utf_8_are_refused_before_anything_is_trained(tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(VptError, match=r"run\\xff: its name is not UTF-8; choose another --out"):
        train(tiny_data, tmp_path / "run\udcff", overrides=ONE_STEP)
    data = shutil.copytree(tiny_data, tmp_path / "data\udcff")
    with pytest.raises(VptError, match=r"data\.path: .*its name is not UTF-8"):
        train(data, tmp_path / "run", overrides=ONE_STEP)
    assert [path.name for path in tmp_path.iterdir()] == ["data\udcff"]


@pytest.mark.parametrize("below", ["", "deeper/run"])
def test_a_place_that_cannot_be_written(tiny_data: Path, below: str) -> None:
    """/proc refuses everyone, root included."""
    with pytest.raises(VptError, match=r"cannot be (made|written).* choose another"):
        train(tiny_data, Path("/proc/self/task") / below if below else Path("/proc/vpt-run"), overrides=ONE_STEP)


def break_image(data: Path) -> None:
    path = data / "imagesTr" / "blobs_001_0000.nii.gz"
    image = nib.load(path)
    voxels = image.get_fdata().astype(np.float32)
    voxels[0, 0, 0] = np.nan
    nib.save(nib.Nifti1Image(voxels, image.affine), path)


def move_label(data: Path) -> None:
    path = data / "labelsTr" / "blobs_004.nii.gz"  # of the validation side: found before training all the same
    label = nib.load(path)
    affine = label.affine.copy()
    affine[0, 3] += 7
    nib.save(nib.Nifti1Image(np.asarray(label.dataobj), affine), path)


def empty_labels(data: Path) -> None:
    for path in (data / "labelsTr").iterdir():
        label = nib.load(path)
        nib.save(nib.Nifti1Image(np.zeros(label.shape, np.uint8), label.affine), path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (break_image, r"blobs_001_0000\.nii\.gz: 1 of \d+ voxels are not finite"),
        (move_label, r"labelsTr/blobs_004\.nii\.gz: not on the grid of .*blobs_004_0000\.nii\.gz"),
        (empty_labels, "no training case has a labelled voxel, so there is nothing to learn"),
    ],
)
def test_bad_data_leaves_no_folder_behind(
    copied_data: Path, tmp_path: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(copied_data)
    with pytest.raises(VptError, match=said):
        train(copied_data, tmp_path / "runs" / "first", overrides=ONE_STEP)
    assert not (tmp_path / "runs").exists()
    (tmp_path / "made before").mkdir()
    with pytest.raises(VptError, match=said):
        train(copied_data, tmp_path / "made before", overrides=ONE_STEP)
    assert list((tmp_path / "made before").iterdir()) == []


def test_a_failed_run_takes_no_other_run_with_it(
    copied_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs are started at once into a folder `runs` that neither found; one fails, the other must stay."""
    other, prepare = tmp_path / "runs" / "other" / "config.yaml", engine.prepare_cases

    def meanwhile(*args: Any, **kwargs: Any) -> Any:
        other.parent.mkdir(exist_ok=True)
        other.write_text("of another process")
        break_image(copied_data)
        return prepare(*args, **kwargs)

    monkeypatch.setattr(engine, "prepare_cases", meanwhile)
    with pytest.raises(VptError, match="not finite"):
        train(copied_data, tmp_path / "runs" / "first", overrides=ONE_STEP)
    assert other.is_file()
    assert not (tmp_path / "runs" / "first").exists()


@pytest.mark.slow
def test_a_disk_that_fills_up_is_a_sentence_and_the_same_call_goes_on(
    tiny_data: Path, tmp_path: Path, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    with (
        full_disk(300_000),
        pytest.raises(VptError, match=r"state/next\.safetensors: cannot be written \(.*free space"),
    ):
        train(tiny_data, tmp_path / "run", overrides=ONE_STEP)
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {*DESCRIBED, "train.log", "cache", "state"}
    train(tiny_data, tmp_path / "run", overrides=ONE_STEP)
    assert (tmp_path / "run" / "best.safetensors").is_file()


def test_a_disk_that_is_full_at_once_leaves_no_folder(
    tiny_data: Path, tmp_path: Path, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    with full_disk(10), pytest.raises(VptError, match=r"running\.json: cannot be written"):
        train(tiny_data, tmp_path / "run", overrides=ONE_STEP)
    assert list(tmp_path.iterdir()) == []


def test_a_config_is_needed(tmp_path: Path) -> None:
    with pytest.raises(VptError, match="no data set or config to train on"):
        train(None, tmp_path / "run")


@pytest.mark.slow
def test_an_artifact_holds_nothing_of_a_case_where_that_was_asked_for(
    tiny_run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    assert read_artifact(tiny_run).familiar is not None
    train(tiny_data, tmp_path / "run", overrides=ONE_STEP | {"train.keep_cases": False})
    assert read_artifact(tmp_path / "run").familiar is None


def test_scores_of_many_labels_are_told_in_a_short_line() -> None:
    shown = {f"dice_{k}": f"rib {k}" for k in range(20)}
    row = {"dice": 0.5, **dict.fromkeys(shown, 0.25)}
    told = scores_told(row, shown, "dice")
    assert (told[:19], told[-10:]) == ("0.500: rib 0 0.250,", "and 4 more")
    assert scores_told(row, {"dice_3": "rib 3"}, "dice") == "rib 3 0.250"
    assert scores_told({}, shown, "dice") == "not taken"
