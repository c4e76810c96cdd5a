"""What the values of scans are like: of one case, and of those that a model learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat

from vpt.readers import Voxels
from vpt.readers.voxels import Channel

SAMPLE = 2**13  # voxels of a channel, spread over it
KEPT = 1000  # of these, by which shares are told
LEVELS = (0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995)
LOWEST, HIGHEST = 0, len(LEVELS) - 1
USUAL = 5  # a fifth of the cases at each end has no usual shape
FRAME = 0.05  # of a side: how far the outer frame reaches in
SIGNED, WRAPPED = 2**15 - 1, 0.005  # what lies above it was below 0 in 16 bits with a sign; at least this share
MUCH = 0.1  # of a scan, below 0
PADDED, APART = 0.005, 0.1  # the least share of padding, and how far it lies below the rest, of the rest's width


def _ordered(span: tuple[float, float]) -> tuple[float, float]:
    if span[0] > span[1]:
        raise ValueError("the lower end is above the higher one")
    return span


Span = Annotated[tuple[FiniteFloat, FiniteFloat], AfterValidator(_ordered)]


@dataclass(frozen=True, eq=False)
class ChannelValues:
    """The values of one channel of a case.

    low, high: of all voxels; floor: the lowest quantile, padding included; body: (N,) float32, some of them without
    padding, sorted and evenly spread; quantiles: of these voxels, at LEVELS; shape: (LEVELS + 1,), quantiles with the
    padding and the median along the outer frame, the lowest of the quantiles at 0 and the highest at 1; distinct: how
    many different values; whole: no fractions; zeros: the share that is just 0.
    """

    low: float
    high: float
    floor: float
    body: np.ndarray
    quantiles: np.ndarray
    shape: np.ndarray
    distinct: int
    whole: bool
    zeros: float = 0.0

    @property
    def width(self) -> float:
        """Between the lowest and the highest quantile."""
        return float(self.quantiles[HIGHEST] - self.quantiles[LOWEST])

    @property
    def is_wrapped(self) -> bool:
        """Values at the end of 16 bits, so far above all others that they must be small ones below 0."""
        k = int(np.searchsorted(self.body, SIGNED))
        far, near = self.body[k:], self.body[:k]
        if not (self.whole and self.high < 2 * (SIGNED + 1) and near.size and far.size >= WRAPPED * self.body.size):
            return False
        return bool(far[0] > 2 * SIGNED - SIGNED // 8 and near[-1] < SIGNED // 2)

    @property
    def has_much_below_0(self) -> bool:
        """A tenth of it, or a padding that lies there."""
        share = self.below(0.0)
        return share > MUCH or (share == 0 and self.floor < 0)

    def above(self, limit: float) -> float:
        """The share of the sample above it."""
        return 1 - float(np.searchsorted(self.body, limit, side="right")) / self.body.size

    def below(self, limit: float) -> float:
        return float(np.searchsorted(self.body, limit, side="left")) / self.body.size

    def turned_into(self, slope: float, inter: float) -> ChannelValues:
        """The same with another unit; slope above 0."""
        return replace(
            self,
            low=self.low * slope + inter,
            high=self.high * slope + inter,
            floor=self.floor * slope + inter,
            body=self.body * slope + inter,
            quantiles=self.quantiles * slope + inter,
        )


@dataclass(frozen=True, eq=False)
class CaseValues:
    """The values of a case, channel by channel; colour: of three, how far apart they lie in a voxel, on average."""

    channels: tuple[ChannelValues, ...]
    colour: float = 0.0


def values_of(voxels: Voxels) -> CaseValues:
    """Look at all values for the lowest and the highest, else at a sample."""
    parts = [channel.values(_spread(channel.stored)) for channel in voxels.channels]
    colour = float(np.ptp(np.stack(parts), axis=0).mean()) if len(parts) == 3 else 0.0
    found = [_channel_values(channel, part) for channel, part in zip(voxels.channels, parts, strict=True)]
    return CaseValues(tuple(found), colour)


def _channel_values(channel: Channel, part: np.ndarray) -> ChannelValues:
    """part: the sample as it lies in space (x, y, z)."""
    sample = np.sort(part, axis=None)
    body = _without_padding(sample)
    ends = channel.values(np.array([channel.stored.min(), channel.stored.max()]))
    return ChannelValues(
        low=float(ends.min()),
        high=float(ends.max()),
        floor=float(_at_levels(sample)[LOWEST]),
        body=body[:: max(1, body.size // KEPT)],
        quantiles=_at_levels(body),
        shape=_shape(_at_levels(sample), _frame(part)),
        distinct=1 + int(np.count_nonzero(np.diff(sample))),
        whole=bool((sample == np.rint(sample)).all()),
        zeros=float(np.mean(sample == 0)),
    )


def _at_levels(ordered: np.ndarray) -> np.ndarray:
    return ordered[np.rint(np.array(LEVELS) * (ordered.size - 1)).astype(int)].astype(np.float64)


def _shape(quantiles: np.ndarray, frame: float) -> np.ndarray:
    low, high = quantiles[LOWEST], quantiles[HIGHEST]
    return (np.append(quantiles, frame) - low) / ((high - low) or 1.0)


def _without_padding(ordered: np.ndarray) -> np.ndarray:
    """Sorted values without the lowest, where many are just this and the others lie far above, as around CT."""
    first = int(np.searchsorted(ordered, ordered[0], side="right"))
    rest = ordered[first:]
    if first < PADDED * ordered.size or not rest.size:
        return ordered
    low, high = rest[int(0.05 * (rest.size - 1))], rest[int(0.99 * (rest.size - 1))]
    return rest if low - ordered[0] > APART * (high - low) else ordered


def _spread(stored: np.ndarray) -> np.ndarray:
    """Every n-th voxel along each axis: about SAMPLE in all."""
    step = max(1.0, (stored.size / SAMPLE) ** (1 / max(1, sum(side > 1 for side in stored.shape))))
    places = [np.floor(np.arange(0, side, step)).astype(int) for side in stored.shape]
    return stored[np.ix_(*places)]


def _frame(part: np.ndarray) -> float:
    """The median of the outermost voxels along the two longer axes."""
    outer = np.ones(part.shape, bool)
    longer = np.argsort(part.shape, kind="stable")[-2:]
    depth = [max(1, round(FRAME * side)) if axis in longer else 0 for axis, side in enumerate(part.shape)]
    outer[tuple(slice(d, side - d) for d, side in zip(depth, part.shape, strict=True))] = False
    return float(np.median(part[outer]))


# --- over the cases of a training -------------------------------------------------------------------------------------


class ValueRange(BaseModel):
    """Of a channel over the cases of the training: the lowest and the highest that each number took.

    quantiles: at LEVELS; shape: see `ChannelValues`, of the usual cases; width: the smallest; distinct: the fewest;
    zeros: the largest share that is just 0; all in plans before version 0.6.0, which did not look for it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    low: FiniteFloat
    high: FiniteFloat
    quantiles: tuple[Span, ...] = Field(min_length=len(LEVELS), max_length=len(LEVELS))
    shape: tuple[Span, ...] = Field(min_length=len(LEVELS) + 1, max_length=len(LEVELS) + 1)
    width: FiniteFloat = Field(ge=0)
    distinct: int = Field(ge=0)
    zeros: float = Field(1.0, ge=0, le=1)


