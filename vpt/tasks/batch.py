"""What a step of training hands on: a batch, what a model makes of it, and the loss of both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypedDict, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from vpt.model import Output
from vpt.prompts.base import Info


class Batch(TypedDict, total=False):
    """B samples, their parts by name; those are there that the data, or what was stored of them, give.

    A sample is the same without the first axis, and torch's default collate makes the batch.
    """

    # (B, 3, S, S) float32 in [0, 1], of stacks (B, slices, 3, S, S), as the data give them; more channels: B, C, S, S
    images: Tensor
    truth: Tensor  # classes (B, S, S) int64, or (B, K) float32 of 0 and 1
    rows: Tensor  # of a stored frozen prefix, (B, V), of stacks (B, slices, V); see `vpt.tasks.frozen`
    hints: Tensor  # (B, N, 3), see `vpt.heads.Head.forward`
    annotated: Tensor  # (B, K) bool, which labels someone has looked for; where it is not there, all
    groups: Tensor  # (B,) int64, the group that a sample belongs to, where the config has `fair`
    task: Tensor  # (B,) int64, which of the tasks that a model has learned a sample is of, where it is known
    # For data and losses of one's own, which get the whole batch; those of this package neither give nor read them.
    weights: Tensor  # (B,) float32, how much a sample counts
    place: Tensor  # (B,) float32 in [0, 1], of a slice in its volume


Forward = Callable[[Batch], Output]
Loss = Callable[[Output, Batch], Tensor]
"""The mean over a batch, a scalar, without the penalty."""


class LearningLoss(ABC):
    """A loss that itself learns of every batch that it is asked about; `state` is all that it has learned."""

    @abstractmethod
    def __call__(self, output: Output, batch: Batch) -> Tensor: ...

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Copies, by name, which a run's state holds."""

    @abstractmethod
    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` gave, which stays as it is."""


def info_of(batch: Batch) -> Info:
    """What a prompt method may use of a batch besides its images."""
    return Info(hints=batch.get("hints"), place=batch.get("place"), task=batch.get("task"))


def to_device(batch: Batch, device: torch.device) -> Batch:
    return cast(Batch, {name: part.to(device) for name, part in cast("dict[str, Tensor]", batch).items()})


class NamedSamples(Dataset):
    """The samples of a data set, which are tuples, as those of a `Batch`: the parts in their order have these names."""

    def __init__(self, dataset: Dataset, names: Sequence[str]):
        self.dataset = dataset
        self.names = tuple(names)

    def __getitem__(self, draw: Any) -> Batch:
        return cast(Batch, dict(zip(self.names, self.dataset[draw], strict=True)))


class GroupedSamples(Dataset):
    """The same samples with the number of their case's group.

    groups: of every case; case_of: a draw -> its case's number.
    """

    def __init__(self, samples: Dataset[Batch], groups: Sequence[int], case_of: Callable[[Any], int]):
        self.samples = samples
        self.groups = torch.tensor(groups)
        self.case_of = case_of

    def __getitem__(self, draw: Any) -> Batch:
        return Batch(**{**self.samples[draw], "groups": self.groups[self.case_of(draw)]})
