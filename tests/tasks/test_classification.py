"""Losses against formulas written out, probabilities that are some, and batches that change nothing but the cost."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from encoders import make_sam, make_vit, shaken
from forwards import forward_of
from hypothesis import given, settings
from hypothesis import strategies as st

from vpt.heads import ClassifyHead
from vpt.heads.linear import count_outputs
from vpt.model import PromptedModel
from vpt.prompts import DeepPrompts
from vpt.tasks.batch import Batch, Output
from vpt.tasks.classification import (
    StackModel,
    StackModelOverPooled,
    balanced_weights,
    class_loss,
    classify_stacks,
    fit_temperature,
    to_probabilities,
)

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.3, -2.0], [-0.7, 1.5, 1.1], [3.0, 0.2, 0.1]])
CLASSES = [0, 2, 1, 2]
LABELS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
WEIGHTS = [1.0, 2.5, 0.4]
CPU = torch.device("cpu")


def truth_of(classes, count=3):
    return torch.nn.functional.one_hot(torch.tensor(classes), count).float()


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def surprise(x, soft):
    """Binary cross-entropy of a logit against a truth between 0 and 1."""
    return -(soft * math.log(sigmoid(x)) + (1 - soft) * math.log(1 - sigmoid(x)))


def loss_of(target, logits, truth, *settings):
    return class_loss(target, *settings)(Output(logits), Batch(truth=truth))


# --- losses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_classes(weights, smoothing):
    """Cross-entropy against (1 - s) truth + s / K; the mean is weighted by the weight of each example's class."""
    own, total, norm = weights or [1.0] * 3, 0.0, 0.0
    for row, true in zip(LOGITS.tolist(), CLASSES, strict=True):
        logs = [x - math.log(sum(map(math.exp, row))) for x in row]
        soft = [(1 - smoothing) * (k == true) + smoothing / 3 for k in range(3)]
        total -= sum(own[k] * soft[k] * logs[k] for k in range(3))
        norm += own[true]
    found = loss_of("classes", LOGITS, truth_of(CLASSES), weights, smoothing)
    assert found.item() == pytest.approx(total / norm, rel=1e-5)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_labels(weights, smoothing):
    """Binary cross-entropy of every label, its positive answers weighted; the mean over all of them."""
    own, total = weights or [1.0] * 3, 0.0
    for row, true in zip(LOGITS.tolist(), LABELS.tolist(), strict=True):
        for x, t, w in zip(row, true, own, strict=True):
            soft = t * (1 - smoothing) + smoothing / 2
            total -= w * soft * math.log(sigmoid(x)) + (1 - soft) * math.log(1 - sigmoid(x))
    found = loss_of("labels", LOGITS, LABELS, weights, smoothing)
    assert found.item() == pytest.approx(total / 12, rel=1e-5)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_labels_that_were_partly_looked_for(weights, smoothing):
    """The mean over the answers that somebody has looked for; the others have no gradient, whatever stands there."""
    looked = torch.tensor([[1, 1, 0], [0, 1, 1], [1, 0, 0], [1, 1, 1]], dtype=torch.bool)
    own, terms = weights or [1.0] * 3, []
    for row, true, known in zip(LOGITS.tolist(), LABELS.tolist(), looked.tolist(), strict=True):
        for x, t, w, counts in zip(row, true, own, known, strict=True):
            soft = t * (1 - smoothing) + smoothing / 2
            if counts:
                terms.append(-w * soft * math.log(sigmoid(x)) - (1 - soft) * math.log(1 - sigmoid(x)))
    logits, loss = LOGITS.clone().requires_grad_(), class_loss("labels", weights, smoothing)
    found = loss(Output(logits), Batch(truth=LABELS, annotated=looked))
    assert found.item() == pytest.approx(sum(terms) / 8, rel=1e-5)
    found.backward()
    assert torch.equal(logits.grad != 0, looked)
    everything = Batch(truth=LABELS, annotated=torch.ones_like(looked))
    assert torch.equal(loss(Output(LOGITS), everything), loss(Output(LOGITS), Batch(truth=LABELS)))


@pytest.mark.parametrize("weights", [None, [1.0, 2.5, 0.4, 3.0]])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_grades(weights, smoothing):
    """Of four grades three questions, "beyond grade k?"; an example counts by the weight of its own grade."""
    grades, own = [0, 3, 1, 2], weights or [1.0] * 4
    total = 0.0
    for row, grade in zip(LOGITS.tolist(), grades, strict=True):
        soft = [(grade > k) * (1 - smoothing) + smoothing / 2 for k in range(3)]
        total += own[grade] * sum(surprise(x, s) for x, s in zip(row, soft, strict=True)) / 3
    found = loss_of("grades", LOGITS, truth_of(grades, 4), weights, smoothing)
    assert found.item() == pytest.approx(total / sum(own[grade] for grade in grades), rel=1e-5)


