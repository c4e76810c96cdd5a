"""What every encoder looks like from outside: its spec, block by block, and what can be done with it."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from vpt.backbones.attention import key_value_maps, keys_and_values, project_queries
from vpt.backbones.origin import Origin
from vpt.backbones.tokens import Context, Features, Keep, KeysValues, SeparateContext, Tokens
from vpt.errors import VptError, VptWarning
from vpt.vocabulary import COLOURS, Interpolation, Padding
from vpt.words import counted, with_article

__all__ = [
    "Added",
    "Backbone",
    "BackboneSpec",
    "BlockAttention",
    "BlockSpec",
    "Context",
    "Features",
    "Keep",
    "KeysValues",
    "Level",
    "Pool",
    "SeparateContext",
    "Tokens",
    "cannot_travel",
    "channels_of",
    "enlarging",
    "mean_normed",
    "no_place",
    "normalisation",
    "norms_nothing_before",
    "require_colours",
    "require_whole_patches",
    "uniform_blocks",
    "whole_patches",
]

Pool = Literal["cls", "mean", "attention", "tokens"]
"""How an encoder makes one vector of an image: its CLS token, the mean of its patches, a learned pooling, the mean of
its CLS and distillation tokens.
"""

Colour = tuple[float, float, float]  # red, green, blue


class Level(NamedTuple):
    """A grid of tokens: width C, and (rows, columns)."""

    width: int
    grid: tuple[int, int]


@dataclass(frozen=True)
class BlockSpec:
    """One block, by the tokens that enter it: their width C, the heads, and their grid (rows, columns).

    windowed: it attends within windows, else to the whole image; attends: False of a block of convolutions, which has
    no keys and values for prompts to be; branches: how many attentions it runs at once, whose heads are counted
    together.
    """

    width: int
    heads: int
    grid: tuple[int, int]
    windowed: bool = False
    attends: bool = True
    branches: int = 1


@dataclass(frozen=True)
class BackboneSpec:
    """The little that prompts and heads know of an encoder.

    `image_size` and `patch` are (height, width) in pixels; `blocks` says of every block what enters it, `finished` what
    the finished grid is; `prefix` counts the CLS and register tokens, `registers` those of them that are no CLS token;
    `pool` is the encoder's own way to one vector, None where it has none. `mean` and `std` normalise an RGB image in
    [0, 1], as the weights were trained, and `padding` says where an image smaller than `image_size` lay: in the centre,
    surrounded by black, or in the corner at the top left, followed by the mean colour. `finishes_prompts`: what has
    become of prompts that travelled can be read at the end (`Features.prompts`). `carries_prompts`: they can travel
    although the blocks change their width, which the encoder's own merging of patches changes theirs with. `embedded`:
    (height, width) in pixels of the patches that the image is first cut into, None where that is `patch`.
    `interpolation`: how images were enlarged in its pretraining.
    """

    name: str
    image_size: tuple[int, int]
    patch: tuple[int, int]
    prefix: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    blocks: tuple[BlockSpec, ...]
    finished: Level
    padding: Padding = "centre"
    registers: int = 0
    pool: Pool | None = None
    finishes_prompts: bool = False
    carries_prompts: bool = False
    embedded: tuple[int, int] | None = None
    interpolation: Interpolation = "bilinear"

    @property
    def depth(self) -> int:
        return len(self.blocks)

    @property
    def first_patch(self) -> tuple[int, int]:
        """(height, width) in pixels of the patches that the image is first cut into, which random prompts start by."""
        return self.embedded or self.patch

    @property
    def has_cls(self) -> bool:
        return self.prefix > self.registers

    @property
    def attending(self) -> tuple[int, ...]:
        """The blocks that have a place for prompts as keys and values."""
        return tuple(i for i, block in enumerate(self.blocks) if block.attends)

    def share_below(self, i: int) -> float:
        """About which share of a forward pass the blocks below `i` take: by their tokens and the squares of widths."""
        work = [block.grid[0] * block.grid[1] * block.width**2 for block in self.blocks]
        return sum(work[:i]) / max(1, sum(work))

    def entered(self, i: int) -> Level:
        """The grid that enters block `i`."""
        return Level(self.blocks[i].width, self.blocks[i].grid)

    def left(self, i: int) -> Level:
        """The grid that leaves block `i`: what enters the next one."""
        block = self.blocks[min(i + 1, self.depth - 1)]
        return Level(block.width, block.grid)


def uniform_blocks(
    depth: int, width: int, heads: int, grid: tuple[int, int], windowed: Collection[int] = ()
) -> tuple[BlockSpec, ...]:
    """The blocks of a plain encoder, all alike but for those that are `windowed`."""
    return tuple(BlockSpec(width, heads, grid, i in windowed) for i in range(depth))


@dataclass(frozen=True)
class BlockAttention:
    """A block's own way from tokens to keys and values: `k_norm` of each head's keys after `qkv` after `norm`; `q_norm`
    of its queries.
    """

    norm: nn.Module
    qkv: nn.Module
    heads: int
    k_norm: nn.Module | None = None
    q_norm: nn.Module | None = None


class Added:
    """Mark of a module that tuning puts into a backbone: it follows the model's mode, where all else stays in eval."""


