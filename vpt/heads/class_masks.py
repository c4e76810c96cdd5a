"""Masks from class queries, without a decoder (EoMT, Kerssies et al., CVPR 2025)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from vpt.backbones.base import BackboneSpec
from vpt.backbones.tokens import Features
from vpt.heads.base import Answer, Head, HeadSettings
from vpt.heads.class_scores import prompts_of
from vpt.sections import LARGEST_WIDTH, require_whole

FINEST = 4  # pixels of the image in one of the masks, at the least


class ClassMasksConfig(HeadSettings):
    """See `ClassMaskHead`."""

    kind: Literal["class_masks"] = "class_masks"
    """A mask for each class query, its product with enlarged features: the head of `class_queries`."""
    width: int = Field(64, ge=8, le=LARGEST_WIDTH, multiple_of=8)
    """Channels of these features."""

    tasks = ("segmentation",)
    partner = "class_queries"

    def build(self, backbone: Any, answer: Answer) -> ClassMaskHead:
        return ClassMaskHead(backbone.spec, classes=answer.classes, **self.arguments())


class ClassMaskHead(Head):
    """What class queries have become, q (B, classes * n, C), and the grid -> logits (B, classes, H, W).

    mask_k = MLP(q_k) . features / sqrt(width), where the features are the finished grid in `width` channels, enlarged
    twofold until one stands for 4 pixels or less, or nearly so. Of several queries of a class the mask is the logarithm
    of the sum of exponentials, so that after the softmax the class has what its queries have together.

    Args:
        spec: of the encoder; classes: labels including background; width: channels of the features.
    """

    def __init__(self, spec: BackboneSpec, *, classes: int, width: int = 64):
        super().__init__()
        require_whole("head", classes=classes, width=width)
        self.classes = classes
        entering = spec.finished.width
        self.project = nn.Sequential(nn.GroupNorm(1, entering), nn.Conv2d(entering, width, 1))
        steps = max(0, round(math.log2(max(spec.patch) / FINEST)))
        self.enlarge = nn.Sequential(*(_twofold(width) for _ in range(steps)))
        query = spec.blocks[-1].width
        self.of_query = nn.Sequential(
            nn.Linear(query, query), nn.GELU(), nn.Linear(query, query), nn.GELU(), nn.Linear(query, width)
        )

    def forward(self, features: Features, images: Tensor, hints: Tensor | None = None) -> Tensor:
        grid = self.enlarge(self.project(features.grid))
        queries = self.of_query(prompts_of(features, self.classes))
        masks = torch.einsum("bknc,bchw->bknhw", queries, grid) / math.sqrt(grid.shape[1])
        logits = masks.float().logsumexp(2)
        return F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)

    def start_from(self, learned: Head, rows: Sequence[int | None]) -> None:
        """All is shared by the labels; what is learned of a label lies in its queries."""
        self.load_state_dict(learned.state_dict())


def _twofold(width: int) -> nn.Sequential:
    """(B, C, h, w) -> (B, C, 2 h, 2 w)."""
    return nn.Sequential(
        nn.ConvTranspose2d(width, width, 2, stride=2),
        nn.GELU(),
        nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
        nn.GroupNorm(1, width),
    )
