"""More channels than an encoder of photographs takes, mixed to its three by what trains."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpt.vocabulary import COLOURS


class Mixing(nn.Module):
    """Images (B, C, H, W) in [0, 1] -> (B, 3, H, W): a trained 1x1 convolution without bias, in float32.

    It starts as `thirds`, so that at first an image stays in [0, 1] and what is black stays black.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(thirds(channels)[..., None, None])

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            return F.conv2d(images.float(), self.weight)


def thirds(channels: int) -> Tensor:
    """(3, C): the mean of the first third of the channels, of the second and of the last; every row sums to 1.

    A channel that lies in two thirds is part of both: of four, the first row is 3/4 of channel 0 and 1/4 of channel 1.
    """
    parts = torch.eye(channels).repeat_interleave(COLOURS, dim=0)  # a third of each channel, in order
    return parts.unflatten(0, (COLOURS, channels)).mean(1)
