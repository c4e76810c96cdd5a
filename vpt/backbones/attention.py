"""Attention in which prompts are keys and values only.

VPT-deep (Jia et al., ECCV 2022, section 3.2) replaces the prompts before every block, so what a block computes for them
(queries, projection, MLP) is thrown away. Only their keys and values reach the image tokens. Leaving the rest out is
the published method at less cost: the same sums, up to rounding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.layers import Attention
from torch import Tensor


def keys_and_values(attention: Attention, context: Tensor) -> tuple[Tensor, Tensor]:
    """Normed context (P, C) or (B, P, C) -> keys and values (1 or B, heads, P, head_dim) each."""
    width = attention.attn_dim
    bias = None if attention.qkv.bias is None else attention.qkv.bias[width:]
    projected = F.linear(context, attention.qkv.weight[width:], bias)
    if projected.ndim == 2:
        projected = projected.unsqueeze(0)
    batch, count, _ = projected.shape
    keys, values = projected.view(batch, count, 2, attention.num_heads, attention.head_dim).permute(2, 0, 3, 1, 4)
    return attention.k_norm(keys), values


def attend(attention: Attention, tokens: Tensor, context: Tensor) -> Tensor:
    """timm's self-attention over normed tokens (B, N, C) with the normed context beside them -> (B, N, C)."""
    batch, count, _ = tokens.shape
    qkv = attention.qkv(tokens).view(batch, count, 3, attention.num_heads, attention.head_dim).permute(2, 0, 3, 1, 4)
    queries, keys, values = qkv.unbind(0)
    queries, keys = attention.q_norm(queries), attention.k_norm(keys)
    prompt_keys, prompt_values = keys_and_values(attention, context)
    keys = torch.cat([prompt_keys.expand(batch, -1, -1, -1), keys], dim=2)
    values = torch.cat([prompt_values.expand(batch, -1, -1, -1), values], dim=2)
    mixed = mix_values(queries, keys, values)
    mixed = attention.norm(mixed.transpose(1, 2).reshape(batch, count, attention.attn_dim))
    if attention.gate is not None:
        mixed = mixed * attention.gate(tokens).sigmoid()
    return attention.proj_drop(attention.proj(mixed))


def mix_values(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v over (B, heads, N, d), in the form that is fastest where it runs.

    torch's fused kernel, except in bfloat16 on a CPU, where its backward takes two to five times as long as plain
    products.
    """
    if queries.device.type == "cpu" and queries.dtype == torch.bfloat16:
        scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-2, -1)
        return scores.softmax(-1) @ values
    return F.scaled_dot_product_attention(queries, keys, values)
