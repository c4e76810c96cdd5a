"""The two linear layers of a block, the GELU between them part of the first product where that is faster."""

from __future__ import annotations

from typing import Any

import torch
from segment_anything.modeling.common import MLPBlock
from timm.layers import GELU, Mlp
from torch import Tensor, nn

from vpt.machine.gelu import multiply_gelu
from vpt.machine.products import FrozenLinear


def feed_forward(mlp: nn.Module, x: Tensor) -> Tensor:
    """`mlp(x)`, tokens (..., C) -> (..., C).

    Where the first layer is not prepared for its precision, the sums stay those of the encoder's own module to the last
    digit; where somebody listens to a part of it, or it has other parts, it runs itself.
    """
    layers = None if torch.compiler.is_compiling() else _layers_of(mlp)
    if layers is None or any(part._forward_hooks or part._forward_pre_hooks for part in mlp.modules()):
        return mlp(x)
    first, second = layers
    if not (torch.is_autocast_enabled("cpu") or type(first) is FrozenLinear):
        return mlp(x)
    return second(multiply_gelu(first, x))


def is_exact(act: Any) -> bool:
    """Whether it is the GELU of the error function, torch's or timm's."""
    return type(act) is GELU or (type(act) is nn.GELU and act.approximate == "none")


def _layers_of(mlp: Any) -> tuple[nn.Module, nn.Module] | None:
    """The first and the second layer, where there is a GELU between them and nothing else."""
    if type(mlp) is Mlp and all(map(_does_nothing, (mlp.drop1, mlp.norm, mlp.drop2))):
        return (mlp.fc1, mlp.fc2) if is_exact(mlp.act) else None
    if type(mlp) is MLPBlock:
        return (mlp.lin1, mlp.lin2) if is_exact(mlp.act) else None
    return None


def _does_nothing(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Identity) or (isinstance(layer, nn.Dropout) and (layer.p == 0 or not layer.training))
