"""Adapter over timm's `Eva`: EVA, EVA-02, DINOv3, Perception Encoder and the ViTs with rotary positions.

Rotary positions turn queries and keys of patches by where they lie. CLS and register tokens are not turned, and nor are
prompts, which have no place either.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import AttentionRope, apply_rot_embed_cat
from timm.models.eva import Eva, EvaAttention, EvaBlock, EvaBlockPostNorm
from torch import Tensor, nn

from vpt.backbones.attention import asked_apart, gather, mix_values, project_keys_values, project_queries, split_heads
from vpt.backbones.base import BlockAttention, norms_nothing_before
from vpt.backbones.feed_forward import feed_forward
from vpt.backbones.pieces import is_half, normalise, runs_in_pieces
from vpt.backbones.tokens import Context, Keep, KeysValues, SeparateContext, Tokens
from vpt.backbones.vit import PlainBackbone, grid_of, join, only_first, parts_like
from vpt.errors import VptError


class EvaBackbone(PlainBackbone):
    """timm's `Eva`: with or without CLS, registers, absolute and rotary positions, layer scale; norms before or after.

    A block without context is timm's own call, so with no prompts the output equals timm's bit for bit (except in
    bfloat16 on a CPU, see `VitBackbone`). Biases that timm keeps apart from their projection become part of it.

    Prompts are keys and values under the block's own softmax. Their keys are not turned, like those of the CLS token,
    whatever the patch that asks. Attended to apart (`SeparateContext`), neither side is turned. Where several heads
    share keys and values (grouped queries), a prompt's are those of the group, once for each of its heads.
    """

    vit: Eva

    def __init__(self, vit: Eva, **about: Any):
        super().__init__(vit, **about)
        blocks: Any = self.vit.blocks
        self.norms_after = type(blocks[0]) is EvaBlockPostNorm
        for block in blocks:
            merge_biases(block.attn)
        self._turns: dict[str, Tensor] = {}

    def embed(self, images: Tensor) -> Tokens:
        sequence, _ = self.vit._pos_embed(self.vit.patch_embed(images))
        height, width = images.shape[-2:]
        grid = self.vit.patch_embed.dynamic_feat_size((height, width))
        return Tokens.parts_of(self.vit.norm_pre(sequence), self.spec.prefix, 0, grid)

    def block(self, i: int, tokens: Tokens, context: Context | None, keep: Keep = "all") -> Tokens:
        block: Any = self.vit.blocks[i]
        sequence, rope = join(tokens), self.rope(i, grid_of(tokens))
        unturned = self.spec.prefix + tokens.prompts.shape[1]
        one_row = keep == "first" and self.spec.has_cls
        if context is None and unturned == self.spec.prefix and not one_row and not is_half(sequence):
            return parts_like(tokens, block(sequence, rope=rope))
        beside = self.project(i, context) if isinstance(context, Tensor) else context
        before = _norm_before(block)
        entering = normalise(before, sequence)
        if one_row:
            sequence, tokens = sequence[:, :1], only_first(tokens)
        own = beside if isinstance(beside, KeysValues) else None
        mixed = attend(block.attn, entering, own, sequence.shape[1], rope, unturned)
        sequence = sequence + _first_branch(block, mixed)
        if isinstance(beside, SeparateContext):
            if beside.normed and self.norms_after:
                raise norms_nothing_before(self.spec)
            mixed = attend_apart(block.attn, *asked_apart(before, sequence, beside))
            sequence = sequence + _first_branch(block, mixed)
        return parts_like(tokens, sequence + _second_branch(block, sequence))

    def rope(self, i: int, grid: tuple[int, int] | None = None) -> Tensor | None:
        """How block `i` turns each patch, as timm gives it; None where positions are in the tokens alone.

        grid: (rows, columns) of the patches, those of the encoder's own image where none is given. Where timm's model
        takes images of any size its turns follow the image, else they are those of its own size.
        """
        rope: Any = self.vit.rope
        if rope is None:
            return None
        grid = grid or self.spec.finished.grid
        if self.vit.rope_mixed:
            return self._of_all_blocks(rope, grid)[i]
        shape = None if getattr(rope, "feat_shape", None) is not None else list(grid)
        return rope.get_embed() if shape is None else rope.get_embed(shape=shape)

    def _of_all_blocks(self, rope: Any, grid: tuple[int, int]) -> Tensor:
        """Learned turns, which differ from block to block: made of all at once, and kept as long as they stay."""
        learned = rope.freqs
        if torch.compiler.is_compiling() or (learned.requires_grad and torch.is_grad_enabled()):
            return rope.get_embed(shape=list(grid))
        key = f"{grid} {learned.device} {learned.data_ptr()} {learned._version}"
        if key not in self._turns:
            self._turns.clear()
            with torch.inference_mode(False), torch.no_grad():  # training may use what inference made
                self._turns[key] = rope.get_embed(shape=list(grid))
        return self._turns[key]

    def attention_of(self, i: int) -> BlockAttention:
        block: Any = self.vit.blocks[i]
        qkv = Apart(block.attn) if block.attn.qkv is None else block.attn.qkv
        return BlockAttention(_norm_before(block), qkv, block.attn.num_heads, block.attn.k_norm, block.attn.q_norm)

    @staticmethod
    def require_supported(model: Any, name: str) -> None:
        require_rotary_blocks(model, name)


class Apart(nn.Module):
    """Projections that timm keeps apart, as one: tokens (..., C) -> queries, keys and values (..., 3 * heads * d).

    Keys and values of a group of heads are there once for each of them.
    """

    def __init__(self, attention: Any):
        super().__init__()
        self.projections = nn.ModuleList([attention.q_proj, attention.k_proj, attention.v_proj])
        self.shared_by, self.depth = heads_of_a_group(attention), attention.head_dim

    def forward(self, tokens: Tensor) -> Tensor:
        queries, *others = (project(tokens) for project in self.projections)
        return torch.cat([queries, *map(self._of_all_heads, others)], -1)

    def _of_all_heads(self, projected: Tensor) -> Tensor:
        if self.shared_by == 1:
            return projected
        return projected.unflatten(-1, (-1, self.depth)).repeat_interleave(self.shared_by, -2).flatten(-2)


def attend(
    attention: Any, tokens: Tensor, beside: KeysValues | None, rows: int, rope: Tensor | None, unturned: int
) -> Tensor:
    """Self-attention of normed tokens (B, N, C), prompts beside them -> its first `rows` (B, rows, C).

    unturned: how many tokens come before the patches.
    """
    batch, heads = tokens.shape[0], attention.num_heads
    (queries,) = split_heads(queries_of(attention, tokens[:, :rows]), heads, 1)
    keys, values = split_heads(keys_values_of(attention, tokens), heads // heads_of_a_group(attention), 2)
    half = attention.rotate_half
    queries = turned(attention.q_norm(queries), rope, unturned, half).type_as(values)
    keys = turned(attention.k_norm(keys), rope, unturned, half).type_as(values)
    keys, values = for_all_heads(attention, keys, values)
    if beside is not None:
        keys = torch.cat([beside.keys.to(keys.dtype).expand(batch, -1, -1, -1), keys], 2)
        values = torch.cat([beside.values.to(values.dtype).expand(batch, -1, -1, -1), values], 2)
    return gather(attention, tokens[:, :rows], mix_values(queries, keys, values))


def attend_apart(attention: Any, tokens: Tensor, context: Tensor) -> Tensor:
    """Attention of tokens (B, N, C) to the context (P, C) or (B, P, C) alone -> (B, N, C)."""
    batch, heads = tokens.shape[0], attention.num_heads
    (queries,) = split_heads(queries_of(attention, tokens), heads, 1)
    keys, values = split_heads(keys_values_of(attention, context), heads // heads_of_a_group(attention), 2)
    keys, values = for_all_heads(attention, attention.k_norm(keys), values)
    keys, values = keys.expand(batch, -1, -1, -1), values.expand(batch, -1, -1, -1)
    return gather(attention, tokens, mix_values(attention.q_norm(queries), keys, values))


def queries_of(attention: Any, tokens: Tensor) -> Tensor:
    """Normed tokens (..., C) -> (..., heads * d)."""
    return attention.q_proj(tokens) if attention.qkv is None else project_queries(attention.qkv, tokens)


def keys_values_of(attention: Any, tokens: Tensor) -> Tensor:
    """Normed tokens (..., C) -> keys and values (..., 2 * groups * d), of groups of heads that share them."""
    if attention.qkv is None:
        return torch.cat([attention.k_proj(tokens), attention.v_proj(tokens)], -1)
    return project_keys_values(attention.qkv, tokens)


def heads_of_a_group(attention: Any) -> int:
    """How many heads share keys and values; 1 where each has its own."""
    return getattr(attention, "num_kv_groups", 1)


def for_all_heads(attention: Any, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values (B, groups, N, d) -> (B, heads, N, d), those of a group once for each of its heads."""
    shared_by = heads_of_a_group(attention)
    if shared_by == 1:
        return keys, values
    return keys.repeat_interleave(shared_by, 1), values.repeat_interleave(shared_by, 1)


