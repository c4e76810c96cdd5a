"""Mirror images at test time: a model's mean probability over an image and its reflections."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vpt.model import Output
from vpt.tasks.batch import Batch, Forward

LEAST = 1e-12  # a probability, so that its logarithm is finite


def over_mirror_images(forward: Forward, turns: Sequence[tuple[int, ...]]) -> Forward:
    """`forward` of segmentation on each mirror image, turned back; its logits are logarithms of the mean probability.

    turns: of `vpt.data.transforms.TURNS`. A single one, the image itself, leaves `forward` as it is.
    """
    if len(turns) == 1:
        return forward

    def run(batch: Batch) -> Output:
        total = torch.zeros(())
        for turn in turns:
            turned: Batch = {**batch, "images": batch["images"].flip(turn)}
            found = forward(turned).logits.softmax(1).flip(turn)
            total = total.to(found.device) + found
        return Output((total / len(turns)).clamp_min(LEAST).log())

    return run
