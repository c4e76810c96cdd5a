"""AdaptFormer (Chen et al., NeurIPS 2022): a narrow trained MLP beside each block's frozen one."""

from __future__ import annotations

from typing import Any, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from vpt.backbones.base import Added
from vpt.backbones.pieces import normalise
from vpt.errors import VptError
from vpt.model import PromptedModel
from vpt.sections import LARGEST_WIDTH
from vpt.tuning.base import TuningSettings, compared, encoder_of

WIDEST = 64  # as published for C = 768


class AdapterConfig(TuningSettings):
    """See `tune_adapter`."""

    method: Literal["adapter"] = "adapter"
    """A narrow trained MLP beside every block's frozen one (AdaptFormer)."""
    width: int | None = Field(None, ge=1, le=LARGEST_WIDTH)
    """Of the narrow layer; null: 64, but a quarter of the encoder's width at most."""
    scale: float = Field(0.1, gt=0)
    """Factor of what it adds."""
    normed: bool = False
    """It reads the normed tokens, as the frozen MLP does."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Probability, in training."""

    own_rate = 1e-3
    compared = (compared("adapter", "adapter (AdaptFormer)", own_rate),)

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
    (Swin v2), the adapter's is added after the norm. Where it sums several MLPs, each has its adapter. Blocks of
    convolutions, which have no MLP, stay as they are.

    Parameters: 2 * C * width + width + C for every MLP. `width` None: 64, but a quarter of C at most.

    Raises:
        VptError: `normed`, of an encoder whose MLPs read tokens that are not; an encoder whose MLPs are no layers of
            their own, since they share a projection with the attention.
    """
    if normed and model.backbone.norms_after:
        raise VptError(
            f"tuning adapter: normed, but the MLPs of {model.backbone.spec.name} read tokens that are not normed; "
            "leave normed out"
        )
    backbone = model.backbone.requires_grad_(False)
    found = [place for block in encoder_of(backbone).blocks for place in _mlps(block)]
    if not found:
        raise VptError(
            f"tuning adapter: the blocks of {backbone.spec.name} have no MLP of their own, beside which an adapter "
            "could stand; choose ssf, partial or bias"
        )
    for place, before in found:
        channels = next(place.mlp.parameters()).shape[-1]  # a block that widens its tokens has a wider MLP
        narrow = width or max(1, min(WIDEST, channels // 4))
        if backbone.norms_after:
            place.mlp, place.norm2 = nn.Sequential(place.mlp, place.norm2), nn.Identity()
        norm: nn.Module = nn.Identity()
        if before and not normed:  # the norm moves into the branch, so that what comes in is there for both
            norm = getattr(place, before)
            setattr(place, before, nn.Identity())
        elif normed and not before:
            norm, place.mlp.norm = place.mlp.norm, norm
        adapted = AdaptedMlp(nn.Identity() if normed else norm, place.mlp, channels, narrow, scale, dropout)
        adapted = adapted.to(next(place.mlp.parameters()))
        place.mlp = nn.Sequential(norm, adapted) if normed and not before else adapted
    model.train(model.training)


def _mlps(block: Any) -> list[tuple[Any, str]]:
    """The modules of a block that have an `mlp`, and the name of the norm before it, "" where the MLP has it inside."""
    if hasattr(block, "ffns"):
        return [(branch, "norm") for branch in block.ffns]
    if not hasattr(block, "mlp"):
        return []
    return [(block, "norm2" if hasattr(block, "norm2") else "")]
