"""Prompts and head alone: what this package is for."""

from __future__ import annotations

from typing import Literal

from vpt.model import PromptedModel
from vpt.tuning.base import TuningSettings


class PromptsAloneConfig(TuningSettings):
    method: Literal["prompts"] = "prompts"
    """Prompts and head train, nothing of the encoder."""

    def apply(self, model: PromptedModel) -> None:
        tune_prompts(model)


def tune_prompts(model: PromptedModel) -> None:
    """Prompts and head train, the backbone is frozen: how `PromptedModel` starts. Parameters of the backbone: 0."""
    model.backbone.requires_grad_(False)
