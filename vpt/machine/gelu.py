"""Frozen layers followed by a GELU, as one operation of oneDNN on a CPU: a pass over large tensors less.

Only the operators that `torch.compile` uses reach it; they are private and know no gradients, so where anything needs
one, and wherever else they cannot serve, layer and GELU run one after the other.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpt.machine.products import FrozenLinear

FUSED: tuple[str, list[Any], str] = ("gelu", [], "none")  # the exact one


def convolve_gelu(layer: nn.Module, image: Tensor, padding: tuple[int, int] | None = None) -> Tensor:
    """gelu(layer(image)) of a convolution; `padding` (rows, columns) takes the place of the layer's own."""
    if isinstance(layer, nn.Conv2d) and type(layer) is nn.Conv2d:
        sides = layer.padding if padding is None else padding
        if _fuses(layer, image) and not isinstance(sides, str) and layer.padding_mode == "zeros":
            steps = list(sides), list(layer.stride), list(layer.dilation)
            image = image.to(layer.weight.dtype)
            return torch.ops.mkldnn._convolution_pointwise(
                image, layer.weight, layer.bias, *steps, layer.groups, *FUSED
            )
        if padding is not None:
            return F.gelu(
                F.conv2d(image, layer.weight, layer.bias, layer.stride, padding, layer.dilation, layer.groups)
            )
    return F.gelu(layer(image))


def multiply_gelu(layer: nn.Module, x: Tensor) -> Tensor:
    """gelu(layer(x)) of a linear layer."""
    if isinstance(layer, nn.Linear) and type(layer) in (nn.Linear, FrozenLinear) and _fuses(layer, x):
        return torch.ops.mkldnn._linear_pointwise(x.to(layer.weight.dtype), layer.weight, layer.bias, *FUSED)
    return F.gelu(layer(x))


def needs_gradients(x: Tensor, *modules: nn.Module) -> bool:
    """Whether autograd records what these modules do to x."""
    if not torch.is_grad_enabled():
        return False
    return x.requires_grad or any(parameter.requires_grad for module in modules for parameter in module.parameters())


def _fuses(layer: Any, x: Tensor) -> bool:
    """Whether the operators serve: on this machine, for these types, without a gradient."""
    if x.device.type != "cpu" or torch.compiler.is_compiling() or needs_gradients(x, layer):
        return False
    if torch.is_autocast_enabled("cpu"):
        half = layer.weight.dtype == torch.get_autocast_dtype("cpu") == torch.bfloat16
        return half and _has_operators() and _has_bfloat16()
    return x.dtype == layer.weight.dtype == torch.float32 and _has_operators()


@cache
def _has_operators() -> bool:
    names = ("_linear_pointwise", "_convolution_pointwise")
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in names)


@cache
def _has_bfloat16() -> bool:
    ask = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return ask is not None and bool(ask())
