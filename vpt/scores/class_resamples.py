"""The scores of `vpt.scores.classes` for thousands of resamples at once, for their intervals.

torchmetrics has no way to do that: resamples are weights of the cases here. The tests hold the two to the same values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from vpt.scores.bootstrap import Statistic, bootstrap
from vpt.scores.class_checks import checked, checked_annotated
from vpt.scores.classes import BINS, all_right, bins_of, confidences, decisions, mean_of_rows, ratio, surprise
from vpt.vocabulary import Target


def intervals(
    probabilities: np.ndarray,
    targets: np.ndarray,
    target: Target,
    groups: Sequence[str] | None = None,
    annotated: np.ndarray | None = None,
    *,
    level: float,
    resamples: int,
    seed: int,
) -> dict[str, tuple[float, float]]:
    """The keys of `class_scores` -> (low, high), percentile bootstrap over cases, or over groups (patients)."""
    statistic = weighted_scores(probabilities, targets, target, annotated)
    return bootstrap(statistic, len(targets), groups, level=level, resamples=resamples, seed=seed)


def weighted_scores(
    probabilities: np.ndarray, targets: np.ndarray, target: Target, annotated: np.ndarray | None = None
) -> Statistic:
    """-> a function of weights (N, r) that gives the scores of `class_scores`, each (r,), of all r at once.

    Sums over cases are one matrix product; AUROC and average precision need one cumulative sum per class.
    """
    probabilities, targets = checked(probabilities, targets, target)
    looked = checked_annotated(annotated, targets, target)
    decided, right = decisions(probabilities, target) & looked, all_right(probabilities, targets, target, looked)
    aurocs = weighted_by_class(probabilities, targets, target, annotated)["auroc"]
    confidence, hit = confidences(probabilities, targets, target)
    answers = looked if target == "labels" else np.ones_like(hit)
    gaps = np.stack([np.where(answers & (bins_of(confidence) == k), hit - confidence, 0).sum(1) for k in range(BINS)])
    known = {"right": right[None], "gaps": gaps, "tp": (decided & targets).T, "true": targets.T, "decided": decided.T}
    known["answers"] = answers.sum(1)[None]
    if target != "labels":
        known["nll"] = surprise(probabilities, targets)[None]
    if target == "grades":
        p, t = decided.argmax(1), targets.argmax(1)
        known["moments"] = np.stack([p, t, p**2 + t**2, (p - t) ** 2, np.abs(p - t)])
    rows = np.concatenate(list(known.values())).astype(np.float64)
    ends = np.cumsum([len(part) for part in known.values()])[:-1]

    def scores(weights: np.ndarray) -> dict[str, np.ndarray]:
        total = weights.sum(0, dtype=float)
        sums = dict(zip(known, np.split(rows @ weights, ends), strict=True))
        recall = ratio(sums["tp"], sums["true"])
        f1 = ratio(2 * sums["tp"], sums["true"] + sums["decided"])
        found = {
            "macro_f1": mean_of_rows(f1),
            "auroc": mean_of_rows(aurocs(weights)),
            "ece": np.abs(sums["gaps"]).sum(0) / sums["answers"][0],
        }
        if target == "labels":
            columns = zip(probabilities.T, targets.T, looked.T, strict=True)
            precision = np.stack([_average_precision(p[k], t[k], weights[k]) for p, t, k in columns])
            return found | {"mean_average_precision": mean_of_rows(precision), "exact_match": sums["right"][0] / total}
        found |= {
            "accuracy": sums["right"][0] / total,
            "balanced_accuracy": mean_of_rows(recall),
            "nll": sums["nll"][0] / total,
        }
        if target == "grades":
            p, t, squares, apart, mae = sums["moments"] / total
            # by chance E(p - t)^2 = E p^2 + E t^2 - 2 E p E t; rounding must not make a kappa of 0 / 0
            chance = np.where(squares - 2 * p * t > 1e-9, squares - 2 * p * t, 0)
            found |= {"quadratic_kappa": 1 - ratio(apart, chance), "mae": mae}
        return found

    return scores


def weighted_by_class(
    probabilities: np.ndarray, targets: np.ndarray, target: Target, annotated: np.ndarray | None = None
) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """-> recall and auroc of `per_class_scores`, each a function of weights (N, r) that gives (K, r) at once."""
    probabilities, targets = checked(probabilities, targets, target)
    looked = checked_annotated(annotated, targets, target)
    there = targets.T.astype(np.float64)
    found = there * decisions(probabilities, target).T
    columns = list(zip(probabilities.T, targets.T, looked.T, strict=True))
    return {
        "recall": lambda weights: ratio(found @ weights, there @ weights),
        "auroc": lambda weights: np.stack([_auroc(p[k], t[k], weights[k]) for p, t, k in columns]),
    }


def _auroc(probability: np.ndarray, true: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N,), (N,) bool, (N, r) -> (r,): how often a positive lies above a negative, half where they tie."""
    if true.all() or not true.any():
        return np.full(weights.shape[1], np.nan)
    negatives = np.flatnonzero(~true)[np.argsort(probability[~true], kind="stable")]
    below = np.zeros((len(negatives) + 1, weights.shape[1]), np.float32)  # exact: whole numbers
    np.cumsum(weights[negatives], axis=0, out=below[1:])
    first, last = (np.searchsorted(probability[negatives], probability[true], side) for side in ("left", "right"))
    positives = weights[true]
    won = (positives * (below[first] + below[last])).sum(0, dtype=float) / 2
    return ratio(won, positives.sum(0, dtype=float) * below[-1])


def _average_precision(probability: np.ndarray, true: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N,), (N,) bool, (N, r) -> (r,): the mean over positives of the precision at each one's probability."""
    order = np.argsort(-probability, kind="stable")
    cut = np.searchsorted(-probability[order], -probability[true], "right") - 1  # the last of those that tie
    everything = np.cumsum(weights[order], axis=0)[cut]
    found = np.cumsum(weights[order] * true[order, None], axis=0)[cut]
    return ratio((weights[true] * found / np.maximum(everything, 1)).sum(0, dtype=float), weights[true].sum(0))
