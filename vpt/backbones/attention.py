"""Attention in which prompts are keys and values only.

VPT-deep (Jia et al., ECCV 2022, section 3.2) replaces the prompts before every block, so what a block computes for them
(queries, projection, MLP) is thrown away. Only their keys and values reach the image tokens. Leaving the rest out is
the published method at less cost: the same sums, up to rounding.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
import torch.nn.functional as F
from timm.layers import Attention
from torch import Tensor, nn

from vpt.backbones.pieces import AttentionInPieces, is_half, mix_in_pieces, normalise
from vpt.backbones.tokens import KeysValues, SeparateContext
from vpt.machine.products import FrozenLinear, batches_by_onednn, frozen_product, has_amx

KEPT = 2**21  # scores of a batch in bfloat16, 4 MiB, that are kept for the backward pass
SMALL = 2**21  # scores of a head that an AMX kernel gains nothing by


def keys_and_values(
    qkv: nn.Module, heads: int, context: Tensor, k_norm: nn.Module | None = None
) -> tuple[Tensor, Tensor]:
    """Normed context (P, C) or (B, P, C) -> keys and values (1 or B, heads, P, head_dim) each."""
    keys, values = split_heads(project_keys_values(qkv, context), heads, 2)
    return keys if k_norm is None else k_norm(keys), values


def project_keys_values(qkv: nn.Module, context: Tensor) -> Tensor:
    """Normed context (..., C) -> its keys and values (..., 2 * C) by the projection that the patches go through."""
    return _project(qkv, context, slice(1, 3))


def project_queries(qkv: nn.Module, tokens: Tensor) -> Tensor:
    """Normed tokens (..., C) -> their queries (..., C)."""
    return _project(qkv, tokens, slice(0, 1))


def is_plain(qkv: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether it is a linear map and nothing else, so that its rows can be taken apart; tuning may have replaced it."""
    return type(qkv) in (nn.Linear, FrozenLinear)


def _project(qkv: nn.Module, tokens: Tensor, parts: slice) -> Tensor:
    """A plain Linear's other rows are left out; what tuning has put into its place is called, and its output cut."""
    if is_plain(qkv):
        width = len(qkv.weight) // 3
        rows = slice(parts.start * width, parts.stop * width)
        multiply = frozen_product if isinstance(qkv, FrozenLinear) else F.linear
        return multiply(tokens, qkv.weight[rows], None if qkv.bias is None else qkv.bias[rows])
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


def attend(attention: Attention, tokens: Tensor, beside: KeysValues | None, rows: int) -> Tensor:
    """timm's self-attention of normed tokens (B, N, C), prompts beside them -> its first `rows` (B, rows, C)."""
    batch = tokens.shape[0]
    apart = beside is not None or rows < tokens.shape[1]  # else a view of the queries keeps all three alive
    if apart and is_plain(attention.qkv):
        (queries,) = split_heads(project_queries(attention.qkv, tokens[:, :rows]), attention.num_heads, 1)
        keys, values = split_heads(project_keys_values(attention.qkv, tokens), attention.num_heads, 2)
    else:
        queries, keys, values = split_heads(attention.qkv(tokens), attention.num_heads, 3)
        queries = queries[:, :, :rows]
    queries, keys = attention.q_norm(queries), attention.k_norm(keys)
    if beside is not None:
        keys = torch.cat([beside.keys.to(keys.dtype).expand(batch, -1, -1, -1), keys], dim=2)
        values = torch.cat([beside.values.to(values.dtype).expand(batch, -1, -1, -1), values], dim=2)
    return gather(attention, tokens[:, :rows], mix_values(queries, keys, values))


def attend_apart(attention: Attention, tokens: Tensor, context: Tensor) -> Tensor:
    """timm's attention of tokens (B, N, C) to the context alone -> (B, N, C); both as `asked_apart` gives them."""
    batch = tokens.shape[0]
    (queries,) = split_heads(project_queries(attention.qkv, tokens), attention.num_heads, 1)
    keys, values = keys_and_values(attention.qkv, attention.num_heads, context, attention.k_norm)
    keys, values = keys.expand(batch, -1, -1, -1), values.expand(batch, -1, -1, -1)
    return gather(attention, tokens, mix_values(attention.q_norm(queries), keys, values))


def asked_apart(norm: nn.Module, tokens: Tensor, context: SeparateContext) -> tuple[Tensor, Tensor]:
    """Who asks and who is asked in `attend_apart`: tokens (B, ..., C) and prompts, normed where the context says so."""
    return (normalise(norm, tokens), norm(context.prompts)) if context.normed else (tokens, context.prompts)


def gather(attention: Attention, tokens: Tensor, mixed: Tensor) -> Tensor:
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
    CPU products in pieces (`vpt.backbones.pieces`): in training because the kernel's backward pass takes three times as
    long, else because the kernel takes up to twice as long, unless the CPU has AMX. Of small maps the scores are kept
    for the backward pass. In float32 on a CPU products in pieces where `batches_by_onednn`, since the kernel's own go
    through the slower library. `torch.compile` would unroll the pieces, and has the kernel instead.
    """
    scale = queries.shape[-1] ** -0.5 if scale is None else scale
    half, trains = is_half(queries), torch.is_grad_enabled()
    if half and trains and queries[..., 0].numel() * keys.shape[-2] <= KEPT:
        return ((queries * scale) @ keys.transpose(-2, -1)).softmax(-1) @ values
    if not torch.compiler.is_compiling() and pieces_are_faster(queries, keys, values, trains):
        mix = AttentionInPieces.apply if trains else mix_in_pieces
        if half:  # autocast ends at a function
            queries, keys, values = (part.bfloat16() for part in (queries, keys, values))
        return mix(queries, keys, values, scale)
    return _fused(queries, keys, values, scale)


def pieces_are_faster(queries: Tensor, keys: Tensor, values: Tensor, trains: bool) -> bool:
    """Than torch's fused kernel, with a backward pass (`trains`) or without. It wants narrower values padded."""
    if not is_half(queries):
        single = {part.dtype for part in (queries, keys, values)} == {torch.float32} and queries.device.type == "cpu"
        return single and not torch.is_autocast_enabled("cpu") and batches_by_onednn()
    narrower = values.shape[-1] < keys.shape[-1]
    return trains or not has_amx() or (narrower and queries.shape[-2] * keys.shape[-2] <= SMALL)


def _fused(queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    narrower = keys.shape[-1] - values.shape[-1]  # the fused kernels want one width
    padded = F.pad(values, (0, narrower)) if narrower else values
    return F.scaled_dot_product_attention(queries, keys, padded, scale=scale)[..., : values.shape[-1]]
