"""An encoder's own feature of an image, by which prompts are chosen for it."""

from __future__ import annotations

from torch import Tensor

from vpt.backbones.base import BackboneSpec
from vpt.backbones.tokens import Features, Keep


def query_of(spec: BackboneSpec, features: Features) -> Tensor:
    """(B, C): the CLS token where the encoder reads it, else its own pooling, else the mean of its patches."""
    if _reads_cls(spec):
        return features.prefix[:, 0]
    return features.grid.mean((2, 3)) if features.pooled is None else features.pooled


def query_width(spec: BackboneSpec) -> int:
    """C of `query_of`."""
    return spec.blocks[-1].width if _reads_cls(spec) else spec.finished.width


def rows_for_query(spec: BackboneSpec) -> Keep:
    """Which rows of the last block's tokens a query is made of."""
    return "first" if _reads_cls(spec) else "all"


def _reads_cls(spec: BackboneSpec) -> bool:
    return spec.pool == "cls" and spec.has_cls
