"""Additive prompts: a learned offset on the patch embedding, the dense counterpart of VPT-shallow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vpt.backbones.base import BackboneSpec
from vpt.backbones.tokens import Tokens
from vpt.prompts.base import Prompts, PromptSettings, compared, require_grid

Form = Literal["vector", "grid"]


class AdditiveConfig(PromptSettings):
    method: Literal["additive"] = "additive"
    """An offset that is added to the embedded patches."""
    form: Form = "grid"
    """"vector": the same offset for every patch; "grid": one for each place."""

    compared = (compared("additive", "additive grid"),)

    def build(self, spec: BackboneSpec) -> AdditivePrompts:
        return AdditivePrompts(spec, form=self.form)


class AdditivePrompts(Prompts):
    """The embedded patches plus an offset that starts at zero, so that training starts exactly at the frozen encoder.

    Jia et al. (ECCV 2022, section 4.3) name the form "add"; adding in the place of the input is Bahng et al.
    (arXiv:2203.17274). Parameters: C, or H * W * C.

    Args:
        spec: of the encoder; form: "vector", the same offset for every patch, or "grid", one for each place.
    """

    def __init__(self, spec: BackboneSpec, *, form: Form = "grid"):
        super().__init__()
        first = spec.blocks[0]
        places = first.grid if form == "grid" else (1, 1)
        self.offset = nn.Parameter(torch.zeros(*places, first.width))

    def enter(self, i: int, tokens: Tokens, state: Any) -> tuple[Tokens, Tensor | None]:
        if i > 0:
            return tokens, None
        if self.offset.shape[:2] != (1, 1):
            require_grid(tokens, tuple(self.offset.shape[:2]), "additive")
        return replace(tokens, grid=tokens.grid + self.offset), None
