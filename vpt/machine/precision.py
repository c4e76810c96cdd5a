"""In which precision a model computes: chosen for the device, put around it, and its frozen weights kept in it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, get_args

import torch
from torch import nn

from vpt.errors import VptError
from vpt.machine.products import FrozenLinear, route_products
from vpt.vocabulary import Chosen, Precision
from vpt.words import either

HALF: dict[str, torch.dtype] = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
MULTIPLYING = (nn.Linear, FrozenLinear, nn.Conv2d, nn.ConvTranspose2d)


def choose_precision(precision: Precision, device: torch.device) -> Chosen:
    """`auto`: bfloat16 where the device computes with it (CUDA from Ampere on, CPUs with AVX512-BF16 or AMX).

    Elsewhere float16 on older CUDA cards, float32 on the rest. Raises VptError for a word that is no precision.
    """
    if precision not in get_args(Precision):
        raise VptError(f"precision {precision!r}: expected {either(get_args(Precision))}")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    if device.type == "cpu":
        return "bf16-mixed" if _computes_with(torch.bfloat16) else "32-true"
    return "32-true"


def slow_precision(precision: Precision, device: torch.device) -> str:
    """That a CPU only imitates the numbers that it was told to compute with; empty where it does not."""
    if device.type != "cpu" or precision not in HALF or _computes_with(HALF[precision]):
        return ""
    return (
        f"precision={precision}: this processor imitates {str(HALF[precision]).removeprefix('torch.')}, which takes "
        "many times as long as float32; precision=auto takes what it computes with"
    )


def _computes_with(dtype: torch.dtype) -> bool:
    """Whether this CPU multiplies such numbers itself."""
    able: Any = getattr(torch.cpu, "get_capabilities", dict)()  # not in every torch from 2.10 on
    kind = "bf16" if dtype is torch.bfloat16 else "fp16"
    return bool(able.get(f"avx512_{kind}") or able.get(f"amx_{kind}"))


def autocast(precision: Chosen, device: torch.device) -> AbstractContextManager[Any]:
    """Products run in half precision inside, sums and norms in float32; nothing changes with 32-true."""
    return torch.autocast(device.type, HALF[precision]) if precision in HALF else nullcontext()


def prepare_frozen(module: nn.Module, precision: Chosen) -> None:
    """Make the frozen layers of `module` ready to compute in that precision, with what is fastest here.

    In half precision their weights are kept as `autocast` would round them in every forward: its results, up to the
    rounding between a layer and its GELU (`vpt.machine.gelu`), at half the memory. The module is of use under
    `autocast(precision, ...)` only from then on. In float32 their products take the faster of torch's libraries
    (`vpt.machine.products`), which changes the last digits. What trains stays as it is.
    """
    if precision not in HALF:
        route_products(module)
        return
    for layer in module.modules():
        if type(layer) in MULTIPLYING and not any(p.requires_grad for p in layer.parameters()):
            layer.to(HALF[precision])
