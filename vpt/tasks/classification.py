"""Classification: the loss of each kind of target, from logits to probabilities, and slices through the encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpt.heads import ClassifyHead
from vpt.machine.memory import MOST
from vpt.model import PromptedModel
from vpt.progress import Tick, silent
from vpt.tasks.frozen import FrozenPart
from vpt.tasks.images import Normalise
from vpt.vocabulary import Target


def class_loss(
    target: Target, weights: Sequence[float] | None = None, smoothing: float = 0.0
) -> Callable[[Tensor, Tensor], Tensor]:
    """Logits (B, outputs), truth (B, K) of 0 and 1 -> mean loss.

    classes: cross-entropy; labels: binary cross-entropy of every label; grades: binary cross-entropy of the K - 1
    questions "is it beyond grade k?" (Cheng et al., IJCNN 2008). `weights`, one per class: of an example's class, of a
    label's positive answers; the mean is that of the weighted examples. `smoothing` moves truth towards even odds.
    """
    given = None if weights is None else torch.tensor(weights, dtype=torch.float32)

    def of_classes(logits: Tensor, truth: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), truth.argmax(1), weight=_on(given, logits), label_smoothing=smoothing)

    def of_labels(logits: Tensor, truth: Tensor) -> Tensor:
        soft = truth * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(logits.float(), soft, pos_weight=_on(given, logits))

    def of_grades(logits: Tensor, truth: Tensor) -> Tensor:
        grade = truth.argmax(1)
        beyond = (torch.arange(logits.shape[1], device=logits.device) < grade[:, None]).float()
        soft = beyond * (1 - smoothing) + smoothing / 2
        losses = F.binary_cross_entropy_with_logits(logits.float(), soft, reduction="none").mean(1)
        if given is None:
            return losses.mean()
        own = given.to(logits.device)[grade]
        return (losses * own).sum() / own.sum()

    return {"classes": of_classes, "labels": of_labels, "grades": of_grades}[target]


def _on(weights: Tensor | None, like: Tensor) -> Tensor | None:
    return None if weights is None else weights.to(like.device)


def balanced_weights(truth: np.ndarray, target: Target, most: float = 20.0) -> list[float]:
    """Truth (N, K) of 0 and 1 -> a weight per class, `most` at most.

    classes and grades: N / (K n_k), so that every class counts alike; labels: negatives over positives.
    """
    counts = truth.sum(0)
    every = len(truth)
    ratios = (every - counts if target == "labels" else every / truth.shape[1]) / np.maximum(counts, 1)
    return [float(ratio) for ratio in np.minimum(ratios, most)]


def to_probabilities(logits: Tensor, target: Target, temperature: float = 1.0) -> Tensor:
    """Logits (N, outputs) -> (N, K); of classes and grades the rows sum to 1.

    Of grades the chance to be beyond a grade must not grow with the grade, so each is taken as the least up to it.
    """
    scaled = logits.double() / temperature
    if target == "classes":
        return scaled.softmax(1)
    if target == "labels":
        return scaled.sigmoid()
    beyond = scaled.sigmoid().cummin(1).values
    ends = (beyond.new_ones(len(beyond), 1), beyond.new_zeros(len(beyond), 1))
    return torch.cat([ends[0], beyond], 1) - torch.cat([beyond, ends[1]], 1)


def fit_temperature(logits: Tensor, truth: Tensor, target: Target) -> float:
    """The temperature under which the logits (N, outputs) have the least loss; 0.05 to 20 (Guo et al., ICML 2017)."""
    loss = class_loss(target)
    candidates = torch.logspace(np.log10(0.05), np.log10(20), 601).tolist()
    return float(min(candidates, key=lambda t: float(loss(logits / t, truth))))


class OnSlices(nn.Module):
    """A model on slices (B, S, 3, H, W) in [0, 1], of images S is 1, as the data give them -> logits (B, outputs)."""

    def __init__(self, model: PromptedModel):
        super().__init__()
        self.normalise = Normalise(model.backbone.spec)
        self.model = model

    def pool(self, slices: Tensor) -> Tensor:
        """(B, S, 3, H, W) -> (B, S, C), one vector per slice."""
        images = self.normalise(slices.flatten(0, 1))
        return self._head().pool(self.model.features(images)).unflatten(0, slices.shape[:2])

    def forward(self, slices: Tensor) -> Tensor:
        return self._head().classify(self.pool(slices))

    def _head(self) -> ClassifyHead:
        assert isinstance(self.model.head, ClassifyHead)
        return self.model.head


class OnTokens(nn.Module):
    """The blocks of a model above its frozen part, on what that made of slices, (B, S, V)."""

    def __init__(self, part: FrozenPart):
        super().__init__()
        self.on_slices = OnSlices(part.model)
        self.model = part.model
        self.part = part

    def rows(self, slices: Tensor) -> Tensor:
        """Slices (B, S, 3, H, W) in [0, 1] -> (B, S, V)."""
        return self.part.rows(self.on_slices.normalise(slices.flatten(0, 1))).unflatten(0, slices.shape[:2])

    def forward(self, rows: Tensor) -> Tensor:
        features = self.part.features(rows.flatten(0, 1))
        assert isinstance(self.model.head, ClassifyHead)
        return self.model.head.classify(self.model.head.pool(features).unflatten(0, rows.shape[:2]))


class OnFeatures(nn.Module):
    """Only the head of a model, on what `OnSlices.pool` gave: for an encoder of which nothing trains."""

    def __init__(self, model: PromptedModel):
        super().__init__()
        self.model = model

    def forward(self, pooled: Tensor) -> Tensor:
        assert isinstance(self.model.head, ClassifyHead)
        return self.model.head.classify(pooled)


@torch.inference_mode()
def classify_stacks(
    forward: Callable[[Tensor], Tensor],
    stacks: np.ndarray,
    device: torch.device,
    progress: Tick = silent,
    images: int = MOST,
) -> Tensor:
    """`forward` of stacks (N, S, 3, size, size) uint8, as slices in [0, 1], in order and on the CPU, in float32.

    Stored rows (N, S, V) are given to `forward` as they are. images: of all slices together, so many are in memory at
    once, or those of one stack.
    """
    batch, done = max(1, images // stacks.shape[1]), []
    for start in range(0, len(stacks), batch):
        part = stacks[start : start + batch]
        inputs = torch.from_numpy(part.astype(np.float32) / 255 if part.dtype == np.uint8 else np.array(part))
        done.append(forward(inputs.to(device)).float().cpu())
        progress(min(start + batch, len(stacks)), len(stacks), "")
    return torch.cat(done)
