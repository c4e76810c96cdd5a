"""Adapter over timm's `Hiera`: its own modules and weights, taken apart at the blocks."""

from __future__ import annotations

from typing import Any

from timm.layers import resample_abs_pos_embed
from timm.models.hiera import Hiera, HieraBlock, Reroll, Unroll
from torch import Tensor, nn

from vpt.backbones import hiera_attention
from vpt.backbones.base import BlockSpec, Level
from vpt.backbones.pooled import Pool, PooledBackbone, pair
from vpt.backbones.timm_model import Layout
from vpt.backbones.tokens import KeysValues, Tokens
from vpt.errors import VptError


class HieraEncoder(nn.Module):
    """timm's modules, and its positions as it puts them together."""

    def __init__(self, hiera: Any):
        super().__init__()
        self.patch_embed = hiera.patch_embed
        self.pos_embed = hiera.pos_embed
        self.pos_embed_win = hiera.pos_embed_win
        self.units = list(hiera.mask_spatial_shape)
        self.blocks = hiera.blocks
        self.norm = hiera.head.norm
        self.pool = Pool(hiera.head)

    def positions(self) -> Tensor:
        """(1, N, C)."""
        if self.pos_embed_win is None:
            return self.pos_embed
        window = self.pos_embed_win.tile(self.units)
        whole = nn.functional.interpolate(self.pos_embed, size=window.shape[-2:], mode="bicubic", antialias=True)
        return (whole + window).flatten(2).transpose(1, 2)


class HieraBackbone(PooledBackbone):
    """Hiera (Ryali et al., ICML 2023) of timm, with prompts: see `PooledBackbone`.

    Blocks of early stages attend within mask units, the others to the whole image. In timm the tokens of a mask unit
    lie together; here they are in their places between two blocks.
    """

    def take(self, model: Hiera) -> Layout:
        self.encoder = HieraEncoder(model).eval()
        blocks, schedules = self.encoder.blocks, model.reroll.schedule
        entered = [schedules[max(0, i - 1)] for i in range(len(blocks) + 1)]  # the last: what leaves all blocks
        self._unroll = [Unroll(pair(grid), (1, 1), left) for left, grid in entered]  # lists: no parts of the encoder
        self._reroll = [model.reroll]
        described = tuple(_describe(*each) for each in zip(blocks, self._unroll[:-1], strict=True))
        return Layout(described, Level(model.num_features, pair(self._unroll[-1].size)))

    @staticmethod
    def require_supported(model: Any, name: str) -> None:
        """Raise VptError unless `model` is a timm Hiera of images, of its own blocks."""
        odd = [type(block).__name__ for block in model.blocks if type(block) is not HieraBlock]
        last = model.blocks[-1]
        if odd or len(model.patch_stride) != 2 or not model.head.pool_type or last.dim != last.dim_out:
            found = odd[0] if odd else "its stages, strides and pooling"
            raise VptError(
                f"backbone {name}: Hiera with {found} is not supported; choose one of images with blocks of its own, "
                "two at least in the last stage, and a pooling, for example hiera_tiny_224"
            )

    @staticmethod
    def size_of(model: Any) -> tuple[int, int]:
        """(height, width) in pixels of the images that it is set to."""
        return pair(cells * step for cells, step in zip(model.tokens_spatial_shape, model.patch_stride, strict=True))

    @staticmethod
    def patch_of(model: Any) -> tuple[int, int]:
        """(height, width) in pixels of a mask unit, of which an image is made."""
        return pair(cells * step for cells, step in zip(model.mask_unit_size, model.patch_stride, strict=True))

    @staticmethod
    def resize(model: Any, image_size: tuple[int, int]) -> None:
        """Set it to images of that size: positions of all patches are resized, those within a mask unit repeated."""
        grid = [side // step for side, step in zip(image_size, model.patch_stride, strict=True)]
        if model.pos_embed_win is None:
            own = model.pos_embed
            resized = resample_abs_pos_embed(own.detach(), grid, model.tokens_spatial_shape, num_prefix_tokens=0)
            model.pos_embed = nn.Parameter(resized, requires_grad=own.requires_grad)
        strides = [model.q_stride] * (len(model.stage_ends) - 1)
        model.tokens_spatial_shape = grid
        model.mask_spatial_shape = [cells // unit for cells, unit in zip(grid, model.mask_unit_size, strict=True)]
        model.unroll = Unroll(image_size, model.patch_stride, strides)
        model.reroll = Reroll(image_size, model.patch_stride, strides, model.stage_ends, model.q_pool)

    def embed(self, images: Tensor) -> Tokens:
        return self._by_rows(self._patches(images) + self.encoder.positions())

    def patches(self, images: Tensor) -> Tensor:
        return self._by_rows(self._patches(images)).grid

    def _patches(self, images: Tensor) -> Tensor:
        """(B, N, C), of images of the size that it is set to: in others timm would mistake the places."""
        self.require_images(images)
        return self.encoder.patch_embed(images)

    def _by_rows(self, patches: Tensor) -> Tokens:
        return Tokens.of_grid(patches.unflatten(1, self.spec.blocks[0].grid))

    def arranged(self, i: int, grid: Tensor) -> Tensor:
        return self._unroll[i](grid.flatten(1, 2))

    def placed(self, i: int, arranged: Tensor) -> Tensor:
        return self._reroll[0](arranged, i)

    def attend(self, block: Any, normed: Tensor, beside: KeysValues | None) -> Tensor:
        return hiera_attention.attend(block.attn, normed, beside)

    def widened(self, block: Any, tokens: Tensor, normed: Tensor) -> Tensor:
        return hiera_attention.widened(block, tokens, normed)


def _describe(block: Any, entered: Unroll) -> BlockSpec:
    """What enters a block of timm's, on the grid that is unrolled for it."""
    attention, (rows, columns) = block.attn, entered.size
    windowed = attention.use_mask_unit_attn and attention.window_size * attention.q_stride < rows * columns
    return BlockSpec(block.dim, attention.heads, (rows, columns), windowed)
