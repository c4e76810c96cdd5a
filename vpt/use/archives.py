"""What segmenting and classifying new scans share: what a scan may be, on which device, what failed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from vpt.data.plan import Plan
from vpt.errors import VptError
from vpt.machine.precision import Chosen, autocast, prepare_frozen
from vpt.model import PromptedModel
from vpt.readers import reader_of

Given = TypeVar("Given")
Made = TypeVar("Made")


def ready(model: PromptedModel, device: torch.device, precision: Chosen) -> PromptedModel:
    """The model in eval mode on its device, made ready for inference in that precision."""
    model = model.eval().to(device)
    prepare_frozen(model.backbone, precision)
    with autocast(precision, device):
        return model.freeze_prompts()


def require_kind(plan: Plan, scan: Any) -> None:
    """A scan has millimetres and an image has not, so a plan for one does not fit the other."""
    kind = reader_of(scan).kind
    if kind != plan.kind:
        shown = scan if isinstance(scan, str | Path) else f"a {type(scan).__name__}"
        found, expected = ("an image", "NIfTI volumes") if kind == "images" else ("no image", "images")
        raise VptError(f"{shown}: {found}, but the model was trained on {expected}; give it what it was trained on")


@dataclass(frozen=True)
class Failure:
    """A scan that could not be used, and why; the others are done."""

    name: str
    reason: str


def attempt(name: str, file: object, work: Callable[[], Made]) -> Made | Failure:
    """What `work` makes of the scan `name`, or why it could not, be it out of memory or a device that fails."""
    try:
        return work()
    except VptError as error:
        return Failure(name, str(error))
    except (MemoryError, RuntimeError, OSError) as error:
        said = str(error).partition("\n")[0] or type(error).__name__
        return Failure(name, f"{file}: could not be processed ({said}); the others were")


def one_ahead(make: Callable[[Given], Made], items: Sequence[Given]) -> Generator[Callable[[], Made]]:
    """For every item in order a function, to be called once, that gives or raises what `make` makes of it.

    The item behind it is made meanwhile, in a thread. One that finds no memory beside the one before is tried again,
    alone.
    """
    with ThreadPoolExecutor(1, "vpt-read") as reader:
        coming = [reader.submit(make, item) for item in items[:1]]
        for k, item in enumerate(items):
            ready = coming
            wait(ready)
            if isinstance(ready[0].exception(), MemoryError):
                ready = [reader.submit(make, item)]
                wait(ready)
            coming = [reader.submit(make, item) for item in items[k + 1 : k + 2]]
            yield partial(_taken, ready)


def _taken(ready: list[Future[Made]]) -> Made:
    """The result, of which nothing is kept."""
    return ready.pop().result()
