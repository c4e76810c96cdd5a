"""A small MLP on one vector per image, or per volume."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from vpt.heads.base import Answer, HeadSettings
from vpt.heads.linear import RATE, ClassifyHead, Pool, Start, classify_head
from vpt.sections import Compared


class MlpConfig(HeadSettings):
    """A hidden layer of `hidden` units before the linear one."""

    kind: Literal["mlp"] = "mlp"
    pool: Pool = "auto"
    start: Start = "normal"
    hidden: int = Field(256, ge=1)

    tasks = ("classification",)
    compared = (Compared("mlp", "head only, MLP", {}, RATE),)

    def build(self, backbone: Any, answer: Answer) -> ClassifyHead:
        return classify_head(backbone.spec, answer, **self.arguments())