class Backbone(nn.Module, ABC):
    """An encoder taken apart at its blocks. It knows nothing of prompt methods.

    `sha256` identifies the weights as they were loaded, before any resizing to another image size; `origin` says whose
    they are, None where there are none. `norms_after`: its blocks norm what attention and MLP give, not what they take.
    `channels`: of the images that it takes.
    """

    spec: BackboneSpec
    sha256: str
    origin: Origin | None = None
    norms_after: bool = False
    channels: int = COLOURS

    def takes(self, size: tuple[int, int]) -> bool:
        """Whether images of a size, (height, width) in pixels, can be given; by default any size."""
        return True

    def require_images(self, images: Tensor) -> None:
        """Raise VptError unless images are normalised ones (B, C, H, W) of a size that the encoder takes."""
        if not isinstance(images, Tensor):
            raise VptError(f"images: {with_article(type(images).__name__)}, expected a tensor (B, 3, H, W), normalised")
        if images.ndim == 4 and images.shape[1] == self.channels and images.is_floating_point():
            height, width = images.shape[2:]
            if self.takes((height, width)):
                return
        raise VptError(
            f"{self.spec.name}: images {_shown(images.shape)} of {images.dtype}, expected normalised ones "
            f"{_shown(('B', self.channels, *self.spec.image_size))}; resize them, and give grey ones as three channels "
            "alike"
        )

    @abstractmethod
    def embed(self, images: Tensor) -> Tokens:
        """Normalised images (B, 3, H, W) -> tokens with their position embedding."""

    def patches(self, images: Tensor) -> Tensor:
        """The same patches (B, H, W, C) before their position embedding, where the encoder adds one."""
        return self.embed(images).grid

    @abstractmethod
    def block(self, i: int, tokens: Tokens, context: Context | None, keep: Keep = "all") -> Tokens:
        """Run block `i`. `context` (P, C) or (B, P, C) is attended to in this block only, as keys and values.

        It is not normed yet: it goes through the block's own norm and projections, as the tokens do. With a
        `SeparateContext` the block is

            x <- x + SA(norm1(x))
            x <- x + CA(x, P),                  CA(x, p) = proj(softmax(q(x) k(p)^T / sqrt(d)) v(p)) for every head
            x <- x + MLP(norm2(x))

        where SA and CA have the same weights, and a layer scale applies to both. With a context that is `normed`, CA
        takes norm1(x) and norm1(P).

        With `keep` "first" all tokens are attended to, but only the CLS token is computed: the rest is left out of what
        is given, (B, 0, 0, C) and (B, 0, C). An encoder without a CLS token gives everything.
        """

    @abstractmethod
    def finish(self, tokens: Tokens) -> Features:
        """Final norm, pooling, levels that the encoder itself makes; of prompts that travelled, where
        `spec.finishes_prompts`, what has become of them.
        """

    @abstractmethod
    def attention_of(self, i: int) -> BlockAttention:
        """The norm and projections of block `i`; raises VptError where it does not attend."""

    def project(self, i: int, context: Tensor) -> KeysValues:
        """What block `i` makes of its `context` (P, C) or (B, P, C): keys and values, which the block takes instead."""
        own = self.attention_of(i)
        return KeysValues(*keys_and_values(own.qkv, own.heads, own.norm(context), own.k_norm))

    def mean_query(self, i: int, tokens: Tokens) -> Tensor:
        """The query of the mean of the normed tokens that enter block `i`, (B, heads, head_dim).

        It is the mean of their queries, where these are a linear map and not normed. Rotary ones are taken unturned.
        """
        own = self.attention_of(i)
        queries = project_queries(own.qkv, mean_normed(own.norm, tokens)).unflatten(-1, (own.heads, -1))
        return queries if own.q_norm is None else own.q_norm(queries)

    def key_value_maps(self, i: int) -> tuple[Tensor, Tensor]:
        """The linear parts (C, C) of block `i`'s keys and values: `x @ keys` and `x @ values` of tokens (..., C).

        x enters the block and is not normed yet: the norm's centring and gain are in the maps, as is what tuning added.
        Left out are the division by x's deviation (the maps are right but for a factor) and the biases.
        """
        own = self.attention_of(i)
        return key_value_maps(own.norm, own.qkv, self.spec.blocks[i].width)


