"""AdaptFormer (Chen et al., NeurIPS 2022): a narrow trained MLP beside each block's frozen one."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from vpt.backbones.base import Added
from vpt.backbones.pieces import normalise
from vpt.errors import VptError
from vpt.model import PromptedModel
from vpt.tuning.base import TuningSettings, compared, encoder_of

WIDEST = 64  # as published for C = 768


class AdapterConfig(TuningSettings):
    """See `tune_adapter`."""

    method: Literal["adapter"] = "adapter"
    """A narrow trained MLP beside every block's frozen one (AdaptFormer)."""
    width: int | None = Field(None, ge=1)
    """Of the narrow layer; null: 64, but a quarter of the encoder's width at most."""
    scale: float = Field(0.1, gt=0)
    """Factor of what it adds."""
    normed: bool = False
    """It reads the normed tokens, as the frozen MLP does."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Probability, in training."""

    compared = (compared("adapter", "adapter (AdaptFormer)", 1e-3),)

    def apply(self, model: PromptedModel) -> None:
        tune_adapter(model, **self.arguments())


class AddedDropout(Added, nn.Dropout):
    """Dropout that is active in training, though the backbone around it stays in eval mode."""


class AdaptedMlp(nn.Module):
    """y = mlp(norm(x)) + scale * up(dropout(relu(down(x)))) of tokens (..., C); down: C -> width, up: width -> C.

    `up` starts at zero, so y starts exactly at mlp(norm(x)); `down` does not, so `up` has a gradient from the first
    step on.
    """

    def __init__(self, norm: nn.Module, mlp: nn.Module, channels: int, width: int, scale: float, dropout: float):
        super().__init__()
        self.norm = norm
        self.mlp = mlp
        self.down = nn.Linear(channels, width)
        self.dropout = AddedDropout(dropout)
        self.up = nn.Linear(width, channels)
        self.scale = scale
        nn.init.kaiming_uniform_(self.down.weight, a=5**0.5)
        for start_at_zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(start_at_zero)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(normalise(self.norm, x)) + self.scale * self.up(self.dropout(F.relu(self.down(x))))


def tune_adapter(
    model: PromptedModel, *, width: int | None = None, scale: float = 0.1, normed: bool = False, dropout: float = 0.1
) -> None:
    """A parallel adapter beside every MLP: x + mlp(norm(x)) + scale * up(dropout(relu(down(x)))).

    As in the authors' code the adapter reads the tokens x as attention left them. With `normed` it reads norm(x), which
    is how equation 3 of the paper can be read too, and was the only form here before version 0.2.0 (without dropout).
    `dropout`, in training, of hidden units: 0.1 in the authors' code. Start, ReLU, scale and width are theirs as well.

    Where a block scales its MLP's output (layer scale), the adapter's is scaled as well. Where it norms that output
    (Swin v2), the adapter's is added after the norm. Blocks of convolutions, which have no MLP, stay as they are.

    Parameters: 2 * C * width + width + C for every block with an MLP. `width` None: 64, but a quarter of C at most.

    Raises:
        VptError: `normed`, of an encoder whose MLPs read tokens that are not.
    """
    if normed and model.backbone.norms_after:
        raise VptError(
            f"tuning adapter: normed, but the MLPs of {model.backbone.spec.name} read tokens that are not normed; "
            "leave normed out"
        )
    backbone = model.backbone.requires_grad_(False)
    for block in encoder_of(backbone).blocks:
        if not hasattr(block, "mlp"):
            continue
        channels = next(block.mlp.parameters()).shape[-1]  # a block that widens its tokens has a wider MLP
        narrow = width or max(1, min(WIDEST, channels // 4))
        if backbone.norms_after:
            block.mlp, block.norm2 = nn.Sequential(block.mlp, block.norm2), nn.Identity()
        outside = hasattr(block, "norm2")  # TinyViT has the norm inside its MLP
        norm: nn.Module = nn.Identity()
        if outside and not normed:  # the norm moves into the branch, so that what comes in is there for both
            norm, block.norm2 = block.norm2, norm
        elif normed and not outside:
            norm, block.mlp.norm = block.mlp.norm, norm
        adapted = AdaptedMlp(nn.Identity() if normed else norm, block.mlp, channels, narrow, scale, dropout)
        adapted = adapted.to(next(block.mlp.parameters()))
        block.mlp = nn.Sequential(norm, adapted) if normed and not outside else adapted
    model.train(model.training)
