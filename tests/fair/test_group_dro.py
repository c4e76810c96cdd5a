"""Group DRO against a plain computation of its weights."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from vpt.fair.group_dro import GroupDro
from vpt.model import Output
from vpt.tasks.classification import class_loss
from vpt.tasks.segmentation import dice_ce

CPU = torch.device("cpu")


def batch_of(classes: list[int], groups: list[int]) -> dict[str, torch.Tensor]:
    return {"truth": F.one_hot(torch.tensor(classes), 3).float(), "groups": torch.tensor(groups)}


def test_weights_and_loss_are_those_of_the_paper() -> None:
    step, weights = 0.3, [1 / 3] * 3
    loss = GroupDro(class_loss("classes"), 3, step, CPU)
    for seed, (classes, groups) in enumerate([([0, 1, 2, 0], [0, 0, 1, 2]), ([2, 1, 0, 1], [1, 1, 1, 0])]):
        logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed), requires_grad=True)
        surprise = [-math.log(float(logits.detach()[row].softmax(0)[k])) for row, k in enumerate(classes)]
        own = {a: [value for value, group in zip(surprise, groups, strict=True) if group == a] for a in range(3)}
        mean = {a: sum(values) / len(values) for a, values in own.items() if values}
        raised = [q * math.exp(step * mean.get(a, 0.0)) for a, q in enumerate(weights)]
        weights = [q / sum(raised) for q in raised]

        found = loss(Output(logits), batch_of(classes, groups))

        assert loss.state()["weights"].tolist() == pytest.approx(weights, rel=1e-5)
        assert float(found.detach()) == pytest.approx(sum(weights[a] * value for a, value in mean.items()), rel=1e-5)
        (gradient,) = torch.autograd.grad(found, logits)
        row = (logits.softmax(1) - batch_of(classes, groups)["truth"])[0]
        assert torch.allclose(gradient[0], row * weights[groups[0]] / len(own[groups[0]]), atol=1e-6)


def test_a_group_that_is_always_worse_ends_with_all_the_weight() -> None:
    loss = GroupDro(class_loss("classes"), 2, 0.5, CPU)
    logits = torch.tensor([[4.0, 0.0, 0.0], [4.0, 0.0, 0.0]])
    for _ in range(40):
        loss(Output(logits), batch_of([0, 1], [0, 1]))
    assert loss.state()["weights"][1] > 0.999


def test_of_masks_a_groups_loss_is_that_of_its_slices_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 2, 8, 8, generator=generator)
    truth = torch.randint(0, 2, (4, 8, 8), generator=generator)
    loss = GroupDro(dice_ce(), 2, 0.1, CPU)

    found = loss(Output(logits), {"truth": truth, "groups": torch.tensor([1, 0, 1, 0])})

    own = [dice_ce()(Output(logits[rows]), {"truth": truth[rows]}) for rows in ([1, 3], [0, 2])]
    assert torch.allclose(found, (loss.state()["weights"] * torch.stack(own)).sum())


def test_it_goes_on_from_its_state_which_stays_as_it_was() -> None:
    loss = GroupDro(class_loss("classes"), 2, 0.5, CPU)
    kept = loss.state()
    given = Output(torch.eye(3)[:2]), batch_of([1, 1], [0, 1])
    first = loss(*given)
    assert kept["weights"].tolist() == [0.5, 0.5]
    loss.restore(kept)
    assert torch.equal(loss(*given), first)
