"""Small Swins, v1 and v2, whose every tensor is random, and the published form of prompts in them, written out."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from encoders import PREPROCESSING
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch import Tensor

from vpt.backbones.swin import SwinBackbone

SIZE = (40, 24)  # 10x6 patches, then 5x3: windows of 4 are cut off at both ends, the last ones are as wide as the grid
_SMALL: dict[str, Any] = {"patch_size": 4, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "num_classes": 0}
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "v1": (SwinTransformer, {}),
    "v1, of wide heads": (SwinTransformer, {"head_dim": 12, "qkv_bias": False}),
    "v1, always in windows": (SwinTransformer, {"always_partition": True}),
    "v1, any size": (SwinTransformer, {"dynamic_img_size": True}),
    "v2": (SwinTransformerV2, {"pretrained_window_sizes": (3, 3)}),
    "v2, without biases": (SwinTransformerV2, {"qkv_bias": False, "pretrained_window_sizes": (0, 0)}),
}
SIZES = [((32, 32), 4), (SIZE, 4), ((16, 24), 7)]  # (image, window in patches): whole, cut off, larger than the grid


def make_timm(kind: str = "v1", size: tuple[int, int] = SIZE, window: int = 4, **options: Any) -> Any:
    """timm's model; no zero bias, no unit gain and no gain of zero hides a mistake."""
    torch.manual_seed(0)
    made, own = KINDS[kind]
    swin: Any = made(**(_SMALL | {"img_size": size, "window_size": window} | own | options))
    with torch.no_grad():
        for name, parameter in swin.named_parameters():
            zero = isinstance(swin, SwinTransformerV2) and ".norm" in name and name.endswith("weight")
            if name.endswith("logit_scale"):
                parameter[0] = 5.0  # beyond what v2 allows
            parameter.add_(float(zero) + (0.5 if "bias_table" in name else 0.2) * torch.randn_like(parameter))
    return swin.eval().requires_grad_(False)


def wrap_swin(swin: Any, **more: Any) -> SwinBackbone:
    """The adapter over a copy of timm's model, frozen."""
    return SwinBackbone(copy.deepcopy(swin), name="tiny", **(PREPROCESSING | more)).requires_grad_(False)


def make_swin(kind: str = "v1", **options: Any) -> SwinBackbone:
    return wrap_swin(make_timm(kind, **options))


def literal(swin: Any, images: Tensor, prompts: Mapping[int, Tensor]) -> Tensor:
    """The whole encoder (B, C, H, W), image by image and window by window; prompts (P, C) of block i."""
    finished = []
    for image in images:
        grid, i = swin.patch_embed(image[None])[0], 0
        for stage in swin.layers:
            grid = stage.downsample(grid[None])[0]
            for block in stage.blocks:
                beside = prompts.get(i, grid.new_empty(0, grid.shape[-1]))
                grid = _block(block, grid, beside, isinstance(swin, SwinTransformerV2))
                i += 1
        finished.append(swin.norm(grid).permute(2, 0, 1))
    return torch.stack(finished)


def _block(block: Any, grid: Tensor, beside: Tensor, second: bool) -> Tensor:
    """One image (H, W, C) through a block with prompts (P, C) concatenated in every window."""
    if second:
        grid = grid + block.norm1(_attention(block, grid, beside, second))
        return grid + block.norm2(block.mlp(grid))
    grid = grid + _attention(block, block.norm1(grid), block.norm1(beside), second)
    return grid + block.mlp(block.norm2(grid))


def _attention(block: Any, grid: Tensor, beside: Tensor, second: bool) -> Tensor:
    (height, width, channels), (high, wide), (down, right) = grid.shape, block.window_size, block.shift_size
    padded = F.pad(grid.roll((-down, -right), (0, 1)), (0, 0, 0, -width % wide, 0, -height % high))
    mixed = torch.zeros_like(padded)
    for top in range(0, height, high):
        for left in range(0, width, wide):
            rows, columns = torch.arange(top, top + high), torch.arange(left, left + wide)
            side = 3 * _side(rows, len(padded), high, down)[:, None] + _side(columns, padded.shape[1], wide, right)
            place = slice(top, top + high), slice(left, left + wide)
            tokens = torch.cat([padded[place].reshape(-1, channels), beside])
            seen = _window(block.attn, tokens, (high, wide), side.flatten(), second)
            mixed[place] = seen.view(high, wide, channels)
    return mixed[:height, :width].roll((down, right), (0, 1))


def _side(places: Tensor, length: int, window: int, shift: int) -> Tensor:
    """Of rows or columns in the rolled grid: 0 of windows that are whole, 1 and 2 of both sides in the last one."""
    return (places >= length - window).long() + (places >= length - shift).long()


def _window(attention: Any, tokens: Tensor, window: tuple[int, int], side: Tensor, second: bool) -> Tensor:
    """Patches of a window and prompts behind them (N + P, C), all attending to all -> the patches (N, C)."""
    count = len(side)
    row, column = torch.arange(count) // window[1], torch.arange(count) % window[1]
    down, right = row[:, None] - row, column[:, None] - column
    hidden = -100.0 * (side[:, None] != side).to(tokens.dtype)
    projected = F.linear(tokens, attention.qkv.weight, _bias(attention, second))
    gathered = []
    for head, (q, k, v) in enumerate(
        zip(*(part.chunk(attention.num_heads, -1) for part in projected.chunk(3, -1)), strict=True)
    ):
        if second:
            cosine = (q / _length(q)) @ (k / _length(k)).T
            scores = cosine * attention.logit_scale[head].clamp(max=math.log(100)).exp()
            bias = _learned_bias(attention, down, right)[..., head]
        else:
            scores = q @ k.T / q.shape[-1] ** 0.5
            index = (down + window[0] - 1) * (2 * window[1] - 1) + right + window[1] - 1
            bias = attention.relative_position_bias_table[index][..., head]
        scores = scores + F.pad(bias + hidden, (0, len(tokens) - count, 0, len(tokens) - count))
        gathered.append(scores.softmax(-1) @ v)
    return attention.proj(torch.cat(gathered, -1))[:count]


def _bias(attention: Any, second: bool) -> Tensor | None:
    if not second:
        return attention.qkv.bias
    if attention.q_bias is None:
        return None
    return torch.cat([attention.q_bias, torch.zeros_like(attention.q_bias), attention.v_bias])


def _length(vectors: Tensor) -> Tensor:
    """Of (N, d) -> (N, 1); what is padded has none."""
    return vectors.norm(dim=-1, keepdim=True).clamp(min=1e-12)


def _learned_bias(attention: Any, down: Tensor, right: Tensor) -> Tensor:
    """Swin v2's (N, N, heads): 16 sigmoid(MLP(log of the way)), in spans of the trained window; float32."""
    trained = attention.pretrained_window_size if attention.pretrained_window_size[0] else attention.window_size
    ways = [8 * (way.float() / max(side - 1, 1)) for way, side in zip((down, right), trained, strict=True)]
    logs = [way.sign() * (way.abs() + 1).log2() / 3 for way in ways]
    return 16 * attention.cpb_mlp(torch.stack(logs, -1).to(attention.proj.weight.dtype)).sigmoid()
