"""The matrix products of a run, again, and nothing else: what no code around the same calls can be faster than."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from timing import Run
from torch.utils._python_dispatch import TorchDispatchMode

PRODUCTS = (
    "linear",
    "matmul",
    "conv2d",
    "mm",
    "addmm",
    "bmm",
    "convolution",
    "_linear_pointwise",
    "_convolution_pointwise",
)


class _Recorder(TorchDispatchMode):
    """Keeps every product that torch is asked for, with what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        more = dict(kwargs or {})
        if func.overloadpacket.__name__ in PRODUCTS:
            self.calls.append(lambda: func(*args, **more))
        return func(*args, **more)


def products_of(run: Run) -> Run:
    """The products of a pass without gradients, one after the other, each with the same tensors, whose values may have
    changed since: its time does not depend on them. A GELU that is part of a product is in it.
    """
    recorder = _Recorder()
    with recorder:
        run()

    def products() -> None:
        with torch.inference_mode():
            for call in recorder.calls:
                call()

    return products
