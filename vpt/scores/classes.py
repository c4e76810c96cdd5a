"""Scores of a classification: probabilities and references (N, K) -> accuracy, AUROC, calibration and their companions.

A score is NaN where it is undefined, never 0, and a mean over classes is of the classes where it is defined:

=============  ==========================================
recall         of classes that occur in the reference
precision      of classes that are predicted
F1             of classes that occur in either (0 if in one)
AUROC          of classes that some cases have and others lack
=============  ==========================================

torchmetrics gives 0 for these and counts it in its means, so its scores are taken per class and averaged here.

Of labels that were not all looked for in every case (`annotated`, (N, K) bool, None for all), a case counts for those
alone that were.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

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
        "nll": float(surprise(probabilities, targets).mean()),
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
        "recall": ratio(tp, tp + fn),
        "precision": ratio(tp, tp + fp),
        "specificity": ratio(tn, tn + fp),
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
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
    return float(mean_of_rows(values[:, None])[0])


def all_right(
    probabilities: np.ndarray, targets: np.ndarray, target: Target, annotated: np.ndarray | None = None
) -> np.ndarray:
    """(N,) bool: everything about the case is right that somebody has looked for."""
    right = decisions(probabilities, target) == targets
    return (right if annotated is None else right | ~annotated).all(1)


def surprise(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return -np.log(np.maximum(probabilities[targets], SMALLEST))


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) != 0)


def mean_of_rows(values: np.ndarray) -> np.ndarray:
    """(K, r) -> (r,): without NaN; NaN where nothing is left."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0).sum(0), defined.sum(0).astype(float))