def turned(heads: Tensor, rope: Tensor | None, unturned: int, half: bool) -> Tensor:
    """Queries or keys (B, heads, N, d), those after the first `unturned` by the place of their patch."""
    if rope is None or heads.shape[2] <= unturned:
        return heads
    if half and heads.dtype == torch.bfloat16 and runs_in_pieces(heads):
        return _turned_image_by_image(heads, rope, unturned)
    patches = apply_rot_embed_cat(heads[:, :, unturned:], rope, half=half)
    return torch.cat([heads[:, :, :unturned], patches], 2)


def _turned_image_by_image(heads: Tensor, rope: Tensor, unturned: int) -> Tensor:
    """The same sums in float32, in the processor's cache: x cos + (-x2, x1) sin of the halves x1, x2 of every head."""
    (sin, cos), middle = rope.chunk(2, -1), heads.shape[-1] // 2
    out = torch.empty_like(heads)
    out[:, :, :unturned] = heads[:, :, :unturned]
    for own, place in zip(heads[:, :, unturned:], out[:, :, unturned:], strict=True):
        x = own.float()
        found = x * cos
        found[..., :middle].addcmul_(x[..., middle:], sin[..., :middle], value=-1)
        found[..., middle:].addcmul_(x[..., :middle], sin[..., middle:])
        place.copy_(found)
    return out


