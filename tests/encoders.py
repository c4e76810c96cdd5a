"""Small encoders of both families, images for them, and what the tests of prompts, heads and adapters share."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
import torch.nn.functional as F
from segment_anything.modeling import ImageEncoderViT
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vpt.backbones.base import Backbone, BackboneSpec, Level, uniform_blocks
from vpt.backbones.sam import SamBackbone
from vpt.backbones.sam_attention import Arithmetic
from vpt.backbones.tokens import Features
from vpt.backbones.vit import VitBackbone
from vpt.model import PromptedModel
from vpt.sections import TUNINGS

WIDTH, DEPTH, NECK, GRID = 32, 4, 16, (8, 5)
FAMILIES = ("vit", "sam")
PREPROCESSING: dict[str, Any] = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "sha256": ""}
_SIZE: dict[str, Any] = {"patch_size": 8, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": 2}
VIT = _SIZE | {"img_size": (64, 40), "num_classes": 0}
SAM = _SIZE | {
    "img_size": 64,
    "use_rel_pos": True,
    "window_size": 3,
    "global_attn_indexes": (1, 3),
    "out_chans": NECK,
}


def plain_spec(
    *,
    width: int = 768,
    depth: int = 12,
    heads: int = 12,
    image_size: tuple[int, int] = (224, 224),
    patch: tuple[int, int] = (16, 16),
    windowed: Collection[int] = (),
    neck: int | None = None,
    **more: Any,
) -> BackboneSpec:
    """Of an encoder whose blocks are alike; by default of ViT-B/16."""
    grid = (image_size[0] // patch[0], image_size[1] // patch[1])
    return BackboneSpec(
        **{"name": "vit_base_patch16_224", "prefix": 1, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)} | more,
        image_size=image_size,
        patch=patch,
        blocks=uniform_blocks(depth, width, heads, grid, windowed),
        finished=Level(neck or width, grid),
    )


VIT_B16 = plain_spec()


class Saved(torch.autograd.graph.saved_tensors_hooks):
    """Every tensor that is kept for the backward pass."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        super().__init__(self._keep, lambda tensor: tensor)

    def _keep(self, tensor: Tensor) -> Tensor:
        self.tensors.append(tensor)
        return tensor


def make_vit(**options: Any) -> VitBackbone:
    """A frozen ViT for images of 64 x 40 pixels, whose every tensor is random."""
    torch.manual_seed(0)
    encoder = VisionTransformer(**(VIT | options))
    _randomise(encoder)
    return VitBackbone(encoder, name="tiny", **PREPROCESSING).requires_grad_(False)


def make_sam(attention: Arithmetic = "original") -> SamBackbone:
    """A frozen encoder of SAM for images of 64 x 40 pixels, whose every tensor is random."""
    torch.manual_seed(0)
    encoder = ImageEncoderViT(**SAM)
    _randomise(encoder)
    return wrap_sam(encoder, (64, 40), attention)


def make_backbone(family: str) -> Backbone:
    """A frozen encoder of 8 x 5 patches."""
    return make_vit() if family == "vit" else make_sam()


def wrap_sam(encoder: ImageEncoderViT, image_size: tuple[int, int], attention: Arithmetic = "original") -> SamBackbone:
    """The adapter over that encoder, frozen, without a decoder."""
    backbone = SamBackbone(
        encoder, None, name="tiny", padding="corner", image_size=image_size, attention=attention, **PREPROCESSING
    )
    return backbone.requires_grad_(False)


def _randomise(encoder: nn.Module) -> None:
    """No zero bias and no unit gain hides a mistake."""
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


def tune(model: PromptedModel, method: str, **settings: Any) -> PromptedModel:
    """The model, tuned as a config's section of that name says."""
    TUNINGS.section(method)(**settings).apply(model)
    return model


def draw(batch: int, size: tuple[int, int] = (64, 40), seed: int = 1) -> Tensor:
    """Images (batch, 3, *size) of noise."""
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


def shaken(module: Any, amount: float = 0.3) -> Any:
    """The module, as if trained: nothing is at its start."""
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(amount * torch.randn_like(parameter))
    return module


def windowed(spec: BackboneSpec) -> tuple[int, ...]:
    """The blocks that attend within windows."""
    return tuple(i for i, block in enumerate(spec.blocks) if block.windowed)


def flat(features: Features) -> Tensor:
    """Features -> (B, all of them)."""
    return torch.cat([features.grid.flatten(1), features.prefix.flatten(1)], dim=1)


def total(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def table(relative: Tensor, size: int) -> Tensor:
    """A table of relative positions (L, d) -> (2 * size - 1, d), linearly as the original resizes it."""
    return F.interpolate(relative.T[None], size=2 * size - 1, mode="linear")[0].T


def literal_attention(attention: Any, patches: Tensor, beside: Tensor) -> tuple[Tensor, Tensor]:
    """One window (H, W, C) and tokens beside it (E, C), all attending to all; only pairs of patches have a bias."""
    height, width, _ = patches.shape
    count = height * width
    tokens = torch.cat([patches.flatten(0, 1), beside])
    gathered = []
    queries, keys, values = attention.qkv(tokens).chunk(3, dim=-1)
    for q, k, v in zip(*(part.chunk(attention.num_heads, -1) for part in (queries, keys, values)), strict=True):
        scores = q @ k.T / q.shape[-1] ** 0.5
        if attention.use_rel_pos:
            row, column = torch.arange(count) // width, torch.arange(count) % width
            rows = table(attention.rel_pos_h, height)[row[:, None] - row + height - 1]
            columns = table(attention.rel_pos_w, width)[column[:, None] - column + width - 1]
            bias = (q[:count, None] * (rows + columns)).sum(-1)
            scores = scores + F.pad(bias, (0, len(beside), 0, len(beside)))
        gathered.append(scores.softmax(-1) @ v)
    mixed = attention.proj(torch.cat(gathered, -1))
    return mixed[:count].view_as(patches), mixed[count:]
