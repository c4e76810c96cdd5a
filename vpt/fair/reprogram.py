"""FairReprogram (Zhang et al., NeurIPS 2022): a learned border or patch in the input that hides groups from a rival."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from vpt.fair.base import FairSettings, Given
from vpt.machine.moments import moments_of, restore_moments
from vpt.model import Output
from vpt.tasks.answers import Answers
from vpt.tasks.batch import Batch, LearningLoss, Loss
from vpt.trigger import Trigger, TriggerForm

HIDDEN = 64  # of the discriminator


class ReprogramConfig(FairSettings):
    method: Literal["reprogram"] = "reprogram"
    """A border or patch is learned that is added to every image, against a discriminator of the groups, which reads the
    answers. With prompts `none` it is the published method.
    """
    form: TriggerForm = "border"
    """Where it is: along the edges, or in the upper left corner."""
    width: int = Field(4, ge=1)
    """Of the border, or side of the patch, in pixels of the encoder's image."""
    weight: float = Field(1.0, gt=0)
    """Of the discriminator's loss, which is taken from the task's."""
    criterion: Literal["odds", "parity"] = "odds"
    """Whether the discriminator is told the truth besides the answers, so that groups are to be alike only where they
    have the same truth (equalised odds), or not (demographic parity).
    """
    rate: float = Field(1e-2, gt=0)
    """The discriminator's, by Adam."""

    def trigger(self, image_size: int) -> Trigger:
        return Trigger(image_size, form=self.form, width=self.width)

    def loss(self, whole: Loss, given: Given) -> Loss:
        odds = self.criterion == "odds"
        return Rival(whole, given, weight=self.weight, told_truth=odds, rate=self.rate)


class Rival(LearningLoss):
    """`whole` - weight * CE(D(answers), group), after one step of D, a discriminator, that lessens the CE.

    The answers that D learns from are those of the batch, without a gradient; D's step and its gradient for the model
    are two passes, so that each of the two sides goes its own way: min over the model, max over D.
    """

    def __init__(self, whole: Loss, given: Given, *, weight: float, told_truth: bool, rate: float):
        self.whole = whole
        self.answers: Answers = given.answers()
        self.weight = weight
        self.told_truth = told_truth
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(given.seed)
            layers = nn.Linear(self.answers.width(told_truth), HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, given.groups)
        self.discriminator = nn.Sequential(*layers).to(given.device)
        self.optimizer = torch.optim.Adam(self.discriminator.parameters(), lr=rate)

    def __call__(self, output: Output, batch: Batch) -> Tensor:
        answers, groups = self.answers(output, batch, self.told_truth), batch["groups"]
        self._learn(answers.detach(), groups)
        self.discriminator.requires_grad_(False)
        guessed = F.cross_entropy(self.discriminator(answers), groups)
        return self.whole(output, batch) - self.weight * guessed

    def _learn(self, answers: Tensor, groups: Tensor) -> None:
        self.discriminator.requires_grad_(True)
        self.optimizer.zero_grad()
        F.cross_entropy(self.discriminator(answers), groups).backward()
        self.optimizer.step()

    def state(self) -> dict[str, Tensor]:
        learned = {f"discriminator.{name}": t.clone() for name, t in self.discriminator.state_dict().items()}
        return learned | {f"moments.{name}": t.clone() for name, t in moments_of(self.optimizer).items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        parts: dict[str, dict[str, Tensor]] = {"discriminator": {}, "moments": {}}
        for name, tensor in state.items():
            part, _, key = name.partition(".")
            parts[part][key] = tensor.clone()
        self.discriminator.load_state_dict(parts["discriminator"])
        restore_moments(self.optimizer, parts["moments"])
