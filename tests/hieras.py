"""Small Hieras, whose every tensor is random, and the published form of prompts in them, written out."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from encoders import PREPROCESSING
from timm.models.hiera import Hiera
from torch import Tensor

from vpt.backbones.hiera import HieraBackbone

SIZE = (64, 32)  # 16x8 patches in mask units of 4x4, then 8x4 in units of 2x2, then 4x2 all together
SMALL: dict[str, Any] = {
    "img_size": SIZE,
    "embed_dim": 16,
    "stages": (1, 2, 2),
    "q_pool": 2,
    "mask_unit_size": (4, 4),
    "mask_unit_attn": (True, True, False),
    "num_classes": 0,
}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "positions of units": {"abs_win_pos_embed": True, "global_pos_size": (3, 3)},
    "without projections": {"use_expand_proj": False, "init_values": 0.5},
    "pooled once": {"q_pool": 1},
}


def make_timm(kind: str = "plain", **options: Any) -> Any:
    """timm's model; no zero bias and no unit gain hides a mistake."""
    torch.manual_seed(0)
    hiera: Any = Hiera(**(SMALL | KINDS[kind] | options))
    with torch.no_grad():
        for parameter in hiera.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return hiera.eval().requires_grad_(False)


def wrap_hiera(hiera: Any, **more: Any) -> HieraBackbone:
    """The adapter over a copy of timm's model, frozen."""
    return HieraBackbone(copy.deepcopy(hiera), name="tiny", **(PREPROCESSING | more)).requires_grad_(False)


def make_hiera(kind: str = "plain") -> HieraBackbone:
    return wrap_hiera(make_timm(kind))


def timms_grid(hiera: Any, images: Tensor) -> Tensor:
    """Its features (B, C, H, W), all strides consumed or not."""
    return hiera.forward_features(images, return_intermediates=True)[1][-1].permute(0, 3, 1, 2)


def literal(hiera: Any, images: Tensor, prompts: Mapping[int, Tensor]) -> Tensor:
    """The whole encoder (B, C, H, W), image by image, patches in their places; prompts (P, C) of block i."""
    finished = []
    for image in images:
        grid = hiera._pos_embed(hiera.patch_embed(image[None]))[0].view(*hiera.tokens_spatial_shape, -1)
        side = hiera.mask_unit_size[0]
        for i, block in enumerate(hiera.blocks):
            step = 2 if block.attn.q_stride > 1 else 1
            window = (side, side) if block.attn.use_mask_unit_attn else grid.shape[:2]
            grid = literal_block(block, grid, prompts.get(i, grid.new_empty(0, grid.shape[-1])), window, step)
            side //= step
        finished.append(grid.permute(2, 0, 1))
    return torch.stack(finished)


def literal_block(block: Any, grid: Tensor, beside: Tensor, window: Any, step: int) -> Tensor:
    """One image (H, W, C) through a block with prompts (P, C) beside the tokens of every window."""
    normed, beside = block.norm1(grid), block.norm1(beside)
    skip = grid
    if block.dim != block.dim_out:
        parts = [largest(block.proj(normed), step)] if block.proj else [largest(grid, step), average(grid, step)]
        skip = torch.cat(parts, -1)
    mixed = torch.zeros_like(skip)
    for top in range(0, grid.shape[0], window[0]):
        for left in range(0, grid.shape[1], window[1]):
            inside = normed[top : top + window[0], left : left + window[1]]
            seen = literal_window(block.attn, inside, beside, step)
            rows, columns = top // step, left // step
            mixed[rows : rows + seen.shape[0], columns : columns + seen.shape[1]] = seen
    x = skip + block.ls1(mixed)
    return x + block.ls2(block.mlp(block.norm2(x)))


def literal_window(attention: Any, patches: Tensor, beside: Tensor, step: int) -> Tensor:
    """Patches (h, w, C) and prompts, all attending to all, queries pooled over `step` x `step` patches."""
    tokens, gathered = torch.cat([patches.flatten(0, 1), beside]), []
    for q, k, v in zip(*(part.chunk(attention.heads, -1) for part in attention.qkv(tokens).chunk(3, -1)), strict=True):
        asking = largest(q[: patches.shape[0] * patches.shape[1]].view(*patches.shape[:2], -1), step)
        gathered.append((asking @ k.T / k.shape[-1] ** 0.5).softmax(-1) @ v)
    return attention.proj(torch.cat(gathered, -1))


def largest(grid: Tensor, step: int) -> Tensor:
    """(H, W, C) -> (H / step, W / step, C)."""
    return F.max_pool2d(grid.permute(2, 0, 1), step).permute(1, 2, 0)


def average(grid: Tensor, step: int) -> Tensor:
    return F.avg_pool2d(grid.permute(2, 0, 1), step).permute(1, 2, 0)
