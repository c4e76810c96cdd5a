"""The training cases go into the artifact as its encoder sees them, so that new ones can be told from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from vpt.artifact import add_familiar
from vpt.data.familiar import Familiar, chosen_cases
from vpt.data.plan import Plan
from vpt.data.slices.cached_slices import PreparedCase
from vpt.model import PromptedModel
from vpt.tasks.pooled import PooledEncoder, features_of
from vpt.use.inference import InPrecision
from vpt.vocabulary import Chosen


def keep_cases(
    artifact: Path,
    model: PromptedModel,
    cases: Sequence[PreparedCase],
    plan: Plan,
    device: torch.device,
    precision: Chosen,
    batch_size: int,
) -> None:
    """Add what the encoder of the artifact's `model` makes of its training cases; nothing of fewer than two."""
    forward = InPrecision(PooledEncoder(model).eval().to(device), precision, device)
    chosen = [cases[k] for k in chosen_cases(len(cases))]
    features = [features_of(forward, case.read()[0], plan, device, batch_size) for case in chosen]
    if familiar := Familiar.of(np.stack(features)):
        add_familiar(artifact, familiar)
