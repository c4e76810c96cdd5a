"""Functions in the place of a model's forward, so that the right answer is known."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from vpt.tasks.batch import Batch, Forward, Output


def forward_of(rule: Callable[..., Tensor]) -> Forward:
    """`rule` makes logits of a batch's images, and of its hints where it has any."""

    def forward(batch: Batch) -> Output:
        return Output(rule(batch["images"], batch["hints"]) if "hints" in batch else rule(batch["images"]))

    return forward
