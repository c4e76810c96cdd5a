"""The training cases that a model kept, and its encoder, to see new scans as it saw them."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from vpt.data.familiar import Familiar
from vpt.data.plan import Plan
from vpt.model import PromptedModel
from vpt.tasks.batch import Forward
from vpt.tasks.pooled import PooledEncoder, features_of
from vpt.use.inference import InPrecision, in_smaller_batches
from vpt.use.prepared_scan import PreparedScan
from vpt.vocabulary import Chosen

SEEN = ("plane", "intensity", "pixel_mm", "image_size", "neighbours", "padding", "fill", "interpolation")
"""What of a plan decides the images of a scan that are looked at, see `vpt.data.familiar.looked_at`."""


@dataclass(frozen=True, eq=False)
class KnownCases:
    """pooled: of the encoder alone, see `PooledEncoder`; sight: equal for models that see a scan alike."""

    familiar: Familiar
    pooled: Forward
    plan: Plan
    device: torch.device
    batch_size: int
    sight: Hashable

    @classmethod
    def of(
        cls,
        model: PromptedModel,
        familiar: Familiar,
        plan: Plan,
        precision: Chosen,
        device: torch.device,
        batch_size: int,
    ) -> Self:
        """The training cases that a model knows, which is ready for inference."""
        pooled = InPrecision(PooledEncoder(model).eval().to(device), precision, device)
        encoder = model.backbone if model.mixing is None else model
        sight = (id(encoder), *(getattr(plan, name) for name in SEEN))
        return cls(familiar, pooled, plan, device, batch_size, sight)

    def features_of(self, scan: PreparedScan) -> np.ndarray:
        """What the encoder alone makes of a scan, (C,): see `vpt.tasks.pooled.features_of`."""

        def in_batches(batch: int) -> np.ndarray:
            return features_of(self.pooled, scan.slices, self.plan, self.device, batch)

        return in_smaller_batches(scan.reader.name, self.batch_size, in_batches)

    def distance(self, features: np.ndarray) -> float:
        return self.familiar.distance(features)
