"""The contract of a head."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from vpt.backbones.base import Features


class Head(nn.Module, ABC):
    """What turns features into an answer. `levels`: the blocks whose outputs it reads besides the last."""

    levels: tuple[int, ...] = ()

    @abstractmethod
    def forward(self, features: Features, images: Tensor) -> Tensor:
        """Features of normalised images (B, 3, H, W), and the images themselves -> the answer, (B, K, ...)."""