class TrainingValues(BaseModel):
    """What a new scan's values are compared with; cases: so many were read; colour: the most of any."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    cases: int = Field(ge=0)
    colour: float = Field(ge=0)
    channels: tuple[ValueRange, ...]


def values_over(cases: Sequence[CaseValues], spared: int = 0) -> TrainingValues:
    """spared: so many cases at each end of a range are left out of it."""
    channels = zip(*(case.channels for case in cases), strict=True)
    return TrainingValues(
        cases=len(cases),
        colour=_span([case.colour for case in cases], spared)[1],
        channels=tuple(_range_over(each, spared) for each in channels),
    )


def _range_over(cases: Sequence[ChannelValues], spared: int) -> ValueRange:
    return ValueRange(
        low=_span([case.low for case in cases], spared)[0],
        high=_span([case.high for case in cases], spared)[1],
        quantiles=_spans([case.quantiles for case in cases], spared),
        shape=_spans([case.shape for case in cases], len(cases) // USUAL),
        width=_span([case.width for case in cases], spared)[0],
        distinct=int(_span([case.distinct for case in cases], spared)[0]),
        zeros=_span([case.zeros for case in cases], spared)[1],
    )


def _span(values: Sequence[float], spared: int) -> Span:
    ordered = sorted(values)
    return _short(ordered[spared]), _short(ordered[-1 - spared])


def _spans(rows: Sequence[np.ndarray], spared: int) -> tuple[Span, ...]:
    """Rows of equal length -> the span of every column."""
    ordered = np.sort(np.stack(rows), axis=0)
    return tuple((_short(low), _short(high)) for low, high in zip(ordered[spared], ordered[-1 - spared], strict=True))


def _short(value: float) -> float:
    """Six digits: what is compared with it has a margin."""
    return float(f"{value:.6g}")
