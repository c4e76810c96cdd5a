"""What a run decides before it trains, and the folder that says so."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from vpt.artifact import Artifact
from vpt.artifact_tasks import tasks_of
from vpt.backbones import describe_backbone
from vpt.config import Config, ResolvedConfig, dump_config, load_written
from vpt.data.annotated import keep_labels
from vpt.data.cases import Case, SegmentationSet, unwritable
from vpt.data.doubts.said import require_no_masks
from vpt.data.few_shot import draw_shots
from vpt.data.file_marks import marks_of
from vpt.data.grouped import Groups, read_groups
from vpt.data.kept_plan import keep_plan
from vpt.data.labelled import LabelledSet
from vpt.data.layouts import is_labelled, read_dataset, read_labelled
from vpt.data.plan import Plan, read_plan
from vpt.data.planned import EncoderInput, Wishes
from vpt.data.planning import make_plan
from vpt.data.splits import Splits, read_splits, read_written
from vpt.engine.callbacks.base import dotted
from vpt.engine.continuing import with_task
from vpt.engine.further_task import is_beside, keep_copy, kept_tasks, require_same_files
from vpt.engine.kept_marks import MARKED, digest_of
from vpt.engine.starting import adopt, require_unseen
from vpt.errors import VptError
from vpt.files import write_json, write_text
from vpt.machine.device import choose_device
from vpt.progress import bar
from vpt.versions import version_of
from vpt.vocabulary import Task
from vpt.words import counted, listed

SEEN = 60.0  # seconds until a shared disk shows what another machine has written
OF_TRAIN = ("epochs", "workers", "save_every", "postprocess", "viewer")
FREE = {  # what they say changes nothing of what is computed
    "device",
    "callbacks",
    "train.workers",
    "train.save_every",
    "train.postprocess",
    "train.viewer",
}


@dataclass(frozen=True)
class Setup:
    """All that a run decides before it trains."""

    config: ResolvedConfig  # with task, head, and of classification target and classes, whatever was left to the data
    dataset: SegmentationSet | LabelledSet
    splits: Splits
    plan: Plan
    device: torch.device
    start: Artifact | None = None  # that the run goes on from; None for a run that is there already
    earlier: Mapping[str, Artifact] = field(default_factory=dict)  # tasks that the run's own task stands beside
    groups: Groups | None = None  # that are treated alike, where the config has `fair`

    def decided(self) -> dict[str, str]:
        """File of the run -> SHA-256 of what it says, which a training must not find changed on its way."""
        plan = self.plan.model_dump_json(exclude={"reasons"}, exclude_defaults=True)
        sides = json.dumps(self.splits.to_dict(), sort_keys=True)
        said = {
            "splits.json": sides,
            "plan.json": plan,
            "config.yaml (seed)": str(self.config.seed),
            "set of labels": json.dumps(self.dataset.labels),
            "data, of which a file is larger or smaller": json.dumps(self._sizes),
        }
        digests = {name: sha256(text.encode()).hexdigest() for name, text in said.items()}
        return digests | {MARKED: digest_of(self.marks)}

    @cached_property
    def _sizes(self) -> dict[str, list[int]]:
        """Bytes of each file of the cases that are learned from and validated, wherever they lie."""
        return {
            name: [path.stat().st_size if path.is_file() else 0 for path in paths] for name, paths in self.files.items()
        }

    @cached_property
    def marks(self) -> dict[str, list[str]]:
        """What each of these files holds, see `marks_of`, and what a list or a folder says of an example."""
        marks = iter(marks_of([path for paths in self.files.values() for path in paths]))
        found = {name: list(islice(marks, len(paths))) for name, paths in self.files.items()}
        if isinstance(self.dataset, LabelledSet):
            for case in self.dataset.cases:
                if case.name in found:
                    found[case.name].append(str((case.target, case.annotated)))
        return found

    @cached_property
    def files(self) -> dict[str, list[Path]]:
        """The files of the cases that train or validate; an array in memory has none."""
        seen, found = {*self.splits.train, *self.splits.val}, {}
        for case in self.dataset.cases:
            if case.name in seen:
                files = case.files if isinstance(case, Case) else case.images
                found[case.name] = [file for file in files if isinstance(file, Path)]
        return found

    @property
    def fair(self) -> Any:
        """The section of a run that has groups."""
        assert self.config.fair is not None
        return self.config.fair

    @property
    def task(self) -> Task:
        assert self.config.task is not None
        return self.config.task


def prepare_setup(config: Config) -> Setup:
    """Read the data set, its split and its fingerprint; nothing is written."""
    device = choose_device(config.device)
    config, start = adopt(config)
    resolved, dataset = read_data(config)
    splits = choose_sides(resolved, dataset)
    if (config.data.classes or config.data.only) is None:
        require_no_masks(dataset, splits)
    groups = None if resolved.fair is None else read_groups(resolved.fair, dataset, splits)
    earlier: dict[str, Artifact] = {}
    if start is not None and is_beside(config, start):
        earlier = tasks_of(start)
        start = None
    if start is not None:
        require_unseen(start, dataset, splits)
    with bar("planning") as tick:
        cases = [dataset.case(name) for name in splits.train]
        if start is None:
            plan = make_plan(dataset, cases, encoder_input(resolved), wishes_of(resolved), tick)
        else:
            plan = keep_plan(start.plan, dataset, cases, wishes_of(resolved), tick)
    if isinstance(dataset, SegmentationSet):
        values = dataset.label_values.names if dataset.label_values else None
        plan = plan.model_copy(update={"label_values": values})
    if earlier:
        require_same_files(earlier, plan, len(splits.train), resolved.data.path)
    return Setup(resolved, dataset, splits, plan, device, start, earlier, groups)


def encoder_input(config: ResolvedConfig) -> EncoderInput:
    """What a plan must know of the config's encoder."""
    own = config.backbone
    backbone = describe_backbone(own.name, weights=own.weights, **own.options)
    return EncoderInput(
        native_size=max(backbone.image_size),
        patch=max(backbone.patch),
        padding=backbone.padding,
        fill=backbone.mean if backbone.padding == "corner" else (0.0, 0.0, 0.0),
        interpolation=backbone.interpolation,
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
        resolved = config.resolved(task)  # what cannot be is told before the data are looked at
        read = read_dataset(data.path, data.patients, data.labels, config.task)
        if text := unwritable(read):
            raise VptError(f"{read.root}: {text}")
        return resolved, keep_labels(read, config.start.kept or ())
    if config.start.adds:
        config = with_task(config)
        data = config.data
    labelled = read_labelled(data.path, data.target, data.classes, data.patients, data.only, config.task)
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


def describe_run(run: Path, setup: Setup) -> None:
    """Write what was decided."""
    if setup.earlier:
        keep_copy(list(setup.earlier.values())[-1], run)
    write_text(run / "config.yaml", dump_config(setup.config))
    write_text(run / "plan.json", setup.plan.model_dump_json(indent=2) + "\n")
    write_json(run / "splits.json", setup.splits.to_dict())
    if setup.groups:
        setup.groups.write(run)
    write_json(run / "environment.json", environment(setup.device) | started_from(setup.config))


def reopen_run(run: Path, config: ResolvedConfig) -> Setup:
    """The setup of an interrupted run, from its own files; config: see `agreed`."""
    _, dataset = read_data(config)
    splits, plan = read_written(run / "splits.json"), read_plan(run / "plan.json")
    known = {case.name for case in dataset.cases}
    if gone := [name for name in (*splits.train, *splits.val) if name not in known]:
        raise VptError(
            f"{run}: was begun with {counted(len(gone), 'case')} that {config.data.path} does not hold any more "
            f"({listed(gone, 3)}); put the data back as they were, or start another run"
        )
    groups = None if config.fair is None else Groups.written(run)
    return Setup(config, dataset, splits, plan, choose_device(config.device), earlier=kept_tasks(run), groups=groups)


def follow_run(run: Path, config: Config) -> Setup:
    """The setup of a run that another process has just described; config: of this one, of which the device counts.

    Raises:
        VptError: a folder that does not show it.
    """
    until = time.monotonic() + SEEN
    while not all((run / name).is_file() for name in ("config.yaml", "plan.json", "splits.json")):
        if time.monotonic() > until:
            raise VptError(
                f"{run}: what the first process wrote in it is not to be seen on {platform.node()}; all machines of a "
                "training need the same folder, on a disk that they share"
            )
        time.sleep(0.5)
    resolved, _ = read_data(load_written(run / "config.yaml"))
    return reopen_run(run, resolved.model_copy(update={"device": config.device}))


def agreed(run: Path, wanted: Config | None, overrides: dict[str, Any] | None) -> ResolvedConfig:
    """The config of a run that is there, with those of the wanted settings that change nothing of what is computed.

    wanted: may repeat the run's settings; None takes them, with the overrides.

    Raises:
        VptError: other settings, with what they are in the run and what is wanted.
    """
    own, _ = read_data(load_written(run / "config.yaml"))
    wanted = load_written(run / "config.yaml", overrides) if wanted is None else adopt(wanted)[0]
    wanted = read_data(wanted)[0] if wanted.data.path == own.data.path else wanted
    ours, theirs = (dotted(each.model_dump(mode="json")) for each in (own, wanted))
    differing = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key) and key not in FREE]
    if differing == ["train.epochs"]:
        _require_growing(run, own, wanted)
        differing = []
    if differing:
        said = listed(f"{key} ({ours.get(key)} in the run, {theirs.get(key)} wanted)" for key in differing)
        raise VptError(
            f"{run}: {said} differ from the run's config.yaml; resume with the settings it was started "
            "with (just `vpt train --resume --out RUN`), or start another run"
        )
    train = own.train.model_copy(update={name: getattr(wanted.train, name) for name in OF_TRAIN})
    return own.model_copy(update={"device": wanted.device, "callbacks": wanted.callbacks, "train": train})


def _require_growing(run: Path, own: Config, wanted: Config) -> None:
    """Raise VptError unless the run may be given so many epochs."""
    before, after = own.train.epochs, wanted.train.epochs
    if after < before:
        raise VptError(
            f"{run}: train.epochs={after}, but the run was started with {before}; a run is given more epochs, not fewer"
        )
    if own.optim.schedule != "constant":
        raise VptError(
            f"{run}: train.epochs={after}, but the rates of this run fall as a cosine that ends after "
            f"{counted(before, 'epoch')}, "
            "so a longer run is another one from its first step on; start that, with optim.schedule=constant if it is "
            "to be given more epochs later"
        )


def started_from(config: Config) -> dict[str, Any]:
    """The artifact that a run goes on from, for `environment.json`; nothing of one that starts anew."""
    start = config.start.model_dump(mode="json", include={"path", "sha256"})
    return {"start": start} if config.start.path is not None else {}


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
