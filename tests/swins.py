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
from timm.models.swin_transformer_v2_cr import SwinTransformerV2Cr
from torch import Tensor

from vpt.backbones.swin import SwinBackbone, SwinCrBackbone

SIZE = (40, 24)  # 10x6 patches, then 5x3: windows of 4 are cut off at both ends, the last ones are as wide as the grid
_SMALL: dict[str, Any] = {"patch_size": 4, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "num_classes": 0}
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "v1": (SwinTransformer, {}),
    "v1, of wide heads": (SwinTransformer, {"head_dim": 12, "qkv_bias": False}),
    "v1, always in windows": (SwinTransformer, {"always_partition": True}),
    "v1, any size": (SwinTransformer, {"dynamic_img_size": True}),
    "v2": (SwinTransformerV2, {"pretrained_window_sizes": (3, 3)}),
    "v2, without biases": (SwinTransformerV2, {"qkv_bias": False, "pretrained_window_sizes": (0, 0)}),
    "v2 otherwise": (SwinTransformerV2Cr, {"extra_norm_period": 1}),
    "v2 otherwise, any size": (SwinTransformerV2Cr, {"dynamic_img_size": True, "always_partition": True}),
}
SECOND = (SwinTransformerV2, SwinTransformerV2Cr)
SIZES = [((32, 32), 4), (SIZE, 4), ((16, 24), 7)]  # (image, window in patches): whole, cut off, larger than the grid


def make_timm(kind: str = "v1", size: tuple[int, int] = SIZE, window: int = 4, **options: Any) -> Any:
    """timm's model; no zero bias, no unit gain and no gain of zero hides a mistake."""
    torch.manual_seed(0)
    made, own = KINDS[kind]
    swin: Any = made(**(_SMALL | {"img_size": size, "window_size": window} | own | options))
    with torch.no_grad():
        for name, parameter in swin.named_parameters():
            zero = isinstance(swin, SECOND) and ".norm" in name and name.endswith("weight")
            if name.endswith("logit_scale"):
                parameter[0] = 5.0  # beyond what v2 allows
            # what the other writing norms after its attention is large enough that its rounding does not grow
            spread = 0.5 if "bias_table" in name else 0.8 if isinstance(swin, SwinTransformerV2Cr) else 0.2
            parameter.add_(float(zero) + spread * torch.randn_like(parameter))
    return swin.eval().requires_grad_(False)


def wrap_swin(swin: Any, **more: Any) -> SwinBackbone:
    """The adapter over a copy of timm's model, frozen."""
    adapter = SwinCrBackbone if isinstance(swin, SwinTransformerV2Cr) else SwinBackbone
    return adapter(copy.deepcopy(swin), name="tiny", **(PREPROCESSING | more)).requires_grad_(False)


def make_swin(kind: str = "v1", **options: Any) -> SwinBackbone:
    return wrap_swin(make_timm(kind, **options))


def finished(swin: Any, images: Tensor) -> Tensor:
    """timm's own (B, C, H, W), from images without prompts."""
    found = swin.forward_features(images)
    return found if isinstance(swin, SwinTransformerV2Cr) else found.permute(0, 3, 1, 2)


def literal(swin: Any, images: Tensor, prompts: Mapping[int, Tensor]) -> Tensor:
    """The whole encoder (B, C, H, W), image by image and window by window; prompts (P, C) of block i."""
    finished = []
    for image in images:
        grid, i = _start(swin, image), 0
        for stage in _stages(swin):
            grid = stage.downsample(grid[None])[0]
            for block in stage.blocks:
                beside = prompts.get(i, grid.new_empty(0, grid.shape[-1]))
                grid = _block(block, grid, beside, isinstance(swin, SECOND))
                i += 1
        finished.append((grid if isinstance(swin, SwinTransformerV2Cr) else swin.norm(grid)).permute(2, 0, 1))
    return torch.stack(finished)


