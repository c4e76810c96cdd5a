"""A small MLP on one vector per image, or per volume."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from vpt.heads.base import Answer, HeadSettings
from vpt.heads.linear import RATE, ClassifyHead, Pool, Start, classify_head
from vpt.sections import LARGEST_WIDTH, Compared


class MlpConfig(HeadSettings):
    """See `ClassifyHead`."""

    kind: Literal["mlp"] = "mlp"
    """A hidden layer before the linear one."""
    pool: Pool = "auto"
    """The vector of an image: "cls", "mean" of the patch tokens, or "auto", the encoder's own way."""
    start: Start = "normal"
    """Of the weights: "normal", deviation 0.02; "kaiming", deviation sqrt(2 / classes), as in the code of VPT."""
    hidden: int = Field(256, ge=1, le=LARGEST_WIDTH)
    """Units of the hidden layer."""

    tasks = ("classification",)
    own_rate = RATE
    compared = (Compared("mlp", "head only, MLP", {}, RATE),)

    def build(self, backbone: Any, answer: Answer) -> ClassifyHead:
        return classify_head(backbone.spec, answer, **self.arguments())
