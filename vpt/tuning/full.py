"""Full fine-tuning."""

from __future__ import annotations

from typing import Literal

from vpt.model import PromptedModel
from vpt.tuning.base import TuningSettings, compared


class FullConfig(TuningSettings):
    method: Literal["full"] = "full"
    """The whole encoder trains: full fine-tuning."""

    own_rate = 5e-5  # 2e-4, which serves a small encoder, undoes what a ViT-S has learned (docs/results)
    compared = (compared("full", "full fine-tuning", own_rate),)

    def apply(self, model: PromptedModel) -> None:
        tune_full(model)


def tune_full(model: PromptedModel) -> None:
    """Full fine-tuning: the backbone trains too (still in eval mode: its dropout, where it has any, stays off)."""
    model.backbone.requires_grad_(True)
