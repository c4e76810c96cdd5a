"""Attention in which prompts are keys and values only.

VPT-deep (Jia et al., ECCV 2022, section 3.2) replaces the prompts before every block, so what a block computes for them
(queries, projection, MLP) is thrown away. Only their keys and values reach the image tokens. Leaving the rest out is
the published method at less cost: the same sums, up to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Attention
from torch import Tensor, nn

from vpt.backbones.base import FixedContext

LARGEST_MAP = 1100**2  # scores of a head that are kept for the backward pass, 2 MiB in bfloat16
CHUNK = 2**21  # scores at a time in `LeanAttention`, 4 MiB in bfloat16


def keys_and_values(attention: Attention, context: Tensor) -> tuple[Tensor, Tensor]:
    """Normed context (P, C) or (B, P, C) -> keys and values (1 or B, heads, P, head_dim) each."""
    keys, values = split_heads(project_keys_values(attention.qkv, context), attention.num_heads, 2)
    return attention.k_norm(keys), values


def project_keys_values(qkv: nn.Module, context: Tensor) -> Tensor:
    """Normed context (..., C) -> its keys and values (..., 2 * C) by the projection that the patches go through."""
    return _project(qkv, context, slice(1, 3))


def project_queries(qkv: nn.Module, tokens: Tensor) -> Tensor:
    """Normed tokens (..., C) -> their queries (..., C)."""
    return _project(qkv, tokens, slice(0, 1))


def _project(qkv: nn.Module, tokens: Tensor, parts: slice) -> Tensor:
    """A plain Linear's other rows are left out; what tuning has put into its place is called, and its output cut."""
    if type(qkv) is nn.Linear:
        width = len(qkv.weight) // 3
        rows = slice(parts.start * width, parts.stop * width)
        return F.linear(tokens, qkv.weight[rows], None if qkv.bias is None else qkv.bias[rows])
    projected = qkv(tokens)
    width = projected.shape[-1] // 3
    return projected[..., parts.start * width : parts.stop * width]


def key_value_maps(norm: nn.Module, qkv: nn.Module, width: int) -> tuple[Tensor, Tensor]:
    """See `Backbone.key_value_maps`. One-hot tokens have one mean and one deviation, so the norm is linear on them."""
    weight = next(qkv.parameters())
    one_hot = torch.eye(width, dtype=weight.dtype, device=weight.device)
    both = project_keys_values(qkv, norm(one_hot)) - project_keys_values(qkv, norm(torch.zeros_like(one_hot)))
    keys, values = both.chunk(2, dim=-1)
    return keys, values


def attend(attention: Attention, tokens: Tensor, beside: FixedContext | None, rows: int) -> Tensor:
    """timm's self-attention of normed tokens (B, N, C), prompts beside them -> its first `rows` (B, rows, C)."""
    batch = len(tokens)
    apart = beside is not None or rows < tokens.shape[1]  # else a view of the queries keeps all three alive
    if apart and type(attention.qkv) is nn.Linear:
        (queries,) = split_heads(project_queries(attention.qkv, tokens[:, :rows]), attention.num_heads, 1)
        keys, values = split_heads(project_keys_values(attention.qkv, tokens), attention.num_heads, 2)
    else:
        queries, keys, values = split_heads(attention.qkv(tokens), attention.num_heads, 3)
        queries = queries[:, :, :rows]
    queries, keys = attention.q_norm(queries), attention.k_norm(keys)
    if beside is not None:
        keys = torch.cat([beside.keys.to(keys.dtype).expand(batch, -1, -1, -1), keys], dim=2)
        values = torch.cat([beside.values.to(values.dtype).expand(batch, -1, -1, -1), values], dim=2)
    return _gather(attention, tokens[:, :rows], mix_values(queries, keys, values))


def attend_apart(attention: Attention, tokens: Tensor, context: Tensor) -> Tensor:
    """timm's attention of normed tokens (B, N, C) to the normed context alone -> (B, N, C)."""
    batch = len(tokens)
    (queries,) = split_heads(project_queries(attention.qkv, tokens), attention.num_heads, 1)
    keys, values = keys_and_values(attention, context)
    keys, values = keys.expand(batch, -1, -1, -1), values.expand(batch, -1, -1, -1)
    return _gather(attention, tokens, mix_values(attention.q_norm(queries), keys, values))


