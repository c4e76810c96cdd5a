"""Whether prompts and a head of another package can be saved and built again, asked before hours are trained."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from vpt.building import FROZEN, build_model
from vpt.config import Config
from vpt.data.plan import Plan
from vpt.errors import VptError
from vpt.model import PromptedModel
from vpt.restoring import load_trained
from vpt.sections import is_own

ROUNDING = 1e-4  # of answers
SEED = 0


def require_restorable(model: PromptedModel, config: Config, plan: Plan, classes: int) -> None:
    """Raise VptError where what an artifact holds of prompts and head would not make the same model again.

    An artifact holds what trains and buffers, so what they draw or compute otherwise is lost. The methods of this
    package are tested for it; of others the model is built once more, and has to answer one image alike. Where the
    encoder is tuned as well nothing is asked, since that is changed by building it.
    """
    foreign = {
        part: module for part, module in (("prompts", model.prompts), ("head", model.head)) if not is_own(module)
    }
    if not foreign or config.resolved(config.task or "segmentation", strict=False).tuning.method != FROZEN:
        return
    answers = _answers_of_both(model, config, plan, classes)
    if not torch.allclose(*answers, rtol=ROUNDING, atol=ROUNDING, equal_nan=True):
        off = float((answers[0] - answers[1]).abs().max())
        raise VptError(
            f"{' and '.join(_called(*each) for each in foreign.items())}: built again from what an artifact holds of "
            f"it, the model answers otherwise (by {off:.2g}); keep what is drawn or computed when it is built in a "
            "parameter that trains, or in a buffer (register_buffer, nn.ParameterList)"
        )


@torch.no_grad()
def _answers_of_both(model: PromptedModel, config: Config, plan: Plan, classes: int) -> tuple[Tensor, Tensor]:
    """The answers to one image of the model as it would be built again, and of itself.

    What trains has random numbers in both for as long, since much starts at 0 and hides what is multiplied with it.
    """
    device, size, was = next(model.parameters()).device, plan.image_size, model.training
    kept = {name: parameter.detach().clone() for name, parameter in model.trained().items()}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            again = build_model(config, plan, classes, model.backbone).to(device)
            torch.manual_seed(SEED)
            for parameter in model.trained().values():
                parameter.copy_(torch.randn_like(parameter) / 10)
            load_trained(again, model.trained_state(), Path("the model"))
            images = torch.randn(1, 3, size, size, device=device)
            return _answer(again, images), _answer(model, images)
        finally:
            for name, parameter in model.trained().items():
                parameter.copy_(kept[name])
            model.train(was)


def _answer(model: PromptedModel, images: Tensor) -> Tensor:
    torch.manual_seed(SEED)  # where it draws in a pass, it draws the same
    return model.eval()(images)


def _called(part: str, module: nn.Module) -> str:
    return f"{part} {type(module).__module__}.{type(module).__qualname__}"
