"""Scans and pictures made by code, as their values are in truth, for tests of what is doubted of others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scans import voxels_of

from vpt.data.doubts.values import Expected, units_of
from vpt.data.values import CaseValues, values_of, values_over
from vpt.readers import Kind


def body(seed: int, field: float | None = None) -> np.ndarray:
    """A CT (32, 32, 8) in HU: air, fat, muscle, an organ with contrast in it, bone, noise; field: of view, in radii."""
    rng = np.random.default_rng(seed)
    side = np.linspace(-1, 1, 32) * (field or rng.uniform(1.05, 1.6))
    x, y, _ = np.meshgrid(side, side, np.linspace(-1, 1, 8), indexing="ij")
    found = np.full(x.shape, -1000.0)
    radius = np.hypot(x, y / 0.8)
    found[radius < 1] = -100
    found[radius < rng.uniform(0.75, 0.9)] = 45
    found[np.hypot(x + 0.3, y) < 0.35] = rng.choice([60, 120])
    found[np.hypot(x, y - 0.45) < 0.14] = rng.uniform(250, 500)
    return np.rint(found + rng.normal(0, rng.uniform(8, 30), x.shape))


def xray(seed: int) -> np.ndarray:
    """A grey picture (40, 48) of 8 bits: a dark frame, a light thing in it, most of it grey."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:40j, -1:1:48j]
    inside = np.clip(1.4 - 1.6 * np.hypot(x, y), 0, 1) ** 2
    found = rng.uniform(10, 30) + rng.uniform(150, 200) * inside + rng.normal(0, 6, x.shape)
    return np.clip(np.rint(found), 0, 255).astype(np.uint8)


def photograph(seed: int) -> np.ndarray:
    """(40, 48, 3) in red, green and blue, reddish."""
    return np.clip(np.dstack([xray(seed) * 1.2, xray(seed) * 0.5, xray(seed) * 0.3]), 0, 255).astype(np.uint8)


def brain(seed: int) -> np.ndarray:
    """An MR (24, 24, 10) in a unit of its own: nothing around it, and a scale that no other scan has."""
    rng = np.random.default_rng(seed)
    x, y, _ = np.mgrid[-1:1:24j, -1:1:24j, -1:1:10j]
    inside = np.hypot(x, y) < rng.uniform(0.6, 0.75)
    found = inside * (0.5 + 0.4 * (x > 0) + rng.normal(0, 0.05, x.shape)) + 0.01
    return found.astype(np.float32) * np.float32(10 ** rng.uniform(0, 4))


def seen(array: np.ndarray) -> CaseValues:
    """The values of a volume (X, Y, Z), or of a picture (rows, columns) or (rows, columns, 3)."""
    if array.ndim == 3 and array.shape[-1] == 3:
        return values_of(voxels_of(array.transpose(2, 1, 0)[..., None].astype(np.float32)))
    return values_of(voxels_of(np.ascontiguousarray(array.reshape(*array.shape, *[1] * (3 - array.ndim))[None])))


def expected(make: Callable[[int], np.ndarray], name: str, kind: Kind, fixed: bool, cases: int = 12) -> Expected:
    """What a training on so many of these would expect."""
    values = values_over([seen(make(seed)) for seed in range(cases)])
    names = [name] * len(values.channels)
    return Expected(values, units_of(values, names, kind, [fixed] * len(names)))
