"""One update in float16: the scaler leaves out what overflows, finds its scale, and its state is saved."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vpt.engine.learning import Learner, scaler_of
from vpt.engine.randomness import random_state, restore_random
from vpt.tasks.batch import Batch, Output


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Linear(4, 2)

    def forward(self, batch: Batch) -> Output:
        return Output(self.module(batch["images"]))


def in_half(clip: float | None, scale: float) -> tuple[Learner, Linear]:
    """A learner in 16-mixed on the CPU, whose scaler starts from `scale`."""
    from lightning.fabric import Fabric
    from lightning.fabric.plugins import MixedPrecision

    torch.manual_seed(0)
    scaler: Any = torch.amp.GradScaler("cpu", init_scale=scale)
    fabric = Fabric(accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    module = Linear()
    forward, optimizer = fabric.setup(module, torch.optim.AdamW(module.parameters(), lr=0.1))
    return Learner(fabric, forward, optimizer, steep, clip), module


def steep(output: Output, batch: Batch) -> Tensor:
    """Gradients of about 300 a weight: beyond float16 (65504) times a scale of 1024."""
    return (output.logits.float() * 100 * batch["truth"]).sum()


BATCH = Batch(images=torch.full((3, 4), 1.0), truth=torch.ones(3, 1))


@pytest.mark.parametrize("clip", [1.0, None])
def test_steps_that_overflow_only_lower_the_scale(clip: float | None) -> None:
    learner, module = in_half(clip, scale=1024.0)
    before, scales = module.module.weight.detach().clone(), []
    while torch.equal(module.module.weight, before):
        assert not learner.optimizer.state_dict()["state"]
        assert learner.update([BATCH]).fault is None
        scales.append(scaler_of(learner.fabric).get_scale())
    assert scales == [512.0, 256.0, 128.0, 128.0]
    assert module.module.weight.isfinite().all()


def test_what_is_not_finite_at_a_scale_of_1_is_a_fault() -> None:
    learner, module = in_half(1.0, scale=1.0)
    before = module.module.weight.detach().clone()
    found = learner.update([Batch(images=torch.full((3, 4), 1.0), truth=torch.full((3, 1), 1e6))])
    assert found.fault is not None
    assert torch.equal(module.module.weight, before)


def test_a_loss_that_is_not_finite_leaves_the_scale_alone() -> None:
    learner, _ = in_half(1.0, scale=64.0)
    found = learner.update([BATCH, Batch(images=torch.full((3, 4), torch.nan), truth=torch.ones(3, 1))])
    assert found.fault == "the loss is nan"
    assert scaler_of(learner.fabric).get_scale() == 64.0
    assert learner.update([BATCH]).fault is None


def test_all_generators_come_back() -> None:
    random.gauss(0, 1)
    np.random.standard_normal()
    state = random_state()
    drawn = [random.gauss(0, 1), random.random(), np.random.standard_normal(), float(torch.rand(1))]
    restore_random(state)
    assert [random.gauss(0, 1), random.random(), np.random.standard_normal(), float(torch.rand(1))] == drawn
