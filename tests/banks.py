"""Artifacts of several tasks on one encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from masks import LABELS

from vpt.artifact import save_artifact
from vpt.building import build_model
from vpt.config import Config
from vpt.data.plan import Plan, Window

WINDOW = (Window(low=0, high=600),)
DEEP: dict[str, Any] = {"method": "deep", "count": 2}
LATE: dict[str, Any] = {"method": "deep", "count": 3, "blocks": "last:2"}


def trained(
    path: Path,
    seed: int,
    plan: Plan,
    labels: dict[int, str] = LABELS,
    prompts: dict[str, Any] = DEEP,
    task: str = "segmentation",
    **more: Any,
) -> Path:
    """An artifact on random weights that all of them share."""
    head: dict[str, Any] = {"kind": "mask", "width": 16, "detail": 8, "levels": 2}
    config = Config.model_validate(
        {
            "task": task,
            "data": {"path": "."},
            "backbone": {"name": "vit_micro", "weights": "random"},
            "prompts": prompts,
            "head": head if task == "segmentation" else {"kind": "linear"},
            **more,
        }
    )
    torch.manual_seed(0)
    model = build_model(config, plan, len(labels)).eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.trained().values():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_artifact(path, model, config=config, plan=plan, labels=labels, scores={})
    return path
