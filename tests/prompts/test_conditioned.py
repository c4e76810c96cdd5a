"""VAPT: the prompts of a block are a function of the patches that enter it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from encoders import DEPTH, FAMILIES, GRID, VIT_B16, WIDTH, draw, flat, make_backbone, plain_spec, shaken, total
from torch import Tensor

from vpt.backbones.tokens import Tokens
from vpt.errors import VptError
from vpt.model import encode
from vpt.prompts import ConditionedPrompts, DeepPrompts

SPEC = plain_spec(width=WIDTH, depth=DEPTH, patch=(8, 8), image_size=(64, 40))


def tokens(batch: int = 2, seed: int = 0) -> Tokens:
    grid = torch.randn(batch, *GRID, WIDTH, generator=torch.Generator().manual_seed(seed)) * 3 + 1
    return Tokens(grid, torch.zeros(batch, 1, WIDTH), torch.zeros(batch, 0, WIDTH))


def make(**settings: Any) -> ConditionedPrompts:
    """In training mode, without dropout unless it is asked for."""
    torch.manual_seed(1)
    return shaken(ConditionedPrompts(SPEC, **({"count": 3, "hidden": 4, "dropout": 0.0} | settings)))


@pytest.mark.parametrize(("kernel", "places"), [(1, 196), (3, 144), (14, 1)])
@pytest.mark.parametrize(("blocks", "rows"), [("all", 12), ("last:2", 2)])
def test_the_parameters_are_as_many_as_the_formula_says(kernel: int, places: int, blocks: Any, rows: int) -> None:
    prompts = ConditionedPrompts(VIT_B16, count=10, blocks=blocks, hidden=16, kernel=kernel)

    assert total(prompts) == 10 * 768 + rows * (10 * places + kernel**2 + 2 * 768) + 2 * 768 * 16


def literal(prompts: ConditionedPrompts, row: int, grid: Tensor) -> Tensor:
    """LayerNorm, convolution channel by channel, weights over the places, bottleneck: one image after the other."""
    norm: Any = prompts.norms[row]
    found = []
    for image in grid:
        normed = (image - image.mean(-1, keepdim=True)) / (image.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        normed = normed * norm.weight + norm.bias
        kernel = prompts.kernels[row][None, None]
        convolved = torch.stack([F.conv2d(normed[None, None, :, :, c], kernel)[0, 0] for c in range(WIDTH)], dim=-1)
        for offset, places in zip(prompts.offset, prompts.places[row], strict=True):
            gathered = (places[..., None] * convolved).sum((0, 1))
            hidden = (prompts.mlp[0].weight @ gathered).clamp(min=0)
            found.append(offset + gathered + prompts.mlp[2].weight @ hidden)
    return torch.stack(found).unflatten(0, (len(grid), -1))


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
def test_prompts_are_what_the_formula_says(kernel: int) -> None:
    prompts, given = make(kernel=kernel, blocks=[1, 3]), tokens()

    for block, row in ((1, 0), (3, 1)):
        entered, context = prompts.enter(block, given, None)
        assert entered is given
        assert context is not None
        expected = literal(prompts, row, given.grid)
        assert context.shape == (2, 3, WIDTH)
        assert (context - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert all(prompts.enter(i, given, None) == (given, None) for i in (0, 2))


def test_each_image_has_prompts_of_its_own_and_no_others_matter() -> None:
    prompts, given = make(), tokens(3)
    _, context = prompts.enter(0, given, None)
    changed = given.grid.clone()
    changed[1, 2, 3, : WIDTH // 2] += 5
    _, after = prompts.enter(0, replace(given, grid=changed), None)

    assert context is not None
    assert after is not None
    assert (context[0] - context[1]).abs().max() > 0.1
    assert (after[1] - context[1]).abs().amax(-1).min() > 1e-3
    assert torch.equal(after[[0, 2]], context[[0, 2]])


def test_dropout_is_drawn_for_each_image_in_training_and_leaves_prediction_alone() -> None:
    prompts, given = make(dropout=0.5), tokens(1)
    twice = replace(given, grid=given.grid.expand(2, -1, -1, -1))
    _, context = prompts.train().enter(0, twice, None)
    _, at_rest = prompts.eval().enter(0, twice, None)

    assert context is not None
    assert at_rest is not None
    assert (context[0] - context[1]).abs().max() > 0.1
    expected = literal(prompts, 0, twice.grid)
    assert (at_rest - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("kernel", [1, 3])
def test_the_gradient_flows_into_every_patch(kernel: int) -> None:
    prompts, given = make(kernel=kernel), tokens()
    grid = given.grid.requires_grad_()
    _, context = prompts.enter(2, replace(given, grid=grid), None)
    assert context is not None
    context.square().sum().backward()

    assert (grid.grad.abs().amax(-1) > 0).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_training_starts_with_deep_prompts_shared_by_all_blocks(family: str) -> None:
    backbone = make_backbone(family)
    prompts, deep = ConditionedPrompts(backbone.spec, count=3), DeepPrompts(backbone.spec, count=3, shared=True)
    deep.start_from(prompts.offset.detach()[None])
    images = draw(3)

    assert prompts.offset.abs().max() <= (6 / (3 * 64 + WIDTH)) ** 0.5
    with torch.no_grad():
        ours, theirs = flat(encode(backbone, prompts, images)), flat(encode(backbone, deep, images))
    assert (ours - theirs).abs().max() <= 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_images_change_the_prompts_of_a_block_after_a_step(family: str) -> None:
    backbone = make_backbone(family)
    prompts = ConditionedPrompts(backbone.spec, count=3)
    optimizer = torch.optim.SGD(prompts.parameters(), lr=1e-2)
    flat(encode(backbone, prompts, draw(2))).square().mean().backward()
    optimizer.step()
    _, context = prompts.enter(1, tokens(), None)

    assert context is not None
    assert not torch.allclose(context[0], context[1], atol=1e-6)


@pytest.mark.parametrize("kernel", [0, 6, -1])
def test_a_kernel_larger_than_the_grid_is_refused(kernel: int) -> None:
    with pytest.raises(VptError, match=rf"prompts: kernel is {kernel}, but the image has 8x5 patches; take 1 to 5"):
        ConditionedPrompts(SPEC, kernel=kernel)


@pytest.mark.parametrize("settings", [{"count": 0}, {"hidden": 0}])
def test_nothing_to_learn_is_refused(settings: dict[str, int]) -> None:
    ((name, value),) = settings.items()
    with pytest.raises(VptError, match=rf"prompts: {name} is {value}; at least 1"):
        ConditionedPrompts(SPEC, **settings)
