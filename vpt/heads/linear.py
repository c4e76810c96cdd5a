"""A linear layer on one vector per image, or per volume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vpt.backbones.base import BackboneSpec
from vpt.backbones.tokens import Features
from vpt.errors import VptError
from vpt.heads.base import Answer, Head, HeadSettings, Rows
from vpt.sections import Compared, require_whole
from vpt.vocabulary import Target

Pool = Literal["auto", "cls", "mean"]
Start = Literal["normal", "kaiming"]
Pooling = Literal["cls", "own", "mean"]  # what it came to: the CLS token, the encoder's own way, the mean of patches
RATE = 1e-2  # of the head alone


class LinearConfig(HeadSettings):
    """See `ClassifyHead`."""

    kind: Literal["linear"] = "linear"
    """One linear layer on a vector of the image."""
    pool: Pool = "auto"
    """The vector of an image: "cls", "mean" of the patch tokens, or "auto", the encoder's own way."""
    start: Start = "normal"
    """Of the weights: "normal", deviation 0.02; "kaiming", deviation sqrt(2 / classes), as in the code of VPT."""

    tasks = ("classification",)
    own_rate = RATE
    compared = (Compared("linear", "head only, linear", {}, RATE),)

    def build(self, backbone: Any, answer: Answer) -> ClassifyHead:
        return classify_head(backbone.spec, answer, **self.arguments())


def classify_head(spec: BackboneSpec, answer: Answer, **settings: Any) -> ClassifyHead:
    """The head for that answer."""
    outputs = count_outputs(answer.classes, answer.target)
    return ClassifyHead(spec, outputs=outputs, slices=answer.slices, **settings)


def count_outputs(classes: int, target: Target) -> int:
    """Logits for so many classes; of K grades there are K - 1 questions: worse than the first, than the second, ..."""
    return classes - 1 if target == "grades" else classes


class ClassifyHead(Head):
    """Features -> logits (B, outputs).

    Jia et al. (ECCV 2022) read the CLS token of supervised and MoCo backbones after the encoder's final norm. Of MAE
    their default averages all tokens but CLS, the prompts that left the last block among them, and norms the mean; here
    prompts are never averaged: as keys and values they leave no block, and what a head reads would depend on their
    number. The slices of a volume are weighted by gated attention
    (Ilse et al., ICML 2018, eq. 9): `w = softmax_s(a . (tanh(V x_s) * sigmoid(U x_s)))`, the volume is `sum_s w_s x_s`.

    Args:
        spec: of the encoder; outputs: logits, for classes as many as there are;
        pool: "cls", "mean" of the patch tokens (prompts not among them), "auto": what the encoder itself does: its CLS
            token, the mean of its patches, with the norm that it puts after that, or a pooling that it has learned;
        hidden: units of a hidden layer with GELU; None for one linear layer;
        slices: volumes come as several slices;
        start: of the weights: "normal", of deviation 0.02; "kaiming" (fan-out), of deviation sqrt(2 / outputs), as in
            the code of VPT. Biases start at 0. Theirs start at -ln 99, all alike, which a softmax does not see.

    Raises:
        VptError: "cls" of an encoder without such a token.
    """

    rows: tuple[Rows, ...] = (Rows("output.weight"), Rows("output.bias"))

    def __init__(
        self,
        spec: BackboneSpec,
        *,
        outputs: int,
        pool: Pool = "auto",
        hidden: int | None = None,
        slices: bool = False,
        start: Start = "normal",
    ):
        super().__init__()
        require_whole("head", outputs=outputs, hidden=1 if hidden is None else hidden)
        if pool == "cls" and not spec.has_cls:
            raise VptError(f"head: pool is cls, but {spec.name} has no CLS token; choose mean")
        takes_cls = pool == "cls" or (pool == "auto" and spec.pool == "cls" and spec.has_cls)
        self.pooling: Pooling = "cls" if takes_cls else "own" if pool in ("auto", spec.pool) else "mean"
        self.reads = "first" if takes_cls else "all"
        self.width = width = spec.blocks[-1].width if takes_cls else spec.finished.width
        self.over_slices = SliceAttention(width) if slices else None
        self.hidden = None if hidden is None else nn.Sequential(nn.Linear(width, hidden), nn.GELU())
        self.output = nn.Linear(hidden or width, outputs)
        if start == "kaiming":
            nn.init.kaiming_normal_(self.output.weight, mode="fan_out")
        else:
            nn.init.normal_(self.output.weight, std=0.02)
        nn.init.zeros_(self.output.bias)

    @property
    def columns(self) -> Sequence[int] | None:
        """The logits that train, by their numbers; None is all of them."""
        return None

    def pool(self, features: Features) -> Tensor:
        """Features of B images -> (B, C)."""
        if self.pooling == "cls":
            return features.prefix[:, 0]
        own = features.pooled if self.pooling == "own" else None
        return features.grid.mean((2, 3)) if own is None else own

    def classify(self, pooled: Tensor) -> Tensor:
        """(B, S, C), of images S is 1 -> (B, outputs)."""
        vector = pooled[:, 0] if self.over_slices is None else self.over_slices(pooled)
        return self.output(vector if self.hidden is None else self.hidden(vector))

    def forward(self, features: Features, images: Tensor, hints: Tensor | None = None) -> Tensor:
        return self.classify(self.pool(features).unsqueeze(1))


class SliceAttention(nn.Module):
    """(B, S, C) -> (B, C): the mean of the slices under learned weights, which start equal."""

    def __init__(self, width: int, hidden: int = 64):
        super().__init__()
        self.value = nn.Linear(width, hidden)
        self.gate = nn.Linear(width, hidden)
        self.weight = nn.Linear(hidden, 1, bias=False)
        nn.init.zeros_(self.weight.weight)

    def forward(self, slices: Tensor) -> Tensor:
        weights = self.weight(torch.tanh(self.value(slices)) * torch.sigmoid(self.gate(slices))).softmax(1)
        return (weights * slices).sum(1)
