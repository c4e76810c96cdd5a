"""Classification: the loss of each kind of target, from logits to probabilities, and slices through the encoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpt.heads import ClassifyHead
from vpt.heads.by_task import ByTaskHead
from vpt.machine.memory import MOST
from vpt.model import UNKNOWN, Output, PromptedModel
from vpt.progress import Tick, silent
from vpt.prompts.base import Info
from vpt.tasks.batch import Batch, Forward, Loss, to_device
from vpt.tasks.frozen import FrozenPrefix, OverPrefix
from vpt.tasks.images import Normalise
from vpt.vocabulary import Target


def class_loss(target: Target, weights: Sequence[float] | None = None, smoothing: float = 0.0) -> Loss:
    """Logits (B, outputs), truth (B, K) of 0 and 1 -> mean loss.

    classes: cross-entropy; labels: binary cross-entropy of every label; grades: binary cross-entropy of the K - 1
    questions "is it beyond grade k?" (Cheng et al., IJCNN 2008). `weights`, one per class: of an example's class, of a
    label's positive answers; the mean is that of the weighted examples. `smoothing` moves truth towards even odds.
    Where a batch says which labels its examples were annotated for, the mean is over these answers alone.
    """
    given = None if weights is None else torch.tensor(weights, dtype=torch.float32)

    def of_classes(output: Output, batch: Batch) -> Tensor:
        logits, truth = output.logits, batch["truth"]
        return F.cross_entropy(logits.float(), truth.argmax(1), weight=_on(given, logits), label_smoothing=smoothing)

    def of_labels(output: Output, batch: Batch) -> Tensor:
        logits, truth = output.logits, batch["truth"]
        soft = truth * (1 - smoothing) + smoothing / 2
        annotated, positive = batch.get("annotated"), _on(given, logits)
        if annotated is None or annotated.all():
            return F.binary_cross_entropy_with_logits(logits.float(), soft, pos_weight=positive)
        losses = F.binary_cross_entropy_with_logits(logits.float(), soft, pos_weight=positive, reduction="none")
        return torch.where(annotated, losses, 0).sum() / annotated.sum()

    def of_grades(output: Output, batch: Batch) -> Tensor:
        logits, grade = output.logits, batch["truth"].argmax(1)
        beyond = (torch.arange(logits.shape[1], device=logits.device) < grade[:, None]).float()
        soft = beyond * (1 - smoothing) + smoothing / 2
        losses = F.binary_cross_entropy_with_logits(logits.float(), soft, reduction="none").mean(1)
        if given is None:
            return losses.mean()
        own = given.to(logits.device)[grade]
        return (losses * own).sum() / own.sum()

    return {"classes": of_classes, "labels": of_labels, "grades": of_grades}[target]


def within(columns: Sequence[int] | None, loss: Loss) -> Loss:
    """The loss of these classes alone, by their numbers; None is all of them."""
    if columns is None:
        return loss
    own = list(columns)

    def of_own(output: Output, batch: Batch) -> Tensor:
        return loss(Output(output.logits[:, own], output.penalty), Batch(truth=batch["truth"][:, own]))

    return of_own


def _on(weights: Tensor | None, like: Tensor) -> Tensor | None:
    return None if weights is None else weights.to(like.device)


def balanced_weights(
    truth: np.ndarray, target: Target, most: float = 20.0, annotated: np.ndarray | None = None
) -> list[float]:
    """Truth (N, K) of 0 and 1 -> a weight per class, `most` at most.

    classes and grades: N / (K n_k), so that every class counts alike; labels: negatives over positives.
    annotated: (N, K) bool, which labels somebody has looked for, in which examples alone each counts.
    """
    counts = truth.sum(0)
    every = len(truth) if annotated is None else annotated.sum(0)
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


def fit_temperature(logits: Tensor, truth: Tensor, target: Target, annotated: Tensor | None = None) -> float | None:
    """The temperature under which the logits (N, outputs) have the least loss; 0.05 to 20 (Guo et al., ICML 2017).

    None where the least is at an end of that range: of answers that are all right the loss falls as long as they are
    made surer, and of such as say nothing as long as they are made less sure.
    """
    loss, batch = class_loss(target), Batch(truth=truth)
    if annotated is not None:
        batch["annotated"] = annotated
    candidates = torch.logspace(np.log10(0.05), np.log10(20), 601).tolist()
    best = min(candidates, key=lambda t: float(loss(Output(logits / t), batch)))
    return None if best in (candidates[0], candidates[-1]) else best


class StackModel(nn.Module):
    """A model on the images of a batch, stacks of slices (B, S, 3, H, W) in [0, 1], S being 1 of images."""

    def __init__(self, model: PromptedModel):
        super().__init__()
        self.normalise = Normalise.of(model)
        self.model = model

    def pool(self, slices: Tensor, info: Info = UNKNOWN) -> tuple[Tensor, Tensor | None]:
        """(B, S, 3, H, W) -> (B, S, C), one vector per slice; and what the prompts add to the loss.

        info: of the B * S slices.
        """
        encoded = self.model.encode(self.normalise(slices.flatten(0, 1)), info)
        return head_of(self.model).pool(encoded.features).unflatten(0, slices.shape[:2]), encoded.penalty

    def forward(self, batch: Batch) -> Output:
        """Where the batch says which task its samples are of, with that task's prompts and among its classes."""
        images, task = batch["images"], batch.get("task")
        if task is None:
            pooled, penalty = self.pool(images)
            return Output(head_of(self.model).classify(pooled), penalty)
        pooled, penalty = self.pool(images, Info(task=task.repeat_interleave(images.shape[1])))
        head = self.model.head
        assert isinstance(head, ByTaskHead)
        return Output(head.answer_of(task, pooled), penalty)


