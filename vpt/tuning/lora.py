"""LoRA (Hu et al., ICLR 2022), by the library peft."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vpt.errors import VptError
from vpt.model import PromptedModel
from vpt.sections import LARGEST_WIDTH
from vpt.tuning.base import TuningSettings, compared, layers

PROJECTIONS = tuple(f".attn.{name}" for name in ("qkv", "q_proj", "k_proj", "v_proj", "proj"))


class LoraConfig(TuningSettings):
    method: Literal["lora"] = "lora"
    """Low-rank additions to the attention's projections (LoRA, extra `lora`)."""
    rank: int = Field(8, ge=1, le=LARGEST_WIDTH)
    """Columns of both factors."""
    alpha: int = Field(8, ge=1)
    """What they make together is scaled by alpha / rank."""

    own_rate = 1e-3
    compared = (compared("lora", "LoRA, rank 8", own_rate),)
    needs = "peft"

    def apply(self, model: PromptedModel) -> None:
        tune_lora(model, **self.arguments())


def tune_lora(model: PromptedModel, *, rank: int = 8, alpha: int = 8) -> None:
    """y = W x + b + alpha / rank * B A x in the attention's qkv and proj of every block; A and B train.

    Where an encoder projects queries, keys and values apart, each of them has factors of its own.

    A (rank, C) is random, B (3 C or C, rank) starts at zero, so the output starts exactly at the frozen one.

    Parameters: depth * 6 * C * rank: rank * (C + 3 C) for qkv (6 C of three apart), rank * (C + C) for proj.

    Raises:
        VptError: peft is not installed; an encoder whose attention shares a projection with its MLPs.
    """
    try:
        import peft
    except ImportError as error:
        raise VptError("tuning lora: peft is not installed; install it with `pip install vpt[lora]`") from error
    backbone = model.backbone.requires_grad_(False)
    targets = [name for name in layers(backbone) if name.endswith(PROJECTIONS)]
    if not targets:
        raise VptError(
            f"tuning lora: the attention of {backbone.spec.name} has no projection of its own, its MLP has a part in "
            "it; choose ssf, partial or bias"
        )
    peft.inject_adapter_in_model(peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets), backbone)
    backbone.eval()
