"""A model taken apart below its first trained block: what lies there gives the same for an image in every epoch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vpt.backbones.tokens import Features, Tokens
from vpt.model import Below, PromptedModel, frozen_below


class FrozenPart:
    """The blocks below `first`, and how what they make of an image lies in a row (V,), to be stored.

    One after the other: CLS and registers, the grid that enters block `first`, and the grids that the head reads below
    it; of a whole encoder that is frozen, the finished features, the vector that it pools itself among them.
    """

    def __init__(self, model: PromptedModel, first: int):
        self.model = model
        self.first = first
        spec = model.backbone.spec
        self.whole = first == spec.depth
        levels = [level for level in model.head.levels if level < first]
        self.enters_as_level = not self.whole and first - 1 in levels  # that grid is stored once
        kept = levels[: len(levels) - self.enters_as_level]
        enters = spec.finished if self.whole else spec.entered(first)
        grids = [(*level.grid, level.width) for level in (enters, *map(spec.left, kept))]
        prefix = spec.blocks[-1].width if self.whole else enters.width
        pooled = [(enters.width,)] if self.whole and spec.pool not in (None, "cls") else []
        self.kept = len(kept)
        self.shapes: tuple[tuple[int, ...], ...] = ((spec.prefix, prefix), *grids, *pooled)

    @property
    def size(self) -> int:
        """Values in a row."""
        return sum(math.prod(shape) for shape in self.shapes)

    @torch.no_grad()
    def rows(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) -> (B, V)."""
        backbone = self.model.backbone
        below = frozen_below(self.first, backbone, images, self.model.head.levels)
        tokens = below.tokens
        prefix, grid, pooled = tokens.prefix, tokens.grid, None
        if self.whole:
            finished = backbone.finish(tokens)
            prefix, grid, pooled = finished.prefix, finished.grid.permute(0, 2, 3, 1), finished.pooled
        levels = [level.permute(0, 2, 3, 1) for level in below.levels[: self.kept]]
        parts = (prefix, grid, *levels, *([] if pooled is None else [pooled]))
        return torch.cat([part.flatten(1) for part in parts], 1)

    def features(self, rows: Tensor) -> Features:
        """(B, V), of half precision as well -> the features of the whole encoder; gradients reach the prompts."""
        parts = rows.float().split([math.prod(shape) for shape in self.shapes], dim=1)
        prefix, grid, *more = (part.unflatten(1, shape) for part, shape in zip(parts, self.shapes, strict=True))
        levels, pooled = more[: self.kept], more[self.kept :]
        if self.enters_as_level:
            levels.append(grid)
        below = tuple(level.permute(0, 3, 1, 2) for level in levels)
        if self.whole:
            return Features(grid.permute(0, 3, 1, 2), prefix, below, *pooled)
        tokens = Tokens(grid, prefix, prompts=prefix[:, :0])
        return self.model.features_from(Below(self.first, tokens, below))
