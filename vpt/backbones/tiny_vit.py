"""Adapter over timm's TinyViT as Segment Anything's image encoder: LiteMedSAM and MobileSAM."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from timm.models.tiny_vit import MBConv, TinyVit
from torch import Tensor, nn

from vpt.backbones.base import (
    Backbone,
    BackboneSpec,
    BlockAttention,
    BlockSpec,
    Level,
    cannot_travel,
    mean_normed,
    no_place,
    require_whole_patches,
    whole_patches,
)
from vpt.backbones.folding import fold_batch_norms
from vpt.backbones.sam import SamDecoder
from vpt.backbones.sam_attention import Arithmetic
from vpt.backbones.strips import add_mlp, convolve
from vpt.backbones.tiny_vit_attention import add_attention, attend_apart, keys_and_values, split_heads
from vpt.backbones.tokens import Context, Features, Keep, KeysValues, SeparateContext, Tokens


class TinyVitEncoder(nn.Module):
    """timm's modules in one row of blocks over all stages, and the neck that Segment Anything has behind them.

    `blocks[i]` is an `MBConv` or a `TinyVitBlock`; the last of a stage has what merges patches before the next one as
    its `downsample`.
    """

    def __init__(self, vit: TinyVit, neck: nn.Module):
        super().__init__()
        stages: Any = list(vit.stages)
        for stage, following in pairwise(stages):
            stage.blocks[-1].downsample = following.downsample
        self.patch_embed = vit.patch_embed
        self.blocks = nn.ModuleList(block for stage in stages for block in stage.blocks)
        self.neck = neck


class TinyVitBackbone(Backbone):
    """TinyViT (Wu et al., ECCV 2022) as Segment Anything's encoder (MobileSAM, Zhang et al., 2023), with prompts.

    Blocks are numbered over all stages. Those of the first stage are convolutions, which have no place for prompts; all
    others attend in windows, to prompts as keys and values that all windows share. A window that reaches over the
    border is padded with zeros before the norm, and the padding is attended to, as in the original. What merges patches
    between two stages belongs to the block before it.

    Prompts cannot travel: a convolution between attention and MLP mixes neighbours, which prompts do not have, and
    their width would have to change between stages.

    Args:
        encoder: timm's modules; decoder: of the same checkpoint, for `SamDecoderHead`; None where it has none.
        name: what the user calls it.
        mean, std: preprocessing of an RGB image in [0, 1] that the weights were trained with.
        sha256: identity of the weights (`vpt.backbones.weights.sha256_of`).
        image_size: (height, width) in pixels; there are only positions within a window, so nothing is resized.
        attention: "fused"; or "original": timm's own blocks where there are no prompts, and batch norms as they are.

    Raises:
        VptError: a size that is no multiple of the patch, which is the stride of all convolutions together.
    """

    def __init__(
        self,
        encoder: TinyVitEncoder,
        decoder: SamDecoder | None,
        *,
        name: str,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        sha256: str,
        image_size: tuple[int, int],
        attention: Arithmetic = "fused",
    ):
        super().__init__()
        self.encoder = encoder.eval()
        self._decoder = (decoder,)  # in a tuple, so that it is no part of the encoder: heads copy what they need
        self.sha256 = sha256
        self.attention = attention
        neck: Any = encoder.neck
        patch = _stride(encoder)
        require_whole_patches(image_size, (patch, patch), name)
        self.spec = BackboneSpec(
            name=name,
            image_size=image_size,
            patch=(patch, patch),
            prefix=0,
            mean=mean,
            std=std,
            padding="corner",
            blocks=_describe(encoder, image_size),
            finished=Level(neck[0].out_channels, (image_size[0] // patch, image_size[1] // patch)),
        )
        if decoder is not None:
            decoder.resize(self.spec.image_size, self.spec.finished.grid)
        if attention == "fused":
            fold_batch_norms(self.encoder)
            self.encoder.to(memory_format=torch.channels_last)

    @property
    def decoder(self) -> SamDecoder | None:
        return self._decoder[0]

    def takes(self, size: tuple[int, int]) -> bool:
        return whole_patches(size, self.spec.patch)

    def embed(self, images: Tensor) -> Tokens:
        if self.attention == "fused":  # then every grid (B, H, W, C) is contiguous
            images = images.contiguous(memory_format=torch.channels_last)
        grid = _tokens(self.encoder.patch_embed(images))
        return Tokens.of_grid(grid)

    def block(self, i: int, tokens: Tokens, context: Context | None, keep: Keep = "all") -> Tokens:
        block: Any = self.encoder.blocks[i]
        if tokens.prompts.shape[1] > 0:
            raise cannot_travel(self.spec, "has convolutions between attention and MLP, and stages of different width")
        if not self.spec.blocks[i].attends:
            if context is not None:
                raise no_place(self.spec, i)
            grid = _tokens(self._convolve(block, _image(tokens.grid)))
        elif context is None and self.attention == "original":
            block.attn.attention_bias_cache.clear()  # timm's own knows nothing of biases that train
            grid = block(tokens.grid)
        else:
            grid = self._attend(i, tokens.grid, context)
        if hasattr(block, "downsample"):
            grid = _tokens(self._convolve(block.downsample, _image(grid)))
        return Tokens.of_grid(grid)

    def _convolve(self, layers: Any, image: Tensor) -> Tensor:
        return convolve(layers, image) if self.attention == "fused" else layers(image)

    def _attend(self, i: int, grid: Tensor, context: Context | None) -> Tensor:
        """timm's block, with a context."""
        block: Any = self.encoder.blocks[i]
        beside = self.project(i, context) if isinstance(context, Tensor) else context
        fixed = beside if isinstance(beside, KeysValues) else None
        grid = add_attention(block.attn, grid, fixed, block.window_size)
        if isinstance(beside, SeparateContext):
            grid = grid + attend_apart(block.attn, grid, beside.prompts)
        grid = _tokens(block.local_conv(_image(grid)))
        return add_mlp(block.mlp, grid)

    def attention_of(self, i: int) -> BlockAttention:
        if not self.spec.blocks[i].attends:
            raise no_place(self.spec, i)
        attention: Any = self.encoder.blocks[i].attn
        return BlockAttention(attention.norm, attention.qkv, attention.num_heads)

    def project(self, i: int, context: Tensor) -> KeysValues:
        self.attention_of(i)
        block: Any = self.encoder.blocks[i]
        return keys_and_values(block.attn, context)

    def mean_query(self, i: int, tokens: Tokens) -> Tensor:
        self.attention_of(i)
        attention: Any = self.encoder.blocks[i].attn
        mean = mean_normed(attention.norm, tokens).unsqueeze(1)
        return split_heads(attention, attention.qkv(mean))[0].squeeze(2)

    def key_value_maps(self, i: int) -> tuple[Tensor, Tensor]:
        width = self.spec.blocks[i].width
        weight = next(self.attention_of(i).qkv.parameters())
        one_hot = torch.eye(width, dtype=weight.dtype, device=weight.device)
        unit, zero = self.project(i, one_hot), self.project(i, torch.zeros_like(one_hot))
        keys, values = unit.keys - zero.keys, unit.values - zero.values  # (1, heads, C, head_dim)
        return keys[0].transpose(0, 1).flatten(1), values[0].transpose(0, 1).flatten(1)

    def finish(self, tokens: Tokens) -> Features:
        return Features(grid=self.encoder.neck(_image(tokens.grid)), prefix=tokens.prefix)


def _image(grid: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, C, H, W)."""
    return grid.permute(0, 3, 1, 2)


def _tokens(image: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H, W, C)."""
    return image.permute(0, 2, 3, 1)


def _stride(module: nn.Module) -> int:
    """The strides of a module's convolutions, one after the other, multiplied."""
    stride = 1
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            stride *= layer.stride[0]
    return stride


def _describe(encoder: TinyVitEncoder, image_size: tuple[int, int]) -> tuple[BlockSpec, ...]:
    """What enters each block of an encoder whose batch norms are not folded yet."""
    stride, described = _stride(encoder.patch_embed), []
    blocks: Any = encoder.blocks
    for block in blocks:
        grid = (image_size[0] // stride, image_size[1] // stride)
        if isinstance(block, MBConv):
            described.append(BlockSpec(block.conv3.conv.out_channels, 1, grid, attends=False))
        else:
            described.append(BlockSpec(block.dim, block.num_heads, grid, windowed=True))
        stride *= _stride(block)
    return tuple(described)