def literal_shallow(swin: Any, images: Tensor, prompts: Tensor) -> Tensor:
    """The first version (B, C, H, W) with prompts (P, C) that travel, as the authors of VPT wrote it, for one image.

    Every window holds the prompts; the mean of what the windows make of them goes on, through the MLP as well; what
    merges patches takes a prompt four times over.
    """
    finished = []
    for image in images:
        grid, own = _start(swin, image), prompts
        for stage in swin.layers:
            if hasattr(stage.downsample, "reduction"):
                own = stage.downsample.reduction(stage.downsample.norm(torch.cat([own] * 4, -1)))
            grid = stage.downsample(grid[None])[0]
            for block in stage.blocks:
                made: list[Tensor] = []
                mixed = _attention(block, block.norm1(grid), block.norm1(own), False, made)
                grid, own = grid + mixed, own + torch.stack(made).mean(0)
                grid, own = (x + block.mlp(block.norm2(x)) for x in (grid, own))
        finished.append(swin.norm(grid).permute(2, 0, 1))
    return torch.stack(finished)


def _stages(swin: Any) -> Any:
    return swin.stages if isinstance(swin, SwinTransformerV2Cr) else swin.layers


def _start(swin: Any, image: Tensor) -> Tensor:
    """(H, W, C)."""
    patches = swin.patch_embed(image[None])[0]
    return patches.permute(1, 2, 0) if isinstance(swin, SwinTransformerV2Cr) else patches


def _block(block: Any, grid: Tensor, beside: Tensor, second: bool) -> Tensor:
    """One image (H, W, C) through a block with prompts (P, C) concatenated in every window."""
    if second:
        grid = grid + block.norm1(_attention(block, grid, beside, second))
        grid = grid + block.norm2(block.mlp(grid))
        return block.norm3(grid) if hasattr(block, "norm3") else grid
    grid = grid + _attention(block, block.norm1(grid), block.norm1(beside), second)
    return grid + block.mlp(block.norm2(grid))


def _attention(block: Any, grid: Tensor, beside: Tensor, second: bool, made: list[Tensor] | None = None) -> Tensor:
    """made: filled with what each window makes of its prompts."""
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
            mixed[place] = seen[: high * wide].view(high, wide, channels)
            if made is not None:
                made.append(seen[high * wide :])
    return mixed[:height, :width].roll((down, right), (0, 1))


def _side(places: Tensor, length: int, window: int, shift: int) -> Tensor:
    """Of rows or columns in the rolled grid: 0 of windows that are whole, 1 and 2 of both sides in the last one."""
    return (places >= length - window).long() + (places >= length - shift).long()


def _window(attention: Any, tokens: Tensor, window: tuple[int, int], side: Tensor, second: bool) -> Tensor:
    """Patches of a window and prompts behind them (N + P, C), all attending to all -> (N + P, C)."""
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
    return attention.proj(torch.cat(gathered, -1))


def _bias(attention: Any, second: bool) -> Tensor | None:
    if not second or hasattr(attention, "meta_mlp"):
        return attention.qkv.bias
    if attention.q_bias is None:
        return None
    return torch.cat([attention.q_bias, torch.zeros_like(attention.q_bias), attention.v_bias])


def _length(vectors: Tensor) -> Tensor:
    """Of (N, d) -> (N, 1); what is padded has none."""
    return vectors.norm(dim=-1, keepdim=True).clamp(min=1e-12)


def _learned_bias(attention: Any, down: Tensor, right: Tensor) -> Tensor:
    """Swin v2's (N, N, heads): 16 sigmoid(MLP(log of the way)), in spans of the trained window; float32.

    In the other writing MLP(log of the way).
    """
    if hasattr(attention, "meta_mlp"):
        ways = [way.sign() * (way.abs().float() + 1).log() for way in (down, right)]
        return attention.meta_mlp(torch.stack(ways, -1).to(attention.proj.weight.dtype))
    trained = attention.pretrained_window_size if attention.pretrained_window_size[0] else attention.window_size
    ways = [8 * (way.float() / max(side - 1, 1)) for way, side in zip((down, right), trained, strict=True)]
    logs = [way.sign() * (way.abs() + 1).log2() / 3 for way in ways]
    return 16 * attention.cpb_mlp(torch.stack(logs, -1).to(attention.proj.weight.dtype)).sigmoid()
