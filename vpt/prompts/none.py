"""No prompts: the control that every claim about prompts needs."""

from __future__ import annotations

from typing import Literal

from vpt.backbones.base import BackboneSpec
from vpt.prompts.base import Prompts, PromptSettings


class NoPromptsConfig(PromptSettings):
    method: Literal["none"] = "none"
    """No prompts: the head alone trains, and with `tuning` whatever that trains."""

    def build(self, spec: BackboneSpec) -> Prompts:
        return Prompts()
