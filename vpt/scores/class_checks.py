"""Whether arrays can be the probabilities and references of a classification, said by the first thing that is wrong."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np

from vpt.errors import VptError
from vpt.vocabulary import Target
from vpt.words import counted

SUM_ROUNDING = 5e-3  # softmax in bfloat16


def checked(probabilities: Any, targets: Any, target: str) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and truth as float64 and bool, both (N, K); raises VptError with what is wrong with them."""
    probabilities, targets = checked_probabilities(probabilities, target), np.asarray(targets)
    if targets.shape != probabilities.shape:
        raise VptError(
            f"references have shape {targets.shape} and probabilities {probabilities.shape}; "
            "give one row per case and one column per class in both"
        )
    if not np.isin(targets, (0, 1)).all():
        raise VptError("references hold values other than true and false; give one column per class, one-hot")
    targets = targets.astype(bool)
    wrong = np.flatnonzero(targets.sum(1) != 1)
    if target != "labels" and len(wrong):
        raise VptError(
            f"case {wrong[0]} has {targets[wrong[0]].sum()} reference classes, expected one; "
            "use target 'labels' for any number of them"
        )
    return probabilities, targets


def checked_annotated(annotated: Any, targets: np.ndarray, target: str) -> np.ndarray:
    """Which classes were looked for, as bool (N, K), all for None; raises VptError with what is wrong with it.

    targets: (N, K) bool, as `checked` gives them.
    """
    if annotated is None:
        return np.ones_like(targets)
    annotated = np.asarray(annotated)
    if annotated.shape != targets.shape or not np.isin(annotated, (0, 1)).all():
        raise VptError(
            f"annotated has shape {annotated.shape}, expected true and false for {counted(targets.shape[0], 'case')} "
            f"and {counted(targets.shape[1], 'class')}"
        )
    annotated = annotated.astype(bool)
    if target != "labels" and not annotated.all():
        raise VptError(f"target {target}: one class of a case is always looked for; leave annotated out")
    if len(odd := np.argwhere(targets & ~annotated)):
        raise VptError(f"case {odd[0][0]} has class {odd[0][1]}, for which it was not annotated; one of both is wrong")
    return annotated


def checked_probabilities(probabilities: Any, target: str) -> np.ndarray:
    """Probabilities as float64 (N, K); raises VptError when they cannot be probabilities of this kind of target."""
    if target not in get_args(Target):
        raise VptError(f"target: {target!r} is not one of {', '.join(get_args(Target))}")
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if probabilities.ndim != 2 or 0 in probabilities.shape:
        raise VptError(
            f"probabilities have shape {probabilities.shape}, expected (cases, classes); give at least one case"
        )
    outside = np.argwhere(~((probabilities >= 0) & (probabilities <= 1)))
    if len(outside):
        row, column = outside[0]
        raise VptError(
            f"case {row}, class {column}: {probabilities[row, column]:g} is not a probability in [0, 1]; "
            f"apply {'sigmoid' if target == 'labels' else 'softmax'} to the logits first"
        )
    sums = probabilities.sum(1)
    wrong = np.flatnonzero(np.abs(sums - 1) > SUM_ROUNDING)
    if target != "labels" and len(wrong):
        raise VptError(
            f"case {wrong[0]}: its probabilities sum to {sums[wrong[0]]:.4g}, expected 1; "
            "apply softmax to the logits, or use target 'labels' for any number of classes per case"
        )
    return probabilities
