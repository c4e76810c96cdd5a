"""What every adapter over a model of timm's is made with, whatever its blocks attend to."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from vpt.backbones.base import (
    Backbone,
    BackboneSpec,
    BlockSpec,
    Level,
    Pool,
    channels_of,
    enlarging,
    normalisation,
    require_whole_patches,
)
from vpt.vocabulary import Interpolation

Pooling = Literal["own", "plain"]


@dataclass(frozen=True)
class Layout:
    """What a model is made of: the part of `BackboneSpec` that differs between its kinds."""

    blocks: tuple[BlockSpec, ...]
    finished: Level
    pool: Pool = "mean"
    prefix: int = 0
    registers: int = 0
    finishes_prompts: bool = False
    carries_prompts: bool = False
    embedded: tuple[int, int] | None = None


class TimmBackbone(Backbone):
    """A model of timm's with its own modules and weights, taken apart at its blocks.

    Args:
        model: timm's, in its native image size or set to another by `resize`.
        name: what the user calls it.
        mean, std: normalisation of an RGB image in [0, 1] that the weights were trained with, as someone wrote it.
        sha256: identity of the weights (`vpt.backbones.weights.sha256_of`).
        pooling: "own", the model's way to one vector with the norm that follows it; "plain", its CLS token, else the
            mean of its patches, without that norm: how it was before version 0.2.0.

    Raises:
        VptError: blocks or attention of another kind, which would need arithmetic of their own; where `whole`, a size
            that is not made of whole patches (plain ViTs have names of timm's whose rest of the image is not seen).
    """

    whole = False

    def __init__(
        self,
        model: Any,
        *,
        name: str,
        mean: Any,
        std: Any,
        sha256: str,
        pooling: Pooling = "own",
    ):
        super().__init__()
        self.require_supported(model, name)
        size, patch = self.size_of(model), self.patch_of(model)
        if self.whole:
            require_whole_patches(size, patch, name)
        self.sha256 = sha256
        self.pooling = pooling
        self.channels = channels_of(model)
        mean, std = normalisation(mean, std, f"backbone {name}")
        layout = self.take(model)
        self.spec = BackboneSpec(
            name=name,
            image_size=size,
            patch=patch,
            prefix=layout.prefix,
            mean=mean,
            std=std,
            blocks=layout.blocks,
            finished=layout.finished,
            registers=layout.registers,
            pool=layout.pool,
            finishes_prompts=layout.finishes_prompts,
            carries_prompts=layout.carries_prompts,
            embedded=layout.embedded,
            interpolation=_interpolation_of(model, name),
        )

    def takes(self, size: tuple[int, int]) -> bool:
        return size == self.spec.image_size

    @staticmethod
    @abstractmethod
    def require_supported(model: Any, name: str) -> None:
        """Raise VptError unless the adapter takes such a model apart."""

    @abstractmethod
    def take(self, model: Any) -> Layout:
        """Keep the modules of a model that is supported; called once, while the adapter is made."""

    @staticmethod
    def size_of(model: Any) -> tuple[int, int]:
        """(height, width) in pixels of the images that it is set to."""
        height, width = model.patch_embed.img_size
        return height, width

    @staticmethod
    def patch_of(model: Any) -> tuple[int, int]:
        """(height, width) in pixels of what an image has to be made of."""
        height, width = model.patch_embed.patch_size
        return height, width

    @staticmethod
    def resize(model: Any, image_size: tuple[int, int]) -> None:
        """Set it to images of that size; positions are resized."""
        model.set_input_size(img_size=image_size)

    @staticmethod
    def take_head(model: Any) -> nn.Module:
        """The classifier, with its dropout; the model is left without one."""
        head = nn.Sequential(nn.Dropout(model.head_drop.p), model.head)
        model.head = nn.Identity()
        return head

    @staticmethod
    def wake(model: Any) -> None:
        """Of random values: let blocks add something whose own start would be nothing at all."""


class StagedBackbone(TimmBackbone):
    """One of several stages, whose grids shrink and widen. It has patches alone, whose mean is `pooling` "plain"."""

    encoder: Any
    whole = True

    @staticmethod
    def take_head(model: Any) -> nn.Module:
        head = nn.Sequential(nn.Dropout(model.head.drop.p), model.head.fc)
        model.head.fc = nn.Identity()
        return head


def _interpolation_of(model: Any, name: str) -> Interpolation:
    """As timm's own evaluation enlarges images for these weights; bilinear where nothing is said."""
    known = getattr(model, "pretrained_cfg", None) or {}
    return enlarging(known.get("interpolation"), f"backbone {name}")
