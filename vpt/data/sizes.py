"""How large pixels and slices of the training's scans are in mm, and scans in another unit."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat

from vpt.data.values import Span

PIXEL, SIDE = 4.0, 3.0  # times the training's; in cm both are ten times too small, in a crop or a finer scan one is


def _above_0(span: Span) -> Span:
    if span[0] <= 0:
        raise ValueError("no length")
    return span


Length = Annotated[Span, AfterValidator(_above_0)]


class TrainingSizes(BaseModel):
    """Of the slices of most training cases, in mm: side of a pixel (of its area), and the longer side of a slice."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    pixel: Length
    side: Length

    def factor(self, pixel: float, side: float) -> float:
        """How many times larger than the training's both are at least (below 1: smaller); 1 where one of them is not
        far from it, as in scans that are cropped, coarser or finer.
        """
        if pixel * PIXEL < self.pixel[0] and side * SIDE < self.side[0]:
            return max(pixel / self.pixel[0], side / self.side[0])
        if pixel > self.pixel[1] * PIXEL and side > self.side[1] * SIDE:
            return min(pixel / self.pixel[1], side / self.side[1])
        return 1.0


class TrainingForeground(BaseModel):
    """Of what a plan's crop leaves of the training cases: the largest share of the voxels, the longest side in mm."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    share: float = Field(ge=0, le=1)
    side: FiniteFloat = Field(gt=0)
