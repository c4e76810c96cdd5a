"""The contract of a head, and of its section."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from vpt.backbones.tokens import Features, Keep
from vpt.errors import VptError
from vpt.sections import Choice
from vpt.vocabulary import Target


class Rows(NamedTuple):
    """A tensor with a row for each answer: its name, the axis of the rows, and the place of the first one there."""

    tensor: str
    axis: int = 0
    first: int = 0


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
    look; `rows`: the tensors with a row for each answer, and `modules_of_rows`: its lists with a
    module for each answer. By these a head for other labels starts from what it has learned, see `start_from`.
    """

    levels: tuple[int, ...] = ()
    reads: Keep = "all"
    takes_hints: bool = False
    rows: tuple[Rows, ...] = ()
    modules_of_rows: tuple[str, ...] = ()

    @abstractmethod
    def forward(self, features: Features, images: Tensor, hints: Tensor | None = None) -> Tensor:
        """Features of normalised images (B, 3, H, W), and the images themselves -> the answer, (B, K, ...).

        hints: (B, N, 3), each x and y in pixels of the image and a kind: 1 a point on the foreground, 0 on the
        background, 2 and 3 the first and the last corner of a box, -1 nothing. None where nothing is known.
        """

    @torch.no_grad()
    def start_from(self, learned: Self, rows: Sequence[int | None]) -> None:
        """Take over what a head with the same settings has learned for other labels.

        rows: for each answer of this head its number in the other, or None where that has none, which stays as it is.

        Raises:
            VptError: a head that does not say which of its rows belong to which answer.
        """
        if not self.rows and not self.modules_of_rows:
            raise VptError(
                f"head: {type(self).__name__} does not say which of its tensors have a row for each label (`rows`), so "
                "it can only start from a model with the same labels in the same order"
            )
        kept = [(new, old) for new, old in enumerate(rows) if old is not None]
        of_rows = {rows.tensor: rows for rows in self.rows}
        own, theirs = self.state_dict(), learned.state_dict()
        lists = tuple(f"{name}." for name in self.modules_of_rows)
        for name, tensor in own.items():
            if name in of_rows:
                _, axis, first = of_rows[name]
                tensor.narrow(axis, 0, first).copy_(theirs[name].narrow(axis, 0, first))
                for new, old in kept:
                    tensor.select(axis, first + new).copy_(theirs[name].select(axis, first + old))
            elif not name.startswith(lists):
                tensor.copy_(theirs[name])
        for name in self.modules_of_rows:
            for new, old in kept:
                self.get_submodule(f"{name}.{new}").load_state_dict(learned.get_submodule(f"{name}.{old}").state_dict())
