"""One update of what trains: its loss and gradients, whole or in parts, and whether they are fit to learn from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor, nn

from vpt.engine.average import Average
from vpt.engine.randomness import restore_random, torch_state
from vpt.engine.ranks import ALONE, Ranks
from vpt.errors import VptError
from vpt.machine.scarce import KINDS, is_out_of_memory
from vpt.model import Output
from vpt.tasks.batch import Batch, LearningLoss, Loss, to_device

if TYPE_CHECKING:
    from lightning.fabric import Fabric

READ_BY_MODELS = ("images", "rows", "hints")  # parts of a batch that losses do not read
Made = TypeVar("Made")


@dataclass(frozen=True)
class Update:
    """What became of a group of batches: their losses, or why nothing was learned of them.

    spoilt: batch and place in it of the samples of which nothing finite came; empty where none stands out.
    """

    losses: tuple[float, ...]
    fault: str | None = None
    spoilt: tuple[tuple[int, int], ...] = ()


class _TooLarge(Exception):
    """A batch, for the memory of one process or another."""


@dataclass(frozen=True)
class _Pass:
    """A piece of a batch that went through the model; before: the generators of random numbers until then."""

    piece: Batch
    before: dict[str, Tensor]
    output: Output


@dataclass
class Learner:
    """What learns of batches.

    parts: so many pieces of a batch, or of this process's share of it, go through the model one after the other, for
    the gradient of the whole; doubled where memory is too little, which `say` is told. ranks: those that share it.
    """

    fabric: Fabric
    forward: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Loss
    clip: float | None = None
    average: Average | None = None
    parts: int = 1
    say: Callable[[str], None] = field(default=lambda said: None)
    ranks: Ranks = ALONE

    def __post_init__(self) -> None:
        # what trains and had no gradient in any update so far
        self.untouched = {name: p for name, p in self.forward.named_parameters() if p.requires_grad}

    def update(self, group: Sequence[Batch], counts: Sequence[int] | None = None) -> Update:
        """Learn from the mean of the batches' gradients; nothing is changed by a loss or gradient that is not finite.

        A loss that learns as well has then learned of each batch once, or of none.

        counts: samples of each batch in all processes, of which the group holds this one's shares.

        Raises:
            VptError: too little memory for a single sample.
        """
        counts = [_size(batch) for batch in group] if counts is None else counts
        learned = self.loss.state() if isinstance(self.loss, LearningLoss) else {}
        with self.ranks.apart():
            before = torch_state()
            while (found := self._gradients(group, counts)) is None:
                self._halve(-(-max(counts) // self.ranks.of))
                restore_random(before)
                self._unlearn(learned)
        if found.fault is None:
            fault = self._step()
            found = found if fault is None else Update(found.losses, fault)
        if found.fault is not None:
            self._unlearn(learned)
        self.optimizer.zero_grad(set_to_none=True)
        return found

    def _unlearn(self, learned: dict[str, Tensor]) -> None:
        if isinstance(self.loss, LearningLoss):
            self.loss.restore(learned)

    # --- gradients ----------------------------------------------------------------------------------------------------

    def _gradients(self, group: Sequence[Batch], counts: Sequence[int]) -> Update | None:
        """Sum up the gradients of a group; None where memory is too little for it, in any process."""
        self.optimizer.zero_grad(set_to_none=True)
        losses: list[float] = []
        try:
            for number, (batch, count) in enumerate(zip(group, counts, strict=True)):
                value, logits = self._backward(batch, count, len(group))
                losses.append(value)
                if not math.isfinite(value):
                    spoilt = tuple((number, place) for place in _not_finite(logits))
                    return Update(tuple(losses), f"the loss is {value}", spoilt)
        except _TooLarge:
            return None
        self.ranks.add_gradients(p for each in self.optimizer.param_groups for p in each["params"])
        self.untouched = {name: p for name, p in self.untouched.items() if p.grad is None}
        return Update(tuple(losses))

    def _backward(self, batch: Batch, count: int, sharing: int) -> tuple[float, Tensor]:
        """Loss and logits of a batch; its share of the gradient where the loss is finite."""
        there = self._tried(lambda: to_device(batch, self.fabric.device))
        if self.parts > 1 or self.ranks.several:
            return self._backward_in_parts(there, count, sharing)
        return self._tried(lambda: self._backward_whole(there, sharing))

    def _backward_whole(self, batch: Batch, sharing: int) -> tuple[float, Tensor]:
        output = self.forward(batch)
        error = self.loss(output, batch)
        if output.penalty is not None:
            error = error + output.penalty
        value = float(error.detach())
        if math.isfinite(value):
            self.fabric.backward(error / sharing)
        return value, output.logits.detach()

    def _backward_in_parts(self, batch: Batch, count: int, sharing: int) -> tuple[float, Tensor]:
        """The same for a batch of `count` samples that is never in one place, with any loss over the whole batch.

        Each process has its share, and where memory is too little, that goes through the model in `parts`. The logits
        of all are put together; the loss of all of them gives the gradient at each logit. With several parts the logits
        are made without what a backward pass needs, and every part goes through the model once more, with the same
        random numbers.
        """
        passes = self._tried(lambda: [self._pass(piece) for piece in _split(batch, self.parts)])
        logits = self.ranks.gathered(torch.cat([one.output.logits.detach() for one in passes]), count)
        whole = _whole(batch, count, self.ranks)
        error = self._tried(lambda: self.loss(Output(logits.requires_grad_()), whole))
        penalties = [one.output.penalty for one in passes if one.output.penalty is not None]
        shares = [_size(one.piece) / count if self._counts(count) else 0.0 for one in passes]
        value = float(error.detach())
        if penalties:
            value += self.ranks.total(float(sum(p * share for p, share in zip(penalties, shares, strict=True))))
        if self.ranks.any(not math.isfinite(value)):
            return math.nan if math.isfinite(value) else value, logits.detach()
        (slopes,) = self._tried(lambda: torch.autograd.grad(error, logits))
        own = slopes[self.ranks.place(count)]
        self._tried(lambda: self._learn(passes, own, shares, sharing) if len(own) else None)
        return value, logits.detach()

    def _pass(self, piece: Batch) -> _Pass:
        before = torch_state()
        with torch.no_grad() if self.parts > 1 else nullcontext():
            return _Pass(piece, before, self.forward(piece))

    def _learn(self, passes: Sequence[_Pass], slopes: Tensor, shares: Sequence[float], sharing: int) -> None:
        """slopes: the gradient at each logit of all passes."""
        for one, slope, share in zip(passes, slopes.split([_size(one.piece) for one in passes]), shares, strict=True):
            output = one.output
            if self.parts > 1:
                restore_random(one.before)
                output = self.forward(one.piece)
            part = (output.logits.float() * slope).sum()
            if output.penalty is not None:
                part = part + output.penalty * share
            self.fabric.backward(part / sharing)

    def _counts(self, count: int) -> bool:
        """Whether this process has a share in a batch of so many samples."""
        own = self.ranks.place(count)
        return own.stop > own.start

    def _tried(self, work: Callable[[], Made]) -> Made:
        """What `work` makes; _TooLarge in all processes where it was too much for the memory of one."""
        made, failed = None, False
        try:
            made = work()
        except KINDS as error:
            if not is_out_of_memory(error):
                raise
            failed = True
        if self.ranks.any(failed):
            raise _TooLarge
        return cast(Made, made)

    def _halve(self, size: int) -> None:
        if self.parts >= size:
            raise VptError(
                f"too little memory on {self.fabric.device} to train on one sample at a time; lower plan.image_size, "
                "set train.checkpoint=true, choose a smaller encoder or close other programs"
            )
        self.parts = min(2 * self.parts, size)
        if self.fabric.device.type == "cuda":
            torch.cuda.empty_cache()
        self.say(
            f"too little memory for a batch of {size}: from here on in {self.parts} parts of up to "
            f"{math.ceil(size / self.parts)}, with the loss and the gradient of the whole batch, which takes longer"
        )

    # --- the step -----------------------------------------------------------------------------------------------------

    def _step(self) -> str | None:
        """Change what trains, or say why not.

        A gradient beyond float16 is how 16-mixed finds its scale: the scaler leaves such a step out and halves the
        scale. Only where that has come down to 1 is it a fault.
        """
        norm = self._norm()
        scaler = scaler_of(self.fabric)
        if bool(norm.isfinite()):
            self.optimizer.step()
            if self.average:
                self.average.update()
            return None
        if scaler is None:
            return f"the gradient is {float(norm)}"
        at_last = scaler.get_scale() <= 1
        self.optimizer.step()  # the scaler's: it sees what is not finite, and changes nothing but its scale
        return f"the gradient is {float(norm)}" if at_last else None

    def _norm(self) -> Tensor:
        if self.clip is not None:
            optimizer: Any = self.optimizer
            norm = self.fabric.clip_gradients(self.forward, optimizer, max_norm=self.clip, error_if_nonfinite=False)
            return cast(Tensor, norm)
        gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)


def scaler_of(fabric: Fabric) -> Any:
    """The gradient scaler of 16-mixed, or None."""
    return getattr(fabric.strategy.precision, "scaler", None)


def _size(batch: Batch) -> int:
    return len(next(iter(cast("dict[str, Tensor]", batch).values())))


def _whole(batch: Batch, count: int, ranks: Ranks) -> Batch:
    """What a loss reads of all shares of a batch of `count` samples."""
    if not ranks.several:
        return batch
    named = cast("dict[str, Tensor]", batch)
    return cast(Batch, {k: ranks.gathered(part, count) for k, part in named.items() if k not in READ_BY_MODELS})


def _split(batch: Batch, parts: int) -> list[Batch]:
    """Pieces of nearly the same size, `parts` of them or one for each sample."""
    named = cast("dict[str, Tensor]", batch)
    pieces = {name: torch.tensor_split(part, min(parts, _size(batch))) for name, part in named.items()}
    return [cast(Batch, dict(zip(pieces, each, strict=True))) for each in zip(*pieces.values(), strict=True)]


def _not_finite(logits: Tensor) -> list[int]:
    """The samples of which no finite logits came; none where all are alike, since then the model is at fault."""
    places = (~logits.flatten(1).isfinite().all(1)).nonzero().flatten().tolist()
    return [] if len(places) == len(logits) else places