def require_rotary_blocks(model: Any, name: str) -> None:
    """Raise VptError unless `model` is a timm Eva whose blocks this adapter takes apart."""
    known = (EvaBlock, EvaBlockPostNorm)
    odd = {type(block).__name__ for block in model.blocks if type(block) not in known}
    kinds = [type(block.attn) for block in model.blocks if type(block) in known]
    odd |= {kind.__name__ for kind in kinds if kind not in (EvaAttention, AttentionRope)}
    if odd:
        raise VptError(
            f"backbone {name}: Eva with {', '.join(sorted(odd))} is not supported; choose one of timm's own blocks, "
            "for example eva02_small_patch14_224 or vit_small_patch16_dinov3"
        )


def merge_biases(attention: Any) -> None:
    """`EvaAttention` adds biases of its own to the product of `qkv`: the same sum as a bias of `qkv`, in place."""
    if getattr(attention, "q_bias", None) is None or attention.qkv is None:
        return
    bias = torch.cat([attention.q_bias, attention.k_bias, attention.v_bias]).detach()
    attention.qkv.bias = nn.Parameter(bias, requires_grad=attention.q_bias.requires_grad)
    attention.q_bias = attention.v_bias = None


def scaled(gamma: Tensor | None, branch: Tensor) -> Tensor:
    """A branch under the block's layer scale, where it has one."""
    return branch if gamma is None else gamma * branch


# --- the two kinds of blocks ------------------------------------------------------------------------------------------


def _scale(block: Any, branch: int) -> Tensor | None:
    return getattr(block, f"gamma_{branch}", None)


def _norm_before(block: Any) -> nn.Module:
    return nn.Identity() if type(block) is EvaBlockPostNorm else block.norm1


def _first_branch(block: Any, mixed: Tensor) -> Tensor:
    after = block.norm1(mixed) if type(block) is EvaBlockPostNorm else scaled(_scale(block, 1), mixed)
    return block.drop_path1(after)


def _second_branch(block: Any, sequence: Tensor) -> Tensor:
    if type(block) is EvaBlockPostNorm:
        return block.drop_path2(block.norm2(feed_forward(block.mlp, sequence)))
    return block.drop_path2(scaled(_scale(block, 2), feed_forward(block.mlp, normalise(block.norm2, sequence))))
