"""What `vpt compare` compares: prompts, and everything else that is cheap, as settings on top of one config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from vpt.config import HEAD_RATES
from vpt.errors import VptError
from vpt.vocabulary import Task
from vpt.words import did_you_mean

STEPS = (0.25, 1.0, 4.0)  # of the rate that is searched, around its starting point
DECAYS = (1e-2, 1e-4)
PROMPT_RATE = 1.25e-3


@dataclass(frozen=True)
class Method:
    """shown: in tables; settings: by dotted key; rate: the learning rate that is searched, from `start`."""

    shown: str
    settings: Mapping[str, Any]
    rate: str
    start: float
    tasks: tuple[Task, ...] = ("segmentation", "classification")

    def rates(self) -> list[dict[str, float]]:
        """The candidates of the first round, with the first weight decay."""
        return [{self.rate: self.start * step, "optim.weight_decay": DECAYS[0]} for step in STEPS]

    def decays(self, best: Mapping[str, float]) -> list[dict[str, float]]:
        """The candidates of the second round: the other weight decays at the best rate."""
        return [{**best, "optim.weight_decay": decay} for decay in DECAYS[1:]]


def _prompts(shown: str, **settings: Any) -> Method:
    return Method(shown, {"prompts": settings}, "optim.prompt_lr", PROMPT_RATE)


def _tuned(shown: str, start: float, **settings: Any) -> Method:
    return Method(shown, {"prompts": {"method": "none"}, "tuning": settings}, "optim.backbone_lr", start)


def _head(shown: str, task: Task, **settings: Any) -> Method:
    return Method(shown, {"prompts": {"method": "none"}, **settings}, "optim.lr", HEAD_RATES[task], (task,))


METHODS: dict[str, Method] = {
    "head": _head("head only", "segmentation"),
    "linear": _head("head only, linear", "classification", head={"kind": "linear"}),
    "mlp": _head("head only, MLP", "classification", head={"kind": "mlp"}),
    "shallow": _prompts("VPT-shallow, 50", method="shallow", count=50),
    "deep": _prompts("VPT-deep, 10", method="deep", count=10),
    "deep_tokens": _prompts("VPT-deep, 10, from tokens (SPT)", method="deep", count=10, init="tokens"),
    "deep_kmeans": _prompts("VPT-deep, 10, from k-means of tokens (SPT)", method="deep", count=10, init="kmeans"),
    "deep_vipamin": _prompts("VPT-deep, 10, VIPAMIN", method="deep", count=10, init="vipamin"),
    "deep_shared": _prompts("deep, 10, the same in all blocks", method="deep", count=10, shared=True),
    "low_rank": _prompts("low rank (BPT), 50 of rank 8", method="low_rank", count=50, rank=8),
    "gated": _prompts("gated (GaPT), 50", method="gated", count=50),
    "fourier": _prompts("Fourier (VFPT), 10", method="fourier", count=10),
    "cross": _prompts("cross-attention (CVPT), 20", method="cross", count=20),
    "conditioned": _prompts("input-conditioned (VAPT), 10", method="conditioned", count=10),
    "additive": _prompts("additive grid", method="additive"),
    "bias": _tuned("bias (BitFit)", 1e-3, method="bias"),
    "partial": _tuned("last block (partial-1)", 2e-4, method="partial", blocks=1),
    "ssf": _tuned("SSF", 5e-3, method="ssf"),
    "adapter": _tuned("adapter (AdaptFormer)", 1e-3, method="adapter"),
    "lora": _tuned("LoRA, rank 8", 1e-3, method="lora"),
    "full": _tuned("full fine-tuning", 2e-4, method="full"),
}


# No prompts, nothing tuned, the least head: what everything else should beat.
CONTROLS: dict[Task, str] = {"segmentation": "head", "classification": "linear"}


def choose_methods(names: Sequence[str] | None, task: Task) -> dict[str, Method]:
    """The named methods, by default all that the task has and that are installed, in their order.

    Raises:
        VptError: an unknown name, or one of the other task.
    """
    fitting = {name: method for name, method in METHODS.items() if task in method.tasks}
    if names is None:
        return {name: method for name, method in fitting.items() if name != "lora" or find_spec("peft")}
    for name in names:
        if name in METHODS and name not in fitting:
            raise VptError(f"--methods: {name} is for {' and '.join(METHODS[name].tasks)}, and the task here is {task}")
        if name not in fitting:
            hint = did_you_mean(name, fitting) or f"; expected some of {', '.join(fitting)}"
            raise VptError(f"--methods: no method for {task} is called {name!r}{hint}")
    return {name: fitting[name] for name in dict.fromkeys(names)}
