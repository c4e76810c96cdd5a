"""How far a new case lies from those of the training, by a short vector of each: the mean of the encoder's features."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from vpt.data.framing import Slices, as_channels, as_float32, placement_of, resize_image
from vpt.data.plan import Plan

MOST_CASES = 64  # of the training that are kept: with WIDTH float16 each 8 kB at most
WIDTH = 64
NEAREST = 3  # training cases, to which the distance is taken
SLICES = 8  # of a volume that are looked at


@dataclass(frozen=True, eq=False)
class Familiar:
    """vectors: (N, D) float16 of N >= 2 training cases; usual: of their distances to their own neighbours the median.

    Features of more than WIDTH numbers are kept as so many random projections of them, always the same, which keep
    distances within some percent (Johnson and Lindenstrauss 1984).
    """

    vectors: np.ndarray
    usual: float

    @classmethod
    def of(cls, features: np.ndarray) -> Self | None:
        """Mean features (N, C) of the training cases; None of fewer than two, or where float16 does not hold them."""
        with np.errstate(over="ignore"):
            return cls._of_vectors(_projected(features).astype(np.float16))

    @classmethod
    def _of_vectors(cls, vectors: np.ndarray) -> Self | None:
        if len(vectors) < 2 or not np.isfinite(vectors).all():
            return None
        others = [np.delete(vectors, k, axis=0) for k in range(len(vectors))]
        apart = [_to_nearest(vector, rest) for vector, rest in zip(vectors, others, strict=True)]
        return cls(vectors, float(np.median(apart)))

    def distance(self, features: np.ndarray) -> float:
        """Mean features (C,) of a case -> its mean distance to the nearest training cases, 1 where that is usual.

        Training cases that are all alike have no usual distance: then it is the plain one.
        """
        return _to_nearest(_projected(features[None])[0], self.vectors) / (self.usual or 1.0)

    def to_header(self) -> dict[str, Any]:
        text = base64.b64encode(self.vectors.astype("<f2").tobytes()).decode()
        return {"width": self.vectors.shape[1], "float16": text}

    @classmethod
    def from_header(cls, found: Any) -> Self | None:
        """None where it is not what `to_header` wrote."""
        try:
            flat = np.frombuffer(base64.b64decode(found["float16"], validate=True), "<f2").astype(np.float16)
            return cls._of_vectors(flat.reshape(-1, int(found["width"])))
        except (KeyError, TypeError, ValueError, binascii.Error):
            return None


def chosen_cases(count: int) -> list[int]:
    """The numbers of those that are kept of so many training cases, evenly spread over them."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST_CASES)).round().astype(int)).tolist()


def looked_at(slices: Slices, plan: Plan) -> np.ndarray:
    """Prepared slices (N, C, h, w) -> SLICES of them, evenly spread, or the only one, (S, 3, size, size) float32.

    Each whole: one larger than the encoder's image is made smaller, where a mask would take it in tiles.
    """
    depth = len(slices)
    places = np.unique(np.floor((np.arange(SLICES) + 0.5) * depth / SLICES).astype(int)).tolist()
    return np.stack([_whole(_with_neighbours(slices, k, plan.neighbours), plan) for k in places])


def _with_neighbours(slices: Slices, k: int, neighbours: bool) -> np.ndarray:
    below = max(k - 1, 0) if neighbours else k
    part = as_float32(slices[below : k + 1 + neighbours]).numpy()
    return as_channels(part, k - below, neighbours)


def _whole(image: np.ndarray, plan: Plan) -> np.ndarray:
    share = plan.image_size / max(image.shape[1:])
    if share < 1:
        size = (max(1, round(image.shape[1] * share)), max(1, round(image.shape[2] * share)))
        image = np.stack([resize_image(channel, size) for channel in image])
    return placement_of((image.shape[1], image.shape[2]), plan).pad(image, plan.around)


def _projected(features: np.ndarray) -> np.ndarray:
    """(N, C) -> (N, C or WIDTH) float64."""
    width = features.shape[1]
    if width <= WIDTH:
        return features.astype(np.float64)
    onto = np.random.RandomState(0).standard_normal((width, WIDTH))  # a stream that NumPy has frozen
    return features.astype(np.float64) @ onto / np.sqrt(WIDTH)


def _to_nearest(vector: np.ndarray, others: Sequence[np.ndarray] | np.ndarray) -> float:
    apart = np.linalg.norm(np.asarray(others, np.float64) - vector.astype(np.float64), axis=1)
    return float(np.sort(apart)[:NEAREST].mean())