def _gather(attention: Attention, tokens: Tensor, mixed: Tensor) -> Tensor:
    """What follows timm's softmax: mixed values (B, heads, N, head_dim) of normed tokens (B, N, C) -> (B, N, C)."""
    mixed = attention.norm(mixed.transpose(1, 2).flatten(2))
    if attention.gate is not None:
        mixed = mixed * attention.gate(tokens).sigmoid()
    return attention.proj_drop(attention.proj(mixed))


def split_heads(projected: Tensor, heads: int, parts: int) -> tuple[Tensor, ...]:
    """(B, N, parts * C), or without B, -> `parts` tensors (B or 1, heads, N, head_dim)."""
    if projected.ndim == 2:
        projected = projected.unsqueeze(0)
    batch, count, _ = projected.shape
    return projected.view(batch, count, parts, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)


def mix_values(queries: Tensor, keys: Tensor, values: Tensor, scale: float | None = None) -> Tensor:
    """softmax(scale * q k^T) v over (B, heads, N, d), in the form that is fastest where it runs.

    `scale` is 1 / sqrt(d) unless given; values may be narrower than keys. torch's fused kernel; but in bfloat16 on a
    CPU plain products, if there will be a backward pass (the kernel's takes two to five times as long as theirs) or if
    values are narrower (it wants them padded), and, where the map of scores is large, `LeanAttention` in training.
    """
    scale = queries.shape[-1] ** -0.5 if scale is None else scale
    small = queries.shape[-2] * keys.shape[-2] <= LARGEST_MAP
    trains = plain_is_faster(queries)
    if trains and not small:
        same = torch.bfloat16  # autocast does not reach into a function of its own
        return LeanAttention.apply(queries.to(same), keys.to(same), values.to(same), scale)
    if trains or (small and values.shape[-1] < keys.shape[-1] and _is_half(queries)):
        return ((queries * scale) @ keys.transpose(-2, -1)).softmax(-1) @ values
    return _fused(queries, keys, values, scale)


def plain_is_faster(tokens: Tensor) -> bool:
    """Whether torch's fused attention of such tokens would train slower than plain products."""
    return torch.is_grad_enabled() and _is_half(tokens)


def _is_half(tokens: Tensor) -> bool:
    """Products of them run in bfloat16 on a CPU."""
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else tokens.dtype
    return tokens.device.type == "cpu" and dtype == torch.bfloat16


def _fused(queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    narrower = keys.shape[-1] - values.shape[-1]  # the fused kernels want one width
    padded = F.pad(values, (0, narrower)) if narrower else values
    return F.scaled_dot_product_attention(queries, keys, padded, scale=scale)[..., : values.shape[-1]]


class LeanAttention(torch.autograd.Function):
    """softmax(scale * q k^T) v, of which nothing as large as the map of scores is kept or made.

    Forward is torch's fused kernel. Backward computes the scores again, of one head and so many queries at a time that
    they stay in the processor's cache, from `dS = P * (dO v^T - sum(dO * O))` (Dao et al., NeurIPS 2022, appendix B.2).
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        out = _fused(queries, keys, values, scale)
        ctx.save_for_backward(queries, keys, values, out)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, *along: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        queries, keys, values, out = ctx.saved_tensors  # once: under checkpointing they cannot be had again
        gradients = [torch.empty_like(part) for part in (queries, keys, values)]
        heads = zip(*(part.flatten(0, 1) for part in (queries, keys, values, out, along[0])), strict=True)
        for head, parts in enumerate(heads):
            for whole, part in zip(gradients, _head_gradients(*parts, scale=ctx.scale), strict=True):
                whole[head // queries.shape[1], head % queries.shape[1]] = part
        return gradients[0], gradients[1], gradients[2], None


def _head_gradients(
    queries: Tensor, keys: Tensor, values: Tensor, out: Tensor, along: Tensor, *, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Of one head: (N, d), (M, d), (M, e) -> gradients of these; out, along: (N, e), what it gave and its gradient."""
    exact = torch.promote_types(keys.dtype, torch.float32)
    d_queries = torch.empty_like(queries)
    d_keys, d_values = (torch.zeros_like(part, dtype=exact) for part in (keys, values))
    rows = max(1, CHUNK // len(keys))
    for q, o, d_out, d_q in zip(*(part.split(rows) for part in (queries, out, along, d_queries)), strict=True):
        q = q * scale
        weights = (q @ keys.T).softmax(-1)
        d_values += weights.T @ d_out
        d_scores = (d_out @ values.T).sub_((d_out * o).sum(-1, keepdim=True)).mul_(weights)
        d_keys += d_scores.T @ q
        torch.mul(d_scores @ keys, scale, out=d_q)
    return d_queries, d_keys, d_values
