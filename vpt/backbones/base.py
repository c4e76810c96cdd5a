"""What every encoder looks like from outside: its spec, the tokens that travel through it, what comes out."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from vpt.errors import VptError


@dataclass(frozen=True)
class BackboneSpec:
    """The little that prompts and heads know of an encoder.

    `image_size`, `patch` and `grid` are (height, width); `prefix` counts the CLS and register tokens, `registers` those
    of them that are no CLS token; `mean` and `std` normalise an RGB image in [0, 1], as the weights were trained, and
    `padding` says where an image smaller than `image_size` lay: in the centre, surrounded by black, or in the corner at
    the top left, followed by the mean colour. Blocks that are `windowed` attend within windows, the others to the whole
    image. `neck` is the width of the finished grid, where that is not `width`.
    """

    name: str
    width: int
    depth: int
    heads: int
    image_size: tuple[int, int]
    patch: tuple[int, int]
    prefix: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    padding: Literal["centre", "corner"] = "centre"
    windowed: tuple[int, ...] = ()
    neck: int | None = None
    registers: int = 0

    @property
    def grid(self) -> tuple[int, int]:
        return self.image_size[0] // self.patch[0], self.image_size[1] // self.patch[1]


@dataclass(frozen=True)
class Tokens:
    """The state between two blocks.

    grid: (B, H, W, C) patch tokens; prefix: (B, R, C) CLS and register tokens, R may be 0;
    prompts: (B, P, C) prompts that travel from block to block (VPT-shallow), P may be 0.
    """

    grid: Tensor
    prefix: Tensor
    prompts: Tensor


@dataclass(frozen=True)
class SeparateContext:
    """Prompts (P, C) or (B, P, C) that tokens attend to in a step of their own, after a block's self-attention.

    That step has a softmax over the prompts alone, and a residual of its own; a plain tensor as context is attended to
    in the self-attention itself, beside the tokens, under one softmax.
    """

    prompts: Tensor


@dataclass(frozen=True)
class FixedContext:
    """A block's prompts as keys and values already, (1 or B, heads, P, head_dim) each; see `Backbone.fix`."""

    keys: Tensor
    values: Tensor


Context = Tensor | SeparateContext | FixedContext
Keep = Literal["all", "first"]
"""Which rows of the tokens a block gives: all of them, or only the CLS token, where nothing else is read."""


@dataclass(frozen=True)
class Features:
    """What a head reads.

    grid: (B, C, H, W) patch tokens after the final norm; prefix: (B, R, C) likewise;
    levels: (B, C, H, W) each, the patch tokens as they left the blocks that the head asked for.
    """

    grid: Tensor
    prefix: Tensor
    levels: tuple[Tensor, ...] = ()


class Backbone(nn.Module, ABC):
    """An encoder taken apart at its blocks. It knows nothing of prompt methods.

    `sha256` identifies the weights as they were loaded, before any resizing to another image size.
    """

    spec: BackboneSpec
    sha256: str

    @abstractmethod
    def embed(self, images: Tensor) -> Tokens:
        """Normalised images (B, 3, H, W) -> tokens with their position embedding."""

    @abstractmethod
    def block(self, i: int, tokens: Tokens, context: Context | None, keep: Keep = "all") -> Tokens:
        """Run block `i`. `context` (P, C) or (B, P, C) is attended to in this block only, as keys and values.

        It is not normed yet: it goes through the block's own norm and projections, as the tokens do. With a
        `SeparateContext` the block is

            x <- x + SA(norm1(x))
            x <- x + CA(norm1(x), norm1(P)),    CA(x, p) = proj(softmax(q(x) k(p)^T / sqrt(d)) v(p)) for every head
            x <- x + MLP(norm2(x))

        where SA and CA have the same weights, and a layer scale applies to both.

        With `keep` "first" all tokens are attended to, but only the CLS token is computed: the rest is left out of what
        is given, (B, 0, 0, C) and (B, 0, C). An encoder without a CLS token gives everything.
        """

    @abstractmethod
    def fix(self, i: int, context: Tensor) -> FixedContext:
        """What block `i` makes of its `context` (P, C) or (B, P, C): keys and values, which the block takes instead."""

    @abstractmethod
    def key_value_maps(self, i: int) -> tuple[Tensor, Tensor]:
        """The linear parts (C, C) of block `i`'s keys and values: `x @ keys` and `x @ values` of tokens (..., C).

        x enters the block and is not normed yet: the norm's centring and gain are in the maps, as is what tuning added.
        Left out are the division by x's deviation (the maps are right but for a factor) and the biases.
        """

    @abstractmethod
    def finish(self, tokens: Tokens) -> Features:
        """Final norm; travelling prompts are left behind."""


def require_whole_patches(image_size: tuple[int, int], patch: tuple[int, int], name: str) -> None:
    """Raise VptError unless the image (height, width) is made of whole patches."""
    if any(side < step or side % step for side, step in zip(image_size, patch, strict=True)):
        step = math.lcm(*patch)
        near = max(step, round(max(image_size) / step) * step)
        raise VptError(
            f"image size {image_size[0]}x{image_size[1]} is not a multiple of the patch of {name}, "
            f"{patch[0]}x{patch[1]}; take {near}, for example"
        )
