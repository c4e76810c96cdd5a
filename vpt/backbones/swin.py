"""Adapter over timm's Swin transformers, v1 and v2 in both writings: their own modules, taken apart at the blocks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from operator import attrgetter
from typing import Any

from timm.layers import to_2tuple
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from timm.models.swin_transformer_v2 import SwinTransformerV2Block
from timm.models.swin_transformer_v2_cr import SwinTransformerV2CrBlock
from torch import Tensor, nn

from vpt.backbones.attention import asked_apart
from vpt.backbones.base import BlockAttention, BlockSpec, Level, cannot_travel, norms_nothing_before
from vpt.backbones.feed_forward import feed_forward
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

    def __init__(self, swin: Any, stages: Any, norm: nn.Module):
        super().__init__()
        for stage, following in pairwise(stages):
            stage.blocks[-1].downsample = following.downsample
        self.patch_embed = swin.patch_embed
        self.blocks = nn.ModuleList(block for stage in stages for block in stage.blocks)
        self.norm = norm
        self.pool = swin.head.global_pool


class SwinBackbone(StagedBackbone):
    """Swin (Liu et al., ICCV 2021) and Swin v2 (Liu et al., CVPR 2022) of timm, with prompts.

    Blocks are numbered over all stages, and all attend in windows, every second one in shifted ones. Prompts are keys
    and values in every window of an image, under its own softmax: no mask hides them, whatever the shift, and their
    columns have no position bias. What merges patches between two stages belongs to the block before it. A block
    without context is timm's own call, so with no prompts the output equals timm's bit for bit.

    The second version norms what attention and MLP give, not what they take, so prompts go through no norm there; its
    keys are as long as 1, those of prompts too. The biases of its queries and values become part of their projection.

    Prompts that travel (VPT-shallow) are those of the authors' code (Jia et al., ECCV 2022), in the first version
    alone, for which they published it: tokens of every window, of which each window makes another; their mean is what
    comes out of the attention. What merges four patches takes the prompt four times. The code gives a window the
    prompts of another image of the batch, which is left out here: every image has what the code gives it alone.
    """

    stages_of: Callable[[Any], Any] = staticmethod(attrgetter("layers"))
    kinds: tuple[type[nn.Module], ...] = (SwinTransformerBlock, SwinTransformerV2Block)

    def take(self, model: Any) -> Layout:
        self.norms_after = not isinstance(model, SwinTransformer)
        self.encoder = self.encoder_of(model).eval()
        for block in self.encoder.blocks:
            merge_biases(block.attn)
        (height, width), (rows, columns) = self.size_of(model), self.patch_of(model)
        finished = Level(model.num_features, (height // rows, width // columns))
        return Layout(
            tuple(map(_describe, self.encoder.blocks)),
            finished,
            carries_prompts=not self.norms_after,
            embedded=pair(model.patch_embed.patch_size),
        )

    @staticmethod
    def encoder_of(model: Any) -> SwinEncoder:
        return SwinEncoder(model, model.layers, model.norm)

    @classmethod
    def require_supported(cls, model: Any, name: str) -> None:
        """Raise VptError unless `model` is a timm Swin of its own blocks."""
        odd = [type(block) for stage in cls.stages_of(model) for block in stage.blocks]
        odd = [kind for kind in odd if kind not in cls.kinds]
        if odd:
            raise VptError(
                f"backbone {name}: Swin with {odd[0].__name__} is not supported; choose one of standard blocks, for "
                "example swin_tiny_patch4_window7_224"
            )
        if (pooling := model.head.global_pool.pool_type) not in POOLS:
            raise VptError(
                f"backbone {name}: its pooling {pooling!r} does not make a vector as wide as its last stage; "
                f"make it with global_pool {', '.join(POOLS)}"
            )

    @classmethod
    def patch_of(cls, model: Any) -> tuple[int, int]:
        """(height, width) in pixels of a patch of the last stage."""
        height, width = pair(model.patch_embed.patch_size)
        merged = 2 ** (len(cls.stages_of(model)) - 1)
        return height * merged, width * merged

    @staticmethod
    def resize(model: Any, image_size: tuple[int, int]) -> None:
        """Set it to images of that size; windows grow and shrink with the grid."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, on how timm indexes a table that it resizes
            model.set_input_size(img_size=image_size)

    @classmethod
    def wake(cls, model: Any) -> None:
        """Let v2's blocks with random weights add something: they start as nothing at all, by gains of zero."""
        if isinstance(model, SwinTransformer):
            return
        for stage in cls.stages_of(model):
            for block in stage.blocks:
                nn.init.ones_(block.norm1.weight)
                nn.init.ones_(block.norm2.weight)

    def embed(self, images: Tensor) -> Tokens:
        return Tokens.of_grid(self.encoder.patch_embed(images))

    def block(self, i: int, tokens: Tokens, context: Context | None, keep: Keep = "all") -> Tokens:
        block: Any = self.encoder.blocks[i]
        travelling = tokens.prompts if tokens.prompts.shape[1] else None
        if travelling is not None and not self.spec.carries_prompts:
            raise cannot_travel(
                self.spec, "attends in windows, each of which would make another of a prompt, and norms what they make"
            )
        if context is None and travelling is None:
            grid = block(tokens.grid)
        else:
            grid, travelling = self._attend(i, tokens.grid, context, travelling)
        if hasattr(block, "downsample"):
            grid = block.downsample(grid)
            travelling = None if travelling is None else _merged(block.downsample, travelling)
        after = Tokens.of_grid(grid)
        return after if travelling is None else replace(after, prompts=travelling)

    def _attend(
        self, i: int, grid: Tensor, context: Context | None, travelling: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """timm's block, with a context, and with prompts (B, P, C) that travel."""
        block: Any = self.encoder.blocks[i]
        beside = self.project(i, context) if isinstance(context, Tensor) else context
        before, after = self._norms(block.norm1)
        own = beside if isinstance(beside, KeysValues) else None
        entering = None if travelling is None else normalise(before, travelling)
        mixed, gathered = attend(block, normalise(before, grid), own, entering)
        grid = grid + after(mixed)
        if isinstance(beside, SeparateContext):
            if beside.normed and self.norms_after:
                raise norms_nothing_before(self.spec)
            grid = grid + after(attend_apart(block.attn, *asked_apart(before, grid, beside)))
        before, after = self._norms(block.norm2)
        grid = self.behind(block, grid + after(feed_forward(block.mlp, normalise(before, grid))))
        if travelling is None or gathered is None:
            return grid, None
        travelling = travelling + gathered
        return grid, travelling + feed_forward(block.mlp, normalise(before, travelling))

    def behind(self, block: Any, grid: Tensor) -> Tensor:
        """What a block does last of all."""
        return grid

    def _norms(self, norm: nn.Module) -> tuple[nn.Module, nn.Module]:
        """What stands before and after a branch with that norm."""
        nothing = nn.Identity()
        return (nothing, norm) if self.norms_after else (norm, nothing)

    def attention_of(self, i: int) -> BlockAttention:
        block: Any = self.encoder.blocks[i]
        before, _ = self._norms(block.norm1)
        unit = Unit() if self.norms_after else None
        return BlockAttention(before, block.attn.qkv, block.attn.num_heads, unit, unit)

    def finish(self, tokens: Tokens) -> Features:
        normed = self.encoder.norm(tokens.grid)
        pooled = self.encoder.pool(normed) if self.pooling == "own" else None
        return Features(grid=normed.permute(0, 3, 1, 2), prefix=tokens.prefix, pooled=pooled)


class SwinCrBackbone(SwinBackbone):
    """timm's other writing of Swin v2 (`SwinTransformerV2Cr`), with prompts as in `SwinBackbone`.

    An MLP makes its biases of positions from the logarithm of the way alone; some blocks, the last one always, end with
    a norm of their own, so there is none behind them.
    """

    stages_of = staticmethod(attrgetter("stages"))
    kinds = (SwinTransformerV2CrBlock,)

    @staticmethod
    def encoder_of(model: Any) -> SwinEncoder:
        return SwinEncoder(model, model.stages, nn.Identity())

    def embed(self, images: Tensor) -> Tokens:
        return Tokens.of_grid(self.encoder.patch_embed(images).permute(0, 2, 3, 1))

    def behind(self, block: Any, grid: Tensor) -> Tensor:
        return block.norm3(grid)

    def finish(self, tokens: Tokens) -> Features:
        grid = tokens.grid.permute(0, 3, 1, 2)
        pooled = self.encoder.pool(grid) if self.pooling == "own" else None
        return Features(grid=grid, prefix=tokens.prefix, pooled=pooled)


def _merged(merging: Any, prompts: Tensor) -> Tensor:
    """Prompts (B, P, C) -> (B, P, C') by what merges four patches into one: each of the four is the prompt."""
    return merging.reduction(merging.norm(prompts.repeat(1, 1, 4)))


def _describe(block: Any) -> BlockSpec:
    """What enters a block of timm's."""
    rows, columns = block.feat_size if isinstance(block, SwinTransformerV2CrBlock) else block.input_resolution
    windowed = block.window_size[0] < rows or block.window_size[1] < columns
    return BlockSpec(block.dim, block.attn.num_heads, (rows, columns), windowed)


def pair(size: Any) -> tuple[int, int]:
    height, width = to_2tuple(size)
    return height, width