@pytest.mark.parametrize("target", ["classes", "labels", "grades"])
def test_certainty_costs_nothing_and_the_opposite_much(target):
    truth = LABELS if target == "labels" else truth_of([0, 2, 1, 1])
    sign = (2 * truth - 1) if target == "labels" else truth
    if target == "grades":
        sign = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [1.0, -1.0], [1.0, -1.0]])
    assert loss_of(target, 40 * sign, truth).item() < 1e-3
    assert loss_of(target, -40 * sign, truth).item() > 10


def test_the_loss_is_taken_in_float32_and_has_a_gradient():
    for target, truth in (("classes", truth_of(CLASSES)), ("labels", LABELS), ("grades", truth_of([0, 3, 1, 2], 4))):
        half = LOGITS.bfloat16().requires_grad_(True)
        loss = loss_of(target, half, truth)
        assert loss.dtype == torch.float32
        loss.backward()
        assert half.grad.abs().sum() > 0


def test_balanced_weights_by_hand():
    truth = np.eye(3)[[0] * 6 + [1] * 3 + [2]]
    expected = [10 / (3 * 6), 10 / (3 * 3), 10 / 3]
    assert balanced_weights(truth, "classes") == pytest.approx(expected)
    assert balanced_weights(truth, "grades") == pytest.approx(expected)
    labels = np.array([[1, 0, 0], [1, 0, 1], [1, 0, 0], [0, 0, 1]])
    assert balanced_weights(labels, "labels") == pytest.approx([1 / 3, 4.0, 1.0])  # a label that nothing has: 4 over 1
    looked = np.array([[1, 1, 1], [1, 1, 1], [1, 0, 0], [0, 0, 1]], bool)
    assert balanced_weights(labels, "labels", annotated=looked) == pytest.approx([0.0, 2.0, 0.5])
    rare = np.eye(2)[[0] * 99 + [1]]
    assert balanced_weights(rare, "classes", most=5.0) == pytest.approx([100 / 198, 5.0])
    assert balanced_weights(rare, "classes") == pytest.approx([100 / 198, 20.0])


def test_balanced_classes_weigh_alike():
    truth = np.eye(3)[[0] * 6 + [1] * 3 + [2]]
    weights = np.array(balanced_weights(truth, "classes"))
    assert (weights * truth.sum(0)) == pytest.approx([10 / 3] * 3)


# --- probabilities ----------------------------------------------------------------------------------------------------


def test_outputs_are_classes_labels_or_questions():
    assert [count_outputs(5, target) for target in ("classes", "labels", "grades")] == [5, 5, 4]


logits = st.lists(st.lists(st.floats(-50, 50), min_size=4, max_size=4), min_size=1, max_size=5).map(torch.tensor)


@settings(max_examples=60, deadline=None)
@given(logits, st.floats(0.05, 20))
def test_probabilities_of_classes_and_grades_sum_to_1_and_are_none_below_0(given, temperature):
    for target, classes in (("classes", 4), ("grades", 5)):
        found = to_probabilities(given, target, temperature)
        assert found.shape == (len(given), classes)
        assert found.min() >= 0
        torch.testing.assert_close(found.sum(1), torch.ones(len(given), dtype=torch.float64))
    labels = to_probabilities(given, "labels", temperature)
    torch.testing.assert_close(labels, (given.double() / temperature).sigmoid())


@settings(max_examples=60, deadline=None)
@given(logits)
def test_the_chance_to_be_beyond_a_grade_never_grows_with_it(given):
    found = to_probabilities(given, "grades")
    beyond = found.flip(1).cumsum(1).flip(1)[:, 1:]  # P(grade > 0), P(grade > 1), ...
    assert (beyond.diff(dim=1) <= 1e-12).all()
    assert (beyond <= given.double().sigmoid() + 1e-12).all()


def test_grades_that_agree_are_read_as_they_are():
    found = to_probabilities(torch.tensor([[2.0, 0.0, -3.0]]), "grades")
    beyond = [1, sigmoid(2), sigmoid(0), sigmoid(-3), 0]
    assert found[0].tolist() == pytest.approx([beyond[k] - beyond[k + 1] for k in range(4)])
    worse = to_probabilities(torch.tensor([[2.0, 1.0, -3.0]]), "grades")  # more of the second question
    steps = torch.arange(4.0)
    assert (worse * steps).sum() > (found * steps).sum()


# --- temperature ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("true", [0.25, 1.0, 4.0])
@pytest.mark.parametrize("target", ["classes", "labels", "grades"])
def test_a_known_temperature_is_recovered(target, true):
    """Truths drawn from the probabilities of logits; the model's logits are those times the temperature."""
    rng = np.random.default_rng(0)
    exact = torch.from_numpy(rng.normal(0, 2, (2000, 3 if target != "grades" else 1)))
    if target == "labels":
        truth = torch.from_numpy((rng.random(exact.shape) < exact.sigmoid().numpy()).astype(np.float32))
    else:
        cumulative = to_probabilities(exact, target).cumsum(1).numpy()
        drawn = (rng.random((len(exact), 1)) > cumulative).sum(1)
        truth = truth_of(drawn.tolist(), cumulative.shape[1])
    assert fit_temperature(exact * true, truth, target) == pytest.approx(true, rel=0.15)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 10))
