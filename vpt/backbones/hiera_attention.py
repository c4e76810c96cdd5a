"""Hiera's attention: within mask units or to the whole image, queries pooled where a stage begins, prompts beside them.

Tokens are in timm's order, in which n of N = W * n tokens lie in each of W mask units as n * W + w, and those that are
pooled together have the longest ways between them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vpt.backbones.attention import mix_values
from vpt.backbones.tokens import KeysValues


def attend(attention: Any, tokens: Tensor, beside: KeysValues | None) -> Tensor:
    """What normed tokens (B, N, C) gather, not projected yet, queries pooled where timm does -> (B, N or N / 4, C').

    beside: keys and values of prompts, the same in every mask unit of an image.
    """
    batch, count, _ = tokens.shape
    units = count // (attention.q_stride * attention.window_size) if attention.use_mask_unit_attn else 1
    projected = attention.qkv(tokens).view(batch, -1, units, 3, attention.heads, attention.head_dim)
    queries, keys, values = projected.permute(3, 0, 4, 2, 1, 5).unbind(0)  # (B, heads, W, n, d) each
    if attention.q_stride > 1:
        queries = queries.unflatten(3, (attention.q_stride, -1)).amax(3)
    if beside is not None:
        keys, values = _with_prompts(keys, beside.keys), _with_prompts(values, beside.values)
    mixed = mix_values(*(part.flatten(1, 2) for part in (queries, keys, values)))
    return mixed.unflatten(1, (-1, units)).transpose(1, 3).reshape(batch, -1, attention.dim_out)


def _with_prompts(patches: Tensor, prompts: Tensor) -> Tensor:
    """Keys or values (B, heads, W, n, d) and those of prompts (1 or B, heads, P, d) after them, in every unit."""
    batch, _, units, _, _ = patches.shape
    prompts = prompts.to(patches.dtype).unsqueeze(2).expand(batch, -1, units, -1, -1)
    return torch.cat([patches, prompts], 3)


def widened(block: Any, tokens: Tensor, normed: Tensor) -> Tensor:
    """What a block adds its attention to: its tokens, or where a stage begins those of a quarter, in its width."""
    if not block.do_expand:
        return tokens
    stride = block.attn.q_stride
    if block.proj is not None:
        return block.proj(normed).unflatten(1, (stride, -1)).amax(1)
    together = tokens.unflatten(1, (stride, -1))
    return torch.cat([together.amax(1), together.mean(1)], -1)
