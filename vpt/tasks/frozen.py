"""A model taken apart below its first trained block: what lies there gives the same for an image in every epoch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from vpt.backbones.tokens import Features, Tokens
from vpt.model import UNKNOWN, Below, Encoded, Output, PromptedModel, frozen_below
from vpt.prompts.base import Info
from vpt.tasks.batch import Batch


class FrozenPrefix:
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
        prefix = spec.blocks[-1].width if self.whole and spec.blocks else enters.width
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
        registers, grid, pooled = tokens.prefix, tokens.grid, None
        if self.whole:
            finished = backbone.finish(tokens)
            registers, grid, pooled = finished.prefix, finished.grid.permute(0, 2, 3, 1), finished.pooled
        levels = [level.permute(0, 2, 3, 1) for level in below.levels[: self.kept]]
        parts = (registers, grid, *levels, *([] if pooled is None else [pooled]))
        return torch.cat([part.flatten(1) for part in parts], 1)

    def encode(self, rows: Tensor, images: Tensor | None = None, info: Info = UNKNOWN) -> Encoded:
        """(B, V), of half precision as well -> the features of the whole encoder; gradients reach the prompts.

        images: normalised (B, 3, H, W), for a method that looks at them, where they are there.
        """
        parts = rows.float().split([math.prod(shape) for shape in self.shapes], dim=1)
        registers, grid, *more = (part.unflatten(1, shape) for part, shape in zip(parts, self.shapes, strict=True))
        levels, pooled = more[: self.kept], more[self.kept :]
        if self.enters_as_level:
            levels.append(grid)
        below = tuple(level.permute(0, 3, 1, 2) for level in levels)
        if self.whole:
            return Encoded(Features(grid.permute(0, 3, 1, 2), registers, below, *pooled))
        tokens = Tokens(grid, registers, prompts=registers[:, :0])
        return self.model.encode(images, info, Below(self.first, tokens, below))


class OverPrefix(nn.Module, ABC):
    """The forward of a model on the `rows` of a batch: on what its frozen prefix made of the images before.

    kind: what a row is, and part of the name of the file that holds them; values: of an image; half_precision: whether
    they are kept as float16, else as float32.
    """

    kind: str
    values: int
    half_precision: bool

    @property
    def bytes(self) -> int:
        """How many an image takes."""
        return self.values * (2 if self.half_precision else 4)

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Images (..., 3, S, S) in [0, 1], as the data give them -> rows (..., V), without a gradient needed."""

    @abstractmethod
    def forward(self, batch: Batch) -> Output: ...
