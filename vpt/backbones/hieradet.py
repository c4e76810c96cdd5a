"""Adapter over timm's `HieraDet`, the image encoder of SAM 2, taken apart at the blocks."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.hieradet_sam2 import HieraDet, HieraPatchEmbed, MultiScaleBlock, window_partition, window_unpartition
from torch import Tensor, nn

from vpt.backbones.attention import mix_values
from vpt.backbones.base import BlockSpec, Level, whole_patches
from vpt.backbones.pooled import Pool, PooledBackbone, pair
from vpt.backbones.timm_model import Layout
from vpt.backbones.tokens import KeysValues, Tokens
from vpt.errors import VptError


class HieraDetEncoder(nn.Module):
    """timm's modules, and its positions as it puts them together."""

    def __init__(self, hiera: Any):
        super().__init__()
        self.patch_embed = hiera.patch_embed
        self.pos_embed = hiera.pos_embed
        self.pos_embed_window = hiera.pos_embed_window
        self.blocks = hiera.blocks
        self.norm = hiera.head.norm
        self.pool = Pool(hiera.head)

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """(1, H, W, C): those of the whole image, resized, and those of a window, repeated."""
        whole, window = F.interpolate(self.pos_embed, size=grid, mode="bicubic"), self.pos_embed_window
        times = [cells // side for cells, side in zip(grid, window.shape[-2:], strict=True)]
        return (whole + window.tile(times)).permute(0, 2, 3, 1)


class HieraDetBackbone(PooledBackbone):
    """SAM 2's image encoder (Ravi et al., 2024) of timm, with prompts: see `PooledBackbone`.

    Blocks attend in windows, some to the whole image. A window that reaches over the border is padded with zeros after
    the norm, and the padding is attended to, as in the original. Its features are those of the trunk, without the
    pyramid and the decoder that SAM 2 has behind it.
    """

    def take(self, model: HieraDet) -> Layout:
        self.encoder = HieraDetEncoder(model).eval()
        stride = zip(self.size_of(model), _stride(model), strict=True)
        return Layout(*_describe(model, pair(side // step for side, step in stride)))

    def takes(self, size: tuple[int, int]) -> bool:
        return whole_patches(size, self.spec.patch)

    @staticmethod
    def require_supported(model: Any, name: str) -> None:
        """Raise VptError unless `model` is a timm HieraDet of its own blocks, whose images have a known size."""
        blocks = list(model.blocks)
        odd = [type(block).__name__ for block in blocks if type(block) is not MultiScaleBlock]
        odd += [type(model.patch_embed).__name__] if type(model.patch_embed) is not HieraPatchEmbed else []
        if odd or not model.head.pool_type or blocks[-1].dim != blocks[-1].dim_out:
            raise VptError(
                f"backbone {name}: HieraDet with {odd[0] if odd else 'its stages and pooling'} is not supported; "
                "choose one of blocks of its own, two at least in the last stage, and a pooling, for example "
                "sam2_hiera_tiny"
            )
        if "input_size" not in (getattr(model, "pretrained_cfg", None) or {}):
            raise VptError(
                f"backbone {name}: the model does not say for which images it is; set its pretrained_cfg, for example "
                '{"input_size": (3, 896, 896), "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}'
            )

    @staticmethod
    def size_of(model: Any) -> tuple[int, int]:
        """(height, width) in pixels of the images that it is set to."""
        return pair(model.pretrained_cfg["input_size"][1:])

    @staticmethod
    def patch_of(model: Any) -> tuple[int, int]:
        """(height, width) in pixels of what an image is made of: windows of the first stage, patches of the last."""
        pools = [block.q_stride for block in model.blocks if block.q_stride is not None]
        return pair(
            step * math.lcm(side, math.prod(pool[axis] for pool in pools))
            for axis, (side, step) in enumerate(zip(model.pos_embed_window.shape[-2:], _stride(model), strict=True))
        )

    @staticmethod
    def resize(model: Any, image_size: tuple[int, int]) -> None:
        """Set it to images of that size; its positions are resized in every pass."""
        model.pretrained_cfg = {**model.pretrained_cfg, "input_size": (3, *image_size)}

    def embed(self, images: Tensor) -> Tokens:
        patches = self.encoder.patch_embed(images)
        return Tokens.of_grid(patches + self.encoder.positions(pair(patches.shape[1:3])))

    def patches(self, images: Tensor) -> Tensor:
        return self.encoder.patch_embed(images)

    def arranged(self, i: int, grid: Tensor) -> Tensor:
        return grid

    def placed(self, i: int, arranged: Tensor) -> Tensor:
        return arranged

    def attend(self, block: Any, normed: Tensor, beside: KeysValues | None) -> Tensor:
        return attend(block, normed, beside)

    def widened(self, block: Any, tokens: Tensor, normed: Tensor) -> Tensor:
        if block.dim == block.dim_out:
            return tokens
        return _pooled(block.pool, block.proj(normed))


def attend(block: Any, grid: Tensor, beside: KeysValues | None) -> Tensor:
    """What normed tokens (B, H, W, C) gather in the windows of timm's block, not projected yet -> (B, H', W', C').

    It halves the grid where it pools.

    beside: keys and values of prompts, the same in every window of an image.
    """
    size = pair(grid.shape[1:3])
    window = block.window_size if block.is_windowed else size
    padded = F.pad(grid, (0, 0, 0, -size[1] % window[1], 0, -size[0] % window[0]))
    mixed = _attend_in(block.attn, window_partition(padded, window), beside, len(grid))
    left = mixed.shape[1:3]
    whole = pair(all_ // one * out for all_, one, out in zip(padded.shape[1:3], window, left, strict=True))
    size = pair(cells * out // one for cells, one, out in zip(size, window, left, strict=True))
    return window_unpartition(mixed, pair(left), whole)[:, : size[0], : size[1]]


def _attend_in(attention: Any, windows: Tensor, beside: KeysValues | None, batch: int) -> Tensor:
    """What windows (B * W, h, w, C), all of an image in a row, gather of themselves and of its prompts."""
    number, heads = len(windows), attention.num_heads
    queries, keys, values = attention.qkv(windows).chunk(3, -1)
    queries = _pooled(attention.q_pool, queries)
    size = queries.shape[1:3]
    queries, keys, values = (
        part.reshape(number, -1, heads, part.shape[-1] // heads).transpose(1, 2) for part in (queries, keys, values)
    )
    if beside is not None:
        keys, values = (
            torch.cat([own, _in_windows(prompts, batch, number // batch).to(own.dtype)], 2)
            for own, prompts in ((keys, beside.keys), (values, beside.values))
        )
    mixed = mix_values(queries, keys, values)
    return mixed.transpose(1, 2).flatten(2).unflatten(1, size)


def _in_windows(prompts: Tensor, batch: int, windows: int) -> Tensor:
    """Keys or values of prompts (1 or B, heads, P, d) -> those of every window (B * W, heads, P, d)."""
    return prompts.expand(batch, -1, -1, -1).repeat_interleave(windows, 0)


def _pooled(pool: nn.Module | None, grid: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, H / 2, W / 2, C), or as it is."""
    return grid if pool is None else pool(grid.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _stride(model: Any) -> tuple[int, int]:
    return pair(model.patch_embed.proj.stride)


def _describe(model: Any, grid: tuple[int, int]) -> tuple[tuple[BlockSpec, ...], Level]:
    """What enters each block, of patches on that grid, and what leaves them all."""
    described = []
    for block in model.blocks:
        windowed = block.is_windowed and (block.window_size[0] < grid[0] or block.window_size[1] < grid[1])
        described.append(BlockSpec(block.dim, block.attn.num_heads, grid, windowed))
        if block.q_stride is not None:
            grid = pair(cells // step for cells, step in zip(grid, block.q_stride, strict=True))
    return tuple(described), Level(model.num_features, grid)
