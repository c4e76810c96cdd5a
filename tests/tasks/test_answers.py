"""Answers as numbers of a sample: what they are made of, and that a gradient comes back through them."""

from __future__ import annotations

import pytest
import torch

from vpt.data.label_values import IGNORED
from vpt.model import Output
from vpt.tasks.answers import ClassAnswers, MaskAnswers
from vpt.vocabulary import Target


@pytest.mark.parametrize(("target", "outputs"), [("classes", 3), ("labels", 3), ("grades", 2)])
def test_of_classes_they_are_probabilities_and_the_truth(target: Target, outputs: int) -> None:
    logits = torch.randn(4, outputs, requires_grad=True)
    truth = torch.eye(3)[[0, 1, 2, 0]]
    answers, output = ClassAnswers(target, 3), Output(logits)
    alone, both = (answers(output, {"truth": truth}, told) for told in (False, True))
    assert (alone.shape, both.shape) == ((4, answers.width(False)), (4, answers.width(True)))
    assert torch.equal(both, torch.cat([alone, truth], 1))
    assert alone.min() >= 0
    if target != "labels":
        assert torch.allclose(alone.sum(1), torch.ones(4))
    assert torch.autograd.grad(both[:, 0].sum(), logits)[0].abs().max() > 0


def test_of_masks_they_are_shares_of_the_image_that_dice_is_made_of() -> None:
    found = torch.tensor([[0, 1, 1, 2]])
    truth = torch.tensor([[[0, 1, 2, IGNORED]]])
    logits = 50.0 * torch.nn.functional.one_hot(found, 3).permute(0, 2, 1)[:, :, None].float()
    answers = MaskAnswers(3)
    told = answers(Output(logits), {"truth": truth}, True)
    assert told[0].tolist() == pytest.approx([0.5, 0.0, 0.25, 0.25, 0.25, 0.0], abs=1e-6)
    assert torch.equal(answers(Output(logits), {"truth": truth}, False), told[:, :2])
    assert (answers.width(False), answers.width(True)) == (2, 6)
