"""Labels that a model has learned elsewhere and that no case here is annotated for: it goes on to answer them alike.

After the unbiased distillation of Cermelli et al., Modeling the background for incremental learning, CVPR 2020, eq. 8.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vpt.model import Output
from vpt.tasks.batch import Batch, Loss


def holding(loss: Loss, teacher: nn.Module, held: Mapping[int, int]) -> Loss:
    """`loss`, and how far the answers for the held labels have moved from those of a model that is not trained.

    held: class -> the same label's class in the teacher, which makes its logits of a batch's images.
    """
    teacher.requires_grad_(False).eval()

    def both(output: Output, batch: Batch) -> Tensor:
        device = output.logits.device
        with torch.no_grad():
            answers = teacher.to(device)(batch).logits.float()
        return loss(output, batch) + drift(output.logits.float(), answers, batch["truth"], held)

    return both


def drift(logits: Tensor, answers: Tensor, truth: Tensor, held: Mapping[int, int]) -> Tensor:
    """Logits (B, K, H, W), a teacher's (B, L, H, W) -> their divergence (KL) over the held labels and all others
    together, the mean over pixels of the background; truth (B, H, W). 0 without such a pixel.

    Where another label was annotated, that is known better than by the teacher.
    """
    ours, theirs = list(held), list(held.values())
    known = answers.softmax(1)[:, theirs]
    wanted = torch.cat([1 - known.sum(1, keepdim=True).clamp(max=1), known], 1)
    own = logits.log_softmax(1)
    others = own.clone()
    others[:, ours] = -torch.inf
    found = torch.cat([others.logsumexp(1, keepdim=True), own[:, ours]], 1)
    apart = (torch.xlogy(wanted, wanted) - wanted * found).sum(1)
    unlabelled = truth == 0
    return apart[unlabelled].mean() if unlabelled.any() else apart.sum() * 0
