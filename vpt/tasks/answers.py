"""A model's answers as numbers of a sample, and its truth in the same form: what groups could be told apart by."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from vpt.data.label_values import IGNORED
from vpt.model import Output
from vpt.tasks.batch import Batch
from vpt.tasks.classification import to_probabilities
from vpt.vocabulary import Target


class Answers(ABC):
    """Output, batch -> (B, width), with a gradient at the logits; with_truth: numbers of the truth are among them."""

    @abstractmethod
    def width(self, with_truth: bool) -> int: ...

    @abstractmethod
    def __call__(self, output: Output, batch: Batch, with_truth: bool) -> Tensor: ...


class ClassAnswers(Answers):
    """The probabilities of K classes, and the truth (B, K) of 0 and 1."""

    def __init__(self, target: Target, classes: int):
        self.target: Target = target
        self.classes = classes

    def width(self, with_truth: bool) -> int:
        return self.classes * (1 + with_truth)

    def __call__(self, output: Output, batch: Batch, with_truth: bool) -> Tensor:
        found = to_probabilities(output.logits, self.target).float()
        return torch.cat([found, batch["truth"].float()], 1) if with_truth else found


class MaskAnswers(Answers):
    """Of each of K labels but the background the share of an image that is found; with the truth also the share that is
    there and the share that is rightly found, so that all it takes for Dice is known.
    """

    def __init__(self, labels: int):
        self.labels = labels

    def width(self, with_truth: bool) -> int:
        return (self.labels - 1) * (1 + 2 * with_truth)

    def __call__(self, output: Output, batch: Batch, with_truth: bool) -> Tensor:
        truth = batch["truth"]
        counts = (truth != IGNORED).unsqueeze(1)
        found = output.logits.float().softmax(1)[:, 1:] * counts
        there = F.one_hot(truth.clamp(min=0), self.labels).movedim(-1, 1)[:, 1:].float() * counts
        told = [found, there, found * there] if with_truth else [found]
        return torch.cat([each.mean((2, 3)) for each in told], 1)
