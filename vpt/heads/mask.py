"""A small mask decoder: frozen features of several depths, and a light path for detail from the image itself."""

from __future__ import annotations

from functools import reduce
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from vpt.backbones.base import BackboneSpec
from vpt.backbones.tokens import Features
from vpt.errors import VptError
from vpt.heads.base import Answer, Head, HeadSettings, Rows
from vpt.sections import LARGEST_WIDTH, Compared, require_whole

RATE = 2e-3  # of the head alone


class MaskHeadConfig(HeadSettings):
    kind: Literal["mask"] = "mask"
    """A small decoder of features of several depths, with a light path for detail from the image itself."""
    width: int = Field(64, ge=8, le=LARGEST_WIDTH, multiple_of=8)
    """Channels at a quarter of the resolution."""
    detail: int = Field(16, ge=8, le=LARGEST_WIDTH, multiple_of=8)
    """Channels of the image's own path at full resolution."""
    levels: int = Field(4, ge=1)
    """How many depths of the encoder are read."""

    tasks = ("segmentation",)
    own_rate = RATE
    compared = (Compared("mask", "mask head only", {}, RATE, aside=True),)

    def build(self, backbone: Any, answer: Answer) -> MaskHead:
        return MaskHead(backbone.spec, classes=answer.classes, **self.arguments())


class MaskHead(Head):
    """Features and normalised images (B, 3, H, W) -> logits (B, classes, H, W).

    The grids after `levels` blocks, spread evenly up to the last, are normalised, projected to `width`, brought to the
    finest of their sizes and added. They
    meet convolutions of the image at 1/4, 1/2 and full resolution, which draw the border that patches cannot.

    Args:
        spec: of the encoder; classes: labels including background;
        width: channels at 1/4 resolution; detail: channels of the image path at full resolution;
        levels: how many depths are read.
    """

    rows = (Rows("classify.weight"), Rows("classify.bias"))

    def __init__(self, spec: BackboneSpec, *, classes: int, width: int = 64, detail: int = 16, levels: int = 4):
        super().__init__()
        require_whole("head", classes=classes, detail=detail)
        require_whole("head", least=4, width=width)
        if not 1 <= levels <= spec.depth:
            raise VptError(f"head: levels is {levels}; {spec.name} has {spec.depth} blocks, choose 1 to {spec.depth}")
        self.levels = tuple(round((k + 1) * spec.depth / levels) - 1 for k in range(levels))
        widths = [spec.left(level).width for level in self.levels]
        self.project = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(1, entering), nn.Conv2d(entering, width, 1)) for entering in widths
        )
        self.mix = convolution(width, width)
        self.image_full = convolution(3, detail)
        self.image_half = convolution(detail, 2 * detail, stride=2)
        self.image_quarter = convolution(2 * detail, 3 * detail, stride=2)
        self.at_quarter = convolution(width + 3 * detail, width)
        self.at_half = convolution(width + 2 * detail, width // 2)
        self.at_full = convolution(width // 2 + detail, width // 4)
        self.classify = nn.Conv2d(width // 4, classes, 1)

    def forward(self, features: Features, images: Tensor, hints: Tensor | None = None) -> Tensor:
        projected = [project(grid) for project, grid in zip(self.project, features.levels, strict=True)]
        finest = max((grid.shape[-2:] for grid in projected), key=lambda size: size[0] * size[1])
        mask = self.mix(reduce(torch.add, (resized(grid, finest) for grid in projected)))
        if images.device.type == "cpu":  # whose convolutions and enlarging take half as long in this layout
            mask, images = (part.contiguous(memory_format=torch.channels_last) for part in (mask, images))
        full = self.image_full(images)
        half = self.image_half(full)
        quarter = self.image_quarter(half)
        for merge, detail in ((self.at_quarter, quarter), (self.at_half, half), (self.at_full, full)):
            mask = F.interpolate(mask, size=detail.shape[-2:], mode="bilinear", align_corners=False)
            mask = merged(merge, mask, detail)
        return self.classify(mask)


def merged(merge: nn.Sequential, mask: Tensor, detail: Tensor) -> Tensor:
    """`merge` of both maps' channels behind each other; its convolution is linear, so they need not be copied there."""
    convolve: Any = merge[0]
    weight, count = convolve.weight, mask.shape[1]
    parts = ((mask, weight[:, :count]), (detail, weight[:, count:]))
    return merge[1:](reduce(torch.add, (F.conv2d(x, own, padding=convolve.padding) for x, own in parts)))


def resized(grid: Tensor, size: torch.Size) -> Tensor:
    """(B, C, h, w) -> (B, C, *size); itself where it has that size."""
    return grid if grid.shape[-2:] == size else F.interpolate(grid, size=size, mode="bilinear", align_corners=False)


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, group norm, GELU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.GroupNorm(max(1, outputs // 8), outputs),
        nn.GELU(),
    )
