"""The loss of partly annotated slices: its formula, its gradients, and that it is today's where all is annotated."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vpt.data.label_values import IGNORED
from vpt.model import Output
from vpt.tasks.batch import Batch
from vpt.tasks.partly import marginal_ce, marginal_dice, merged, over_annotated
from vpt.tasks.segmentation import dice_ce, where_it_counts

# Four classes; the first sample was annotated for 1, the second for 2 and 3.
ANNOTATED = torch.tensor([[True, True, False, False], [True, False, True, True]])
WEIGHTS = pytest.mark.parametrize("weights", [None, [0.5, 1.0, 2.0, 3.0]])


def drawn(ignored: bool = False) -> tuple[Tensor, Tensor]:
    """Logits (2, 4, 3, 5) and a truth that holds what was annotated."""
    torch.manual_seed(0)
    truth = torch.stack([torch.randint(0, 2, (3, 5)), torch.tensor([0, 2, 3])[torch.randint(0, 3, (3, 5))]])
    if ignored:
        truth[:, 0, :2] = IGNORED
    return torch.randn(2, 4, 3, 5), truth


def plain(logits: Tensor, truth: Tensor, weights: list[float] | None, smoothing: float) -> tuple[float, float]:
    """Cross-entropy and Dice, pixel by pixel and label by label."""
    each = weights or [1.0] * 4
    total = weight = 0.0
    sums = {label: [0.0, 0.0, 0.0] for label in (1, 2, 3)}
    for sample, row, column in torch.cartesian_prod(*(torch.arange(n) for n in truth.shape)).tolist():
        label = int(truth[sample, row, column])
        if label == IGNORED:
            continue
        p = logits[sample, :, row, column].softmax(0).tolist()
        known = [k for k in range(4) if ANNOTATED[sample, k]]
        q = {k: p[k] for k in known} | {0: p[0] + sum(p[k] for k in range(4) if k not in known)}
        error = -(1 - smoothing) * each[label] * math.log(q[label])
        error -= smoothing * sum(each[k] * math.log(q[k]) for k in known) / len(known)
        total, weight = total + error, weight + each[label]
        for k in known[1:]:
            for place, value in enumerate((p[k] * (label == k), p[k], float(label == k))):
                sums[k][place] += value
    dice = [each[k] * (1 - (2 * both + 1e-5) / (found + there + 1e-5)) for k, (both, found, there) in sums.items()]
    return total / weight, sum(dice) / 3


@WEIGHTS
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("ignored", [False, True])
def test_the_formula_is_that_of_a_plain_recomputation(weights, smoothing: float, ignored: bool) -> None:
    logits, truth = drawn(ignored)
    ce, dice = plain(logits, truth, weights, smoothing)
    each = None if weights is None else torch.tensor(weights)
    assert float(marginal_ce(logits, truth, ANNOTATED, each, smoothing)) == pytest.approx(ce, rel=1e-5)
    assert float(marginal_dice(logits, truth, ANNOTATED, each)) == pytest.approx(dice, rel=1e-5)
    loss = over_annotated(dice_ce(weights, smoothing), weights, smoothing)
    batch = Batch(truth=truth, annotated=ANNOTATED)
    assert float(loss(Output(logits), batch)) == pytest.approx(ce + dice, rel=1e-5)


@WEIGHTS
@pytest.mark.parametrize("ignored", [False, True])
def test_where_all_is_annotated_it_is_the_loss_of_today_bit_for_bit(weights, ignored: bool) -> None:
    logits, truth = drawn(ignored)
    today = dice_ce(weights, 0.1)
    today = where_it_counts(today) if ignored else today
    every = torch.ones(2, 4, dtype=torch.bool)
    found = over_annotated(today, weights, 0.1)(Output(logits), Batch(truth=truth, annotated=every))
    assert torch.equal(found, today(Output(logits), Batch(truth=truth)))
    each = None if weights is None else torch.tensor(weights)
    formula = marginal_dice(logits, truth, every, each) + marginal_ce(logits, truth, every, each, 0.1)
    torch.testing.assert_close(found, formula)


def test_merged_probabilities_are_whole_and_the_backgrounds_holds_what_nobody_looked_for() -> None:
    logits, _ = drawn()
    found, p = merged(logits, ANNOTATED).exp(), logits.softmax(1)
    torch.testing.assert_close(found.sum(1), torch.ones(2, 3, 5))
    torch.testing.assert_close(found[0, 0], p[0, 0] + p[0, 2] + p[0, 3])
    torch.testing.assert_close(found[1, 2:], p[1, 2:])
    assert not found[0, 2:].any()


def test_gradients_of_what_nobody_looked_for() -> None:
    """On background it shares the pull with the background by its probability; on a label it is pushed down by it."""
    logits, truth = drawn()
    logits = logits.double().requires_grad_()
    (slopes,) = torch.autograd.grad(marginal_ce(logits, truth, ANNOTATED), logits)
    p, pixels = logits.detach().softmax(1), truth.numel()
    apart, background = p[0, 2], p[0, 0] + p[0, 2] + p[0, 3]
    expected = torch.where(truth[0] == 0, apart - apart / background, apart) / pixels
    torch.testing.assert_close(slopes[0, 2], expected)
    assert (slopes[0, 2][truth[0] == 0] <= 0).all()
    (slopes,) = torch.autograd.grad(dice_ce()(Output(logits), Batch(truth=truth)), logits)
    assert (slopes[0, 2][truth[0] == 0] > 0).all()  # today's loss would teach that there is nothing


def test_dice_is_a_mean_over_labels_that_some_sample_was_annotated_for() -> None:
    logits, truth = drawn()
    only, truth = torch.tensor([[True, True, False, False]] * 2), truth.clamp(max=1)
    found, there = logits.softmax(1)[:, 1], truth == 1
    expected = 1 - 2 * (found * there).sum() / (found.sum() + there.sum())
    assert float(marginal_dice(logits, truth, only)) == pytest.approx(float(expected), abs=1e-5)


def test_a_batch_of_which_no_pixel_counts_teaches_nothing() -> None:
    logits, truth = drawn()
    logits.requires_grad_()
    error = over_annotated(dice_ce())(Output(logits), Batch(truth=truth.fill_(IGNORED), annotated=ANNOTATED))
    (slopes,) = torch.autograd.grad(error, logits)
    assert error == 0
    assert not slopes.any()
