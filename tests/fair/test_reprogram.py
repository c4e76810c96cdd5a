"""The discriminator of groups and what it does to the answers; the section's own rules."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from vpt.fair.base import Given
from vpt.fair.reprogram import ReprogramConfig, Rival
from vpt.model import Output
from vpt.tasks.answers import ClassAnswers
from vpt.tasks.classification import class_loss

CPU = torch.device("cpu")


def rival(weight: float = 2.0, told_truth: bool = True, rate: float = 0.05) -> Rival:
    given = Given(2, lambda: ClassAnswers("classes", 3), seed=0, device=CPU)
    return Rival(class_loss("classes"), given, weight=weight, told_truth=told_truth, rate=rate)


def telling(count: int = 24) -> tuple[Output, dict[str, torch.Tensor]]:
    """Answers by which the group can be told: of the second one class 2 is likelier."""
    groups = torch.arange(count) % 2
    logits = torch.randn(count, 3, generator=torch.Generator().manual_seed(0))
    logits[:, 2] += 3 * groups
    truth = F.one_hot(torch.arange(count) % 3, 3).float()
    return Output(logits.requires_grad_()), {"truth": truth, "groups": groups}


def guess(of: Rival, output: Output, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return F.cross_entropy(of.discriminator(of.answers(output, batch, of.told_truth)), batch["groups"])


@pytest.mark.parametrize("told_truth", [False, True])
def test_the_discriminator_learns_to_tell_groups_apart(told_truth: bool) -> None:
    found, (output, batch) = rival(told_truth=told_truth), telling()
    before = float(guess(found, output, batch).detach())
    for _ in range(40):
        found(output, batch)
    assert float(guess(found, output, batch).detach()) < 0.5 * before


def test_the_model_goes_against_it_with_the_weight() -> None:
    """min over the answers of CE - weight * CE(D), D being as it is after its step."""
    found, (output, batch) = rival(), telling()
    error = found(output, batch)
    (gradient,) = torch.autograd.grad(error, output.logits)

    task = class_loss("classes")(output, batch)
    expected = task - 2.0 * guess(found, output, batch)
    assert torch.allclose(error, expected)
    (plain,) = torch.autograd.grad(expected, output.logits)
    assert torch.allclose(gradient, plain)

    against = gradient - torch.autograd.grad(class_loss("classes")(output, batch), output.logits)[0]
    moved = Output((output.logits - 0.5 * against).detach())
    assert guess(found, moved, batch) > guess(found, output, batch), "downhill groups are harder to tell"


def test_the_models_step_leaves_the_discriminator_as_it_is() -> None:
    found, (output, batch) = rival(), telling()
    kept = found.state()
    error = found(output, batch)
    stepped = found.state()
    gradients = [p.grad.clone() for p in found.discriminator.parameters()]
    error.backward()
    assert any(not torch.equal(kept[name], stepped[name]) for name in kept), "it learned"
    assert all(torch.equal(p.grad, own) for p, own in zip(found.discriminator.parameters(), gradients, strict=True))


def test_it_goes_on_from_its_state_bit_for_bit() -> None:
    one, (output, batch) = rival(), telling()
    one(output, batch)
    kept = one.state()
    expected = [one(output, batch) for _ in range(3)]
    other = rival()
    other.restore(kept)
    assert all(torch.equal(other(output, batch), value) for value in expected)
    one.restore(kept)
    assert torch.equal(one(output, batch), expected[0])
    assert {name.partition(".")[0] for name in kept} == {"discriminator", "moments"}


def test_its_groups_are_those_of_the_column_alone() -> None:
    """A discriminator of groups and classes would set the answers against the classes."""
    with pytest.raises(ValidationError, match="by_class"):
        ReprogramConfig.model_validate({"by": "site", "by_class": True})
