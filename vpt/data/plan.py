"""A plan: which plane, how many pixels of how many mm, which intensities and channels; and how they are applied."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from vpt.data.sizes import TrainingForeground, TrainingSizes
from vpt.data.values import TrainingValues
from vpt.errors import VptError
from vpt.files import read_json
from vpt.readers import Kind
from vpt.vocabulary import COLOURS, Crop, Interpolation, Padding, Plane, Planes, Sampling
from vpt.words import listed

Level = Annotated[float, Field(ge=0, le=1)]  # NaN is neither
Percent = Annotated[float, Field(ge=0, le=100)]
Colour = tuple[Level, Level, Level]
LARGEST_VALUE, NARROWEST = 1e9, 1e-9  # of a scan; between black and white
WIDEST = 1e4  # times the values of the training: in a window like that every scan is one grey

ORIENTATIONS: dict[Plane, str] = {"axial": "SPL", "coronal": "PIL", "sagittal": "LIP"}
"""Axis codes of (slices, rows, columns), so that slices lie as radiologists view them."""


class Percentiles(BaseModel):
    """MR: clip to percentiles of the scan's own non-zero voxels, scale to [0, 1]; MR has no absolute unit."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["percentiles"] = "percentiles"
    low: Percent = 0.5
    high: Percent = 99.5

    @model_validator(mode="after")
    def _spans(self) -> Percentiles:
        if self.low >= self.high:
            raise ValueError("the lower percentile is not below the higher one")
        return self

    def __str__(self) -> str:
        return f"percentiles {self.low:g} to {self.high:g} of the scan's own non-zero voxels"

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """One channel of a scan, any shape -> float32 in [0, 1]."""
        return scaled(image, *self.limits(lambda: [image]))

    def limits(self, parts: Callable[[], Iterable[np.ndarray]]) -> tuple[float, float]:
        """What becomes 0 and 1 in a channel, of which `parts` gives the slices in order, as often as it is called.

        The percentiles are of a million voxels, evenly spread in that order.
        """
        filled = [int(np.count_nonzero(part)) for part in parts()]
        count = sum(filled) or sum(part.size for part in parts())
        step, first, sample = max(1, count // 1_000_000), 0, []
        for part in parts():
            values = part[part != 0] if any(filled) else part.ravel()
            sample.append(values[first::step])
            first = (first - values.size) % step
        low, high = np.percentile(np.concatenate(sample), (self.low, self.high))
        if low == high:  # a mask, for instance, whose voxels are all 0 or 1
            low, high = min(part.min() for part in parts()), max(part.max() for part in parts())
        return float(low), float(high)


class Window(BaseModel):
    """CT (in HU) and 8-bit images: clip to a window, the same for every scan, scale to [0, 1]."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["window"] = "window"
    low: float = Field(ge=-LARGEST_VALUE, le=LARGEST_VALUE)
    high: float = Field(ge=-LARGEST_VALUE, le=LARGEST_VALUE)

    @model_validator(mode="after")
    def _spans(self) -> Window:
        if self.high - self.low < NARROWEST:
            raise ValueError("the lower value is not below the higher one")
        return self

    def __str__(self) -> str:
        return f"window {self.low:g} to {self.high:g}, the same for every scan"

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """One channel of a scan, any shape -> float32 in [0, 1]."""
        return scaled(image, self.low, self.high)

    def limits(self, parts: Callable[[], Iterable[np.ndarray]]) -> tuple[float, float]:
        """What becomes 0 and 1, in every scan."""
        return self.low, self.high


Intensity = Annotated[Percentiles | Window, Field(discriminator="kind")]


def too_wide(intensity: Sequence[Intensity], values: TrainingValues) -> bool:
    """Whether a window is so much wider than the values of its channel in the training that they all are one grey."""
    return any(
        isinstance(each, Window) and 0 < WIDEST * (its.high - its.low) < each.high - each.low
        for each, its in zip(intensity, values.channels, strict=True)
    )


class Plan(BaseModel):
    """How a scan becomes slices, decided once per training and stored in the artifact.

    pixel_mm: side of a square pixel in mm (of images: in their pixels); None resizes the longer side of every slice to
    image_size; image_size: side of the square that the encoder sees, in pixels;
    neighbours: the slices above and below are the first and the last of the three input channels;
    padding: where a slice smaller than the square is put; fill: the colour in [0, 1] around it;
    interpolation: how slices are enlarged to the pixel, as images were for the encoder's weights; shrunk ones are
    averaged over areas;
    kind: what it was made for, NIfTI volumes or images; slices: read of a volume that is classified, evenly spread;
    None where all are read; skip_blank: of a scan that is segmented, slices of one value throughout (air, padding) are
    background, and the encoder does not see them;
    planes: of a scan that is segmented, slices in `plane`, or in all three, whose mean probability decides;
    crop: of a scan that is segmented, all is prepared, or the box around its foreground, outside of which all is
    background;
    sampling: how training draws labelled slices, evenly, or every label as often as the others;
    values: what those of the training cases are like, which a new scan's are compared with; None in older plans;
    sizes: the same of their pixels and slices in mm; None where every slice is resized to the square, whatever its mm;
    foreground: the same of what the crop leaves of them; None where it is all, and in plans that did not look;
    label_values: what the values of the training's masks stand for, see `LabelValues`; None where each is a label's id;
    reasons: why, in words, for `plan.json` and `vpt info`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    plane: Plane
    pixel_mm: FiniteFloat | None = Field(gt=0)
    image_size: int
    neighbours: bool
    channels: tuple[str, ...]
    intensity: tuple[Intensity, ...]
    padding: Padding = "centre"
    fill: Colour = (0.0, 0.0, 0.0)
    interpolation: Interpolation = "bilinear"
    kind: Kind = "volumes"
    slices: int | None = Field(default=None, gt=0)
    skip_blank: bool = False
    planes: Planes = "one"
    crop: Crop = "none"
    sampling: Sampling = "even"
    values: TrainingValues | None = None
    sizes: TrainingSizes | None = None
    foreground: TrainingForeground | None = None
    label_values: dict[int, str] | None = None
    reasons: dict[str, str] = {}

    @model_validator(mode="after")
    def _fits_itself(self) -> Plan:
        """One intensity, and of values one range, for each channel; what no planning would put together is damaged."""
        counts = {len(self.intensity), len(self.channels if self.values is None else self.values.channels)}
        if counts != {len(self.channels)} or not self.channels:
            raise ValueError("channels, intensity and values are not of as many channels")
        if self.values is not None and too_wide(self.intensity, self.values):
            raise ValueError("a window in which all values of the training would be one grey")
        if self.neighbours and (len(self.channels) > 1 or self.kind == "images"):
            raise ValueError("neighbouring slices are of one channel of a volume")
        if self.slices is not None and self.pixel_mm is not None:
            raise ValueError("what is classified is resized whole, whatever its pixel")
        return self

    @property
    def mixes(self) -> bool:
        """Whether its channels are more than the encoder's three, so that the model mixes them (`vpt.mixing`)."""
        return len(self.channels) > COLOURS

    @property
    def inputs(self) -> int:
        """How many channels a model is given: three, or where it mixes them all of the plan's."""
        return len(self.around)

    @property
    def around(self) -> tuple[float, ...]:
        """What lies around a slice in each of the channels that a model is given: `fill`, and of many its mean."""
        return (sum(self.fill) / COLOURS,) * len(self.channels) if self.mixes else self.fill

    @property
    def orientation(self) -> str:
        return ORIENTATIONS[self.plane]

    @property
    def others(self) -> tuple[Plan, ...]:
        """The same plan in each of the other planes that it looks at, none where that is one."""
        if self.planes == "one":
            return ()
        others = (plane for plane in ORIENTATIONS if plane != self.plane)
        return tuple(self.model_copy(update={"plane": plane, "planes": "one"}) for plane in others)

    def __str__(self) -> str:
        if self.kind == "volumes":
            scale = "longer side resized" if self.pixel_mm is None else f"{self.pixel_mm:g} mm per pixel"
            part = " of the foreground" if self.crop == "foreground" else ""
            cut = self.plane if self.planes == "one" else "axial, coronal and sagittal"
            return f"{cut} slices{part}, {scale}, {self.image_size} px"
        scale = "longer side" if self.pixel_mm is None else f"every {self.pixel_mm:g} px to one, tiles of"
        return f"images, {scale} {self.image_size} px"


def read_plan(path: Path) -> Plan:
    """The plan.json of a run. Raises VptError for what no run of this version has written."""
    try:
        return Plan.model_validate(read_json(path))
    except ValidationError as error:
        keys = listed(sorted({".".join(map(str, problem["loc"])) or "all of it" for problem in error.errors()}))
        raise VptError(
            f"{path}: damaged, edited, or of another version: {keys} is missing or not what was expected; copy the run "
            "again, or use the version that wrote it"
        ) from error


def scaled(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """An image -> a new one, float32, in which `low` and what lies below is 0, `high` and what lies above 1."""
    return scale(image.astype(np.float32), low, high)


def scale(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """`scaled` in place, of float32."""
    image -= low
    image /= high - low if high > low else 1.0
    return np.clip(image, 0, 1, out=image)
