"""Small image encoders of SAM 2, whose every tensor is random, and prompts in them, written out."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from encoders import PREPROCESSING
from timm.models.hieradet_sam2 import HieraDet
from torch import Tensor

from vpt.backbones.hieradet import HieraDetBackbone

SIZE = (64, 32)  # 16x8 patches in windows of 4, then 8x4 in windows of 6 and 4x2 in windows of 3, which are cut off
SMALL: dict[str, Any] = {
    "embed_dim": 16,
    "stages": (1, 2, 3),
    "q_pool": 2,
    "window_spec": (4, 6, 3),
    "global_att_blocks": (5,),
    "global_pos_size": (3, 3),
    "init_values": 0.5,
    "num_classes": 0,
}


def make_timm(size: tuple[int, int] = SIZE, **options: Any) -> Any:
    """timm's model; no zero bias and no unit gain hides a mistake."""
    torch.manual_seed(0)
    hiera: Any = HieraDet(**(SMALL | options))
    with torch.no_grad():
        for parameter in hiera.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    half = (0.5, 0.5, 0.5)
    hiera.pretrained_cfg = {"input_size": (3, *size), "mean": half, "std": half}
    return hiera.eval().requires_grad_(False)


def wrap_hiera(hiera: Any) -> HieraDetBackbone:
    """The adapter over a copy of timm's model, frozen."""
    return HieraDetBackbone(copy.deepcopy(hiera), name="tiny", **PREPROCESSING).requires_grad_(False)


def timms_grid(hiera: Any, images: Tensor) -> Tensor:
    return hiera.forward_features(images).permute(0, 3, 1, 2)


def literal(hiera: Any, images: Tensor, prompts: Mapping[int, Tensor]) -> Tensor:
    """The whole encoder (B, C, H, W), image by image and window by window; prompts (P, C) of block i."""
    finished = []
    for image in images:
        grid = hiera._pos_embed(hiera.patch_embed(image[None]))[0]
        for i, block in enumerate(hiera.blocks):
            grid = literal_block(block, grid, prompts.get(i, grid.new_empty(0, grid.shape[-1])))
        finished.append(grid.permute(2, 0, 1))
    return torch.stack(finished)


def literal_block(block: Any, grid: Tensor, beside: Tensor) -> Tensor:
    """One image (H, W, C) through a block with prompts (P, C) beside the tokens of every window."""
    step, (height, width) = (2 if block.q_stride else 1), grid.shape[:2]
    side = block.window_size[0]
    high, wide = (side, side) if side else (height, width)
    normed, beside = block.norm1(grid), block.norm1(beside)
    skip = grid if block.dim == block.dim_out else largest(block.proj(normed), step)
    padded = F.pad(normed, (0, 0, 0, -width % wide, 0, -height % high))
    mixed = torch.zeros(padded.shape[0] // step, padded.shape[1] // step, block.dim_out, dtype=grid.dtype)
    for top in range(0, height, high):
        for left in range(0, width, wide):
            seen = literal_window(block.attn, padded[top : top + high, left : left + wide], beside, step)
            mixed[top // step : (top + high) // step, left // step : (left + wide) // step] = seen
    x = skip + block.ls1(mixed[: skip.shape[0], : skip.shape[1]])
    return x + block.ls2(block.mlp(block.norm2(x)))


def literal_window(attention: Any, patches: Tensor, beside: Tensor, step: int) -> Tensor:
    """Patches (h, w, C) and prompts, all attending to all, queries pooled over `step` x `step` patches."""
    (high, wide), gathered = patches.shape[:2], []
    parts = attention.qkv(torch.cat([patches.flatten(0, 1), beside])).chunk(3, -1)
    for q, k, v in zip(*(part.chunk(attention.num_heads, -1) for part in parts), strict=True):
        asking = largest(q[: high * wide].view(high, wide, -1), step)
        gathered.append((asking @ k.T / k.shape[-1] ** 0.5).softmax(-1) @ v)
    return attention.proj(torch.cat(gathered, -1))


def largest(grid: Tensor, step: int) -> Tensor:
    """(H, W, C) -> (H / step, W / step, C)."""
    return F.max_pool2d(grid.permute(2, 0, 1), step).permute(1, 2, 0)
