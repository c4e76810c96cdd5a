"""Group DRO (Sagawa et al., ICLR 2020, arXiv:1911.08731): the loss of the worst group, by weights that follow it."""

from __future__ import annotations

from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor

from vpt.fair.base import BalancedGroups, Given
from vpt.model import Output
from vpt.tasks.batch import Batch, LearningLoss, Loss


class GroupDroConfig(BalancedGroups):
    method: Literal["group_dro"] = "group_dro"
    """Groups are drawn equally often, and weigh the more in the loss the larger their own has been."""
    step: float = Field(0.01, gt=0)
    """Of the weights, times a group's loss."""

    def loss(self, whole: Loss, given: Given) -> Loss:
        return GroupDro(whole, given.groups, self.step, given.device)


class GroupDro(LearningLoss):
    """The sum of q_a L_a over groups a; before each batch q_a <- q_a exp(step L_a), and all are divided by their sum.

    L_a: `whole` over the batch's samples of the group, whatever `whole` is; of a group that the batch lacks it is 0.
    Algorithm 1 of the paper, with a batch in the place of a sample. The weights start equal.
    """

    def __init__(self, whole: Loss, groups: int, step: float, device: torch.device):
        self.whole = whole
        self.step = step
        self.weights = torch.full((groups,), 1 / groups, device=device)

    def __call__(self, output: Output, batch: Batch) -> Tensor:
        there = batch["groups"].unique()
        losses = torch.stack([self.whole(*_of_group(output, batch, group)) for group in there])
        raised = self.weights.clone()
        raised[there] *= torch.exp(self.step * losses.detach())
        self.weights = raised / raised.sum()
        return (self.weights[there] * losses).sum()

    def state(self) -> dict[str, Tensor]:
        return {"weights": self.weights.clone()}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.weights = state["weights"].to(self.weights.device, copy=True)


def _of_group(output: Output, batch: Batch, group: Tensor) -> tuple[Output, Batch]:
    rows = batch["groups"] == group
    parts = {name: part[rows] for name, part in cast("dict[str, Tensor]", batch).items()}
    return Output(output.logits[rows]), cast(Batch, parts)
