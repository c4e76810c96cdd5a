"""The state from which an interrupted run continues exactly: safetensors and JSON, no pickle, in two generations."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from vpt.engine.average import Average
from vpt.engine.randomness import random_state, restore_random
from vpt.errors import VptError
from vpt.files import make_folder
from vpt.machine.moments import moments_of, restore_moments
from vpt.model import PromptedModel
from vpt.restoring import POOLED, load_trained
from vpt.tasks.batch import LearningLoss
from vpt.tensor_files import read_tensors, write_tensors


@dataclass
class Progress:
    """Where a run stands: `epoch` and `step` are the next to run; `rows` is the history that `metrics.csv` shows.

    skipped: updates in a row, up to now, of which nothing could be learned; lost: such batches of this epoch;
    parts: see `vpt.engine.learning.Learner`; processes: that trained together.
    """

    epoch: int = 0
    step: int = 0
    best: float = -1.0
    best_epoch: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    rows: list[dict[str, float]] = field(default_factory=list)
    skipped: int = 0
    lost: int = 0
    parts: int = 1
    processes: int = 1


def previous_of(path: Path) -> Path:
    """Where the state before the one at `path` is kept."""
    return path.with_name(f"previous{path.suffix}")


def has_state(path: Path) -> bool:
    """Whether a state was saved there, be it the one before."""
    return path.is_file() or previous_of(path).is_file()


def save_state(
    path: Path,
    model: PromptedModel,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    average: Average | None = None,
    scaler: Any = None,
    learned: LearningLoss | None = None,
    decided: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Trained tensors and their mean, optimiser moments, gradient scale, what a loss has learned, random state and
    progress, in one file.

    It is complete or absent, and the one before is kept. decided: what the run is besides, by the file that says so.
    """
    make_folder(path.parent, "free space, or choose another --out")
    tensors = {f"model.{name}": t.detach().cpu().contiguous() for name, t in model.trained_state().items()}
    tensors |= {f"optimizer.{name}": t.cpu().contiguous() for name, t in moments_of(optimizer).items()}
    if average:
        tensors |= {f"average.{name}": t.cpu().contiguous() for name, t in average.state().items()}
    if learned:
        tensors |= {f"loss.{name}": t.cpu().contiguous() for name, t in learned.state().items()}
    tensors |= {f"random.{name}": t for name, t in random_state().items()}
    header = {"progress": json.dumps(asdict(progress)), "backbone": model.backbone.sha256}
    header["decided"] = json.dumps(dict(decided))
    if scaler is not None:
        header["scaler"] = json.dumps(scaler.state_dict())
    write_tensors(_next_of(path), tensors, header)
    _move_up(path)


def _next_of(path: Path) -> Path:
    return path.with_name(f"next{path.suffix}")


def _move_up(path: Path) -> None:
    """The newest state becomes the last one, and that the one before; a kill between the two leaves it to be done."""
    try:
        if path.exists():
            os.replace(path, previous_of(path))
        os.replace(_next_of(path), path)
    except OSError as error:
        raise VptError(f"{path}: cannot be written ({error.strerror}); the states beside it are whole") from error


def load_state(
    path: Path,
    model: PromptedModel,
    optimizer: torch.optim.Optimizer,
    average: Average | None = None,
    scaler: Any = None,
    say: Callable[[str], None] = lambda said: None,
    learned: LearningLoss | None = None,
    decided: Mapping[str, str] = MappingProxyType({}),
    changed: Callable[[Mapping[str, str]], str] = lambda saved: "",
) -> Progress:
    """Bring all to where `save_state` left it, if the backbone is the same; `say` is told of a damaged newest state.

    changed: from what was decided when it was saved, which files of the data are others now, in words; "" if unknown.

    Raises:
        VptError: both states are damaged, or they are of another model, or of a run that is another one by what was
            `decided`.
    """
    tensors, metadata, progress = _read_newest(path, say)
    if metadata.get("backbone") != model.backbone.sha256:
        started, found = str(metadata.get("backbone"))[:16], model.backbone.sha256[:16]
        raise VptError(
            f"{path}: the run was started on other weights of {model.backbone.spec.name} (SHA-256 {started}..., found "
            f"{found}...); put those back, or finish it with the version of vpt that its environment.json names"
        )
    saved = json.loads(metadata.get("decided", "{}"))  # nothing before version 0.6
    if differing := [name for name, said in decided.items() if saved.get(name, said) != said]:
        of_data = differing[0].startswith("data")
        files = changed(saved) if of_data else ""
        packed = (
            "; a file that was only packed or written anew counts as another, since not all voxels are read for this: "
            f"where that is so, start another run from what this one has learned, with --from {path.parent.parent}"
        )
        raise VptError(
            f"{path}: was saved by a run with another {differing[0]}; put back the one it was started with"
            f"{f' ({files})' if files else ''}, or the state that belongs to it{packed if of_data else ''}"
        )
    if missing := [name for name in model.trained_state() if POOLED in name and f"model.{name}" not in tensors]:
        raise VptError(
            f"{path}: was saved by a version that left {missing[0]} as it was; finish the run with the version of vpt "
            "that its environment.json names"
        )
    load_trained(model, _part(tensors, "model."), path)
    restore_moments(optimizer, _part(tensors, "optimizer."))
    if average:
        average.load(_part(tensors, "average."))
    if learned:
        learned.restore(_part(tensors, "loss."))
    if scaler is not None and "scaler" in metadata:
        scaler.load_state_dict(json.loads(metadata["scaler"]))
    restore_random(_part(tensors, "random."))
    return progress


Read = tuple[dict[str, Tensor], dict[str, str], Progress]
"""Tensors and header of a state, and how far its run had come."""


def _read_newest(path: Path, say: Callable[[str], None]) -> Read:
    previous = previous_of(path)
    if not path.is_file() and _next_of(path).is_file():
        _move_up(path)
    otherwise = "the state before it is taken"
    if not previous.is_file():
        otherwise = "there is no other, so start the run anew in another folder"
    if path.is_file() or not previous.is_file():
        try:
            return _read(path, otherwise)
        except VptError as error:
            if not previous.is_file():
                raise
            say(str(error))
    else:
        say(f"{path}: the newest state is missing; {otherwise}")
    return _read(previous, "so is the newest state: start the run anew in another folder")


def _read(path: Path, otherwise: str) -> Read:
    """Raises VptError for what is damaged, or no state, as an artifact in its place."""
    tensors, metadata = read_tensors(path, otherwise)
    try:
        progress = Progress(**json.loads(metadata["progress"]))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise VptError(f"{path}: holds no state of a run, or one of a newer version; {otherwise}") from error
    if "backbone" not in metadata or "random.cpu" not in tensors:
        raise VptError(f"{path}: holds a part of a state only; {otherwise}")
    return tensors, metadata, progress


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
