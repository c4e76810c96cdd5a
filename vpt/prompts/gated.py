"""Gated prompts (Yoo et al., ICML 2023, arXiv:2306.05067): how much each block changes the travelling prompts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from vpt.backbones.base import BackboneSpec
from vpt.backbones.tokens import Tokens
from vpt.prompts.base import MOST, FromTokens, Info, compared, one_width
from vpt.prompts.shallow import ShallowPrompts
from vpt.sections import LARGEST_WIDTH


class GatedConfig(FromTokens):
    method: Literal["gated"] = "gated"
    """VPT-shallow with a learned gate after every block (GaPT)."""
    count: int = Field(50, ge=1, le=MOST)
    """Prompts."""
    gate: float = -5.0
    """Where every gate starts, before its sigmoid: far below 0 is shut."""
    project: int | None = Field(None, ge=1, le=LARGEST_WIDTH)
    """Width in which prompts are learned, mapped to the encoder's by one shared linear layer; null: the encoder's own.
    """
    dropout: float = Field(0.0, ge=0, lt=1)
    """Probability that a number of a prompt is dropped in training."""

    compared = (compared("gated", "gated (GaPT), 50", count=50),)

    def build(self, spec: BackboneSpec) -> GatedPrompts:
        return GatedPrompts(spec, **self.arguments())


@dataclass
class Entered:
    """The state of a pass: the prompts (B, P, C) as they entered the block before."""

    prompts: Tensor | None = None


class GatedPrompts(ShallowPrompts):
    """VPT-shallow with a learned gate after every block but the last: P <- s_i * P_out + (1 - s_i) * P_in.

    s_i = sigmoid(g_i); P_in: the prompts (B, P, C) that entered block i; P_out: what left it. All gates open is
    VPT-shallow, all shut is VPT-deep with one set for all blocks. The mixture is made on entering block i + 1; until
    then P_in is the state of the pass. Parameters: count * C + depth - 1.

    Gates start almost shut, g_i = -5 and s_i = 0.0067, as the authors' do: in their code g_i = -GATE_INIT, which is 5
    in their examples. Other than theirs, the learned temperature of the attention is left out: it would change the
    frozen blocks.

    Args:
        spec: of the encoder; count: number of prompts; gate: where every g_i starts; project, dropout: see
            `PromptTable`.

    Raises:
        VptError: an encoder whose blocks change the width of its prompts, which cannot be mixed then.
    """

    def __init__(
        self,
        spec: BackboneSpec,
        *,
        count: int = 50,
        gate: float = -5.0,
        project: int | None = None,
        dropout: float = 0.0,
    ):
        one_width(spec, range(spec.depth), "a gate between what enters a block and what leaves it (gated)")
        super().__init__(spec, count=count, project=project, dropout=dropout)
        self.gates = nn.Parameter(torch.full((spec.depth - 1,), float(gate)))

    def begin(self, images: Tensor | None, info: Info) -> Entered:
        return Entered()

    def enter(self, i: int, tokens: Tokens, state: Any) -> tuple[Tokens, Tensor | None]:
        if i == 0:
            tokens, _ = super().enter(0, tokens, state)
        else:
            share = self.gates[i - 1].sigmoid()
            mixed = share * tokens.prompts + (1 - share) * state.prompts
            tokens = replace(tokens, prompts=mixed)
        state.prompts = tokens.prompts
        return tokens, None
