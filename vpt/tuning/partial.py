"""The last blocks alone."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vpt.errors import VptError
from vpt.model import PromptedModel
from vpt.tuning.base import TuningSettings, compared, encoder_of, last_of


class PartialConfig(TuningSettings):
    method: Literal["partial"] = "partial"
    """The encoder's last blocks train, with the norm or neck behind them."""
    blocks: int = Field(1, ge=1)
    """How many of the last blocks."""

    own_rate = 2e-4
    compared = (compared("partial", "last block (partial-1)", own_rate, blocks=1),)

    def apply(self, model: PromptedModel) -> None:
        tune_partial(model, **self.arguments())


def tune_partial(model: PromptedModel, *, blocks: int = 1) -> None:
    """Partial-k (Jia et al., ECCV 2022, section 4): the last `blocks` blocks and the norm or neck after them train.

    Parameters: a block with an MLP of 4 C has 12 C^2 + 13 C, in SAM also its tables of relative positions.

    Raises:
        VptError: more blocks than there are.
    """
    encoder, depth = encoder_of(model.backbone), model.backbone.spec.depth
    if not 1 <= blocks <= depth:
        raise VptError(
            f"tuning partial: blocks is {blocks}, expected 1 to {depth}, which {model.backbone.spec.name} has"
        )
    model.backbone.requires_grad_(False)
    for part in (*encoder.blocks[depth - blocks :], *last_of(model.backbone)):
        part.requires_grad_(True)
