"""Swin's attention: in windows, every second time in shifted ones, with prompts as keys and values in each of them.

A shift rolls the grid, so that windows at its end hold patches from both sides, which a mask keeps apart. Prompts are
of no side and have no place: no mask hides them and no bias is added to their columns.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import window_partition, window_reverse
from timm.models.swin_transformer_v2 import WindowAttention as CosineAttention
from timm.models.swin_transformer_v2_cr import WindowMultiHeadAttention as OtherCosineAttention
from torch import Tensor, nn

from vpt.backbones.attention import keys_and_values, project_queries, split_heads
from vpt.backbones.biased import mix_biased, with_prompts
from vpt.backbones.tokens import KeysValues

COSINE = (CosineAttention, OtherCosineAttention)
SHARPEST = math.log(100)  # of what v2 learns for each head: its cosines are multiplied by 100 at most


class Unit(nn.Module):
    """Vectors (..., d) -> the same directions, 1 long."""

    def forward(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1)


def attend(
    block: Any, grid: Tensor, beside: KeysValues | None, travelling: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """What tokens (B, H, W, C), normed where the block norms before, gather in its windows, (B, H, W, C).

    block: timm's own; beside: keys and values of prompts, the same in every window of an image; travelling: prompts
    (B, P, C), normed likewise, that are tokens of every window: what each gathers is the mean over the windows (B, P,
    C), None without any.
    """
    size, window, shift = grid.shape[1:3], block.window_size, block.shift_size
    shifted = grid.roll((-shift[0], -shift[1]), (1, 2)) if any(shift) else grid
    padded = F.pad(shifted, (0, 0, 0, -size[1] % window[1], 0, -size[0] % window[0]))
    hidden = block.get_attn_mask(padded) if block.dynamic_mask else block.attn_mask
    tokens, batch = window_partition(padded, window).flatten(1, 2), len(grid)
    count = 0
    if travelling is not None:
        count = travelling.shape[1]
        tokens = torch.cat([travelling.repeat_interleave(len(tokens) // batch, 0), tokens], 1)
    mixed = _attend_in(block.attn, tokens, beside, hidden, batch, count)
    gathered = None
    if travelling is not None:
        own, mixed = mixed.split([count, mixed.shape[1] - count], 1)
        gathered = block.attn.proj(own.unflatten(0, (batch, -1)).mean(1))
    merged = window_reverse(mixed.unflatten(1, window), window, padded.shape[1], padded.shape[2])
    merged = merged[:, : size[0], : size[1]]
    return block.attn.proj(merged.roll(tuple(shift), (1, 2)) if any(shift) else merged), gathered


def _attend_in(
    attention: Any, windows: Tensor, beside: KeysValues | None, hidden: Tensor | None, batch: int, first: int
) -> Tensor:
    """What windows (B * W, P + N, C), all of an image in a row, gather of themselves and its prompts, unprojected.

    hidden: (W, N, N), what is added to hide patches of the other side; None where there are none; first: P, how many
    tokens of a window are no patches.
    """
    queries, keys, values = split_heads(attention.qkv(windows), attention.num_heads, 3)
    queries, keys = _scaled(attention, queries), _direction(attention, keys)
    bias = position_bias(attention)
    if hidden is not None:
        bias = bias + hidden.unsqueeze(1)
    behind = 0
    if beside is not None:
        keys, values = with_prompts(keys, beside.keys, batch), with_prompts(values, beside.values, batch)
        behind = beside.keys.shape[2]
    if first or behind:
        bias = F.pad(bias, (first, behind, first, 0))
    return mix_biased(queries, keys, values, bias).transpose(1, 2).flatten(2)


def attend_apart(attention: Any, grid: Tensor, context: Tensor) -> Tensor:
    """Attention of tokens (B, H, W, C) to the context (P, C) or (B, P, C) alone, as `asked_apart` gives them."""
    (queries,) = split_heads(project_queries(attention.qkv, grid.flatten(1, 2)), attention.num_heads, 1)
    keys, values = keys_and_values(attention.qkv, attention.num_heads, context)
    keys, values = _direction(attention, keys).to(queries.dtype), values.to(queries.dtype)
    weights = (_scaled(attention, queries) @ keys.mT).softmax(-1)
    return attention.proj((weights.to(values.dtype) @ values).transpose(1, 2).reshape(*grid.shape[:3], -1))


def _scaled(attention: Any, queries: Tensor) -> Tensor:
    """Queries (..., heads, N, d) whose products with keys go into the softmax."""
    if isinstance(attention, COSINE):
        scale = attention.logit_scale.view(-1, 1, 1).clamp(max=SHARPEST).exp()
        return F.normalize(queries, dim=-1) * scale
    return queries * attention.scale


def _direction(attention: Any, keys: Tensor) -> Tensor:
    return F.normalize(keys, dim=-1) if isinstance(attention, COSINE) else keys


def position_bias(attention: Any) -> Tensor:
    """(1, heads, N, N): what is added for every pair of patches of a window, by where one lies from the other."""
    if isinstance(attention, OtherCosineAttention):
        return attention._relative_positional_encodings()
    if not isinstance(attention, CosineAttention):
        return attention._get_rel_pos_bias()
    table = attention.cpb_mlp(attention.relative_coords_table).view(-1, attention.num_heads)
    pairs = table[attention.relative_position_index]
    return 16 * torch.sigmoid(pairs.permute(2, 0, 1)).unsqueeze(0)


def merge_biases(attention: Any) -> None:
    """v2 adds biases of its own to the product of `qkv`, none to keys: the same sum as a bias of `qkv`, in place."""
    if getattr(attention, "q_bias", None) is None:
        return
    bias = torch.cat([attention.q_bias, torch.zeros_like(attention.q_bias), attention.v_bias]).detach()
    attention.qkv.bias = nn.Parameter(bias, requires_grad=attention.q_bias.requires_grad)
    attention.q_bias = attention.k_bias = attention.v_bias = None
