"""TinyViT's attention: in windows, with a learned bias for every offset between two patches, prompts beside them.

Prompts have no position, so their columns have no bias. The original pads the grid with zeros up to whole windows, and
norms and projects the padding with the rest. What becomes of zeros is known, so only real patches go through norm and
projections here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vpt.backbones.biased import mix_biased, with_prompts
from vpt.backbones.pieces import normalise, runs_in_pieces
from vpt.backbones.strips import places
from vpt.backbones.tokens import KeysValues
from vpt.machine.gelu import needs_gradients


def add_attention(attention: Any, grid: Tensor, beside: KeysValues | None, window: int) -> Tensor:
    """Tokens (B, H, W, C), not normed yet, plus what they gather in attention.

    Windows know nothing of each other, so where nothing needs a gradient some rows of them run at a time.

    Args:
        attention: timm's own module; beside: keys and values of prompts, the same in every window of an image;
        window: side of the windows in patches.
    """
    prompts = () if beside is None else (beside.keys, beside.values)
    if not runs_in_pieces(grid, attention) or any(needs_gradients(part) for part in prompts):
        return grid + attend(attention, grid, beside, window)
    out = torch.empty_like(grid)
    numbers = grid.shape[2] * attention.num_heads * (2 * attention.key_dim + attention.val_dim)
    for some, rows in places(len(grid), grid.shape[1], numbers, window):
        own = beside if beside is None or len(beside.keys) == 1 else KeysValues(beside.keys[some], beside.values[some])
        part = grid[some, rows]
        torch.add(part, attend(attention, part, own, window), out=out[some, rows])
    return out


def attend(attention: Any, grid: Tensor, beside: KeysValues | None, window: int) -> Tensor:
    """What tokens (B, H, W, C), not normed yet, gather in their windows, (B, H, W, C)."""
    size, heads = (grid.shape[1], grid.shape[2]), attention.num_heads
    projected = attention.qkv(normalise(attention.norm, grid)).unflatten(-1, (heads, -1))
    padding = None
    if any(side % window for side in size):
        padding = attention.qkv(attention.norm(grid.new_zeros(1, grid.shape[-1]))).view(heads, 1, 1, -1)
    windows = into_windows(projected, window, padding)
    queries, keys, values = _parts(attention, windows.flatten(0, 2).flatten(2, 3))
    bias = position_bias(attention)
    if beside is not None:
        keys, values = with_prompts(keys, beside.keys, len(grid)), with_prompts(values, beside.values, len(grid))
        bias = F.pad(bias, (0, beside.keys.shape[2]))
    mixed = mix_biased(queries * attention.scale, keys, values, bias).view(*windows.shape[:-1], -1)
    return attention.proj(out_of_windows(mixed, size).flatten(3))


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
    return _parts(attention, projected.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2))


def _parts(attention: Any, heads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(..., 3 head_dim) -> queries, keys and values (..., head_dim)."""
    queries, keys, values = heads.split([attention.key_dim, attention.key_dim, attention.val_dim], -1)
    return queries, keys, values


def into_windows(grid: Tensor, window: int, padding: Tensor | None) -> Tensor:
    """(B, H, W, heads, D) -> (B, rows, columns, heads, window, window, D), each head's tokens of a window in a row.

    padding (heads, 1, 1, D): what stands where windows reach over the border; None where none does.
    """
    windows: Tensor = _IntoWindows.apply(grid, padding, window)
    return windows


