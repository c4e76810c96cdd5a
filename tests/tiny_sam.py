"""A small TinyViT as Segment Anything's encoder, whose every tensor is random."""

from __future__ import annotations

import copy
from typing import Any

import torch
from segment_anything.modeling.common import LayerNorm2d
from timm.models.tiny_vit import ConvNorm, TinyVit
from torch import Tensor, nn

from vpt.backbones.sam_attention import Arithmetic
from vpt.backbones.tiny_vit import TinyVitBackbone, TinyVitEncoder

WIDTHS, DEPTHS, HEADS, WINDOWS, NECK = (8, 16, 24, 32), (2, 2, 3, 1), (2, 2, 3, 4), (3, 3, 5, 3), 12
SIZE = (32, 32)  # grids of 32, 16 and 8: windows of 3 and 5 reach over the border everywhere
ATTENDING = tuple(range(2, 8))


def make_vit(strided: bool = False) -> Any:
    """timm's model with the strides of Segment Anything's; `strided`: patches of 4x4 pixels in the place of single
    ones.
    """
    torch.manual_seed(0)
    vit: Any = TinyVit(
        num_classes=0, embed_dims=WIDTHS, depths=DEPTHS, num_heads=HEADS, window_sizes=WINDOWS, drop_path_rate=0.0
    )
    if not strided:
        vit.patch_embed.conv1, vit.patch_embed.conv2 = ConvNorm(3, 4), ConvNorm(4, 8)
    vit.stages[3].downsample.conv2.conv.stride = (1, 1)
    vit.neck = nn.Sequential(
        nn.Conv2d(WIDTHS[-1], NECK, 1, bias=False),
        LayerNorm2d(NECK),
        nn.Conv2d(NECK, NECK, 3, padding=1, bias=False),
        LayerNorm2d(NECK),
    )
    _randomise(vit)
    return vit.eval().requires_grad_(False)


def _randomise(vit: nn.Module) -> None:
    """No zero bias, no unit gain and no standard statistics hide a mistake."""
    with torch.no_grad():
        for name, parameter in vit.named_parameters():
            parameter.add_((0.5 if "attention_biases" in name else 0.2) * torch.randn_like(parameter))
        for name, buffer in vit.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.2)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2)


def wrap(vit: Any, attention: Arithmetic = "original", image_size: tuple[int, int] = SIZE) -> TinyVitBackbone:
    """The adapter over a copy of timm's model, frozen, without a decoder."""
    own = copy.deepcopy(vit)
    backbone = TinyVitBackbone(
        TinyVitEncoder(own, own.neck),
        None,
        name="tiny",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        sha256="",
        image_size=image_size,
        attention=attention,
    )
    return backbone.requires_grad_(False)


def make_tiny_sam(attention: Arithmetic = "original") -> TinyVitBackbone:
    return wrap(make_vit(), attention)


def draw(batch: int = 3, size: tuple[int, int] = SIZE, seed: int = 1) -> Tensor:
    """Images (batch, 3, *size) of noise."""
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))
