"""The state from which an interrupted run continues exactly: safetensors and JSON, no pickle."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vpt.artifact import load_trained
from vpt.engine.average import Average
from vpt.errors import VptError
from vpt.files import read_tensors, write_tensors
from vpt.model import PromptedModel


@dataclass
class Progress:
    """Where a run stands: `epoch` and `step` are the next to run; `rows` is the history that `metrics.csv` shows."""

    epoch: int = 0
    step: int = 0
    best: float = -1.0
    best_epoch: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    rows: list[dict[str, float]] = field(default_factory=list)


def save_state(
    path: Path,
    model: PromptedModel,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    average: Average | None = None,
) -> None:
    """Trained tensors and their mean, optimiser moments, random state and progress in one file, complete or absent."""
    path.parent.mkdir(exist_ok=True)
    tensors = {f"model.{name}": t.detach().cpu().contiguous() for name, t in model.trained_state().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        kept = {name: t for name, t in moments.items() if t is not None}  # SGD has None without momentum
        tensors |= {f"optimizer.{index}.{name}": t.detach().cpu().contiguous() for name, t in kept.items()}
    if average:
        tensors |= {f"average.{name}": t.cpu().contiguous() for name, t in average.state().items()}
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    header = {"progress": json.dumps(asdict(progress)), "backbone": model.backbone.sha256}
    write_tensors(path, tensors, header)


def load_state(
    path: Path, model: PromptedModel, optimizer: torch.optim.Optimizer, average: Average | None = None
) -> Progress:
    """Bring model, mean, optimiser and random state to where `save_state` left them, if the backbone is the same."""
    tensors, metadata = read_tensors(path, "this state of the run is lost: start it anew in another folder")
    if metadata.get("backbone") != model.backbone.sha256:
        started, found = str(metadata.get("backbone"))[:16], model.backbone.sha256[:16]
        raise VptError(
            f"{path}: the run was started on other weights of {model.backbone.spec.name} (SHA-256 {started}..., found "
            f"{found}...); put those back, or finish it with the version of vpt that its environment.json names"
        )
    load_trained(model, _part(tensors, "model."), path)
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _part(tensors, "optimizer.").items():
        index, _, key = name.partition(".")
        moments.setdefault(int(index), {})[key] = tensor
    state: dict[str, Any] = optimizer.state_dict()
    optimizer.load_state_dict({"state": moments, "param_groups": state["param_groups"]})
    if average:
        average.load(_part(tensors, "average."))
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])
    return Progress(**json.loads(metadata["progress"]))


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
