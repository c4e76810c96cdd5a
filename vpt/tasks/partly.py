"""The loss of slices whose labels are only partly annotated: what nobody has looked for may lie in the background.

Shi et al., Marginal loss and exclusion loss for partially supervised multi-organ segmentation, Medical Image Analysis
2021, section 3.1: of a case the probabilities of labels that were not annotated are added to the background's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vpt.data.label_values import IGNORED
from vpt.model import Output
from vpt.tasks.batch import Batch, Loss

SMOOTH = 1e-5  # of Dice, above and below, as in `dice_ce`


def over_annotated(whole: Loss, weights: Sequence[float] | None = None, smoothing: float = 0.0) -> Loss:
    """`whole` where all labels of a batch are annotated; else what it becomes where they are not.

    Cross-entropy is of merged probabilities, smoothed over the classes that a case was annotated for. Dice of a label
    is over the samples that were annotated for it, and the mean over labels that any sample of the batch was. Pixels
    that are IGNORED do not count. weights, smoothing: those of `whole`, see `vpt.tasks.segmentation.dice_ce`.
    """
    given = None if weights is None else torch.tensor(weights, dtype=torch.float32)

    def loss(output: Output, batch: Batch) -> Tensor:
        annotated, truth = batch["annotated"], batch["truth"]
        if annotated.all():
            return whole(output, batch)
        logits = output.logits.float()
        if not (truth != IGNORED).any():
            return logits.sum() * 0
        each = None if given is None else given.to(logits.device)
        return marginal_dice(logits, truth, annotated, each) + marginal_ce(logits, truth, annotated, each, smoothing)

    return loss


def merged(logits: Tensor, annotated: Tensor) -> Tensor:
    """Logits (B, K, H, W), annotated (B, K) bool -> log-probabilities in which the background's holds those of labels
    that were not annotated, which are themselves -inf.
    """
    found = logits.log_softmax(1)
    apart = annotated.clone()
    apart[:, 0] = False
    apart = apart[:, :, None, None]
    background = found.masked_fill(apart, -torch.inf).logsumexp(1, keepdim=True)
    return torch.cat([background, found.masked_fill(~apart, -torch.inf)[:, 1:]], 1)


def marginal_ce(
    logits: Tensor, truth: Tensor, annotated: Tensor, weights: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy of `merged`, the mean over pixels by the weights of their classes; truth (B, H, W)."""
    found = merged(logits, annotated)
    counts = truth != IGNORED
    each = torch.ones(logits.shape[1], device=logits.device) if weights is None else weights
    at = truth.clamp(min=0)
    own = -found.gather(1, at.unsqueeze(1)).squeeze(1) * each[at]
    if smoothing:
        known = annotated[:, :, None, None]
        spread = -(found.masked_fill(~known, 0) * each[:, None, None]).sum(1) / known.sum(1)
        own = (1 - smoothing) * own + smoothing * spread
    return own[counts].sum() / each[at][counts].sum()


def marginal_dice(logits: Tensor, truth: Tensor, annotated: Tensor, weights: Tensor | None = None) -> Tensor:
    """1 - soft Dice of each label over the samples annotated for it, the mean over labels that there are such of."""
    counts = (truth != IGNORED).unsqueeze(1) & annotated[:, 1:, None, None]
    found = logits.softmax(1)[:, 1:] * counts
    there = F.one_hot(truth.clamp(min=0), logits.shape[1]).movedim(-1, 1)[:, 1:] * counts
    over = (0, 2, 3)
    dice = (2 * (found * there).sum(over) + SMOOTH) / (found.sum(over) + there.sum(over) + SMOOTH)
    errors = (1 - dice) if weights is None else (1 - dice) * weights[1:]
    present = annotated[:, 1:].any(0)
    return errors[present].mean() if present.any() else errors.sum() * 0
