"""One vector of a case: what the encoder makes of its slices without any prompts, averaged."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from vpt.data.familiar import looked_at
from vpt.data.framing import Slices
from vpt.data.plan import Plan
from vpt.model import Output, PromptedModel, frozen_below
from vpt.tasks.batch import Batch, Forward
from vpt.tasks.images import Normalise


class PooledEncoder(nn.Module):
    """A model's encoder as training left it, alone: images (B, 3, S, S) in [0, 1] -> (B, C), the mean over patches."""

    def __init__(self, model: PromptedModel):
        super().__init__()
        self.normalise = Normalise(model.backbone.spec, model.mixing)
        self.backbone = model.backbone

    def forward(self, batch: Batch) -> Output:
        below = frozen_below(self.backbone.spec.depth, self.backbone, self.normalise(batch["images"]))
        return Output(self.backbone.finish(below.tokens).grid.mean((2, 3)))


@torch.inference_mode()
def features_of(forward: Forward, slices: Slices, plan: Plan, device: torch.device, batch_size: int) -> np.ndarray:
    """Prepared slices (N, C, h, w) of a case -> (C,) float32, the mean over those that are looked at."""
    images = torch.from_numpy(looked_at(slices, plan))
    found = [forward(Batch(images=part.to(device))).logits.float() for part in images.split(batch_size)]
    features: np.ndarray = torch.cat(found).mean(0).cpu().numpy()
    return features
