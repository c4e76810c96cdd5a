"""Linear rows that every task in a sequence adds for its own classes; those of earlier tasks stay as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from vpt.backbones.base import BackboneSpec
from vpt.errors import VptError
from vpt.heads.base import Answer, HeadSettings
from vpt.heads.linear import ClassifyHead, Pool, Start
from vpt.words import counted


class ByTaskConfig(HeadSettings):
    """See `ByTaskHead`."""

    kind: Literal["by_task"] = "by_task"
    """Linear rows for the classes of each task, of which only the last one's train (`vpt train --continue`)."""
    learned: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Task -> its classes, in the order in which they were learned; the last one trains."""
    pool: Pool = "auto"
    """The vector of an image: "cls", "mean" of the patch tokens, or "auto", the encoder's own way."""
    start: Start = "normal"
    """Of the weights: "normal", deviation 0.02; "kaiming", deviation sqrt(2 / classes), as in the code of VPT."""

    tasks = ("classification",)
    offered = False

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of all tasks, in the order in which they came first."""
        return tuple(dict.fromkeys(name for names in self.learned.values() for name in names))

    def further(self, task: str, classes: Sequence[str]) -> Self:
        """These settings with one more task."""
        return self.model_copy(update={"learned": {**self.learned, task: tuple(classes)}})

    def build(self, backbone: Any, answer: Answer) -> ByTaskHead:
        if len(self.classes) != answer.classes or answer.target != "classes" or answer.slices:
            raise VptError(
                f"head by_task: learned {counted(len(self.learned), 'task')} of "
                f"{counted(len(self.classes), 'class')} in all, asked to "
                f"answer {answer.classes} {answer.target}; it comes with `vpt train --continue RUN`, of images of one "
                "class each"
            )
        return ByTaskHead(backbone.spec, learned=self.learned, pool=self.pool, start=self.start)


class PastRows(nn.Module):
    """A linear layer that no longer trains: vectors (B, C) -> logits (B, K)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, width: int, outputs: int):
        super().__init__()
        self.register_buffer("weight", torch.zeros(outputs, width))
        self.register_buffer("bias", torch.zeros(outputs))

    def forward(self, vectors: Tensor) -> Tensor:
        return nn.functional.linear(vectors, self.weight, self.bias)


class ByTaskHead(ClassifyHead):
    """Features -> logits (B, K) of the classes of all tasks, each task's from a linear layer of its own.

    A class that several tasks have (a new site) gets log(sum(exp)) of its rows, so that its probability is the sum of
    theirs. In training the logits are those of the last task, which alone learns, and 0 at all other classes; its loss
    has to look at `columns` alone. Each layer is computed by itself, so an old one answers bit for bit as it did.

    Args:
        spec: of the encoder; learned: task -> its classes, the last one trains; pool, start: see `ClassifyHead`.
    """

    rows = ()  # it goes on with a further task, not with other labels

    def __init__(
        self, spec: BackboneSpec, *, learned: Mapping[str, Sequence[str]], pool: Pool = "auto", start: Start = "normal"
    ):
        *past, own = learned.values()
        super().__init__(spec, outputs=len(own), pool=pool, start=start)
        self.learned = {task: tuple(classes) for task, classes in learned.items()}
        self.past = nn.ModuleList(PastRows(self.width, len(classes)) for classes in past)
        known = list(dict.fromkeys(name for classes in learned.values() for name in classes))
        self.places = [[known.index(name) for name in classes] for classes in learned.values()]
        self.classes = len(known)

    @property
    def columns(self) -> Sequence[int]:
        return self.places[-1]

    def classify(self, pooled: Tensor) -> Tensor:
        """(B, 1, C) -> (B, K)."""
        vectors = pooled[:, 0]
        if self.training:
            own = self.output(vectors)
            return own.new_zeros(len(own), self.classes).index_copy(1, self._index(-1, own), own)
        return self._merged([layer(vectors) for layer in self.layers])

    def answer_of(self, task: Tensor, pooled: Tensor) -> Tensor:
        """Logits (B, K) of samples whose tasks (B,) are known: -inf at classes that their task does not have."""
        if not bool(((task >= 0) & (task < len(self.places))).all()):
            raise VptError(f"head by_task: task {task.tolist()}, but it has learned the tasks 0 to {len(self.past)}")
        logits = [layer(pooled[:, 0]) for layer in self.layers]
        found = logits[0].new_full((len(task), self.classes), -torch.inf)
        for number, own in enumerate(logits):
            asked = (task == number).nonzero()
            found[asked, self._index(number, own)] = own[asked.flatten()]
        return found

    @torch.no_grad()
    def continue_from(self, learned: ClassifyHead, temperature: float = 1.0) -> None:
        """Take over the layers of the tasks before, from a head of one task or of several.

        temperature: what their logits were divided by, as the layers here do by themselves.
        """
        layers = learned.layers if isinstance(learned, ByTaskHead) else [learned.output]
        for own, theirs in zip(self.past, layers, strict=True):
            own.load_state_dict({name: tensor / temperature for name, tensor in theirs.state_dict().items()})

    @property
    def layers(self) -> list[nn.Module]:
        """The layers of all tasks, in their order."""
        return [*self.past, self.output]

    def _index(self, task: int, like: Tensor) -> Tensor:
        return torch.tensor(self.places[task], device=like.device)

    def _merged(self, logits: Sequence[Tensor]) -> Tensor:
        """The logits of every layer, (B, K_t) each -> (B, K)."""
        rows: dict[int, list[Tensor]] = {}
        for places, own in zip(self.places, logits, strict=True):
            for place, row in zip(places, own.unbind(1), strict=True):
                rows.setdefault(place, []).append(row)
        each = (rows[place] for place in range(self.classes))
        return torch.stack([one[0] if len(one) == 1 else torch.stack(one).logsumexp(0) for one in each], 1)
