"""No encoder, for a head that reads the images alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor

from vpt.backbones.base import Backbone, BackboneSpec, BlockAttention, Level
from vpt.backbones.tokens import Context, Features, Keep, Tokens
from vpt.backbones.weights import RANDOM, sha256_of
from vpt.errors import VptError
from vpt.vocabulary import Interpolation, Padding

Size = tuple[int, int]  # (height, width) in pixels
Values = tuple[float, float, float]  # of red, green and blue


class NoEncoder(Backbone):
    """Gives a head the images as they are: no blocks, no parameters."""

    def __init__(self, spec: BackboneSpec):
        super().__init__()
        self.spec = spec
        self.sha256 = sha256_of(self)

    def embed(self, images: Tensor) -> Tokens:
        """Normalised images (B, 3, H, W) -> a token of width 3 for every pixel."""
        grid = images.permute(0, 2, 3, 1)
        return Tokens.of_grid(grid)

    def block(self, i: int, tokens: Tokens, context: Context | None, keep: Keep = "all") -> NoReturn:
        raise VptError(f"backbone {self.spec.name}: it has no blocks, so none is number {i}")

    def attention_of(self, i: int) -> BlockAttention:
        raise VptError(f"backbone {self.spec.name}: it has no blocks, so none is number {i}")

    def finish(self, tokens: Tokens) -> Features:
        return Features(tokens.grid.permute(0, 3, 1, 2), tokens.prefix)


def load_none(name: str, weights: str | Path | None, image_size: Size | None, **options: Any) -> NoEncoder:
    """The images alone, of `image_size` (height, width) in pixels or the native one; options: see `describe_none`.

    Raises:
        VptError: weights, of which it has none.
    """
    spec = describe_none(name, weights, **options)
    size = image_size or spec.image_size
    return NoEncoder(replace(spec, image_size=size, finished=Level(3, size)))


def describe_none(
    name: str,
    weights: str | Path | None,
    *,
    native: int,
    patch: int,
    mean: Values,
    std: Values,
    padding: Padding,
    interpolation: Interpolation,
) -> BackboneSpec:
    """The spec at the native size; what a plan needs to know of an encoder is given, see `in_place_of`."""
    if weights not in (None, RANDOM):
        raise VptError(f"backbone {name}: it is no encoder and has no weights, found {weights}; leave them out")
    size = (native, native)
    return BackboneSpec(
        name, size, (patch, patch), 0, mean, std, (), Level(3, size), padding, interpolation=interpolation
    )


def in_place_of(spec: BackboneSpec) -> dict[str, Any]:
    """The options with which images are planned, framed and normalised as for that encoder."""
    return {
        "native": max(spec.image_size),
        "patch": max(spec.patch),
        "mean": spec.mean,
        "std": spec.std,
        "padding": spec.padding,
        "interpolation": spec.interpolation,
    }
