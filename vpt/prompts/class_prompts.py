"""Class prompts (Prompt-CAM, Chowdhury et al., CVPR 2025): one per class, whose attention shows what decides it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vpt.backbones.base import BackboneSpec
from vpt.prompts.base import MOST, RATE
from vpt.prompts.class_queries import ClassQueries, OfClasses
from vpt.sections import Compared


class ClassPromptsConfig(OfClasses):
    method: Literal["class_prompts"] = "class_prompts"
    """A token for each class in the last block: its score is read from it, its attention is its map (Prompt-CAM)."""
    before: int = Field(0, ge=0, le=MOST)
    """Prompts per block below the last, as those of `deep`; 0 for none, and then all below can be stored."""

    tasks = ("classification",)
    partner = "class_scores"
    compared = (
        Compared("class_prompts", "class prompts (Prompt-CAM)", {}, RATE, aside=True),
        Compared(
            "class_prompts_deep", "class prompts (Prompt-CAM), deep prompts below, 10", {"before": 10}, RATE, aside=True
        ),
    )

    def build_for(self, spec: BackboneSpec, classes: int) -> ClassQueries:
        return ClassQueries(spec, classes=classes, count=1, last=1, before=self.before)
