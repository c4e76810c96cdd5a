"""TinyViT's attention: in windows, with a learned bias for every offset between two patches, prompts beside them.

Prompts have no position, so their columns have no bias.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vpt.backbones.pieces import normalise
from vpt.backbones.strips import places
from vpt.backbones.tokens import KeysValues
from vpt.machine.gelu import needs_gradients


def add_attention(attention: Any, grid: Tensor, beside: KeysValues | None, window: int) -> Tensor:
    """Tokens (B, H, W, C), not normed yet, plus what they gather; for the arguments see `attend`.

    Windows know nothing of each other, so where nothing needs a gradient some rows of them run at a time.
    """
    context = () if beside is None else (beside.keys, beside.values)
    trains = needs_gradients(grid, attention) or any(needs_gradients(part) for part in context)
    if trains or torch.compiler.is_compiling():
        return grid + attend(attention, grid, beside, window)
    out = torch.empty_like(grid)
    numbers = grid.shape[2] * attention.num_heads * (2 * attention.key_dim + attention.val_dim)
    for some, rows in places(len(grid), grid.shape[1], numbers, window):
        own = beside if beside is None or len(beside.keys) == 1 else KeysValues(beside.keys[some], beside.values[some])
        part = grid[some, rows]
        torch.add(part, attend(attention, part, own, window), out=out[some, rows])
    return out


def attend(attention: Any, grid: Tensor, beside: KeysValues | None, window: int) -> Tensor:
    """Attention of one block over tokens (B, H, W, C), not normed yet -> what they gather, (B, H, W, C).

    The original pads the grid with zeros up to whole windows, and norms and projects the padding with the rest. What
    becomes of zeros is known, so only real patches go through norm and projections.

    Args:
        attention: timm's own module; beside: keys and values of prompts, the same in every window of an image;
        window: side of the windows in patches.
    """
    height, width = grid.shape[1:3]
    projected = attention.qkv(normalise(attention.norm, grid))
    padded = (height + -height % window, width + -width % window)
    if padded != (height, width):
        padding = attention.qkv(attention.norm(grid.new_zeros(1, grid.shape[-1])))
        whole = padding.to(projected.dtype).expand(len(grid), *padded, -1).contiguous()
        whole[:, :height, :width] = projected
        projected = whole
    queries, keys, values = split_heads(attention, into_windows(projected, window))
    bias = position_bias(attention)
    if beside is not None:
        keys, values = _with_prompts(keys, beside.keys, len(grid)), _with_prompts(values, beside.values, len(grid))
        bias = F.pad(bias, (0, beside.keys.shape[2]))
    mixed = _mix(queries, keys, values, bias, attention.scale).transpose(1, 2).flatten(2)
    return attention.proj(out_of_windows(mixed, window, padded)[:, :height, :width])


def attend_apart(attention: Any, grid: Tensor, context: Tensor) -> Tensor:
    """Attention of tokens (B, H, W, C) to the context (P, C) or (B, P, C) alone; both are not normed yet."""
    queries, _, _ = split_heads(attention, attention.qkv(normalise(attention.norm, grid.flatten(1, 2))))
    beside = keys_and_values(attention, context)
    scores = (queries * attention.scale) @ beside.keys.to(queries.dtype).mT
    mixed = scores.softmax(-1).to(queries.dtype) @ beside.values.to(queries.dtype)
    return attention.proj(mixed.transpose(1, 2).reshape(grid.shape))


def keys_and_values(attention: Any, context: Tensor) -> KeysValues:
    """Context (P, C) or (B, P, C), not normed yet -> keys and values (1 or B, heads, P, head_dim) each."""
    context = context if context.ndim == 3 else context.unsqueeze(0)
    _, keys, values = split_heads(attention, attention.qkv(attention.norm(context)))
    return KeysValues(keys, values)


def split_heads(attention: Any, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, N, 3 C), where a head's three lie together -> queries, keys, values (B, heads, N, head_dim) each."""
    heads = projected.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
    queries, keys, values = heads.split([attention.key_dim, attention.key_dim, attention.val_dim], -1)
    return queries, keys, values


def into_windows(grid: Tensor, window: int) -> Tensor:
    """(B, H, W, C) of whole windows -> (B * windows, window * window, C), an image's windows in a row."""
    batch, height, width, channels = grid.shape
    apart = grid.view(batch, height // window, window, width // window, window, channels).transpose(2, 3)
    return apart.reshape(-1, window * window, channels)


def out_of_windows(windows: Tensor, window: int, size: tuple[int, int]) -> Tensor:
    """(B * windows, window * window, C) -> (B, H, W, C)."""
    rows, columns = size[0] // window, size[1] // window
    apart = windows.view(-1, rows, columns, window, window, windows.shape[-1]).transpose(2, 3)
    return apart.reshape(-1, *size, windows.shape[-1])


def position_bias(attention: Any) -> Tensor:
    """(heads, N, N): the bias of every pair of patches of a window, gathered once as long as nothing changes it."""
    table = attention.attention_biases
    if torch.compiler.is_compiling() or (table.requires_grad and torch.is_grad_enabled()):
        return table[:, attention.attention_bias_idxs]
    key, known = f"{table.device} {table.data_ptr()} {table._version}", attention.attention_bias_cache
    if key not in known:
        known.clear()
        with torch.inference_mode(False), torch.no_grad():  # training may use what inference gathered
            known[key] = table[:, attention.attention_bias_idxs]
    return known[key]


def _with_prompts(patches: Tensor, prompts: Tensor, batch: int) -> Tensor:
    """Keys or values (B * windows, heads, N, d) and those of prompts (1 or B, heads, P, d) after them."""
    prompts = prompts.to(patches.dtype).expand(batch, -1, -1, -1)
    return torch.cat([patches, prompts.repeat_interleave(len(patches) // batch, 0)], 2)


def _mix(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor, scale: float) -> Tensor:
    """softmax(scale * q k^T + bias) v of windows (W, heads, N, d), keys and values (W, heads, M, d)."""
    scores = (queries * scale) @ keys.mT
    if scores.requires_grad or bias.requires_grad:
        return (scores + bias).softmax(-1).to(values.dtype) @ values
    scores += bias
    return torch.softmax(scores, -1, out=scores) @ values
