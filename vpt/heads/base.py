"""The contract of a head, and of its section."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from vpt.backbones.tokens import Features, Keep
from vpt.sections import Choice
from vpt.vocabulary import Target


@dataclass(frozen=True)
class Answer:
    """What a head has to answer.

    classes: labels including background, or classes; target: of a classification; slices: whether volumes come as
    several slices.
    """

    classes: int
    target: Target = "classes"
    slices: bool = False


class HeadSettings(Choice):
    """The section of a head: `kind` is its name."""

    kind: str

    def build(self, backbone: Any, answer: Answer) -> Head:
        """The head on an encoder (of which most only need the spec)."""
        raise NotImplementedError

    def arguments(self) -> dict[str, Any]:
        """The settings that `build` hands on."""
        return self.model_dump(exclude={"kind"})


class Head(nn.Module, ABC):
    """What turns features into an answer.

    `levels`: the blocks whose outputs it reads besides the last; `reads`: "first" if of the finished features it reads
    only the first prefix token, so that the rest need not be computed; `takes_hints`: whether it can be told where to
    look.
    """

    levels: tuple[int, ...] = ()
    reads: Keep = "all"
    takes_hints: bool = False

    @abstractmethod
    def forward(self, features: Features, images: Tensor, hints: Tensor | None = None) -> Tensor:
        """Features of normalised images (B, 3, H, W), and the images themselves -> the answer, (B, K, ...).

        hints: (B, N, 3), each x and y in pixels of the image and a kind: 1 a point on the foreground, 0 on the
        background, 2 and 3 the first and the last corner of a box, -1 nothing. None where nothing is known.
        """
