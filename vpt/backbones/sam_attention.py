"""Attention of Segment Anything's image encoder, in windows or over the whole image, with prompts beside the patches.

Patches have a decomposed bias for relative positions (Li et al., MViTv2, CVPR 2022, section 4.1). Prompts have no
position, so their columns have no bias.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from segment_anything.modeling.image_encoder import (
    add_decomposed_rel_pos,
    get_rel_pos,
    window_partition,
    window_unpartition,
)
from torch import Tensor

from vpt.backbones.attention import keys_and_values, mix_values, project_queries, split_heads
from vpt.backbones.tokens import KeysValues

Arithmetic = Literal["fused", "original"]
Pair = tuple[Tensor, Tensor]  # keys and values, (B, heads, N, head_dim) each
PART = 2**20  # elements of queries at a time, without a backward pass


def attend(
    attention: Any,
    patches: Tensor,
    prompts: Tensor,
    context: KeysValues | None,
    arithmetic: Arithmetic,
    window: int = 0,
) -> tuple[Tensor, Tensor]:
    """Attention of one block over normed tokens -> what patches and prompts gather, of the same shapes.

    The original pads the normed patches with zeros up to whole windows, and projects the padding with the rest. What a
    projection makes of zeros is known, so only real patches go through it.

    Args:
        attention: SAM's own module.
        patches: (B, H, W, C); or windows (B * windows, H, W, C) already, an image's in a row.
        prompts: (B, P, C) that travel: copied into every window of their image; what the copies gather is averaged over
            the windows. P may be 0.
        context: keys and values of prompts that are nothing else, or None.
        arithmetic: "original" adds the bias to a map of scores as SAM does; "fused" never forms that map.
        window: side of the windows in patches; 0 for none.
    """
    size, patches = patches.shape[1:3], attention.qkv(patches)  # each step takes the name, and with it the memory
    if window == 0:
        mixed, prompts = _mix(attention, patches, prompts, context, arithmetic)
        return attention.proj(mixed), prompts
    padded = (size[0] + -size[0] % window, size[1] + -size[1] % window)
    if padded != tuple(size):
        padding = attention.qkv(patches.new_zeros(1, patches.shape[-1] // 3))
        whole = padding.expand(len(patches), *padded, -1).contiguous()
        whole[:, : size[0], : size[1]] = patches
        patches = whole
        del whole
    patches, _ = window_partition(patches, window)
    mixed, prompts = _mix(attention, patches, prompts, context, arithmetic)
    return attention.proj(window_unpartition(mixed, window, padded, size)), prompts


def _mix(
    attention: Any, projected: Tensor, prompts: Tensor, context: KeysValues | None, arithmetic: Arithmetic
) -> tuple[Tensor, Tensor]:
    """Queries, keys and values of windows (B * windows, H, W, 3 C) -> mixed values, which `attention.proj` still lacks.

    Prompts (B, P, C) come as in `attend` and leave with theirs behind them.
    """
    count, height, width, _ = projected.shape
    batch, travelling = prompts.shape[:2]
    queries, keys, values = split_heads(projected.flatten(1, 2), attention.num_heads, 3)
    beside: list[Pair] = []
    if context is not None:
        beside.append((context.keys.to(keys.dtype), context.values.to(keys.dtype)))
    if travelling:
        moving, *own = split_heads(attention.qkv(prompts), attention.num_heads, 3)
        beside.append((own[0], own[1]))
    extra = _copies(beside, batch, count // batch) if beside else None
    mixed = _mix_by_parts(attention, queries, keys, values, extra, arithmetic, (height, width))
    if not travelling or extra is None:
        return mixed, prompts
    moving = moving.repeat_interleave(count // batch, 0)
    seen = mix_values(moving, torch.cat([keys, extra[0]], 2), torch.cat([values, extra[1]], 2))
    seen = seen.unflatten(0, (batch, -1)).mean(1)
    return mixed, attention.proj(seen.transpose(1, 2).flatten(2))


def attend_apart(attention: Any, tokens: Tensor, context: Tensor) -> Tensor:
    """Attention of tokens (B, ..., C) to the context (E, C) or (B, E, C) alone -> the tokens' shape."""
    batch = tokens.shape[0]
    (queries,) = split_heads(project_queries(attention.qkv, tokens.flatten(1, -2)), attention.num_heads, 1)
    keys, values = keys_and_values(attention.qkv, attention.num_heads, context)
    mixed = mix_values(queries, keys.expand(batch, -1, -1, -1), values.expand(batch, -1, -1, -1))
    return attention.proj(mixed.transpose(1, 2).reshape(tokens.shape))