class StackModelOverPrefix(OverPrefix):
    """The blocks of a model above its frozen prefix, on what that made of slices, (B, S, V)."""

    half_precision = True

    def __init__(self, prefix: FrozenPrefix):
        super().__init__()
        self.model = prefix.model
        self.normalise = Normalise.of(self.model)
        self.prefix = prefix
        self.kind, self.values = f"block{prefix.first}", prefix.size

    def encode(self, images: Tensor) -> Tensor:
        """Slices (B, S, 3, H, W) in [0, 1] -> (B, S, V)."""
        return self.prefix.rows(self.normalise(images.flatten(0, 1))).unflatten(0, images.shape[:2])

    def forward(self, batch: Batch) -> Output:
        rows, head = batch["rows"], head_of(self.model)
        encoded = self.prefix.encode(rows.flatten(0, 1))
        pooled = head.pool(encoded.features).unflatten(0, rows.shape[:2])
        return Output(head.classify(pooled), encoded.penalty)


class StackModelOverPooled(OverPrefix):
    """Only the head of a model of whose encoder nothing trains, on what `StackModel.pool` gave, (B, S, C)."""

    half_precision = False

    def __init__(self, model: PromptedModel):
        super().__init__()
        self.on_stacks = StackModel(model)
        self.model = model
        self.kind, self.values = f"pooled_{head_of(model).pooling}", head_of(model).width

    def encode(self, images: Tensor) -> Tensor:
        """Slices (B, S, 3, H, W) in [0, 1] -> (B, S, C)."""
        return self.on_stacks.pool(images)[0]

    def forward(self, batch: Batch) -> Output:
        return Output(head_of(self.model).classify(batch["rows"]))


def head_of(model: PromptedModel) -> ClassifyHead:
    """The head of a model that classifies."""
    assert isinstance(model.head, ClassifyHead)
    return model.head


@torch.inference_mode()
def classify_stacks(
    forward: Forward,
    stacks: np.ndarray,
    device: torch.device,
    progress: Tick = silent,
    images: int = MOST,
    task: int | None = None,
) -> Tensor:
    """Logits of stacks (N, S, 3, size, size) uint8, which `forward` is given in [0, 1]; in order, on the CPU, float32.

    Of stored rows (N, S, V), which it is given as they are. images: of all slices together, so many are in memory at
    once, or those of one stack. task: which of the tasks that the model has learned all of them are of, if it is known.
    """
    batch, done = max(1, images // stacks.shape[1]), []
    for start in range(0, len(stacks), batch):
        part = stacks[start : start + batch]
        if part.dtype == np.uint8:
            given = Batch(images=torch.from_numpy(part.astype(np.float32) / 255))
            if task is not None:
                given["task"] = torch.full((len(part),), task)
        else:
            given = Batch(rows=torch.from_numpy(np.array(part)))
        done.append(forward(to_device(given, device)).logits.float().cpu())
        progress(min(start + batch, len(stacks)), len(stacks), "")
    return torch.cat(done)
