"""The processes that train together: what each of them does, and what they tell each other.

Every process draws the same batches and takes its share of each. The logits of all shares are put together, so that the
loss is that of the whole batch whatever its sums are, and the gradients are added up. One process is `ALONE`, of which
nothing here costs anything or changes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from vpt.engine.line import Line
from vpt.engine.randomness import restore_random, torch_state
from vpt.errors import VptError
from vpt.machine.scarce import is_out_of_memory
from vpt.model import PromptedModel

Made = TypeVar("Made")
Item = TypeVar("Item")


@dataclass(frozen=True)
class Ranks:
    """This process by its number among `of`; `locals` of them are on its machine; cores: its own, None: all."""

    number: int = 0
    of: int = 1
    locals: int = 1
    line: Line | None = None
    cores: int | None = None

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.number == 0

    @property
    def several(self) -> bool:
        return self.of > 1

    # --- shares -------------------------------------------------------------------------------------------------------

    def place(self, count: int) -> slice:
        """Which of so many samples are this process's: as many in a row as any other has, give or take one."""
        return slice(count * self.number // self.of, count * (self.number + 1) // self.of)

    def share(self, samples: Sequence[Item]) -> Sequence[Item]:
        """This process's samples of a batch; where there are too few for all, one that does not count."""
        return samples if not self.several else samples[self.place(len(samples))] or samples[:1]

    def dealt(self, items: Sequence[Item]) -> Sequence[Item]:
        """Every `of`-th one, of cases that each process does by itself."""
        return items[self.number :: self.of]

    def collected(self, made: Sequence[Made], count: int) -> list[Made]:
        """What all processes made of their `dealt` items, `count` in all, in the items' order, for each of them."""
        if not self.several:
            return list(made)
        each = self.all(list(made))
        return [each[item % self.of][item // self.of] for item in range(count)]

    # --- collectives --------------------------------------------------------------------------------------------------

    def wait(self) -> None:
        """Until all have come here."""
        self.any(False)

    def any(self, flag: bool) -> bool:
        """Whether it is so for any process."""
        return bool(self.most(int(flag)))

    def most(self, number: int) -> int:
        """The largest of all."""
        if not self.several:
            return number
        found = torch.tensor(number)
        with self.company():
            distributed.all_reduce(found, distributed.ReduceOp.MAX)
        return int(found)

    def total(self, value: float) -> float:
        """The sum of all."""
        return sum(self.all(value)) if self.several else value

    def all(self, value: Made) -> list[Made]:
        """What every process gives, in the order of their numbers."""
        if not self.several:
            return [value]
        found: list[Any] = [None] * self.of
        with self.company():
            distributed.all_gather_object(found, value)
        return found

    def told(self, make: Callable[[], Made]) -> Made:
        """What the first process makes, for all."""
        if not self.several:
            return make()
        said: list[Any] = [make() if self.first else None]
        with self.company():
            distributed.broadcast_object_list(said)
        return said[0]

    def gathered(self, part: Tensor, count: int) -> Tensor:
        """The processes' shares (b, ...) of a batch of `count` samples, put together: (count, ...); no gradient."""
        if not self.several:
            return part
        sizes = [of.stop - of.start for of in (Ranks(number, self.of).place(count) for number in range(self.of))]
        own = part.new_zeros(max(1, *sizes), *part.shape[1:])
        own[: len(part)] = part.detach()
        found = [torch.empty_like(own) for _ in sizes]
        with self.company():
            distributed.all_gather(found, own)
        return torch.cat([each[:size] for each, size in zip(found, sizes, strict=True)])

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """The sum over all processes in the place of each one's own; none where no process has one."""
        if not self.several:
            return
        trained = list(parameters)
        there = torch.tensor([p.grad is not None for p in trained], dtype=torch.int32)
        with self.company():
            distributed.all_reduce(there, distributed.ReduceOp.MAX)
        learning = [p for p, has in zip(trained, there.tolist(), strict=True) if has]
        summed = [torch.zeros_like(p) if p.grad is None else p.grad.contiguous() for p in learning]
        with self.company():
            for running in [distributed.all_reduce(gradient, async_op=True) for gradient in summed]:
                running.wait()
        for parameter, gradient in zip(learning, summed, strict=True):
            parameter.grad = gradient

    def start_alike(self, model: PromptedModel) -> None:
        """What trains, and the generators of random numbers, as the first process has them."""
        if not self.several:
            return
        with torch.no_grad(), self.company():
            for tensor in [*model.trained().values(), *_buffers(model)]:
                sent = tensor.detach().contiguous()
                distributed.broadcast(sent, 0)
                tensor.copy_(sent)
        restore_random(self.told(torch_state))

    # --- in turn ------------------------------------------------------------------------------------------------------

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first process goes through the block before the others do, who find what it wrote."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()
        self.wait()

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Inside each process draws other random numbers, from generators that all have alike before and after."""
        if not self.several:
            yield
            return
        seed = int(torch.randint(2**62, ())) + self.number
        after = torch_state()
        torch.manual_seed(seed)
        try:
            yield
        finally:
            restore_random(after)

    def only_first(self, work: Callable[..., None]) -> Callable[..., None]:
        """`work`, or nothing: of what one process does for all."""
        return work if self.first else lambda *given: None

    # --- failing ------------------------------------------------------------------------------------------------------

    @contextmanager
    def company(self) -> Iterator[None]:
        """A collective; one that fails says which process left, and why."""
        assert self.line is not None
        self.line.waiting = True
        try:
            yield
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise self.line.error(error) from error
        finally:
            self.line.waiting = False


ALONE = Ranks()


def require_own(device: torch.device, ranks: Ranks) -> None:
    """Raise VptError where the processes of a machine would compute on the same GPU."""
    if not ranks.several or device.type == "cpu":
        return
    if device.type != "cuda" or device.index is not None:
        raise VptError(f"device={device}: {ranks.of} processes train together; set device=cuda, one GPU each, or cpu")
    if (there := torch.cuda.device_count()) < ranks.locals:
        raise VptError(
            f"{ranks.locals} processes on this machine, which has {there} GPUs; start as many as there are GPUs, or "
            "set device=cpu"
        )


def _buffers(model: PromptedModel) -> list[Tensor]:
    return [buffer for name, buffer in model.named_buffers() if not name.startswith("backbone.")]
