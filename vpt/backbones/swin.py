"""Adapter over timm's Swin transformers, v1 and v2: their own modules and weights, taken apart at the blocks."""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import Any

from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from timm.models.swin_transformer_v2 import SwinTransformerV2, SwinTransformerV2Block
from torch import Tensor, nn

from vpt.backbones.attention import asked_apart
from vpt.backbones.base import BlockAttention, BlockSpec, Level, cannot_travel
from vpt.backbones.pieces import normalise
from vpt.backbones.swin_attention import Unit, attend, attend_apart, merge_biases
from vpt.backbones.timm_model import Layout, StagedBackbone
from vpt.backbones.tokens import Context, Features, Keep, KeysValues, SeparateContext, Tokens
from vpt.errors import VptError

POOLS = ("avg", "max", "avgmax")  # to a vector as wide as the last stage


class SwinEncoder(nn.Module):
    """timm's modules in one row of blocks over all stages.

    The last block of a stage has what merges patches before the next one as its `downsample`.
    """

    def __init__(self, swin: Any):
        super().__init__()
        for stage, following in pairwise(swin.layers):
            stage.blocks[-1].downsample = following.downsample
        self.patch_embed = swin.patch_embed
        self.blocks = nn.ModuleList(block for stage in swin.layers for block in stage.blocks)
        self.norm = swin.norm
        self.pool = swin.head.global_pool


class SwinBackbone(StagedBackbone):
    """Swin (Liu et al., ICCV 2021) and Swin v2 (Liu et al., CVPR 2022) of timm, with prompts.

    Blocks are numbered over all stages, and all attend in windows, every second one in shifted ones. Prompts are keys
    and values in every window of an image, under its own softmax: no mask hides them, whatever the shift, and their
    columns have no position bias. What merges patches between two stages belongs to the block before it. A block
    without context is timm's own call, so with no prompts the output equals timm's bit for bit.

    The second version norms what attention and MLP give, not what they take, so prompts go through no norm there; its
    keys are as long as 1, those of prompts too. The biases of its queries and values become part of their projection.

    Prompts cannot travel: every window would make another one of them, and their width would have to change.
    """

    def take(self, model: SwinTransformer | SwinTransformerV2) -> Layout:
        self.norms_after = isinstance(model, SwinTransformerV2)
        self.encoder = SwinEncoder(model).eval()
        for block in self.encoder.blocks:
            merge_biases(block.attn)
        (height, width), (rows, columns) = self.size_of(model), self.patch_of(model)
        finished = Level(model.num_features, (height // rows, width // columns))
        return Layout(tuple(map(_describe, self.encoder.blocks)), finished)

    @staticmethod
    def require_supported(model: Any, name: str) -> None:
        """Raise VptError unless `model` is a timm Swin, v1 or v2, of its own blocks."""
        odd = [type(block) for stage in model.layers for block in stage.blocks]
        odd = [kind for kind in odd if kind not in (SwinTransformerBlock, SwinTransformerV2Block)]
        if odd:
            raise VptError(
                f"backbone {name}: Swin with {odd[0].__name__} is not supported; choose one of standard blocks, for "
                "example swin_tiny_patch4_window7_224"
            )
        if model.global_pool not in POOLS:
            raise VptError(
                f"backbone {name}: its pooling {model.global_pool!r} does not make a vector as wide as its last stage; "
                f"make it with global_pool {', '.join(POOLS)}"
            )

    @staticmethod
    def patch_of(model: Any) -> tuple[int, int]:
        """(height, width) in pixels of a patch of the last stage."""
        height, width = model.patch_embed.patch_size
        merged = 2 ** (len(model.layers) - 1)
        return height * merged, width * merged

    @staticmethod
    def resize(model: Any, image_size: tuple[int, int]) -> None:
        """Set it to images of that size; windows grow and shrink with the grid."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, on how timm indexes a table that it resizes
            model.set_input_size(img_size=image_size)

    @staticmethod
    def wake(model: Any) -> None:
        """Of random weights: let v2's blocks add something. They start as nothing at all, by gains of zero."""
        if isinstance(model, SwinTransformerV2):
            stages: Any = model.layers
            for stage in stages:
                blocks: Any = stage.blocks
                for block in blocks:
                    nn.init.ones_(block.norm1.weight)
                    nn.init.ones_(block.norm2.weight)

    def embed(self, images: Tensor) -> Tokens:
        return Tokens.of_grid(self.encoder.patch_embed(images))

    def block(self, i: int, tokens: Tokens, context: Context | None, keep: Keep = "all") -> Tokens:
        block: Any = self.encoder.blocks[i]
        if tokens.prompts.shape[1] > 0:
            why = "attends in windows, each of which would make another of a prompt, and has stages of different width"
            raise cannot_travel(self.spec, why)
        grid = block(tokens.grid) if context is None else self._attend(i, tokens.grid, context)
        if hasattr(block, "downsample"):
            grid = block.downsample(grid)
        return Tokens.of_grid(grid)

    def _attend(self, i: int, grid: Tensor, context: Context) -> Tensor:
        """timm's block, with a context."""
        block: Any = self.encoder.blocks[i]
        beside = self.project(i, context) if isinstance(context, Tensor) else context
        before, after = self._norms(block.norm1)
        own = beside if isinstance(beside, KeysValues) else None
        grid = grid + after(attend(block, normalise(before, grid), own))
        if isinstance(beside, SeparateContext):
            if beside.normed and self.norms_after:
                raise VptError(
                    f"prompts: normed, but {self.spec.name} norms after its attention, nothing before it; "
                    "leave normed out"
                )
            grid = grid + after(attend_apart(block.attn, *asked_apart(before, grid, beside)))
        before, after = self._norms(block.norm2)
        return grid + after(block.mlp(normalise(before, grid)))

    def _norms(self, norm: nn.Module) -> tuple[nn.Module, nn.Module]:
        """What stands before and after a branch with that norm."""
        nothing = nn.Identity()
        return (nothing, norm) if self.norms_after else (norm, nothing)

    def attention_of(self, i: int) -> BlockAttention:
        block: Any = self.encoder.blocks[i]
        before, _ = self._norms(block.norm1)
        return BlockAttention(before, block.attn.qkv, block.attn.num_heads, Unit() if self.norms_after else None)

    def finish(self, tokens: Tokens) -> Features:
        normed = self.encoder.norm(tokens.grid)
        pooled = self.encoder.pool(normed) if self.pooling == "own" else None
        return Features(grid=normed.permute(0, 3, 1, 2), prefix=tokens.prefix, pooled=pooled)


def _describe(block: Any) -> BlockSpec:
    """What enters a block of timm's."""
    rows, columns = block.input_resolution
    windowed = block.window_size[0] < rows or block.window_size[1] < columns
    return BlockSpec(block.dim, block.attn.num_heads, (rows, columns), windowed)
