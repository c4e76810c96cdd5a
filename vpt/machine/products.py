"""Matrix products in float32 on a CPU, through the faster of torch's two libraries.

torch sends them through MKL, which on AMD's processors reaches half to four fifths of what oneDNN does, at the same
accuracy. For linear layers oneDNN is only reached by the operator that `torch.compile` uses, which is private and knows
no gradients; of frozen weights only the input's is needed, and that is one more product. Products of batches reach it
where torch is allowed less than float32, which oneDNN makes no use of on these processors.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@cache
def onednn_is_faster() -> bool:
    """Whether this machine multiplies float32 faster by oneDNN than by torch's default."""
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return there and torch.backends.mkl.is_available() and "AuthenticAMD" in _cpu_vendor()


@cache
def batches_by_onednn() -> bool:
    """Whether products of batches in float32 are faster inside `by_onednn`; seen to be as exact there, once."""
    if not onednn_is_faster() or getattr(torch.backends.mkldnn, "matmul", None) is None:  # torch 2.10 has it
        return False
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 2, 256, 256, generator=generator)
    with by_onednn():
        found = a @ b
    exact = a.double() @ b.double()
    return bool((found - exact).abs().max() <= 1e-5 * exact.abs().max())


@cache
def has_amx() -> bool:
    """Whether torch multiplies bfloat16 by AMX here, in tiles of 16 rows of 32 numbers."""
    able: Any = getattr(torch.cpu, "get_capabilities", dict)()  # not in every torch from 2.10 on
    return bool(able.get("amx_bf16"))


_asked, _before, _lock = 0, "none", Lock()


@contextmanager
def by_onednn() -> Iterator[None]:
    """Products of batches in float32 on a CPU run through oneDNN inside; where threads overlap, until the last leaves.

    The setting is the whole process's, and says that bfloat16 would do. Only for where `batches_by_onednn`.
    """
    global _asked, _before
    matmul: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    with _lock:
        if _asked == 0:
            _before, matmul.fp32_precision = matmul.fp32_precision, "bf16"
        _asked += 1
    try:
        yield
    finally:
        with _lock:
            _asked -= 1
            if _asked == 0:
                matmul.fp32_precision = _before


def _cpu_vendor() -> str:
    with suppress(OSError):  # Linux
        return Path("/proc/cpuinfo").read_text()
    return platform.processor()


class FrozenLinear(nn.Linear):
    """A linear layer that does not train, with the weights of another: the same sums by oneDNN.

    What oneDNN would not do faster (other types than float32, other devices) goes torch's way.
    """

    def __init__(self, like: nn.Linear):
        super().__init__(like.in_features, like.out_features, bias=False, device="meta")
        self.weight, self.bias = like.weight, like.bias

    def forward(self, x: Tensor) -> Tensor:
        return frozen_product(x, self.weight, self.bias)


def frozen_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear`, by oneDNN where that is possible: x (..., n) and weight (m, n) in float32 -> (..., m).

    `torch.compile` has no form of that operator but for weights that it knows, and so compiles torch's own.
    """
    single = x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu"
    if not single or torch.is_autocast_enabled("cpu") or weight.requires_grad or torch.compiler.is_compiling():
        return F.linear(x, weight, bias)
    return _ByOneDnn.apply(x, weight, bias)


class _ByOneDnn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.weight = weight  # not saved: checkpointing would compute this product again for it
        return _multiply(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *along: Tensor) -> tuple[Tensor, None, None]:
        return _multiply(along[0], ctx.weight.t(), None), None, None


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def route_products(module: nn.Module) -> None:
    """Replace the frozen linear layers of `module` by `FrozenLinear`, where that is faster here."""
    if not onednn_is_faster():
        return
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Linear and not any(p.requires_grad for p in child.parameters()):
                setattr(parent, name, FrozenLinear(child))
