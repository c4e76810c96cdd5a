"""One update of what trains: its loss and gradients, whole or in parts, and whether they are fit to learn from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from vpt.engine.average import Average
from vpt.engine.randomness import restore_random, torch_state
from vpt.errors import VptError
from vpt.machine.memory import is_out_of_memory
from vpt.model import Output
from vpt.tasks.batch import Batch, Loss, to_device

if TYPE_CHECKING:
    from lightning.fabric import Fabric


@dataclass(frozen=True)
class Update:
    """What became of a group of batches: their losses, or why nothing was learned of them.

    spoilt: batch and place in it of the samples of which nothing finite came; empty where none stands out.
    """

    losses: tuple[float, ...]
    fault: str | None = None
    spoilt: tuple[tuple[int, int], ...] = ()


@dataclass
class Learner:
    """What learns of batches.

    parts: so many pieces of a batch go through the model one after the other, for the gradient of the whole; doubled
    where memory is too little, which `say` is told.
    """

    fabric: Fabric
    forward: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Loss
    clip: float | None = None
    average: Average | None = None
    parts: int = 1
    say: Callable[[str], None] = field(default=lambda said: None)

    def update(self, group: Sequence[Batch]) -> Update:
        """Learn from the mean of the batches' gradients; nothing is changed by a loss or gradient that is not finite.

        Raises:
            VptError: too little memory for a single sample.
        """
        before = torch_state()
        while (found := self._gradients(group)) is None:
            self._halve(max(map(_size, group)))
            restore_random(before)
        if found.fault is None:
            fault = self._step()
            found = found if fault is None else Update(found.losses, fault)
        self.optimizer.zero_grad(set_to_none=True)
        return found

    # --- gradients ----------------------------------------------------------------------------------------------------

    def _gradients(self, group: Sequence[Batch]) -> Update | None:
        """Sum up the gradients of a group; None where memory is too little for it."""
        self.optimizer.zero_grad(set_to_none=True)
        losses: list[float] = []
        try:
            for number, batch in enumerate(group):
                value, logits = self._backward(to_device(batch, self.fabric.device), len(group))
                losses.append(value)
                if not math.isfinite(value):
                    spoilt = tuple((number, place) for place in _not_finite(logits))
                    return Update(tuple(losses), f"the loss is {value}", spoilt)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return None
        return Update(tuple(losses))

    def _backward(self, batch: Batch, sharing: int) -> tuple[float, Tensor]:
        """Loss and logits of a batch; its share of the gradient where the loss is finite."""
        if self.parts > 1:
            return self._backward_in_parts(batch, sharing)
        output = self.forward(batch)
        error = self.loss(output, batch)
        if output.penalty is not None:
            error = error + output.penalty
        value = float(error.detach())
        if math.isfinite(value):
            self.fabric.backward(error / sharing)
        return value, output.logits.detach()

    def _backward_in_parts(self, batch: Batch, sharing: int) -> tuple[float, Tensor]:
        """The same for a batch of which one part at a time fits into memory, with any loss over the whole batch.

        The logits of all parts are made first, without what a backward pass needs; the loss of all of them gives the
        gradient at each logit. Then every part goes through the model once more, with the same random numbers.
        """
        pieces = _split(batch, self.parts)
        states, outputs = [], []
        with torch.no_grad():
            for piece in pieces:
                states.append(torch_state())
                outputs.append(self.forward(piece))
        shares = [_size(piece) / _size(batch) for piece in pieces]
        logits = torch.cat([output.logits for output in outputs]).requires_grad_()
        error = self.loss(Output(logits), batch)
        penalties = [o.penalty * share for o, share in zip(outputs, shares, strict=True) if o.penalty is not None]
        value = float(error.detach()) + float(sum(penalties))
        if not math.isfinite(value):
            return value, logits.detach()
        (slopes,) = torch.autograd.grad(error, logits)
        starts = torch.split(slopes, [_size(piece) for piece in pieces])
        for piece, state, slope, share in zip(pieces, states, starts, shares, strict=True):
            restore_random(state)
            output = self.forward(piece)
            part = (output.logits.float() * slope).sum()
            if output.penalty is not None:
                part = part + output.penalty * share
            self.fabric.backward(part / sharing)
        return value, logits.detach()

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


def _split(batch: Batch, parts: int) -> list[Batch]:
    """Pieces of nearly the same size, `parts` of them or one for each sample."""
    named = cast("dict[str, Tensor]", batch)
    pieces = {name: torch.tensor_split(part, min(parts, _size(batch))) for name, part in named.items()}
    return [cast(Batch, dict(zip(pieces, each, strict=True))) for each in zip(*pieces.values(), strict=True)]


def _not_finite(logits: Tensor) -> list[int]:
    """The samples of which no finite logits came; none where all are alike, since then the model is at fault."""
    places = (~logits.flatten(1).isfinite().all(1)).nonzero().flatten().tolist()
    return [] if len(places) == len(logits) else places
