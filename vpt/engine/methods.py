"""What `vpt compare` compares: prompts, and everything else that is cheap, as settings on top of one config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vpt.config import HEAD_RATES
from vpt.errors import VptError
from vpt.sections import HEADS, PROMPTS, TUNINGS
from vpt.vocabulary import NO_ENCODER, TASKS, Task
from vpt.words import did_you_mean

STEPS = (0.25, 1.0, 4.0)  # of the rate that is searched, around its starting point
DECAYS = (1e-2, 1e-4)


@dataclass(frozen=True)
class Method:
    """shown: in tables; settings: by dotted key; rate: the learning rate that is searched, from `start`;
    installed: whether what it needs is there; aside: compared only where it is named."""

    shown: str
    settings: Mapping[str, Any]
    rate: str
    start: float
    tasks: tuple[Task, ...] = TASKS
    installed: bool = True
    aside: bool = False

    def replaces(self, key: str) -> bool:
        """Whether a setting of the config counts for nothing, since the method has its own or searches it."""
        own = (*self.settings, self.rate, "optim.weight_decay", "tuning", "seed")
        return any(key == each or key.startswith(f"{each}.") for each in own)

    def rates(self) -> list[dict[str, float]]:
        """The candidates of the first round, with the first weight decay."""
        return [{self.rate: self.start * step, "optim.weight_decay": DECAYS[0]} for step in STEPS]

    def decays(self, best: Mapping[str, float]) -> list[dict[str, float]]:
        """The candidates of the second round: the other weight decays at the best rate."""
        return [{**best, "optim.weight_decay": decay} for decay in DECAYS[1:]]


WITHOUT = {"prompts": {"method": "none"}}
WITHOUT_ENCODER = WITHOUT | {"backbone": {"name": NO_ENCODER}}
HEAD_ALONE = Method("head only", WITHOUT, "optim.lr", HEAD_RATES["segmentation"], ("segmentation",))


def methods() -> dict[str, Method]:
    """All of them: what the files of heads, prompts and controls say that is to be compared.

    Those of other packages come in by their entry points. `head` is the head that the config has.
    """
    found = {"head": HEAD_ALONE}
    for room, section, rate in (
        (HEADS, "head", "optim.lr"),
        (PROMPTS, "prompts", "optim.prompt_lr"),
        (TUNINGS, "tuning", "optim.backbone_lr"),
    ):
        for choice in room:
            for row in choice.compared:
                own = {section: {room.key: choice.name_by(room.key), **row.settings}}
                alone = {} if section == "prompts" else WITHOUT if choice.encoded else WITHOUT_ENCODER
                found[row.name] = Method(
                    row.shown, alone | own, rate, row.start, choice.tasks, choice.installed(), row.aside
                )
    return found


# No prompts, nothing tuned, the least head: what everything else should beat.
CONTROLS: dict[Task, str] = {"segmentation": "head", "classification": "linear"}


def choose_methods(names: Sequence[str] | None, task: Task) -> dict[str, Method]:
    """The named methods, by default all of the task that are installed and do not stand aside, in their order.

    Raises:
        VptError: an unknown name, or one of the other task.
    """
    known = methods()
    fitting = {name: method for name, method in known.items() if task in method.tasks}
    if names is None:
        return {name: method for name, method in fitting.items() if method.installed and not method.aside}
    for name in names:
        if name in known and name not in fitting:
            raise VptError(f"--methods: {name} is for {' and '.join(known[name].tasks)}, and the task here is {task}")
        if name not in fitting:
            hint = did_you_mean(name, fitting) or f"; expected some of {', '.join(fitting)}"
            raise VptError(f"--methods: no method for {task} is called {name!r}{hint}")
    return {name: fitting[name] for name in dict.fromkeys(names)}