def mean_normed(norm: nn.Module, tokens: Tokens) -> Tensor:
    """(B, C), of all tokens of an image."""
    if tokens.sequence is not None:
        return norm(tokens.sequence).mean(1)
    return norm(torch.cat([tokens.prefix, tokens.prompts, tokens.grid.flatten(1, 2)], 1)).mean(1)


def no_place(spec: BackboneSpec, i: int) -> VptError:
    """The refusal of prompts in a block of convolutions."""
    return VptError(
        f"prompts: block {i} of {spec.name} is made of convolutions and attends to nothing; choose among the blocks "
        f"{', '.join(map(str, spec.attending))}"
    )


def cannot_travel(spec: BackboneSpec, why: str) -> VptError:
    """The refusal of prompts that travel from block to block; why: what the encoder does with its tokens."""
    return VptError(
        f"prompts: {spec.name} {why}, so prompts cannot travel from block to block; choose deep or additive prompts"
    )


def norms_nothing_before(spec: BackboneSpec) -> VptError:
    """The refusal of `SeparateContext.normed` where norms come after attention and MLP."""
    return VptError(f"prompts: normed, but {spec.name} norms after its attention, nothing before it; leave normed out")


def require_whole_patches(image_size: tuple[int, int], patch: tuple[int, int], name: str) -> None:
    """Raise VptError unless the image (height, width) is made of whole patches."""
    if not whole_patches(image_size, patch):
        step = math.lcm(*patch)
        near = max(step, round(max(image_size) / step) * step)
        raise VptError(
            f"image size {image_size[0]}x{image_size[1]} is not a multiple of the patch of {name}, "
            f"{patch[0]}x{patch[1]}; take {near}, for example"
        )


def normalisation(mean: Any, std: Any, whose: object) -> tuple[Colour, Colour]:
    """Mean and deviation as someone wrote them, one number for all colours or three; whose: of a file or encoder.

    Raises:
        VptError: anything else, a mean that no image in [0, 1] has, a deviation by which nothing can be divided.
    """
    found = [each if isinstance(each, list | tuple) else (each,) * COLOURS for each in (mean, std)]
    usable = all(len(each) == COLOURS and all(map(_is_number, each)) for each in found)
    if not usable or min(found[1]) <= 0 or min(found[0]) < 0 or max(found[0]) > 1:
        raise VptError(
            f"{whose}: says that images have mean {mean} and std {std}, expected three numbers each for images in "
            "[0, 1], those of std above 0; mend it there"
        )
    red, green, blue = ((float(own), float(spread)) for own, spread in zip(*found, strict=True))
    return (red[0], green[0], blue[0]), (red[1], green[1], blue[1])


def require_colours(model: nn.Module, name: str) -> None:
    """Raise VptError unless an encoder takes images of three channels."""
    if (channels := channels_of(model)) != COLOURS:
        raise VptError(
            f"backbone {name}: takes images of {counted(channels, 'channel')}, expected {COLOURS}; choose one of "
            "colour images: it is given grey ones as three channels alike, and of more than three a mix that trains"
        )


def channels_of(model: nn.Module) -> int:
    """How many channels the images have that an encoder takes: those of its first convolution."""
    convolutions = (part for part in model.modules() if isinstance(part, nn.Conv2d | nn.Conv3d))
    return next((part.in_channels for part in convolutions), COLOURS)


def enlarging(said: Any, whose: object) -> Interpolation:
    """How images are enlarged for weights that say `said` of it; bilinear where they say nothing.

    A `VptWarning` tells of what is not done here; whose: of a file or encoder.
    """
    if said is None:
        return "bilinear"
    chosen: Interpolation = "bicubic" if said in ("bicubic", "lanczos") else "bilinear"
    if said != chosen:
        warnings.warn(
            f"{whose}: its images were resized by {said}, which is not done here; they are enlarged by {chosen}, and "
            "shrunk by the means of areas",
            VptWarning,
            stacklevel=2,
        )
    return chosen


def whole_patches(size: tuple[int, int], patch: tuple[int, int]) -> bool:
    """Whether images of that size are made of whole patches."""
    return all(side >= step and side % step == 0 for side, step in zip(size, patch, strict=True))


def _shown(shape: Iterable[object]) -> str:
    return f"({', '.join(map(str, shape))})"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
