"""AdaptFormer (Chen et al., NeurIPS 2022): a narrow trained MLP beside each block's frozen one."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from vpt.model import PromptedModel
from vpt.tuning.base import TuningSettings, compared, encoder_of

WIDEST = 64  # as published for C = 768


class AdapterConfig(TuningSettings):
    """`width` null: 64, but a quarter of the encoder's width at most."""

    method: Literal["adapter"] = "adapter"
    width: int | None = Field(None, ge=1)
    scale: float = Field(0.1, gt=0)

    compared = (compared("adapter", "adapter (AdaptFormer)", 1e-3),)

    def apply(self, model: PromptedModel) -> None:
        tune_adapter(model, **self.arguments())


class AdaptedMlp(nn.Module):
    """y = mlp(x) + scale * up(relu(down(x))) over normed tokens (..., C); down: C -> width, up: width -> C.

    `up` starts at zero, so y starts exactly at mlp(x); `down` does not, so `up` has a gradient from the first step on.
    """

    def __init__(self, mlp: nn.Module, channels: int, width: int, scale: float):
        super().__init__()
        self.mlp = mlp
        self.down = nn.Linear(channels, width)
        self.up = nn.Linear(width, channels)
        self.scale = scale
        nn.init.kaiming_uniform_(self.down.weight, a=5**0.5)
        for start_at_zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(start_at_zero)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x) + self.scale * self.up(F.relu(self.down(x)))


def tune_adapter(model: PromptedModel, *, width: int | None = None, scale: float = 0.1) -> None:
    """A parallel adapter beside every MLP: x + mlp(norm(x)) + scale * up(relu(down(norm(x)))), equation 3 of the paper.

    Where a block scales its MLP's output (layer scale), the adapter's is scaled as well. There is no dropout: the
    backbone stays in eval mode.

    Parameters: depth * (2 * C * width + width + C). `width` None: 64, but a quarter of C at most.
    """
    backbone = model.backbone.requires_grad_(False)
    for own, block in zip(backbone.spec.blocks, encoder_of(backbone).blocks, strict=True):
        narrow = width or max(1, min(WIDEST, own.width // 4))
        block.mlp = AdaptedMlp(block.mlp, own.width, narrow, scale).to(next(block.mlp.parameters()))
    backbone.eval()
