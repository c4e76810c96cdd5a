"""Scores of a classification: against formulas written out here, and where they are undefined."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpt.errors import VptError
from vpt.scores import bootstrap as resampling
from vpt.scores.bootstrap import bootstrap
from vpt.scores.class_resamples import intervals, weighted_by_class, weighted_scores
from vpt.scores.classes import class_scores, confusion, per_class_scores

NAN = math.nan
KINDS = ("classes", "grades", "labels")
OPTIONS = {"level": 0.95, "resamples": 200, "seed": 0}


def one_hot(positions, classes):
    return np.eye(classes, dtype=bool)[list(positions)]


def sample(target, cases=40, classes=4, seed=0):
    """Random cases with ties: probabilities are rounded before they are normalised."""
    rng = np.random.default_rng(seed)
    raw = rng.integers(1, 6, (cases, classes)).astype(float)
    if target == "labels":
        return raw / 6, rng.random((cases, classes)) < 0.4
    return raw / raw.sum(1, keepdims=True), one_hot(rng.integers(classes, size=cases), classes)


def auroc_by_pairs(probability, true):
    pairs = [(p, q) for p in probability[true] for q in probability[~true]]
    return np.mean([1.0 if p > q else 0.5 if p == q else 0.0 for p, q in pairs]) if pairs else NAN


def precision_by_thresholds(probability, true):
    """Sum of (recall step) x precision over the distinct thresholds."""
    total, recall = 0.0, 0.0
    for threshold in sorted(set(probability), reverse=True):
        above = probability >= threshold
        now = (above & true).sum() / true.sum()
        total, recall = total + (now - recall) * (above & true).sum() / above.sum(), now
    return total


def gap_by_bins(confidence, right):
    edges = np.linspace(0, 1, 16)
    total = 0.0
    for k in range(15):
        inside = (confidence >= edges[k]) & ((confidence < edges[k + 1]) | ((k == 14) & (confidence == 1)))
        total += abs(right[inside].sum() - confidence[inside].sum())
    return total / confidence.size


def test_classes_by_hand():
    p = np.array([[0.8, 0.1, 0.1], [0.4, 0.5, 0.1], [0.2, 0.7, 0.1], [0.1, 0.3, 0.6]])
    t = one_hot([0, 0, 1, 2], 3)

    found = class_scores(p, t, "classes")

    assert set(found) == {"accuracy", "balanced_accuracy", "macro_f1", "auroc", "ece", "nll"}
    assert found["accuracy"] == 0.75
    assert found["balanced_accuracy"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert found["auroc"] == pytest.approx(1.0)
    assert found["nll"] == pytest.approx(-np.mean(np.log([0.8, 0.4, 0.7, 0.6])))
    assert found["ece"] == pytest.approx((0.2 + 0.5 + 0.3 + 0.4) / 4)
    assert confusion(p, t, "classes").tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_grades_by_hand():
    t, predicted = [0, 0, 1, 2, 2], [0, 2, 1, 2, 1]
    p = np.where(one_hot(predicted, 3), 0.8, 0.1)

    found = class_scores(p, one_hot(t, 3), "grades")

    apart = np.mean([(a - b) ** 2 for a, b in zip(t, predicted, strict=True)])
    chance = np.mean([(a - b) ** 2 for a in t for b in predicted])
    assert found["quadratic_kappa"] == pytest.approx(1 - apart / chance)
    assert found["mae"] == pytest.approx(3 / 5)
    assert set(found) - set(class_scores(p, one_hot(t, 3), "classes")) == {"quadratic_kappa", "mae"}


def test_labels_by_hand():
    p = np.array([[0.9, 0.2], [0.6, 0.7], [0.3, 0.6]])
    t = np.array([[1, 0], [0, 1], [0, 1]], bool)

    found = class_scores(p, t, "labels")

    assert set(found) == {"auroc", "macro_f1", "mean_average_precision", "exact_match", "ece"}
    assert found["exact_match"] == pytest.approx(2 / 3)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["auroc"] == found["mean_average_precision"] == pytest.approx(1.0)
    assert confusion(p, t, "labels").tolist() == [[[1, 1], [0, 1]], [[1, 0], [0, 2]]]


@pytest.mark.parametrize("target", KINDS)
def test_ranks_and_calibration_agree_with_their_definitions(target):
    p, t = sample(target)

    each, found = per_class_scores(p, t, target), class_scores(p, t, target)

    assert each["auroc"] == pytest.approx([auroc_by_pairs(*column) for column in zip(p.T, t.T, strict=True)], abs=1e-6)
    precisions = [precision_by_thresholds(*column) for column in zip(p.T, t.T, strict=True)]
    assert each["average_precision"] == pytest.approx(precisions, abs=1e-6)
    hit = np.array([row[k] for row, k in zip(t, p.argmax(1), strict=True)])
    sure = (p.ravel(), t.ravel()) if target == "labels" else (p.max(1), hit)
    assert found["ece"] == pytest.approx(gap_by_bins(*sure))


def test_calibration_agrees_with_torchmetrics():
    import torch
    from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

    p = np.random.default_rng(0).dirichlet(np.ones(4), 200)
    t = one_hot(np.random.default_rng(1).integers(4, size=200), 4)
    given = torch.from_numpy(p)

    of_classes = multiclass_calibration_error(given, torch.from_numpy(t.argmax(1)), 4, n_bins=15)
    of_labels = binary_calibration_error(given.ravel(), torch.from_numpy(t).long().ravel(), n_bins=15)

    assert class_scores(p, t, "classes")["ece"] == pytest.approx(float(of_classes), abs=1e-5)
    assert class_scores(p, t, "labels")["ece"] == pytest.approx(float(of_labels), abs=1e-5)


def test_two_classes_have_the_auroc_of_the_positive_one():
    p, t = sample("classes", classes=2)
    assert class_scores(p, t, "classes")["auroc"] == pytest.approx(auroc_by_pairs(p[:, 1], t[:, 1]), abs=1e-6)


def test_a_class_that_never_occurs_is_in_no_mean():
    p, t = sample("classes", classes=3)
    wider = [np.hstack([array, np.zeros((len(p), 1), array.dtype)]) for array in (p, t)]

    assert class_scores(*wider, "classes") == pytest.approx(class_scores(p, t, "classes"), abs=1e-6)
    absent = {name: values[3] for name, values in per_class_scores(*wider, "classes").items()}
    assert absent["n"] == 0
    assert absent["specificity"] == 1
    assert all(math.isnan(absent[name]) for name in ("recall", "precision", "f1", "auroc", "average_precision"))


def test_a_class_that_is_only_predicted_has_f1_0():
    p, t = np.array([[0.9, 0.1], [0.2, 0.8]]), one_hot([0, 0], 2)
    found = class_scores(p, t, "classes")
    assert found["balanced_accuracy"] == 0.5
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)


def test_one_case():
    found = class_scores(np.array([[0.75, 0.25]]), one_hot([0], 2), "grades")
    assert found["accuracy"] == found["balanced_accuracy"] == found["macro_f1"] == 1
    assert found["mae"] == 0
    assert math.isnan(found["auroc"])
    assert math.isnan(found["quadratic_kappa"])
    ends = intervals(np.array([[0.75, 0.25]]), one_hot([0], 2), "grades", **OPTIONS)
    assert set(ends) == set(found)
    assert all(math.isnan(end) for pair in ends.values() for end in pair)


def test_labels_that_no_case_has():
    found = class_scores(np.full((3, 2), 0.25), np.zeros((3, 2), bool), "labels")
    assert found["exact_match"] == 1
    assert found["ece"] == pytest.approx(0.25)
    assert all(math.isnan(found[name]) for name in ("auroc", "macro_f1", "mean_average_precision"))


def test_the_truth_with_probability_0_leaves_nll_finite():
    found = class_scores(np.array([[1.0, 0.0]]), one_hot([1], 2), "classes")
    assert found["nll"] == pytest.approx(-math.log(np.finfo(np.float32).eps))
    assert found["ece"] == 1


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(KINDS), st.integers(1, 12), st.integers(2, 4), st.integers(0, 1000))
def test_the_order_of_cases_changes_nothing(target, cases, classes, seed):
    p, t = sample(target, cases, classes, seed)
    order = np.random.default_rng(seed).permutation(cases)
    expected = pytest.approx(class_scores(p, t, target), abs=1e-5, nan_ok=True)
    assert class_scores(p[order], t[order], target) == expected


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(KINDS), st.integers(1, 12), st.integers(2, 4), st.integers(0, 1000))
def test_weights_are_repeated_cases(target, cases, classes, seed):
    """What the bootstrap computes of a resample is what torchmetrics says of its cases, written out."""
    p, t = sample(target, cases, classes, seed)
    weights = np.random.default_rng(seed).integers(0, 3, cases)
    weights[0] += 1
    repeated = np.repeat(np.arange(cases), weights)

    found = weighted_scores(p, t, target)(weights[:, None].astype(np.float32))
    by_class = weighted_by_class(p, t, target)

    expected = class_scores(p[repeated], t[repeated], target)
    assert {name: value.item() for name, value in found.items()} == pytest.approx(expected, abs=1e-5, nan_ok=True)
    every = per_class_scores(p[repeated], t[repeated], target)
    for score, of_classes in by_class.items():
        assert of_classes(weights[:, None])[:, 0] == pytest.approx(every[score], abs=1e-5, nan_ok=True)


@pytest.mark.parametrize("target", KINDS)
def test_intervals_hold_the_scores_and_repeat(target):
    p, t = sample(target, 200)
    first, found = intervals(p, t, target, **OPTIONS), class_scores(p, t, target)
    assert first == intervals(p, t, target, **OPTIONS)
    assert set(first) == set(found)
    assert all(low < high for low, high in first.values())
    for name in set(found) - {"ece"}:  # noise adds to it, so its resamples lie higher
        assert first[name][0] <= found[name] <= first[name][1]


def test_the_interval_of_a_share_is_the_binomial_one():
    p = np.where(one_hot([0] * 300 + [1] * 100, 2), 0.9, 0.1)
    low, high = intervals(p, one_hot([0] * 400, 2), "classes", level=0.95, resamples=2000, seed=0)["accuracy"]
    half = 1.96 * math.sqrt(0.75 * 0.25 / 400)
    assert (low, high) == pytest.approx((0.75 - half, 0.75 + half), abs=0.006)


def test_patients_are_drawn_whole():
    """Twenty copies of every case tell no more than the case."""
    p, t = sample("classes", 30)
    patients = [f"patient{number}" for number in range(30)]
    once = intervals(p, t, "classes", patients, **OPTIONS)
    copies = intervals(np.repeat(p, 20, 0), np.repeat(t, 20, 0), "classes", sorted(patients * 20), **OPTIONS)
    alone = intervals(np.repeat(p, 20, 0), np.repeat(t, 20, 0), "classes", **OPTIONS)

    def width(found):
        return found["accuracy"][1] - found["accuracy"][0]

    assert width(copies) == pytest.approx(width(once), rel=0.25)
    assert width(alone) < width(copies) / 3


def test_how_many_resamples_are_in_memory_changes_nothing(monkeypatch):
    def statistic(weights):
        return {"first": weights[0].astype(float)}

    whole = bootstrap(statistic, 10, **OPTIONS)
    monkeypatch.setattr(resampling, "CHUNK", 30)
    assert bootstrap(statistic, 10, **OPTIONS) == whole


HALF = [[0.5, 0.5]]
WRONG = {
    "references have shape": (HALF, [[True]], "classes"),
    "expected .cases, classes.": ([0.5, 0.5], [True, False], "classes"),
    "give at least one case": (np.zeros((0, 2)), np.zeros((0, 2), bool), "labels"),
    "case 0, class 1: -0.5 is not a probability.* softmax": ([[1.5 - 0.5, -0.5]], [[True, False]], "classes"),
    "nan is not a probability.* sigmoid": ([[NAN, 0.5]], [[True, False]], "labels"),
    "case 0: its probabilities sum to 1.5": ([[0.5, 1.0]], [[True, False]], "classes"),
    "case 0 has 2 reference classes, expected one": (HALF, [[True, True]], "grades"),
    "values other than true and false": (HALF, [[2, 0]], "classes"),
    "'kinds' is not one of classes, labels, grades": (HALF, [[True, False]], "kinds"),
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_input_is_told_in_one_sentence(words):
    with pytest.raises(VptError, match=words) as error:
        class_scores(*map(np.asarray, WRONG[words][:2]), WRONG[words][2])
    assert "\n" not in str(error.value)


# --- labels that were not all looked for ------------------------------------------------------------------------------


def partly(cases=40, classes=4, seed=0):
    """Probabilities, references and what was looked for, at least one label of each case."""
    p, t = sample("labels", cases, classes, seed)
    rng = np.random.default_rng(seed + 1)
    looked = rng.random((cases, classes)) < 0.6
    looked[np.arange(cases), rng.integers(classes, size=cases)] = True
    return p, t & looked, looked


def test_a_case_counts_for_the_labels_alone_that_were_looked_for():
    p, t, looked = partly()
    found, whole = per_class_scores(p, t, "labels", looked), class_scores(p, t, "labels", looked)
    for k in range(4):
        rows = looked[:, k]
        own, true = p[rows, k], t[rows, k]
        decided = own > 0.5
        assert found["n"][k] == true.sum()
        assert found["recall"][k] == pytest.approx((decided & true).sum() / true.sum())
        assert found["specificity"][k] == pytest.approx((~decided & ~true).sum() / (~true).sum())
        assert found["precision"][k] == pytest.approx((decided & true).sum() / decided.sum())
        assert found["auroc"][k] == pytest.approx(auroc_by_pairs(own, true))
        assert found["average_precision"][k] == pytest.approx(precision_by_thresholds(own, true))
        table = [[(~true & ~decided).sum(), (~true & decided).sum()], [(true & ~decided).sum(), (true & decided).sum()]]
        assert confusion(p, t, "labels", looked)[k].tolist() == table
    assert whole["auroc"] == pytest.approx(np.mean(found["auroc"]))
    right = [all((p[i, k] > 0.5) == t[i, k] for k in range(4) if looked[i, k]) for i in range(40)]
    assert whole["exact_match"] == pytest.approx(np.mean(right))
    assert whole["ece"] == pytest.approx(gap_by_bins(p[looked], t[looked]))


def test_what_nobody_has_looked_for_changes_no_score():
    p, t, looked = partly()
    other = np.where(looked, p, 1 - p)
    assert class_scores(p, t, "labels", looked) == class_scores(other, t, "labels", looked)
    assert intervals(p, t, "labels", None, looked, **OPTIONS) == intervals(other, t, "labels", None, looked, **OPTIONS)


def test_resamples_of_partly_annotated_cases_are_those_of_repeated_ones():
    p, t, looked = partly()
    drawn = np.random.default_rng(5).integers(40, size=40)
    weights = np.bincount(drawn, minlength=40)
    found = weighted_scores(p, t, "labels", looked)(weights[:, None].astype(np.float32))
    expected = class_scores(p[drawn], t[drawn], "labels", looked[drawn])
    for name, value in expected.items():
        assert found[name][0] == pytest.approx(value, abs=1e-6), name


def test_where_all_was_looked_for_the_scores_are_the_same_and_a_label_that_nobody_looked_for_has_none():
    p, t = sample("labels")
    assert class_scores(p, t, "labels", np.ones_like(t)) == class_scores(p, t, "labels")
    looked = np.ones_like(t)
    looked[:, 2] = False
    found = per_class_scores(p, t & looked, "labels", looked)
    assert found["n"][2] == 0
    assert all(math.isnan(found[key][2]) for key in ("recall", "precision", "specificity", "auroc"))
    keep = [0, 1, 3]
    whole = class_scores(p, t & looked, "labels", looked)
    assert whole == pytest.approx(class_scores(p[:, keep], t[:, keep], "labels"))


def test_a_label_that_all_have_who_were_looked_at_for_it_has_no_auroc():
    p, t = sample("labels")
    looked = np.ones_like(t)
    looked[:, 1] = t[:, 1]
    found = per_class_scores(p, t, "labels", looked)
    assert math.isnan(found["auroc"][1])
    assert math.isnan(found["specificity"][1])
    assert class_scores(p, t, "labels", looked)["auroc"] == pytest.approx(np.mean(found["auroc"][[0, 2, 3]]))


def test_what_was_looked_for_has_to_fit():
    p, t = sample("labels")
    with pytest.raises(VptError, match="case 0 has class"):
        class_scores(p, np.ones_like(t), "labels", np.eye(40, 4, dtype=bool))
    with pytest.raises(VptError, match="annotated has shape"):
        class_scores(p, t, "labels", np.ones((40, 3), bool))
    p, t = sample("classes")
    with pytest.raises(VptError, match="one class of a case is always looked for"):
        class_scores(p, t, "classes", t)
