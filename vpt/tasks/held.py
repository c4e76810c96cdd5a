"""Labels that a model has learned elsewhere and that no case here is annotated for: the model that knows them does it.

Its answers stand in the place of the annotation (pseudo-labels), or the labels would be forgotten: merged with the
background, as `partly` does it, they are free to become background.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vpt.model import Output
from vpt.tasks.batch import Batch, Loss


def holding(loss: Loss, teacher: nn.Module, held: Mapping[int, int]) -> Loss:
    """`loss` of a batch in which a model that is not trained has annotated the held labels.

    held: class -> the same label's class in the teacher, which makes its logits of a batch's images.
    """
    teacher.requires_grad_(False).eval()

    def taught(output: Output, batch: Batch) -> Tensor:
        with torch.no_grad():
            answers = teacher.to(output.logits.device)(batch).logits.argmax(1)
        return loss(output, filled(batch, answers, held))

    return taught


def filled(batch: Batch, answers: Tensor, held: Mapping[int, int]) -> Batch:
    """The batch with the held labels where a teacher's answers (B, H, W) have them and nothing else was annotated."""
    truth, annotated = batch["truth"].clone(), batch["annotated"].clone()
    for ours, theirs in held.items():
        truth[(batch["truth"] == 0) & (answers == theirs)] = ours
        annotated[:, ours] = True
    return Batch(**{**batch, "truth": truth, "annotated": annotated})
