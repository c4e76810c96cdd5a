"""Labels that a model which knows them annotates: where nothing else is, and without learning itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vpt.data.label_values import IGNORED
from vpt.model import Output
from vpt.tasks.batch import Batch
from vpt.tasks.held import filled, holding
from vpt.tasks.partly import over_annotated
from vpt.tasks.segmentation import dice_ce

HELD = {3: 1, 1: 2}  # classes of a model for four labels -> of its teacher for three


def test_the_teacher_annotates_the_background_alone() -> None:
    truth = torch.tensor([[[0, 0, 0, 2, 2, IGNORED]]])
    answers = torch.tensor([[[0, 1, 2, 1, 0, 2]]])
    batch = Batch(truth=truth, annotated=torch.tensor([[True, False, True, False]]))
    found = filled(batch, answers, HELD)
    assert found["truth"].tolist() == [[[0, 3, 1, 2, 2, IGNORED]]]
    assert found["annotated"].all()
    assert truth.tolist() == [[[0, 0, 0, 2, 2, IGNORED]]]


def test_the_loss_is_that_of_what_it_annotated_and_it_never_learns() -> None:
    torch.manual_seed(0)
    logits, answers, truth = torch.randn(2, 4, 3, 5), torch.randn(2, 3, 3, 5), 2 * torch.randint(0, 2, (2, 3, 5))
    batch = Batch(truth=truth, annotated=torch.tensor([[True, False, True, False]] * 2))

    class Teacher(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.answers = nn.Parameter(answers)

        def forward(self, batch: Batch) -> Output:
            return Output(self.answers * 1)

    teacher, today = Teacher(), over_annotated(dice_ce())
    found: Tensor = holding(today, teacher, HELD)(Output(logits), batch)
    assert torch.equal(found, today(Output(logits), filled(batch, answers.argmax(1), HELD)))
    assert found != today(Output(logits), batch)
    assert not teacher.answers.requires_grad
    assert not teacher.training
