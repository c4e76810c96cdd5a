"""Labels that are held to a teacher's answers: the formula, and what gives no pull at all."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from vpt.model import Output
from vpt.tasks.batch import Batch
from vpt.tasks.held import drift, holding

HELD = {3: 1, 1: 2}  # classes of a model for four labels -> of its teacher for three


def drawn() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, 4, 3, 5), torch.randn(2, 3, 3, 5), torch.randint(0, 3, (2, 3, 5))


def test_it_is_the_divergence_over_held_labels_and_the_rest_where_nothing_was_annotated() -> None:
    logits, answers, truth = drawn()
    total, pixels = 0.0, 0
    for sample, row, column in (truth == 0).nonzero().tolist():
        p, q = logits[sample, :, row, column].softmax(0), answers[sample, :, row, column].softmax(0)
        pairs = [(q[0], p[0] + p[2]), (q[1], p[3]), (q[2], p[1])]
        total, pixels = total + sum(float(q) * math.log(q / p) for q, p in pairs), pixels + 1
    assert float(drift(logits, answers, truth, HELD)) == pytest.approx(total / pixels, rel=1e-5)
    assert float(drift(logits, answers, truth.clamp(min=1), HELD)) == 0


def test_equal_answers_pull_nothing_and_the_teacher_never_learns() -> None:
    logits, answers, truth = drawn()
    other = answers.logsumexp(1)  # split between the background and a further label: the sum is the teacher's
    split = torch.log(torch.stack([answers.softmax(1)[:, 0] * 0.3, answers.softmax(1)[:, 0] * 0.7], 1)) + other[:, None]
    same = torch.stack([split[:, 0], answers[:, 2], split[:, 1], answers[:, 1]], 1).requires_grad_()
    error = drift(same, answers, truth, HELD)
    (slopes,) = torch.autograd.grad(error, same)
    assert float(error.detach()) == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(slopes, torch.zeros_like(slopes), atol=1e-6, rtol=0)

    class Teacher(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.answers = nn.Parameter(answers)

        def forward(self, batch: Batch) -> Output:
            return Output(self.answers * 1)

    teacher = Teacher()
    loss = holding(lambda output, batch: output.logits.sum(), teacher, HELD)
    found = loss(Output(logits), Batch(truth=truth))
    torch.testing.assert_close(found, logits.sum() + drift(logits, answers, truth, HELD))
    assert not teacher.answers.requires_grad
    assert not teacher.training
