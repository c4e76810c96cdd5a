"""Attention and norms of frozen blocks on a CPU, that make and keep little.

torch's fused attention takes up to twice as long there as plain products whose scores stay in the processor's cache,
in bfloat16 and, where `batches_by_onednn`, in float32; its backward pass up to three times as long. And in bfloat16 it
keeps a layer norm's input in float32 for the backward pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpt.machine.gelu import needs_gradients
from vpt.machine.products import batches_by_onednn, by_onednn, has_amx

CHUNK = 2**22  # bytes of scores at a time
VECTOR = 32  # numbers of bfloat16 that torch's softmax takes at once
FEW = 12  # numbers at the end of a row that it takes one by one in less time than a filled row costs

Place = Any  # an index of (B, heads, ...)


def mix_in_pieces(queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """softmax(scale * q k^T) v of (B, heads, N, d), (B, heads, M, d), (B, heads, M, e) -> (B, heads, N, e).

    The map of scores is never there as a whole. What is given lies in memory as (B, N, heads, e).
    """
    batch, heads, rows, _ = queries.shape
    out = queries.new_empty(batch, rows, heads, values.shape[-1]).transpose(1, 2)
    with _products_of(queries):
        for place, step in _places(queries, keys):
            own, beside = filled(keys[place], values[place])
            for q, o in zip(queries[place].split(step, -2), out[place].split(step, -2), strict=True):
                o.copy_(_weights(q * scale, own, keys.shape[-2]) @ beside)
    return out


def filled(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values (..., M, d) with zeros behind them, so that a row of scores holds whole vectors, where it pays.

    torch's softmax takes the last numbers of a row of bfloat16 one by one, and products by AMX that do not fill their
    tiles take up to four times as long. The scores of what is added are the caller's to hide.
    """
    count = keys.shape[-2]
    more = -count % VECTOR
    pays = more <= VECTOR - FEW or (has_amx() and more <= count // 16)
    if not (more and pays and is_half(keys)):
        return keys, values
    return F.pad(keys, (0, 0, 0, more)), F.pad(values, (0, 0, 0, more))


def _weights(scaled: Tensor, keys: Tensor, count: int) -> Tensor:
    """Softmax of queries (..., n, d), scaled, by the first `count` of keys (..., M, d) -> (..., n, M), else zeros."""
    scores = scaled @ keys.mT
    scores[..., count:] = -torch.inf
    return scores.softmax(-1)


def _products_of(tensor: Tensor) -> AbstractContextManager[None]:
    single = tensor.dtype == torch.float32 and tensor.device.type == "cpu"
    return by_onednn() if single and batches_by_onednn() else nullcontext()


def _places(queries: Tensor, keys: Tensor) -> Iterator[tuple[Place, int]]:
    """Indices of so many whole images, else heads, as have `CHUNK` scores together; rows of a head at a time."""
    (batch, heads, rows, _), columns = queries.shape, keys.shape[-2]
    scores = CHUNK // queries.element_size()
    together, step = scores // (rows * columns), max(1, scores // columns)
    if 1 < together < heads:  # as many each time: a head that is left over would be a batch of one
        together = math.ceil(heads / math.ceil(heads / together))
    if together >= heads:
        for first in range(0, batch, together // heads):
            yield slice(first, first + together // heads), step
        return
    for image in range(batch):
        for first in range(0, heads, max(1, together)):
            # products of two matrices are faster than those of a batch of one
            yield (image, slice(first, first + together) if together > 1 else first), step


class AttentionInPieces(torch.autograd.Function):
    """`mix_in_pieces`, whose backward pass computes the scores again, piece by piece: no map is kept either."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(queries, keys, values)
        ctx.scale = scale
        if is_half(queries) and has_amx() and keys.shape[-1] == values.shape[-1]:  # its backward pass alone is slow
            return F.scaled_dot_product_attention(queries, keys, values, scale=scale)
        return mix_in_pieces(queries, keys, values, scale)

    @staticmethod
    def backward(ctx: Any, *along: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        queries, keys, values = ctx.saved_tensors  # once: under checkpointing they cannot be had again
        d_queries, d_keys, d_values = (torch.empty_like(part) for part in (queries, keys, values))
        with _products_of(queries):
            for place, step in _places(queries, keys):
                d_keys[place], d_values[place] = _gradients(
                    queries[place], keys[place], values[place], along[0][place], ctx.scale, step, d_queries[place]
                )
        return d_queries, d_keys, d_values, None


def _gradients(
    queries: Tensor, keys: Tensor, values: Tensor, along: Tensor, scale: float, step: int, d_queries: Tensor
) -> tuple[Tensor, Tensor]:
    """Of some heads (..., N, d), (..., M, d), (..., M, e) -> gradients of keys and values; `d_queries` is filled.

    `step` rows at a time, whose shares of the sums are added in float32.
    """
    parts = [part.split(step, -2) for part in (queries, along, d_queries)]
    count = keys.shape[-2]
    keys, values = filled(keys, values)
    d_keys, d_values = [], []
    for q, d_out, d_q in zip(*parts, strict=True):
        q = q * scale
        weights = _weights(q, keys, count)
        d_values.append(weights.mT @ d_out)
        d_scores = torch._softmax_backward_data(d_out @ values.mT, weights, -1, weights.dtype)
        d_keys.append(d_scores.mT @ q)
        torch.mul(d_scores @ keys, scale, out=d_q)
    return _sum(d_keys)[..., :count, :], _sum(d_values)[..., :count, :]


def _sum(parts: list[Tensor]) -> Tensor:
    exact = torch.promote_types(parts[0].dtype, torch.float32)
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0, dtype=exact)


class HalfNorm(torch.autograd.Function):
    """Layer norm whose gain and bias do not train, in bfloat16: its normed input is kept in bfloat16 for the backward
    pass, instead of the input in float32.

    dx = (g - mean(g) - n * mean(g * n)) / deviation, for g = gain * dy and the normed input n: what torch computes from
    x, mean and deviation, it computes from n, 0 and 1 as well.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        normed, _, inverse = torch.native_layer_norm(x, norm.normalized_shape, None, None, norm.eps)
        ctx.save_for_backward(normed.bfloat16(), inverse)
        ctx.norm = norm
        return torch.addcmul(norm.bias, normed, norm.weight, out=normed).bfloat16()

    @staticmethod
    def backward(ctx: Any, *along: Tensor) -> tuple[Tensor, None]:
        (normed, inverse), norm = ctx.saved_tensors, ctx.norm
        mean, deviation, only_input = torch.zeros_like(inverse), torch.ones_like(inverse), [True, False, False]
        found, _, _ = torch.ops.aten.native_layer_norm_backward(
            along[0].float(), normed.float(), norm.normalized_shape, mean, deviation, norm.weight, norm.bias, only_input
        )
        return found.mul_(inverse), None


def normalise(norm: nn.Module, x: Tensor) -> Tensor:
    """`norm(x)`, in training in bfloat16 on a CPU by `HalfNorm` where the norm is a frozen layer norm."""
    trains = torch.is_grad_enabled() and x.requires_grad and not torch.compiler.is_compiling()
    if trains and isinstance(norm, nn.LayerNorm) and is_half(x) and x.dtype == torch.float32:
        own = [norm.weight, norm.bias]
        if not any(part is None or part.requires_grad for part in own):
            return HalfNorm.apply(x, norm)
    return norm(x)


def is_half(tokens: Tensor) -> bool:
    """Whether products of them run in bfloat16 on a CPU."""
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else tokens.dtype
    return tokens.device.type == "cpu" and dtype == torch.bfloat16


def runs_in_pieces(x: Tensor, *modules: nn.Module) -> bool:
    """Whether it pays: on a CPU; and is possible: without gradients, outside of `torch.compile`."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling() and not needs_gradients(x, *modules)
