"""Whether prompts and a head of another package can be saved and built again, asked before hours are trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from vpt.building import FROZEN, build_model
from vpt.config import Config
from vpt.data.plan import Plan
from vpt.errors import VptError
from vpt.model import PromptedModel
from vpt.restoring import load_trained
from vpt.words import listed

OWN = "vpt."  # how the modules of this package are called
ROUNDING = 1e-4  # of answers


def require_restorable(model: PromptedModel, config: Config, plan: Plan, classes: int) -> None:
    """Raise VptError where what an artifact holds of prompts and head would not make the same model again.

    An artifact holds what trains and buffers, so what they draw or compute otherwise is lost. The methods of this
    package are tested for it; of others the model is built once more, and has to answer one image alike.
    """
    foreign = {
        part: module
        for part, module in (("prompts", model.prompts), ("head", model.head))
        if not type(module).__module__.startswith(OWN)
    }
    for part, module in foreign.items():
        if frozen := [name for name, each in module.named_parameters() if not each.requires_grad]:
            raise VptError(
                f"{_called(part, module)}: {listed(frozen, 3)} does not train, and an artifact holds what trains and "
                "buffers; make it a buffer (register_buffer)"
            )
    if foreign and config.resolved(config.task or "segmentation", strict=False).tuning.method == FROZEN:
        _require_same_answer(model, config, plan, classes, foreign)


@torch.no_grad()
def _require_same_answer(
    model: PromptedModel, config: Config, plan: Plan, classes: int, foreign: Mapping[str, nn.Module]
) -> None:
    device, size = next(model.parameters()).device, plan.image_size
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        again = build_model(config, plan, classes, model.backbone).to(device)
        load_trained(again, model.trained_state(), Path("the model"))
        images = torch.randn(1, 3, size, size, device=device)
        was = model.training
        found, expected = (each.eval().features(images) for each in (again, model))
        answers = again.head(found, images), model.head(expected, images)
        model.train(was)
    if not torch.allclose(*answers, rtol=ROUNDING, atol=ROUNDING):
        off = float((answers[0] - answers[1]).abs().max())
        raise VptError(
            f"{' and '.join(_called(*each) for each in foreign.items())}: built again from what an artifact holds of "
            f"it, the model answers otherwise (by {off:.2g}); keep what is drawn or computed when it is built in a "
            "parameter that trains, or in a buffer (register_buffer, nn.ParameterList)"
        )


def _called(part: str, module: nn.Module) -> str:
    return f"{part} {type(module).__module__}.{type(module).__qualname__}"
