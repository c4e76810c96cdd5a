"""Mirror images at test time: a model's mean probability over an image and its reflections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from vpt.model import Output
from vpt.tasks.batch import Batch, Forward

LEAST = 1e-12  # a probability, so that its logarithm is finite


def over_mirror_images(forward: Forward, turns: Sequence[tuple[int, ...]]) -> Forward:
    """`forward` of segmentation on each mirror image, turned back; its logits are logarithms of the mean probability.

    turns: of `vpt.data.transforms.TURNS`. A single one, the image itself, leaves `forward` as it is. Hints do not turn
    with the image, so whoever makes the batch leaves them out.
    """
    if len(turns) == 1:
        return forward

    return _OverMirrorImages(forward, tuple(turns))


@dataclass(frozen=True, eq=False)
class _OverMirrorImages:
    """A closure could not be sent to another process."""

    forward: Forward
    turns: tuple[tuple[int, ...], ...]

    def __call__(self, batch: Batch) -> Output:
        total = reduce(torch.add, (self._turned(batch, turn) for turn in self.turns))  # never all of them at once
        return Output((total / len(self.turns)).clamp_min(LEAST).log())

    def _turned(self, batch: Batch, turn: tuple[int, ...]) -> Tensor:
        """Probabilities (B, K, S, S) of a mirror image, where the image has them."""
        seen: Batch = {**batch, "images": batch["images"].flip(turn)}
        return self.forward(seen).logits.softmax(1).flip(turn)
