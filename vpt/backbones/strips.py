"""Frozen convolutions and MLPs over some rows at a time, so that what is between their layers stays in the cache.

TinyViT's layers are wide only inside: four times the width of what goes in and comes out. Where nothing needs a
gradient, the wide part is never there as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.tiny_vit import MBConv, NormMlp, PatchMerging
from torch import Tensor, nn

from vpt.backbones.feed_forward import is_exact
from vpt.backbones.pieces import normalise, runs_in_pieces
from vpt.machine.gelu import convolve_gelu, multiply_gelu

WIDE = 2**22  # numbers at a time, 16 MiB in float32

Place = tuple[slice, slice]


def convolve(block: Any, image: Tensor) -> Tensor:
    """timm's `MBConv` or `PatchMerging`, with batch norms folded or not: (B, C, H, W) -> (B, C', H', W')."""
    residual = type(block) is MBConv
    acts = [block.act1, block.act2, *([block.act3] if residual else [])]
    if not (runs_in_pieces(image, block) and _is_bottleneck(block, acts)):
        return block(image)
    step = block.conv2.stride[0]
    size = [1 + (side - 1) // step for side in image.shape[-2:]]
    out: Tensor | None = None
    for some, rows in places(len(image), size[0], block.conv1.out_channels * step * image.shape[-1]):
        part = _bottleneck(block, image[some], rows, step)
        if residual:
            part = F.gelu(part + image[some, :, rows])
        if out is None:
            out = part.new_empty(len(image), *size, part.shape[1]).permute(0, 3, 1, 2)
        out[some, :, rows] = part
    assert out is not None
    return out


def _is_bottleneck(block: Any, acts: list[Any]) -> bool:
    """Whether it is 1x1, 3x3 with a padding of 1, and 1x1 convolutions with exact GELUs, as they are when loaded."""
    layers = (block.conv1, block.conv2, block.conv3)
    if type(block) not in (MBConv, PatchMerging) or any(type(layer) is not nn.Conv2d for layer in layers):
        return False
    return all(map(is_exact, acts)) and block.conv2.kernel_size == (3, 3) and block.conv2.padding == (1, 1)


def _bottleneck(block: Any, image: Tensor, rows: slice, step: int) -> Tensor:
    """Those rows of what the three convolutions make of the image, from the rows that they see."""
    height, above, below = image.shape[2], rows.start * step - 1, (rows.stop - 1) * step + 2
    wide = convolve_gelu(block.conv1, image[:, :, max(0, above) : min(height, below)])
    beyond = (0, 0, max(0, -above), max(0, below - height))
    if any(beyond):
        wide = F.pad(wide, beyond)
    return block.conv3(convolve_gelu(block.conv2, wide, padding=(0, 1)))


def add_mlp(mlp: nn.Module, grid: Tensor) -> Tensor:
    """x + mlp(x) of tokens (B, H, W, C)."""
    if not (runs_in_pieces(grid, mlp) and isinstance(mlp, NormMlp) and is_exact(mlp.act)):
        return grid + mlp(grid)
    layers: Any = mlp
    out = torch.empty_like(grid)
    for some, rows in places(len(grid), grid.shape[1], grid.shape[2] * layers.fc1.out_features):
        part = grid[some, rows]
        torch.add(part, layers.fc2(multiply_gelu(layers.fc1, normalise(layers.norm, part))), out=out[some, rows])
    return out


def places(batch: int, rows: int, numbers: int, unit: int = 1) -> Iterator[Place]:
    """(images, rows) that have `WIDE` numbers together, at `numbers` a row: whole images, else units of rows."""
    together = WIDE // (numbers * rows)
    if together > 0:
        for first in range(0, batch, together):
            yield slice(first, min(batch, first + together)), slice(0, rows)
        return
    step = max(unit, WIDE // numbers // unit * unit)
    for image in range(batch):
        for first in range(0, rows, step):
            yield slice(image, image + 1), slice(first, min(rows, first + step))
