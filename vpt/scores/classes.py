"""Scores of a classification: probabilities and references (N, K) -> accuracy, AUROC, calibration and their companions.

A score is NaN where it is undefined, never 0, and a mean over classes is of the classes where it is defined:

=============  ==========================================
recall         of classes that occur in the reference
precision      of classes that are predicted
F1             of classes that occur in either (0 if in one)
AUROC          of classes that some cases have and others lack
=============  ==========================================

torchmetrics gives 0 for these and counts it in its means, so its scores are taken per class and averaged here.
Intervals need the same scores of thousands of resamples, which torchmetrics has no way to do at once: `weighted_scores`
computes them with resamples as weights of the cases. The tests hold the two to the same values.

Of labels that were not all looked for in every case (`annotated`, (N, K) bool, None for all), a case counts for those
alone that were.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from vpt.scores.bootstrap import Statistic, bootstrap
from vpt.scores.class_checks import checked, checked_annotated
from vpt.vocabulary import Target

BINS = 15  # of confidence, for the calibration error (Guo et al. 2017)
THRESHOLD = 0.5  # a label is predicted above it
UNKNOWN = -1  # in the place of a reference that nobody has looked for
SMALLEST = float(np.finfo(np.float32).eps)  # a probability of 0 for the truth would make the mean of -log infinite

Scores = dict[str, float]


def class_scores(
    probabilities: np.ndarray, targets: np.ndarray, target: Target, annotated: np.ndarray | None = None
) -> Scores:
    """Probabilities (N, K) in [0, 1] and references (N, K), bool -> each score of all N cases; NaN is undefined.

    Of one class per case (`classes`): accuracy, balanced_accuracy (mean recall), macro_f1, auroc (one against the
    rest), ece (expected calibration error, L1), nll (mean -log of the true class's probability, nats). Of `grades`,
    ordered classes, also quadratic_kappa and mae (of positions). Of `labels`, any number per case: auroc, macro_f1,
    mean_average_precision, exact_match (all labels right that were looked for), ece (over all N x K probabilities).

    Raises:
        VptError: shapes do not agree, or a value cannot be a probability or a reference.
    """
    import torch
    from torchmetrics.functional.classification import multiclass_cohen_kappa

    probabilities, targets = checked(probabilities, targets, target)
    each = per_class_scores(probabilities, targets, target, annotated)
    decided = decisions(probabilities, target)
    macro = {"macro_f1": mean(each["f1"]), "auroc": mean(each["auroc"])}
    if target == "labels":
        return macro | {
            "mean_average_precision": mean(each["average_precision"]),
            "exact_match": float(all_right(probabilities, targets, target, annotated).mean()),
            "ece": calibration_error(probabilities, targets, target, annotated),
        }
    predicted, true = decided.argmax(1), targets.argmax(1)
    scores = {
        "accuracy": float((predicted == true).mean()),
        "balanced_accuracy": mean(each["recall"]),
        **macro,
        "ece": calibration_error(probabilities, targets, target),
        "nll": float(_surprise(probabilities, targets).mean()),
    }
    if target == "grades":
        first, second = torch.from_numpy(predicted), torch.from_numpy(true)
        kappa = multiclass_cohen_kappa(first, second, targets.shape[1], weights="quadratic")
        one_grade = len(np.unique([predicted, true])) == 1  # no agreement beyond chance is possible
        scores["quadratic_kappa"] = math.nan if one_grade else float(kappa)
        scores["mae"] = float(np.abs(predicted - true).mean())
    return scores


def per_class_scores(
    probabilities: np.ndarray, targets: np.ndarray, target: Target, annotated: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """-> n, recall, precision, specificity, f1, auroc, average_precision, each (K,): every class against the rest."""
    import torch
    from torchmetrics.functional.classification import (
        multilabel_auroc,
        multilabel_average_precision,
        multilabel_stat_scores,
    )

    probabilities, targets = checked(probabilities, targets, target)
    known = checked_annotated(annotated, targets, target)
    given = torch.from_numpy(probabilities)
    true = torch.from_numpy(np.where(known, targets, UNKNOWN)).long()
    # torchmetrics fails where nothing is left of a label
    ranked = torch.from_numpy(np.where(known.any(0), np.where(known, targets, UNKNOWN), 0)).long()
    decided = torch.from_numpy(decisions(probabilities, target)).long()
    options: dict[str, Any] = {"num_labels": targets.shape[1], "average": None, "ignore_index": UNKNOWN}
    tp, fp, tn, fn, n = multilabel_stat_scores(decided, true, **options).numpy().astype(float).T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a class without positives or negatives scores 0
        auroc = multilabel_auroc(given, ranked, **options).double().numpy()
        precisions = multilabel_average_precision(given, ranked, **options).double().numpy()
    return {
        "n": n.astype(int),
        "recall": _ratio(tp, tp + fn),
        "precision": _ratio(tp, tp + fp),
        "specificity": _ratio(tn, tn + fp),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "auroc": np.where((n > 0) & (n < known.sum(0)), auroc, np.nan),
        "average_precision": np.where(n > 0, precisions, np.nan),
    }


def confusion(
    probabilities: np.ndarray, targets: np.ndarray, target: Target, annotated: np.ndarray | None = None
) -> np.ndarray:
    """Counts: (K, K), reference by prediction; of labels (K, 2, 2), absent and present by not and predicted."""
    probabilities, targets = checked(probabilities, targets, target)
    known = checked_annotated(annotated, targets, target)
    decided = decisions(probabilities, target)
    if target != "labels":
        return targets.T.astype(int) @ decided.astype(int)
    return np.array(
        [
            [[np.sum((t == i) & (d == j) & k) for j in (0, 1)] for i in (0, 1)]
            for t, d, k in zip(targets.T, decided.T, known.T, strict=True)
        ]
    )


def decisions(probabilities: np.ndarray, target: Target) -> np.ndarray:
    """Probabilities (N, K) -> what is predicted, (N, K) bool: the most probable class, or the labels above 0.5."""
    if target == "labels":
        return probabilities > THRESHOLD
    return np.arange(probabilities.shape[1]) == probabilities.argmax(1)[:, None]


def calibration_error(
    probabilities: np.ndarray, targets: np.ndarray, target: Target, annotated: np.ndarray | None = None
) -> float:
    """Mean over decisions of |share that is right - mean confidence| in each of BINS equal bins of confidence."""
    confidence, right = counted_confidences(probabilities, targets, target, annotated)
    gaps = np.bincount(bins_of(confidence).ravel(), weights=(right - confidence).ravel(), minlength=BINS)
    return float(np.abs(gaps).sum() / confidence.size)


def confidences(probabilities: np.ndarray, targets: np.ndarray, target: Target) -> tuple[np.ndarray, np.ndarray]:
    """How sure, and whether right: of classes (N, 1), the probability of the predicted one; of labels (N, K), each
    label's probability and whether it is there.
    """
    if target == "labels":
        return probabilities, targets
    return probabilities.max(1, keepdims=True), (decisions(probabilities, target) & targets).any(1, keepdims=True)


def counted_confidences(
    probabilities: np.ndarray, targets: np.ndarray, target: Target, annotated: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """`confidences` of all answers that somebody has looked at, one after the other, (M,)."""
    sure, right = confidences(probabilities, targets, target)
    known = np.ones_like(right) if annotated is None or target != "labels" else annotated
    return sure[known], right[known]


def bins_of(confidence: np.ndarray) -> np.ndarray:
    """The bin of each, from 0; 1.0 falls in the last (torchmetrics gives it a bin of its own)."""
    return np.minimum((confidence * BINS).astype(int), BINS - 1)


def mean(values: np.ndarray) -> float:
    """The mean without NaN; NaN where nothing is left."""
    return float(_mean_of_rows(values[:, None])[0])


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
    confidence, hit = confidences(probabilities, targets, target)
    answers = looked if target == "labels" else np.ones_like(hit)
    gaps = np.stack([np.where(answers & (bins_of(confidence) == k), hit - confidence, 0).sum(1) for k in range(BINS)])
    known = {"right": right[None], "gaps": gaps, "tp": (decided & targets).T, "true": targets.T, "decided": decided.T}
    known["answers"] = answers.sum(1)[None]
    if target != "labels":
        known["nll"] = _surprise(probabilities, targets)[None]
    if target == "grades":
        p, t = decided.argmax(1), targets.argmax(1)
        known["moments"] = np.stack([p, t, p**2 + t**2, (p - t) ** 2, np.abs(p - t)])
    rows = np.concatenate(list(known.values())).astype(np.float64)
    ends = np.cumsum([len(part) for part in known.values()])[:-1]

    def scores(weights: np.ndarray) -> dict[str, np.ndarray]:
        total = weights.sum(0, dtype=float)
        sums = dict(zip(known, np.split(rows @ weights, ends), strict=True))
        recall = _ratio(sums["tp"], sums["true"])
        f1 = _ratio(2 * sums["tp"], sums["true"] + sums["decided"])
        columns = [(p[k], t[k], weights[k]) for p, t, k in zip(probabilities.T, targets.T, looked.T, strict=True)]
        found = {
            "macro_f1": _mean_of_rows(f1),
            "auroc": _mean_of_rows(np.stack([_auroc(*column) for column in columns])),
            "ece": np.abs(sums["gaps"]).sum(0) / sums["answers"][0],
        }
        if target == "labels":
            precision = np.stack([_average_precision(*column) for column in columns])
            return found | {"mean_average_precision": _mean_of_rows(precision), "exact_match": sums["right"][0] / total}
        found |= {
            "accuracy": sums["right"][0] / total,
            "balanced_accuracy": _mean_of_rows(recall),
            "nll": sums["nll"][0] / total,
        }
        if target == "grades":
            p, t, squares, apart, mae = sums["moments"] / total
            # by chance E(p - t)^2 = E p^2 + E t^2 - 2 E p E t; rounding must not make a kappa of 0 / 0
            chance = np.where(squares - 2 * p * t > 1e-9, squares - 2 * p * t, 0)
            found |= {"quadratic_kappa": 1 - _ratio(apart, chance), "mae": mae}
        return found

    return scores


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
    return _ratio(won, positives.sum(0, dtype=float) * below[-1])


def _average_precision(probability: np.ndarray, true: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N,), (N,) bool, (N, r) -> (r,): the mean over positives of the precision at each one's probability."""
    order = np.argsort(-probability, kind="stable")
    cut = np.searchsorted(-probability[order], -probability[true], "right") - 1  # the last of those that tie
    everything = np.cumsum(weights[order], axis=0)[cut]
    found = np.cumsum(weights[order] * true[order, None], axis=0)[cut]
    return _ratio((weights[true] * found / np.maximum(everything, 1)).sum(0, dtype=float), weights[true].sum(0))


def all_right(
    probabilities: np.ndarray, targets: np.ndarray, target: Target, annotated: np.ndarray | None = None
) -> np.ndarray:
    """(N,) bool: everything about the case is right that somebody has looked for."""
    right = decisions(probabilities, target) == targets
    return (right if annotated is None else right | ~annotated).all(1)


def _surprise(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return -np.log(np.maximum(probabilities[targets], SMALLEST))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) != 0)


def _mean_of_rows(values: np.ndarray) -> np.ndarray:
    """(K, r) -> (r,): without NaN; NaN where nothing is left."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0).sum(0), defined.sum(0).astype(float))
