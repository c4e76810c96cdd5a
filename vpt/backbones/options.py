"""What may be set of an encoder beside its name and weights: a section for each kind that has options."""

from __future__ import annotations

from pydantic import Field

from vpt.backbones import sam_models, vit_models
from vpt.sections import Section
from vpt.vocabulary import Interpolation, Padding


class NoOptions(Section):
    """The options of a family that has none."""


class VitOptions(Section):
    """Of timm's ViTs, see `VitBackbone`."""

    normalisation: vit_models.Normalisation = "own"
    """Of images: "own", as the weights were trained, or "imagenet", ImageNet's mean and deviation."""
    pooling: vit_models.Pooling = "own"
    """The vector of an image: "own", the model's way, or "plain", its CLS token or the mean of its patches alone."""


class SamOptions(Section):
    """Of SAM's encoders."""

    attention: sam_models.Arithmetic = "fused"
    """"fused", or "original", the arithmetic of `segment_anything` itself."""


class ImageOptions(Section):
    """How images are planned, framed and normalised where no encoder says so."""

    native: int = Field(256, ge=1)
    """Side of the images in pixels where the plan chooses none."""
    patch: int = Field(16, ge=1)
    """Sides are multiples of it, in pixels."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Mean of each channel, of values in [0, 1]."""
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Deviation of each channel."""
    padding: Padding = "centre"
    """Where an image lies in what is filled up: in the centre, or in the upper left corner."""
    interpolation: Interpolation = "bilinear"
    """How it is enlarged."""
