"""What both tasks do to images before the encoder."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from vpt.backbones.base import BackboneSpec
from vpt.mixing import Mixing
from vpt.model import PromptedModel
from vpt.trigger import Trigger


class Normalise(nn.Module):
    """Images (B, C, H, W) in [0, 1] -> (B, 3, H, W) with the mean and deviation that the encoder was trained with.

    mixing: the model's own, of images that have more channels than three; trigger: what it has learned to add to them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: BackboneSpec, mixing: Mixing | None = None, trigger: Trigger | None = None):
        super().__init__()
        self.mixing = mixing
        self.trigger = trigger
        self.register_buffer("mean", torch.tensor(spec.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(3, 1, 1), persistent=False)

    @classmethod
    def of(cls, model: PromptedModel) -> Self:
        return cls(model.backbone.spec, model.mixing, model.trigger)

    def forward(self, images: Tensor) -> Tensor:
        mixed = images if self.mixing is None else self.mixing(images)
        seen = mixed if self.trigger is None else self.trigger(mixed)
        return (seen - self.mean) / self.std
