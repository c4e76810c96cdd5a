"""Whether prompts and a head of another package can be saved and built again, asked before hours are trained."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from vpt.building import FROZEN, build_model
from vpt.config import Config
from vpt.data.plan import Plan
from vpt.engine.sound import SEED, in_words, others, random_numbers
from vpt.errors import VptError
from vpt.model import PromptedModel
from vpt.restoring import load_trained

ROUNDING = 1e-4  # of answers


def require_restorable(model: PromptedModel, config: Config, plan: Plan, classes: int) -> None:
    """Raise VptError where what an artifact holds of prompts and head would not make the same model again.

    An artifact holds what trains and buffers, so what they draw or compute otherwise is lost. The methods of this
    package are tested for it; of others the model is built once more, and has to answer one image alike. Where the
    encoder is tuned as well nothing is asked, since that is changed by building it.
    """
    foreign = others(model)
    if not foreign or config.resolved(config.task or "segmentation", strict=False).tuning.method != FROZEN:
        return
    answers = _answers_of_both(model, config, plan, classes)
    if not torch.allclose(*answers, rtol=ROUNDING, atol=ROUNDING, equal_nan=True):
        off = float((answers[0] - answers[1]).abs().max())
        raise VptError(
            f"{in_words(foreign)}: built again from what an artifact holds of "
            f"it, the model answers otherwise (by {off:.2g}); keep what is drawn or computed when it is built in a "
            "parameter that trains, or in a buffer (register_buffer, nn.ParameterList)"
        )


@torch.no_grad()
def _answers_of_both(model: PromptedModel, config: Config, plan: Plan, classes: int) -> tuple[Tensor, Tensor]:
    """The answers to one image of the model as it would be built again, and of itself."""
    device, size = next(model.parameters()).device, plan.image_size
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        again = build_model(config, plan, classes, model.backbone).to(device)
    with random_numbers(model):
        load_trained(again, model.trained_state(), Path("the model"))
        images = torch.randn(1, 3, size, size, device=device)
        return _answer(again, images), _answer(model, images)


def _answer(model: PromptedModel, images: Tensor) -> Tensor:
    torch.manual_seed(SEED)  # where it draws in a pass, it draws the same
    return model.eval()(images)
