"""Biases alone."""

from __future__ import annotations

from typing import Literal

from vpt.errors import VptError
from vpt.model import PromptedModel
from vpt.tuning.base import TuningSettings, compared, layers

BESIDE = ".mlp_bias"  # of a layer whose projection has none for its other parts


class BiasConfig(TuningSettings):
    method: Literal["bias"] = "bias"
    """The encoder's biases train too (BitFit)."""

    own_rate = 1e-3
    compared = (compared("bias", "bias (BitFit)", own_rate),)

    def apply(self, model: PromptedModel) -> None:
        tune_bias(model)


def tune_bias(model: PromptedModel) -> None:
    """BitFit (Ben Zaken et al., ACL 2022): of y = W x + b and y = gamma * norm(x) + b only b trains, in every layer.

    Parameters: a block with an MLP of 4 C has 3 C + C (attention), 4 C + C (MLP) and 2 C (norms), 11 C in all; the
    patch embedding and a ViT's final norm C each; SAM's neck of width N 2 N in its norms, its convolutions have none.

    Raises:
        VptError: an encoder without biases.
    """
    model.backbone.requires_grad_(False)
    found = (getattr(layer, "bias", None) for layer in layers(model.backbone).values())  # RMS norms know none
    biases = [bias for bias in found if bias is not None]
    biases += [bias for name, bias in model.backbone.named_parameters() if name.endswith(BESIDE)]
    if not biases:
        raise VptError(f"tuning bias: {model.backbone.spec.name} has no biases; choose partial, ssf, adapter or lora")
    for bias in biases:
        bias.requires_grad_(True)
