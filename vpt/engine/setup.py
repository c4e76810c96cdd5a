"""What a run decides before it trains, and the folder that says so."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vpt.backbones import describe_backbone
from vpt.config import Config, ResolvedConfig, dump_config, load_config, load_written
from vpt.data.cases import SegmentationSet
from vpt.data.few_shot import draw_shots
from vpt.data.labelled import LabelledSet
from vpt.data.layouts import is_labelled, read_dataset, read_labelled
from vpt.data.plan import Plan, read_plan
from vpt.data.planning import EncoderInput, Wishes, make_plan
from vpt.data.splits import Splits, read_splits, read_written
from vpt.errors import VptError
from vpt.files import write_json, write_text
from vpt.machine.device import choose_device
from vpt.progress import bar
from vpt.versions import version_of
from vpt.vocabulary import Task

STATE = Path("state") / "last.safetensors"


@dataclass(frozen=True)
class Setup:
    """All that a run decides before it trains."""

    config: ResolvedConfig  # with task, head, and of classification target and classes, whatever was left to the data
    dataset: SegmentationSet | LabelledSet
    splits: Splits
    plan: Plan
    device: torch.device

    @property
    def task(self) -> Task:
        assert self.config.task is not None
        return self.config.task


def prepare_setup(config: Config) -> Setup:
    """Read the data set, its split and its fingerprint; nothing is written."""
    device = choose_device(config.device)
    resolved, dataset = read_data(config)
    splits = choose_sides(resolved, dataset)
    with bar("planning") as tick:
        cases = [dataset.case(name) for name in splits.train]
        plan = make_plan(dataset, cases, encoder_input(resolved), wishes_of(resolved), tick)
    if isinstance(dataset, SegmentationSet) and dataset.label_values:
        plan = plan.model_copy(update={"label_values": dataset.label_values.names})
    return Setup(resolved, dataset, splits, plan, device)


def encoder_input(config: ResolvedConfig) -> EncoderInput:
    """What a plan must know of the config's encoder."""
    own = config.backbone
    backbone = describe_backbone(own.name, weights=own.weights, **own.options)
    return EncoderInput(
        native_size=max(backbone.image_size),
        patch=max(backbone.patch),
        padding=backbone.padding,
        fill=backbone.mean if backbone.padding == "corner" else (0.0, 0.0, 0.0),
    )


def wishes_of(config: ResolvedConfig) -> Wishes:
    """What the config says of the plan."""
    slices = config.plan.slices if config.task == "classification" else None
    return Wishes(**config.plan.model_dump(exclude={"slices"}), slices=slices)


def read_data(config: Config) -> tuple[ResolvedConfig, SegmentationSet | LabelledSet]:
    """The data set, and the config with what it left to the data: task, head, target, classes."""
    data = config.data
    task = config.task or ("classification" if is_labelled(data.path) else "segmentation")
    if task == "segmentation":
        return config.resolved(task), read_dataset(data.path, data.patients, data.labels)
    labelled = read_labelled(data.path, data.target, data.classes, data.patients)
    known = data.model_copy(update={"target": labelled.target, "classes": labelled.classes})
    return config.resolved(task).model_copy(update={"data": known}), labelled


def choose_sides(config: Config, dataset: SegmentationSet | LabelledSet) -> Splits:
    """The data set's sides, with `data.shots` and `data.use_val` applied."""
    with bar("reading labels") as tick:
        splits = read_splits(dataset, config.data.fold, config.data.folds, tick)
    if config.data.shots:
        splits = draw_shots(dataset, splits, config.data.shots, config.seed)
    if config.data.use_val:
        splits = Splits((*splits.train, *splits.val), (), splits.test)
    return splits


def require_new_run(run: Path) -> None:
    if run.is_file():
        raise VptError(f"{run}: a file, expected a folder for the run; choose another --out")
    if run.is_dir() and any(run.iterdir()):
        hint = "continue it with --resume, or " if (run / STATE).exists() else ""
        raise VptError(f"{run}: the folder is not empty; {hint}choose another --out")


def create_run(run: Path, setup: Setup) -> list[Path]:
    """Make the folder and its descriptions; returns the folders that are new, innermost first, for `remove_run`."""
    missing = [folder for folder in (run, *run.parents) if not folder.exists()]
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VptError(f"{run}: the run's folder cannot be made ({error.strerror}); choose another --out") from error
    try:
        write_text(run / "config.yaml", dump_config(setup.config))
        write_text(run / "plan.json", setup.plan.model_dump_json(indent=2) + "\n")
        write_json(run / "splits.json", setup.splits.to_dict())
        write_json(run / "environment.json", environment(setup.device))
    except BaseException:
        remove_run(run, missing)
        raise
    return missing


def remove_run(run: Path, fresh: Sequence[Path]) -> None:
    """Undo `create_run` after a failure before training: what was not there is gone again, but for others' runs."""
    for item in run.iterdir():
        shutil.rmtree(item, ignore_errors=True) if item.is_dir() else item.unlink(missing_ok=True)
    with suppress(OSError):  # another run may have come to lie beside this one
        for folder in fresh:
            folder.rmdir()


def reopen_run(run: Path, wanted: Any, overrides: dict[str, Any] | None) -> Setup:
    """The setup of an interrupted run, from its own files; `wanted` may repeat its settings, not change them."""
    if not (run / STATE).is_file():
        raise VptError(f"{run}: holds no state to resume ({STATE}); start it without --resume")
    config = load_written(run / "config.yaml")
    if wanted is None:
        wanted = load_written(run / "config.yaml", overrides)
    elif not isinstance(wanted, Config):
        wanted = load_config(wanted, overrides)
    config, dataset = read_data(config)
    wanted = read_data(wanted)[0] if wanted.data.path == config.data.path else wanted
    ours, theirs = config.model_dump(mode="json"), wanted.model_dump(mode="json")
    if differing := [key for key in ours if ours[key] != theirs[key] and key != "device"]:
        raise VptError(
            f"{run}: {', '.join(differing)} differ from the run's config.yaml; resume with the settings it was started "
            "with (just `vpt train --resume --out RUN`), or start another run"
        )
    splits, plan = read_written(run / "splits.json"), read_plan(run / "plan.json")
    return Setup(config, dataset, splits, plan, choose_device(wanted.device))


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, machine and command line, for `environment.json`."""
    packages = ("vpt", "torch", "torchvision", "timm", "monai", "lightning", "albumentations", "nibabel", "numpy")
    return {
        "versions": {name: version_of(name) for name in packages},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
        "command": sys.argv,
    }