def out_of_windows(windows: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, rows, columns, heads, window, window, D) -> (B, H, W, heads, D), without what reaches over the border."""
    grid: Tensor = _OutOfWindows.apply(windows, size)
    return grid


class _IntoWindows(torch.autograd.Function):
    """Each is the other's gradient, one copy; autograd of the copies by regions would copy the whole for each."""

    @staticmethod
    def forward(ctx: Any, grid: Tensor, padding: Tensor | None, window: int) -> Tensor:
        ctx.size, ctx.padding = grid.shape[1:3], None if padding is None else padding.dtype
        return _fill_windows(grid, window, padding)

    @staticmethod
    def backward(ctx: Any, *along: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        windows, size = along[0], ctx.size
        d_grid = _gather(windows, size) if ctx.needs_input_grad[0] else None
        if ctx.padding is None or not ctx.needs_input_grad[1]:
            return d_grid, None, None
        d_padding = _sum_beyond(windows, size)
        return d_grid, d_padding[:, None, None].to(ctx.padding), None


class _OutOfWindows(torch.autograd.Function):
    """See `_IntoWindows`."""

    @staticmethod
    def forward(ctx: Any, windows: Tensor, size: tuple[int, int]) -> Tensor:
        ctx.window = windows.shape[4]
        return _gather(windows, size)

    @staticmethod
    def backward(ctx: Any, *along: Tensor) -> tuple[Tensor, None]:
        grid = along[0]
        whole = all(side % ctx.window == 0 for side in grid.shape[1:3])
        return _fill_windows(grid, ctx.window, None if whole else grid.new_zeros(())), None


def _fill_windows(grid: Tensor, window: int, padding: Tensor | None) -> Tensor:
    """See `into_windows`."""
    batch, height, width, heads, depth = grid.shape
    rows, columns = -(-height // window), -(-width // window)
    windows = grid.new_empty(batch, rows, columns, heads, window, window, depth)
    if padding is not None:
        padding = padding.to(windows.dtype)
        windows[:, :, -1] = padding
        windows[:, -1] = padding
    for place, inside in _regions(height, width, window):
        region = windows[inside]
        cells = region.shape[1], region.shape[4], region.shape[2], region.shape[5]
        windows[inside] = grid[place].reshape(batch, *cells, heads, depth).permute(0, 1, 3, 5, 2, 4, 6)
    return windows


def _gather(windows: Tensor, size: tuple[int, int]) -> Tensor:
    """See `out_of_windows`."""
    grid = windows.new_empty(len(windows), *size, windows.shape[3], windows.shape[-1])
    for place, inside in _regions(*size, windows.shape[4]):
        region = windows[inside].permute(0, 1, 4, 2, 5, 3, 6)
        grid[place] = region.flatten(3, 4).flatten(1, 2)
    return grid


def _sum_beyond(windows: Tensor, size: tuple[int, int]) -> Tensor:
    """(heads, D), in float32 at least: the sum of what windows hold below a grid of this size and to its right."""
    window = windows.shape[4]
    rows, columns = (side % window or window for side in size)
    below, right = windows[:, -1:, :, :, rows:], windows[:, :, -1:, :, :, columns:].clone()
    right[:, -1:, :, :, rows:] = 0  # it is part of what lies below
    places, precise = (0, 1, 2, 4, 5), torch.promote_types(windows.dtype, torch.float32)
    return below.sum(places, dtype=precise) + right.sum(places, dtype=precise)


Index = tuple[slice, ...]


def _regions(height: int, width: int, window: int) -> Iterator[tuple[Index, Index]]:
    """Parts of a grid (B, H, W, ...) whose windows hold as many of its rows and columns, and where those are there."""
    for rows, window_rows, inner_rows in _spans(height, window):
        for columns, window_columns, inner_columns in _spans(width, window):
            every = slice(None)
            yield (every, rows, columns), (every, window_rows, window_columns, every, inner_rows, inner_columns)


def _spans(side: int, window: int) -> Iterator[tuple[slice, slice, slice]]:
    """(places in the grid, number of the window, places in the window): of whole windows, and of the one cut off."""
    whole = side // window
    if whole:
        yield slice(0, whole * window), slice(0, whole), slice(0, window)
    if rest := side % window:
        yield slice(whole * window, side), slice(whole, whole + 1), slice(0, rest)


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
