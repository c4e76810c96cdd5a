"""The least that reads a mask from frozen features: a small MLP on each place of the last few blocks."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from vpt.backbones.base import BackboneSpec
from vpt.backbones.tokens import Features
from vpt.errors import VptError
from vpt.heads.base import Answer, Head, HeadSettings, Rows
from vpt.heads.mask import RATE, resized
from vpt.sections import LARGEST_WIDTH, Compared, require_whole


class ReadoutConfig(HeadSettings):
    """See `ReadoutHead`."""

    kind: Literal["readout"] = "readout"
    """An MLP on each place of the last few blocks, which sees nothing else of the image: a control."""
    levels: int = Field(3, ge=1)
    """How many blocks are read, the last ones."""
    hidden: int = Field(256, ge=1, le=LARGEST_WIDTH)
    """Units of the hidden layer."""

    tasks = ("segmentation",)
    own_rate = RATE
    compared = (Compared("readout", "frozen features, MLP", {}, RATE, aside=True),)

    def build(self, backbone: Any, answer: Answer) -> ReadoutHead:
        return ReadoutHead(backbone.spec, classes=answer.classes, **self.arguments())


class ReadoutHead(Head):
    """Features and normalised images (B, 3, H, W) -> logits (B, classes, H, W), at the encoder's resolution, enlarged.

    The read-out of DINO-MVR (Jiang et al., arXiv:2605.07221), the bar for whatever trains more than a head: features of
    the last three blocks of a frozen encoder, normed at each place and side by side, and one hidden layer. Of its views
    at test time mirror images are there (`train.mirror`, `--tta`), other resolutions are not. Parameters: for C numbers
    of all levels together, 2 C + hidden * (C + 1) + classes * (hidden + 1).

    Args:
        spec: of the encoder; classes: labels including background; levels: how many of the last blocks are read;
        hidden: units of the hidden layer.

    Raises:
        VptError: more levels than the encoder has blocks.
    """

    rows = (Rows("classify.weight"), Rows("classify.bias"))

    def __init__(self, spec: BackboneSpec, *, classes: int, levels: int = 3, hidden: int = 256):
        super().__init__()
        require_whole("head", classes=classes, hidden=hidden)
        if not 1 <= levels <= spec.depth:
            raise VptError(f"head: levels is {levels}; {spec.name} has {spec.depth} blocks, choose 1 to {spec.depth}")
        self.levels = tuple(range(spec.depth - levels, spec.depth))
        widths = [spec.left(level).width for level in self.levels]
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        self.hidden = nn.Linear(sum(widths), hidden)
        self.classify = nn.Linear(hidden, classes)

    def forward(self, features: Features, images: Tensor, hints: Tensor | None = None) -> Tensor:
        grids = [
            norm(grid.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            for norm, grid in zip(self.norms, features.levels, strict=True)
        ]
        finest = max((grid.shape[-2:] for grid in grids), key=lambda size: size[0] * size[1])
        places = torch.cat([resized(grid, finest) for grid in grids], dim=1).permute(0, 2, 3, 1)
        logits = self.classify(F.gelu(self.hidden(places))).permute(0, 3, 1, 2)
        return resized(logits, images.shape[-2:])
