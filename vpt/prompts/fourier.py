"""Fourier prompts (VFPT: Zeng et al., NeurIPS 2024, arXiv:2411.01327): a share of the prompts is transformed."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from vpt.backbones.base import BackboneSpec
from vpt.errors import VptError
from vpt.prompts.base import MOST, Blocks, BlocksSetting, PromptSettings, compared
from vpt.prompts.deep import DeepPrompts
from vpt.sections import LARGEST_WIDTH


class FourierConfig(PromptSettings):
    method: Literal["fourier"] = "fourier"
    """VPT-deep in which a share of the prompts is replaced by its Fourier transform (VFPT)."""
    count: int = Field(10, ge=1, le=MOST)
    """Prompts per block."""
    blocks: BlocksSetting = "all"
    """Which blocks have prompts: "all", "global" (those that attend to the whole image), "last:K", or their numbers."""
    share: float = Field(0.5, gt=0, le=1)
    """Share of the prompts that are transformed, rounded down, one at least."""
    rounded: bool = False
    """Round that share to the nearest number instead, as before version 0.2.0."""
    project: int | None = Field(None, ge=1, le=LARGEST_WIDTH)
    """Width in which prompts are learned, mapped to the encoder's by one shared linear layer; null: the encoder's own.
    """
    dropout: float = Field(0.0, ge=0, lt=1)
    """Probability that a number of a prompt is dropped in training."""

    compared = (compared("fourier", "Fourier (VFPT), 10", count=10),)

    def build(self, spec: BackboneSpec) -> FourierPrompts:
        return FourierPrompts(spec, **self.arguments())


class FourierPrompts(DeepPrompts):
    """VPT-deep in which the first m of a block's prompts give way to Re(F_tokens(F_width(P[:m]))).

    P: (count, C); m = floor(share * count), as in the authors' code, but 1 at least (theirs may be 0); F: the discrete
    Fourier transform, not normalised, over the width and then over those m prompts. Parameters, start, projection and
    dropout are those of VPT-deep; the transform comes after them. Which of the prompts are transformed makes no
    difference, since attention has no order.

    The transform runs in float32 at least, whatever autocast or the type of the prompts say.

    Args:
        spec: of the encoder; share: of the prompts that are transformed, above 0 and up to 1 (the paper tries 0.3, 0.5,
            0.7 and 1); rounded: to the nearest m instead, as before version 0.2.0;
        count, blocks, project, dropout: see `DeepPrompts`.
    """

    def __init__(
        self,
        spec: BackboneSpec,
        *,
        count: int = 10,
        blocks: Blocks = "all",
        share: float = 0.5,
        rounded: bool = False,
        project: int | None = None,
        dropout: float = 0.0,
    ):
        super().__init__(spec, count=count, blocks=blocks, project=project, dropout=dropout)
        if not 0 < share <= 1:
            raise VptError(
                f"prompts: share is {share}; expected above 0 and at most 1, or choose `deep` for no transform"
            )
        self.transformed = max(1, round(share * count) if rounded else math.floor(share * count))

    def context(self, i: int, batch: int) -> Tensor | None:
        prompts = super().context(i, batch)
        if prompts is None:
            return None
        prompts = prompts.to(torch.promote_types(prompts.dtype, torch.float32))
        chosen, plain = prompts.tensor_split([self.transformed], dim=-2)
        learned = next(self.parameters()).dtype
        return torch.cat([torch.fft.fft2(chosen).real, plain], dim=-2).to(learned)
