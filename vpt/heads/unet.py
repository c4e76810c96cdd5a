"""A U-Net from scratch, on the images alone: what many would train instead of prompts."""

from __future__ import annotations

from typing import Any, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from vpt.backbones.base import BackboneSpec
from vpt.backbones.tokens import Features
from vpt.errors import VptError
from vpt.heads.base import Answer, Head, HeadSettings, Rows
from vpt.sections import LARGEST_WIDTH, Compared, require_whole

STAGES = 5  # each half as large as the one before
COARSEST = 2 ** (STAGES - 1)  # pixels of the image in one of the last
RATE = 1e-3


class UnetConfig(HeadSettings):
    """See `UnetHead`."""

    kind: Literal["unet"] = "unet"
    """A U-Net from scratch: a control, with backbone.name=none and prompts.method=none."""
    width: int = Field(24, ge=1, le=LARGEST_WIDTH)
    """Channels at full resolution."""

    tasks = ("segmentation",)
    encoded = False
    own_rate = RATE
    compared = (Compared("unet", "U-Net from scratch", {}, RATE),)

    def build(self, backbone: Any, answer: Answer) -> UnetHead:
        return UnetHead(backbone.spec, classes=answer.classes, **self.arguments())


class UnetHead(Head):
    """Normalised images (B, 3, H, W) -> logits (B, classes, H, W), by MONAI's `DynUNet`, nnU-Net's architecture.

    Isensee et al., Nature Methods 2021. Five stages of two 3x3 convolutions each, with instance norm and leaky ReLU;
    every stage halves the grid and has twice the channels. Images are filled up with their mean, at the right and
    bottom, to sides that can be halved so often. Features are not read. Parameters at width 24: 4.4 M.

    Args:
        spec: says how large the images are; classes: labels including background; width: channels at full resolution.

    Raises:
        VptError: images whose coarsest grid would be a single place, which instance norm cannot norm.
    """

    rows = (Rows("net.output_block.conv.conv.weight"), Rows("net.output_block.conv.conv.bias"))

    def __init__(self, spec: BackboneSpec, *, classes: int, width: int = 24):
        from monai.networks.nets import DynUNet

        super().__init__()
        require_whole("head", classes=classes, width=width)
        if min(spec.image_size) <= COARSEST:
            raise VptError(
                f"head unet: images of {spec.image_size[0]}x{spec.image_size[1]} px are too small for {STAGES} stages; "
                f"choose plan.image_size {2 * COARSEST} or more"
            )
        self.net = DynUNet(
            spatial_dims=2,
            in_channels=3,
            out_channels=classes,
            kernel_size=[3] * STAGES,
            strides=[1] + [2] * (STAGES - 1),
            upsample_kernel_size=[2] * (STAGES - 1),
            filters=[width * 2**stage for stage in range(STAGES)],
        )

    def forward(self, features: Features, images: Tensor, hints: Tensor | None = None) -> Tensor:
        height, width = images.shape[-2:]
        logits: Tensor = self.net(F.pad(images, (0, -width % COARSEST, 0, -height % COARSEST)))
        return logits[..., :height, :width]
