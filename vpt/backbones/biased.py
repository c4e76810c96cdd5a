"""Attention whose scores have a learned bias for every pair of tokens: in windows, or over all of an image.

On a CPU in bfloat16 the bias is of the scores' own type: added in float32 the map of all windows is copied there and
back, which takes longer than the two products. And rows are filled up where torch's softmax would take the last numbers
of each one by one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vpt.backbones.pieces import CHUNK, filled, is_half


def mix_biased(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """softmax(q k^T + bias) v of windows (B * W, heads, N, d), keys and values (B * W, heads, M, ...).

    Args:
        queries: scaled already; bias: (heads, N, M), or (W, heads, N, M) of each of the windows of an image in a row.
    """
    half = is_half(queries)
    if half and not bias.requires_grad:
        queries, keys, values = (part.bfloat16() for part in (queries, keys, values))
        bias = bias.bfloat16()
    keys, values = filled(keys, values)
    if hidden := keys.shape[-2] - bias.shape[-1]:
        bias = F.pad(bias, (0, hidden), value=-torch.inf)
    windows = len(bias) if bias.ndim == 4 else 1
    parts = (queries, keys, values, bias)
    if torch.compiler.is_compiling() or (torch.is_grad_enabled() and any(part.requires_grad for part in parts)):
        scores = (queries @ keys.mT).unflatten(0, (-1, windows)) + bias
        return scores.softmax(-1).flatten(0, 1).to(values.dtype) @ values
    out = values.new_empty(*queries.shape[:-1], values.shape[-1])
    own = queries[0, ..., 0].numel() * keys.shape[-2] * queries.element_size()
    together = max(1, CHUNK // (own * windows)) * windows
    for q, k, v, o in zip(*(part.split(together) for part in (queries, keys, values, out)), strict=True):
        scores = q @ k.mT
        by_window = scores.unflatten(0, (-1, windows))
        if bias.dtype == scores.dtype:
            by_window += bias
        else:
            scores = (by_window + bias).flatten(0, 1)
        o.copy_(torch.softmax(scores, -1, out=scores).to(v.dtype) @ v)
    return out


def with_prompts(patches: Tensor, prompts: Tensor, batch: int) -> Tensor:
    """Keys or values (B * W, heads, N, d) and those of prompts (1 or B, heads, P, d) after them."""
    prompts = prompts.to(patches.dtype).expand(batch, -1, -1, -1)
    return torch.cat([patches, prompts.repeat_interleave(len(patches) // batch, 0)], 2)