def test_a_fitted_temperature_never_makes_the_loss_worse(seed, scale):
    rng = np.random.default_rng(seed)
    given = torch.from_numpy(rng.normal(0, scale, (12, 3)).astype(np.float32))
    for target, truth in (
        ("classes", truth_of(rng.integers(0, 3, 12).tolist())),
        ("labels", torch.from_numpy(rng.integers(0, 2, (12, 3)).astype(np.float32))),
        ("grades", truth_of(rng.integers(0, 4, 12).tolist(), 4)),
    ):
        temperature = fit_temperature(given, truth, target)
        if temperature is None:  # the least is at an end
            ends = [loss_of(target, given / end, truth) for end in (0.05, 20.0)]
            assert min(ends) <= min(loss_of(target, given / t, truth) for t in np.logspace(-1.2, 1.2, 25)) + 1e-6
            continue
        assert 0.05 <= temperature <= 20.0001
        assert loss_of(target, given / temperature, truth) <= loss_of(target, given, truth) + 1e-6


@pytest.mark.parametrize("target", ["classes", "labels", "grades"])
def test_where_all_is_right_or_nothing_says_anything_no_temperature_is_the_best(target):
    truth = truth_of([0, 1, 2, 0]) if target == "classes" else truth_of([0, 1, 1, 0], 2)
    sure = torch.eye(3)[[0, 1, 2, 0]] * 2 - 1 if target == "classes" else torch.tensor([[-1.0], [1], [1], [-1]])
    truth = torch.tensor([[0.0], [1], [1], [0]]) if target == "labels" else truth
    assert fit_temperature(sure, truth, target) is None
    assert fit_temperature(-sure, truth, target) is None


def test_a_temperature_changes_no_decision():
    for target in ("classes", "labels"):
        decided = [
            (to_probabilities(LOGITS, target, t) > 0.5) if target == "labels" else to_probabilities(LOGITS, target, t)
            for t in (0.3, 1.0, 5.0)
        ]
        if target == "classes":
            decided = [p.argmax(1) for p in decided]
        assert all(torch.equal(decided[0], each) for each in decided)


# --- slices through the encoder ---------------------------------------------------------------------------------------


def stacks(count, slices, shape=(64, 40)):
    return np.random.default_rng(0).integers(0, 256, (count, slices, 3, *shape), np.uint8)


def prompted(make_backbone, slices):
    backbone = make_backbone()
    head = shaken(ClassifyHead(backbone.spec, outputs=3, hidden=6, slices=slices > 1))
    return PromptedModel(backbone, shaken(DeepPrompts(backbone.spec, count=2)), head).eval()


@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize("make_backbone", [make_vit, make_sam])
def test_batched_equals_one_by_one(make_backbone, slices):
    model, given = StackModel(prompted(make_backbone, slices)).eval(), stacks(5, slices)
    whole = classify_stacks(model, given, CPU)
    assert whole.shape == (5, 3)
    single = torch.cat([classify_stacks(model, given[k : k + 1], CPU) for k in range(5)])
    torch.testing.assert_close(whole, single, atol=1e-5, rtol=1e-4)
    for images in (1, 4, 7):
        torch.testing.assert_close(classify_stacks(model, given, CPU, images=images), whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("slices", [1, 3])
def test_at_most_so_many_images_are_in_memory_at_once(slices):
    sizes, told = [], []

    def forward(batch):
        sizes.append(len(batch) * slices)
        return torch.zeros(len(batch), 2)

    classify_stacks(forward_of(forward), stacks(7, slices, (8, 8)), CPU, lambda *what: told.append(what[:2]), images=6)
    assert max(sizes) == 6
    assert sum(sizes) == 7 * slices
    assert told[-1] == (7, 7)


def test_bytes_become_normalised_colours():
    seen = []
    classify_stacks(forward_of(lambda batch: seen.append(batch) or batch[:, 0, 0, 0, :1]), stacks(2, 1), CPU)
    assert torch.equal(seen[0], torch.from_numpy(stacks(2, 1).astype(np.float32) / 255))
    model = prompted(make_vit, 1)  # mean and std are a half
    images = torch.rand(2, 1, 3, 64, 40)
    with torch.no_grad():
        torch.testing.assert_close(StackModel(model)(Batch(images=images)).logits, model((images[:, 0] - 0.5) / 0.5))


@pytest.mark.parametrize("slices", [1, 3])
def test_features_kept_and_classified_later_are_the_same_logits(slices):
    model, given = prompted(make_vit, slices), stacks(4, slices)
    whole = StackModel(model).eval()
    pooled = classify_stacks(forward_of(lambda images: whole.pool(images)[0]), given, CPU)
    assert pooled.shape[:2] == (4, slices)
    with torch.no_grad():
        found = StackModelOverPooled(model)(Batch(rows=pooled)).logits
        torch.testing.assert_close(found, classify_stacks(whole, given, CPU), atol=1e-5, rtol=1e-4)
