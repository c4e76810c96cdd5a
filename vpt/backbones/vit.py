"""Adapter over timm's `VisionTransformer`: its own modules and weights, taken apart at the blocks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from timm.layers import HybridEmbed, PatchEmbed
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from vpt.backbones.base import BlockAttention, Level, Pool, norms_nothing_before, uniform_blocks, whole_patches
from vpt.backbones.pieces import is_half
from vpt.backbones.refused import refusal
from vpt.backbones.timm_model import Layout, Pooling, TimmBackbone
from vpt.backbones.tokens import Context, Features, Keep, SeparateContext, Tokens
from vpt.backbones.vit_blocks import BlockForm, form_of, odd_parts
from vpt.errors import VptError

POOLS: dict[str, Pool] = {"token": "cls", "map": "attention"}  # timm's names; all others are means of the patches


class PlainBackbone(TimmBackbone):
    """What timm's plain encoders have in common: patches of one grid, blocks of one width, norm and pooling."""

    vit: Any

    def take(self, model: Any) -> Layout:
        self.vit = model.eval()
        (height, width), (rows, columns) = self.size_of(model), self.patch_of(model)
        grid = (height // rows, width // columns)
        reg_token = getattr(model, "reg_token", None)
        registers = 0 if reg_token is None else reg_token.shape[1]
        return Layout(
            uniform_blocks(len(model.blocks), model.embed_dim, self.heads_of(model.blocks[0]), grid),
            Level(model.embed_dim, grid),
            pool_of(model, model.num_prefix_tokens > registers, self.pooling),
            model.num_prefix_tokens,
            registers,
            finishes_prompts=True,
        )

    def takes(self, size: tuple[int, int]) -> bool:
        if size == self.spec.image_size or not getattr(self.vit, "dynamic_img_size", False):
            return size == self.spec.image_size
        return self.vit.patch_embed.dynamic_img_pad or whole_patches(size, self.spec.patch)

    @staticmethod
    def heads_of(block: Any) -> int:
        heads: int = block.attn.num_heads
        return heads

    def patches(self, images: Tensor) -> Tensor:
        patches = self.vit.patch_embed(images)
        size = self.vit.patch_embed.dynamic_feat_size(images.shape[-2:])
        return patches if patches.ndim == 4 else patches.unflatten(1, size)

    def finish(self, tokens: Tokens) -> Features:
        vit: Any = self.vit
        sequence = vit.norm(join(tokens))
        normed = parts_like(tokens, sequence)
        grid = normed.grid.permute(0, 3, 1, 2)
        if self.pooling == "plain":
            return Features(grid=grid, prefix=normed.prefix, prompts=normed.prompts)
        pooled = None
        if self.spec.pool != "cls" and normed.grid.numel():
            if tokens.prompts.shape[1]:
                sequence = torch.cat([normed.prefix, normed.grid.flatten(1, 2)], 1)
            pooled = vit.fc_norm(self.pool(sequence))
        prefix, prompts = vit.fc_norm(normed.prefix), vit.fc_norm(normed.prompts)
        return Features(grid=grid, prefix=prefix, pooled=pooled, prompts=prompts)

    def pool(self, sequence: Tensor) -> Tensor:
        """Finished tokens (B, R + H*W, C) -> one vector (B, C), by the model's own way."""
        vit: Any = self.vit
        if isinstance(vit, VisionTransformerDistilled):
            return sequence[:, : vit.num_prefix_tokens].mean(1)
        return vit.pool(sequence)


class VitBackbone(PlainBackbone):
    """Any timm `VisionTransformer`: with or without CLS, registers, layer scale, qk-norm, pre-norm.

    Its blocks are of a kind in `vit_blocks.FORMS`: norms before or after attention and MLP, several of them at once, or
    both side by side. Its patches may come from a convolutional net (hybrids), which is frozen as all the rest.

    A block without context is timm's own call, so with no prompts the output equals timm's bit for bit (except in
    bfloat16 on a CPU, where timm's attention would be slow, see `mix_values`: there up to rounding).
    """

    vit: VisionTransformer

    @staticmethod
    def patch_of(model: Any) -> tuple[int, int]:
        height, width = model.patch_embed.feat_ratio(as_scalar=False)
        return height, width

    def embed(self, images: Tensor) -> Tokens:
        patches = self.vit.patch_embed(images)
        sequence = self.vit.norm_pre(self.vit.patch_drop(self.vit._pos_embed(patches)))
        grid = self.vit.patch_embed.dynamic_feat_size(images.shape[-2:])
        return Tokens.parts_of(sequence, self.spec.prefix, 0, grid)

    def take(self, model: VisionTransformer) -> Layout:
        layout = super().take(model)
        self.norms_after = form_of(self.vit.blocks[0]).norms_after
        each = zip(layout.blocks, self.vit.blocks, strict=True)
        blocks = (replace(own, branches=form_of(block).branches(block)) for own, block in each)
        return replace(layout, blocks=tuple(blocks))

    @staticmethod
    def heads_of(block: Any) -> int:
        return form_of(block).attention_of(block).heads

    def block(self, i: int, tokens: Tokens, context: Context | None, keep: Keep = "all") -> Tokens:
        block: Any = self.vit.blocks[i]
        sequence, form = join(tokens), form_of(block)
        one_row = keep == "first" and self.spec.has_cls
        if context is None and not one_row and not is_half(sequence):
            return parts_like(tokens, block(sequence))
        beside = self.project(i, context) if isinstance(context, Tensor) else context
        if isinstance(beside, SeparateContext):
            self._require_apart(beside, form)
        after = form.run(block, sequence, beside, 1 if one_row else sequence.shape[1])
        return parts_like(only_first(tokens) if one_row else tokens, after)

    def _require_apart(self, context: SeparateContext, form: BlockForm) -> None:
        """Raise VptError unless its blocks have a place for such a context."""
        if not form.takes_apart:
            raise VptError(
                f"prompts: cross, but {self.spec.name} runs attention and MLP side by side, so nothing comes between "
                "them; choose deep, shallow or additive prompts"
            )
        if context.normed and form.norms_after:
            raise norms_nothing_before(self.spec)

    def attention_of(self, i: int) -> BlockAttention:
        block = self.vit.blocks[i]
        return form_of(block).attention_of(block)

    @staticmethod
    def require_supported(model: Any, name: str) -> None:
        require_standard_blocks(model, name)


def pool_of(vit: Any, has_cls: bool, pooling: Pooling) -> Pool:
    """How timm's model makes one vector of an image; "plain": see `VitBackbone`."""
    if pooling == "plain":
        return "cls" if has_cls else "mean"
    if isinstance(vit, VisionTransformerDistilled):
        return "tokens"
    return POOLS.get(vit.global_pool, "mean")


def require_standard_blocks(model: Any, name: str) -> None:
    """Raise VptError unless `model` is a timm VisionTransformer of blocks that there is a form for."""
    found = type(model).__name__
    if type(model) in (VisionTransformer, VisionTransformerDistilled):
        odd = odd_parts(model.blocks)
        odd |= {type(model.patch_embed).__name__} - {PatchEmbed.__name__, HybridEmbed.__name__}
        if not odd:
            return
        found = f"{found} with {', '.join(sorted(odd))}"
    raise refusal(model, found, name)


def join(tokens: Tokens) -> Tensor:
    """Tokens -> one sequence (B, R + P + H*W, C): CLS and registers, prompts, patches, as published."""
    if tokens.sequence is not None:
        return tokens.sequence
    return torch.cat([tokens.prefix, tokens.prompts, tokens.grid.flatten(1, 2)], dim=1)


def parts_like(tokens: Tokens, sequence: Tensor) -> Tokens:
    """The sequence taken apart as those tokens are."""
    return Tokens.parts_of(sequence, tokens.prefix.shape[1], tokens.prompts.shape[1], grid_of(tokens))


def grid_of(tokens: Tokens) -> tuple[int, int]:
    """(rows, columns) of their patches."""
    rows, columns = tokens.grid.shape[1:3]
    return rows, columns


def only_first(tokens: Tokens) -> Tokens:
    """Tokens of these shapes, but for one row of the prefix nothing: (B, 0, 0, C), (B, 1, C), (B, 0, C)."""
    return replace(tokens, grid=tokens.grid[:, :0, :0], prefix=tokens.prefix[:, :1], prompts=tokens.prompts[:, :0])
