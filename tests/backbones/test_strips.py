"""Convolutions and MLPs over some rows at a time are those of timm, and what is wide inside them is never whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.models.tiny_vit import MBConv, NormMlp, PatchMerging
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vpt.backbones import strips
from vpt.backbones.folding import fold_batch_norms
from vpt.backbones.strips import add_mlp, convolve, places

BATCH, WIDTH, HEIGHT, ROW = 2, 8, 12, 10


def random(module: nn.Module) -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.2, 1)
                tensor.mul_(torch.randn_like(tensor).sign() if tensor.ndim > 1 else 1)
    module.eval().requires_grad_(False)
    fold_batch_norms(module)
    return module


def block() -> Any:
    return random(MBConv(WIDTH, WIDTH, 4.0, nn.GELU, 0.0))


def merging(stride: int = 2) -> Any:
    made = PatchMerging(WIDTH, 2 * WIDTH, nn.GELU)
    made.conv2.conv.stride = (stride, stride)
    return random(made)


def image(height: int = HEIGHT) -> Tensor:
    made = torch.randn(BATCH, WIDTH, height, ROW, generator=torch.Generator().manual_seed(1))
    return made.contiguous(memory_format=torch.channels_last)


class Largest(TorchDispatchMode):
    """How many numbers the largest tensor that any operation made has."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            self.numbers = max(self.numbers, made.numel())
        return made


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("height", [HEIGHT, 11, 1])
@pytest.mark.parametrize("layers", [block, merging, lambda: merging(1)])
def test_strips_are_the_whole(layers: Any, height: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = layers()
    monkeypatch.setattr(strips, "WIDE", rows * made.conv1.out_channels * made.conv2.stride[0] * ROW)

    found = convolve(made, image(height))

    torch.testing.assert_close(found, made(image(height)), atol=1e-5, rtol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_what_is_wide_is_never_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strips, "WIDE", 2 * 4 * WIDTH * ROW)
    with Largest() as convolution:
        convolve(block(), image())
    with Largest() as product:
        add_mlp(random(NormMlp(WIDTH, 4 * WIDTH)), image().permute(0, 2, 3, 1))

    assert convolution.numbers == max(image().numel(), 4 * 4 * WIDTH * ROW)  # two rows and those beside them
    assert product.numbers == image().numel()


@pytest.mark.parametrize("rows", [1, 5, 12, 24, 100])
def test_an_mlp_is_added_as_timm_does(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    mlp, grid = random(NormMlp(WIDTH, 4 * WIDTH)), image().permute(0, 2, 3, 1)
    monkeypatch.setattr(strips, "WIDE", rows * 4 * WIDTH * ROW)

    torch.testing.assert_close(add_mlp(mlp, grid), grid + mlp(grid), atol=1e-5, rtol=1e-5)


def test_gradients_cross_them() -> None:
    x = image().requires_grad_()
    for layers in (block(), merging()):
        x.grad = None
        convolve(layers, x).sum().backward()
        assert x.grad is not None
        assert (x.grad != 0).any()
    grid = image().permute(0, 2, 3, 1).requires_grad_()
    add_mlp(random(NormMlp(WIDTH, 4 * WIDTH)), grid).sum().backward()
    assert grid.grad is not None


@pytest.mark.parametrize("kind", [nn.ReLU, lambda: nn.GELU(approximate="tanh")])
def test_other_activations_stay_what_they_are(kind: Any) -> None:
    made, mlp = block(), random(NormMlp(WIDTH, 4 * WIDTH))
    made.act1, mlp.act = kind(), kind()
    grid = image().permute(0, 2, 3, 1)

    assert torch.equal(convolve(made, image()), made(image()))
    assert torch.equal(add_mlp(mlp, grid), grid + mlp(grid))


def test_batch_norms_that_are_not_folded_run_as_they_are() -> None:
    made = MBConv(WIDTH, WIDTH, 4.0, nn.GELU, 0.0).eval().requires_grad_(False)
    assert torch.equal(convolve(made, image()), made(image()))


def test_folded_batch_norms_are_the_same_function() -> None:
    made = PatchMerging(WIDTH, 2 * WIDTH, nn.GELU)
    torch.manual_seed(0)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    made.double().eval()
    before, state = made(image().double()), torch.get_rng_state()

    fold_batch_norms(made)

    torch.testing.assert_close(made(image().double()), before, atol=1e-12, rtol=1e-12)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in made.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_places_cover_everything_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strips, "WIDE", 60)
    for batch, rows, numbers, unit in ((3, 10, 10, 1), (3, 10, 10, 4), (5, 3, 10, 1), (2, 10, 100, 3), (1, 1, 1000, 7)):
        seen = torch.zeros(batch, rows)
        for some, part in places(batch, rows, numbers, unit):
            seen[some, part] += 1
            assert part.start % unit == 0
            assert seen[some, part].numel() * numbers <= max(60, unit * numbers)
        assert (seen == 1).all()
