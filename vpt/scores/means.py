"""Means that leave undefined scores out."""

from __future__ import annotations

import numpy as np


def mean_defined(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean without NaN; NaN where nothing is left, and no warning about it."""
    defined = np.isfinite(values)
    total, count = np.where(defined, values, 0).sum(axis), defined.sum(axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def weighted_means(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(r, cases), how often each resample holds each case, and (cases, labels) -> (r, labels), without NaN."""
    defined = np.isfinite(values)
    count = weights @ defined
    return np.where(count > 0, weights @ np.where(defined, values, 0) / np.maximum(count, 1), np.nan)
