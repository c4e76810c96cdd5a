"""SSF (Lian et al., NeurIPS 2022): the features of a frozen encoder, scaled and shifted."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from vpt.model import PromptedModel
from vpt.tuning.base import TuningSettings, compared, layers


class SsfConfig(TuningSettings):
    method: Literal["ssf"] = "ssf"
    """The features of the frozen encoder are scaled and shifted (SSF)."""

    own_rate = 5e-3
    compared = (compared("ssf", "SSF", own_rate),)

    def apply(self, model: PromptedModel) -> None:
        tune_ssf(model)


class Scaled(nn.Module):
    """y = gamma * layer(x) + beta, gamma and beta (C,) per channel: the layer's last axis, or the second of an image's.

    Starts at ones and zeros, so exactly at the layer. Arithmetic is float32 under autocast, the result has the layer's
    own type: in bfloat16 a gamma near 1 would move in steps of 0.008.
    """

    def __init__(self, layer: Any, *, image: bool):
        super().__init__()
        self.layer = layer
        self.gamma = nn.Parameter(layer.weight.new_ones(len(layer.weight)))
        self.beta = nn.Parameter(layer.weight.new_zeros(len(layer.weight)))
        self.shape = (-1, 1, 1) if image else (-1,)

    def forward(self, x: Tensor) -> Tensor:
        """(B, ..., C) -> (B, ..., C'), or images (B, C, H, W) -> (B, C', h, w)."""
        y = self.layer(x)
        return (self.gamma.view(self.shape) * y + self.beta.view(self.shape)).to(y.dtype)


# Layers that take images (B, C, H, W), those of a stem of convolutions among them; in SAM's neck all do.
OF_IMAGES = (nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm)


def tune_ssf(model: PromptedModel) -> None:
    """y = gamma * layer(x) + beta after every linear map, convolution and norm of the encoder; gamma and beta train.

    Starts exactly at the frozen output; published are gamma ~ N(1, 0.02) and beta ~ N(0, 0.02).

    Parameters: twice the widths of all layers' outputs. A block with an MLP of 4 C has 2 * 11 C, the patch embedding
    and a ViT's final norm 2 C each; SAM's neck of two convolutions and two norms of width N has 8 N.
    """
    backbone = model.backbone.requires_grad_(False)
    for name, layer in layers(backbone).items():
        image = isinstance(layer, OF_IMAGES) or name.split(".")[1] == "neck"
        backbone.set_submodule(name, Scaled(layer, image=image))
    backbone.eval()