def _copies(beside: list[Pair], batch: int, windows: int) -> Pair:
    """Keys and values of prompts (1 or B, heads, E, d), one copy for each window (B * windows, heads, sum of E, d)."""
    keys, values = (
        torch.cat([pair[part].expand(batch, -1, -1, -1) for pair in beside], 2).repeat_interleave(windows, 0)
        for part in (0, 1)
    )
    return keys, values


def _mix_by_parts(
    attention: Any,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    extra: Pair | None,
    arithmetic: Arithmetic,
    size: tuple[int, int],
) -> Tensor:
    """Mixed values (B * windows, H, W, C) of queries, keys and values (B * windows, heads, HW, d).

    Without a backward pass, so many heads at a time that what is made for them only stays small.
    """
    mix = _mix_fused if arithmetic == "fused" else _mix_original
    count, heads, length, depth = queries.shape
    if torch.is_grad_enabled():
        mixed = mix(attention, queries, keys, values, extra, size).transpose(1, 2)
    else:
        mixed = queries.new_empty(count, length, heads, depth)
        step = max(1, PART * heads // queries.numel())
        for first in range(0, heads, step):
            part = slice(first, first + step)
            beside = None if extra is None else (extra[0][:, part], extra[1][:, part])
            found = mix(attention, queries[:, part], keys[:, part], values[:, part], beside, size)
            mixed[:, :, part] = found.transpose(1, 2)
    return mixed.reshape(count, *size, -1)


def _mix_original(
    attention: Any, queries: Tensor, keys: Tensor, values: Tensor, extra: Pair | None, size: tuple[int, int]
) -> Tensor:
    """SAM's own sums, over the map of scores (B * heads, HW, HW + E)."""
    shape, queries = queries.shape, queries.flatten(0, 1)
    scores = (queries * attention.scale) @ keys.flatten(0, 1).transpose(-2, -1)
    if attention.use_rel_pos:
        scores = add_decomposed_rel_pos(scores, queries, attention.rel_pos_h, attention.rel_pos_w, size, size)
    if extra is not None:
        beside = (queries * attention.scale) @ extra[0].flatten(0, 1).transpose(-2, -1)
        scores, values = torch.cat([scores, beside], -1), torch.cat([values, extra[1]], 2)
    return (scores.softmax(-1) @ values.flatten(0, 1)).view(shape)


def _mix_fused(
    attention: Any, queries: Tensor, keys: Tensor, values: Tensor, extra: Pair | None, size: tuple[int, int]
) -> Tensor:
    """The same by plain attention: the bias of row and column is one more product, of the query and a one-hot key.

    q' = [q / sqrt(d), q . R_rows, q . R_columns] and k' = [k, onehot(row), onehot(column)], with zeros for prompts.
    """
    height, width = size
    scaled = queries * attention.scale
    if attention.use_rel_pos:
        grid = queries.unflatten(2, size)
        rows = torch.einsum("bnhwc,hkc->bnhwk", grid, get_rel_pos(height, height, attention.rel_pos_h)).flatten(2, 3)
        columns = torch.einsum("bnhwc,wkc->bnhwk", grid, get_rel_pos(width, width, attention.rel_pos_w)).flatten(2, 3)
        scaled = torch.cat([scaled, rows, columns], -1)
        keys = torch.cat([keys, _places(height, width, keys).expand(*keys.shape[:2], -1, -1)], -1)
    if extra is not None:
        keys = torch.cat([keys, F.pad(extra[0], (0, keys.shape[-1] - extra[0].shape[-1]))], 2)
        values = torch.cat([values, extra[1]], 2)
    return mix_values(scaled, keys, values, scale=1.0)


def _places(height: int, width: int, like: Tensor) -> Tensor:
    """(H * W, H + W): one-hot row and column of every patch."""
    rows = torch.eye(height, dtype=like.dtype, device=like.device).repeat_interleave(width, 0)
    columns = torch.eye(width, dtype=like.dtype, device=like.device).repeat(height, 1)
    return torch.cat([rows, columns], -1)
