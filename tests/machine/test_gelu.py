"""A frozen layer and a GELU are one operation where nothing needs a gradient, and two of the same value elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpt.machine import gelu
from vpt.machine.gelu import convolve_gelu, multiply_gelu, needs_gradients
from vpt.machine.precision import autocast, prepare_frozen
from vpt.machine.products import FrozenLinear

CPU = torch.device("cpu")
FUSES = pytest.mark.skipif(not gelu._has_operators(), reason="this torch has no oneDNN")


def convolution(**options: Any) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(6, 12, 3, **options).requires_grad_(False)


def image(grad: bool = False) -> Tensor:
    return torch.randn(2, 6, 9, 8, generator=torch.Generator().manual_seed(1)).requires_grad_(grad)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which of the private operators were called."""
    found: list[str] = []

    def watch(name: str) -> Callable[..., Tensor]:
        own = getattr(torch.ops.mkldnn, name)

        def call(*arguments: Any) -> Tensor:
            found.append(name)
            return own(*arguments)

        return call

    for name in ("_linear_pointwise", "_convolution_pointwise"):
        monkeypatch.setattr(torch.ops.mkldnn, name, watch(name))
    return found


@FUSES
@pytest.mark.parametrize(
    "options", [{}, {"padding": 1}, {"stride": 2, "padding": (1, 0)}, {"groups": 3}, {"bias": False}]
)
def test_a_convolution_and_its_gelu_are_one_operation(options: dict[str, Any], calls: list[str]) -> None:
    layer = convolution(**options)

    found = convolve_gelu(layer, image())

    torch.testing.assert_close(found, F.gelu(layer(image())), atol=1e-5, rtol=1e-5)
    assert calls == ["_convolution_pointwise"]


@pytest.mark.parametrize("grad", [False, True])
def test_another_padding_takes_the_place_of_the_layers_own(grad: bool) -> None:
    layer = convolution(padding=1)

    found = convolve_gelu(layer, image(grad), padding=(0, 1))

    wanted = F.gelu(F.conv2d(F.pad(image(), (1, 1)), layer.weight, layer.bias))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@FUSES
@pytest.mark.parametrize("kind", [nn.Linear, FrozenLinear])
def test_a_linear_layer_and_its_gelu_are_one_operation(kind: type[nn.Linear], calls: list[str]) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(6, 12).requires_grad_(False), torch.randn(2, 5, 6)
    wanted = F.gelu(layer(x))

    found = multiply_gelu(layer if kind is nn.Linear else FrozenLinear(layer), x)

    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert calls == ["_linear_pointwise"]


def test_what_needs_a_gradient_has_it(calls: list[str]) -> None:
    layer, x = convolution(), image(grad=True)
    convolve_gelu(layer, x).sum().backward()
    assert x.grad is not None
    layer.requires_grad_(True)
    convolve_gelu(layer, image()).sum().backward()
    assert layer.weight.grad is not None
    linear = nn.Linear(6, 12)
    multiply_gelu(linear, torch.randn(2, 6)).sum().backward()
    assert linear.weight.grad is not None
    assert calls == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_are_computed_by_torch(dtype: torch.dtype, calls: list[str]) -> None:
    layer, x = convolution().to(dtype), image().to(dtype)
    assert torch.equal(convolve_gelu(layer, x), F.gelu(layer(x)))
    assert calls == []


def test_a_layer_that_tuning_replaced_is_called(calls: list[str]) -> None:
    class Doubled(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    layer = Doubled(6, 12, 3).requires_grad_(False)
    assert torch.equal(convolve_gelu(layer, image()), F.gelu(layer(image())))
    wrapped = nn.Sequential(nn.Linear(6, 12)).requires_grad_(False)
    assert torch.equal(multiply_gelu(wrapped, torch.ones(2, 6)), F.gelu(wrapped(torch.ones(2, 6))))
    assert calls == []


@FUSES
def test_prepared_layers_are_one_operation_in_bfloat16(calls: list[str]) -> None:
    layer = convolution()
    exact = F.gelu(layer(image()))
    prepare_frozen(layer, "bf16-mixed")
    with torch.no_grad(), autocast("bf16-mixed", CPU):
        found = convolve_gelu(layer, image())

    torch.testing.assert_close(found.float(), exact, atol=0.05, rtol=0.05)
    assert found.dtype == torch.bfloat16
    assert calls == (["_convolution_pointwise"] if gelu._has_bfloat16() else [])


def test_whether_autograd_records() -> None:
    layer = nn.Linear(2, 2)
    assert needs_gradients(torch.ones(2), layer)
    assert not needs_gradients(torch.ones(2), layer.requires_grad_(False))
    assert needs_gradients(torch.ones(2, requires_grad=True))
    with torch.no_grad():
        assert not needs_gradients(torch.ones(2, requires_grad=True), layer.requires_grad_(True))
