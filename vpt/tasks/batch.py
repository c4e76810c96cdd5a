"""What a step of training hands on: a batch, what a model makes of it, and the loss of both."""

from __future__ import annotations

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
    # For data and losses of one's own, which get the whole batch; those of this package neither give nor read them.
    weights: Tensor  # (B,) float32, how much a sample counts
    groups: Tensor  # (B,) int64, the group that a sample belongs to
    place: Tensor  # (B,) float32 in [0, 1], of a slice in its volume


Forward = Callable[[Batch], Output]
Loss = Callable[[Output, Batch], Tensor]
"""The mean over a batch, a scalar, without the penalty."""


def info_of(batch: Batch) -> Info:
    """What a prompt method may use of a batch besides its images."""
    return Info(hints=batch.get("hints"), place=batch.get("place"))


def to_device(batch: Batch, device: torch.device) -> Batch:
    return cast(Batch, {name: part.to(device) for name, part in cast("dict[str, Tensor]", batch).items()})


class NamedSamples(Dataset):
    """The samples of a data set, which are tuples, as those of a `Batch`: the parts in their order have these names."""

    def __init__(self, dataset: Dataset, names: Sequence[str]):
        self.dataset = dataset
        self.names = tuple(names)

    def __getitem__(self, draw: Any) -> Batch:
        return cast(Batch, dict(zip(self.names, self.dataset[draw], strict=True)))
