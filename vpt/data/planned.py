"""What a plan is made of: a data set, the encoder's input, what the user fixed; and which cases are looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vpt.data.plan import Colour
from vpt.data.sizes import TrainingForeground
from vpt.readers import Kind
from vpt.vocabulary import Crop, Interpolation, Padding, Plane, Planes, Sampling

FINGERPRINTED: dict[Kind, int] = {"volumes": 40, "images": 100}  # cases whose voxels are read


class Planned(Protocol):
    """What a plan needs to know of a data set: a `SegmentationSet` or a `LabelledSet`."""

    @property
    def root(self) -> Path: ...
    @property
    def channels(self) -> tuple[str, ...]: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def labels(self) -> dict[int, str]: ...


@dataclass(frozen=True)
class EncoderInput:
    """What an encoder takes: the size that it was trained at and its patches, in pixels; how slices were padded and
    enlarged.
    """

    native_size: int
    patch: int
    padding: Padding = "centre"
    fill: Colour = (0.0, 0.0, 0.0)
    interpolation: Interpolation = "bilinear"


@dataclass(frozen=True)
class Wishes:
    """What the user fixed; None is left to the data. The fields are the plan's, but for the window (low, high).

    foreground: is never the user's, but goes with a crop that the data settled;
    slices: so many of every volume are classified, each whole in the square; None segments all of them.
    """

    plane: Plane | None = None
    image_size: int | None = None
    pixel_mm: float | None = None
    neighbours: bool | None = None
    window: tuple[float, float] | None = None
    slices: int | None = None
    skip_blank: bool = False
    sampling: Sampling | None = None
    crop: Crop | None = None
    planes: Planes = "one"
    foreground: TrainingForeground | None = None


NOTHING_FIXED = Wishes()


def spread(cases: Sequence[Any], most: int) -> list[Any]:
    """All cases, but first those evenly spread over the data set, `most` at most, then those between."""
    step = max(1, math.ceil(len(cases) / most))
    return [cases[k] for k in sorted(range(len(cases)), key=lambda k: k % step)]
