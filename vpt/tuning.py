"""What trains besides the head: the prompts alone, or, as a control, the backbone as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from vpt.model import PromptedModel

Tuning = Literal["prompts", "full"]


def tune_prompts(model: PromptedModel) -> None:
    """Prompts and head train, the backbone is frozen: how `PromptedModel` starts."""
    model.backbone.requires_grad_(False)


def tune_full(model: PromptedModel) -> None:
    """Full fine-tuning: the backbone trains too (still in eval mode: its dropout, where it has any, stays off)."""
    model.backbone.requires_grad_(True)


TUNINGS: dict[Tuning, Callable[[PromptedModel], None]] = {"prompts": tune_prompts, "full": tune_full}
