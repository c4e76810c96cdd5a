"""A way to treat groups alike in training: its section of the config, and what it changes in a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field, field_validator

from vpt.files import absolute
from vpt.sections import Choice
from vpt.tasks.answers import Answers
from vpt.tasks.batch import Loss
from vpt.trigger import Trigger


@dataclass(frozen=True)
class Given:
    """What a run knows for a loss over groups: how many of them, what they are told apart by, its seed and device."""

    groups: int
    answers: Callable[[], Answers]
    seed: int
    device: torch.device


class FairSettings(Choice):
    """The section of a way: `method` is its name. Groups are those of one column."""

    method: str
    by: str = Field(min_length=1)
    """The column that says which group a case is in, of the data set's own list, of the CSV that its dataset.json names
    as `groups`, or of `fair.groups`. Every training and validation case needs a value.
    """
    groups: Path | None = None
    """A CSV with that column and one called `case` (or `patient`); stored as an absolute path."""
    choose: Literal["worst", "mean"] = "worst"
    """The best epoch is that with the highest validation score of the worst group (of five patients or more), or of all
    cases together.
    """
    balances: ClassVar[bool] = False  # every group is drawn as often; within a group cases are drawn as ever

    @field_validator("groups")
    @classmethod
    def _absolute(cls, groups: Path | None) -> Path | None:
        return None if groups is None else absolute(groups)

    @property
    def splits_classes(self) -> bool:
        """Whether the cases of each class in a group are a group of their own."""
        return False

    def trigger(self, image_size: int) -> Trigger | None:
        """What a model learns to add to its images."""
        return None

    def loss(self, whole: Loss, given: Given) -> Loss:
        """The loss of a run whose loss without groups is `whole`; its batches have `groups`."""
        return whole


class BalancedGroups(FairSettings):
    """The section of a way that draws every group as often."""

    by_class: bool = False
    """Of one class a case: the cases of each class in a group are a group of their own, against a mark that goes with
    a class (Sagawa et al. 2020).
    """

    balances: ClassVar[bool] = True

    @property
    def splits_classes(self) -> bool:
        return self.by_class
