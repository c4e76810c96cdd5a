"""What holds for every encoder of several stages: Swin, Swin v2, Hiera and SAM 2's."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from typing import Any

import hieradets
import hieras
import pytest
import swins
import torch
from encoders import draw, shaken
from staged import Staged, assert_wrapped, close, deep, rows_of

from vpt.backbones.tokens import KeysValues
from vpt.heads import ClassifyHead, MaskHead
from vpt.model import PromptedModel, encode, frozen_below
from vpt.prompts import AdditivePrompts, CrossPrompts, DeepPrompts, FourierPrompts, LowRankPrompts, Prompts

FEW = {"depths": (2,), "num_heads": (2,)}  # a block as it is, and one shifted
MODELS = {
    f"Swin {kind}": Staged(partial(swins.make_timm, kind), swins.wrap_swin, swins.literal, swins.SIZE, FEW)
    for kind in ("v1", "v2", "v2 otherwise")
}
MODELS |= {
    f"Hiera, {kind}": Staged(partial(hieras.make_timm, kind), hieras.wrap_hiera, hieras.literal, hieras.SIZE)
    for kind in hieras.KINDS
}
MODELS["SAM 2"] = Staged(hieradets.make_timm, hieradets.wrap_hiera, hieradets.literal, hieradets.SIZE)
ONE_OF_EACH = ("Swin v1", "Swin v2", "Swin v2 otherwise", "Hiera, plain", "SAM 2")
EVERY = pytest.mark.parametrize("own", MODELS.values(), ids=MODELS.keys())
EACH = pytest.mark.parametrize("own", [MODELS[name] for name in ONE_OF_EACH], ids=ONE_OF_EACH)
METHODS = pytest.mark.parametrize(
    "method",
    [
        DeepPrompts,
        AdditivePrompts,
        *(pytest.param(own, marks=pytest.mark.slow) for own in (LowRankPrompts, FourierPrompts)),
    ],
)
SWINS = pytest.mark.parametrize(
    "own", [MODELS[f"Swin {kind}"] for kind in ("v1", "v2", "v2 otherwise")], ids=["v1", "v2", "v2 otherwise"]
)


@EVERY
def test_gradients_are_those_of_the_literal_form_and_reach_every_prompt(own: Staged) -> None:
    model, images = own.make_timm().double(), draw(2, own.size).double()
    backbone = own.wrap(model)
    prompts = deep(backbone).double()
    written = copy.deepcopy(prompts)
    encode(backbone, prompts, images).grid.pow(2).sum().backward()
    own.literal(model, images, rows_of(written)).pow(2).sum().backward()
    for found, wanted in zip(prompts.parameters(), written.parameters(), strict=True):
        assert found.grad is not None
        assert wanted.grad is not None
        assert close(found.grad, wanted.grad, 1e-11)
        assert (found.grad.abs().amax(-1) > 0).all()
    assert all(parameter.grad is None for parameter in backbone.parameters())


@EACH
@torch.no_grad()
def test_a_context_of_each_image_is_that_images_alone_in_all_its_windows(own: Staged) -> None:
    backbone = own.wrap(own.make_timm())
    tokens, context = backbone.embed(draw(3, own.size)), torch.randn(3, 5, 16)
    together = backbone.block(1, tokens, context).grid
    for n in range(3):
        alone = replace(tokens, grid=tokens.grid[n : n + 1])
        torch.testing.assert_close(together[n : n + 1], backbone.block(1, alone, context[n]).grid)


@EACH
@METHODS
def test_batched_equals_one_by_one(own: Staged, method: Any) -> None:
    assert_batched_equals_one_by_one(own, method)


@SWINS
def test_batched_equals_one_by_one_where_prompts_are_apart(own: Staged) -> None:
    assert_batched_equals_one_by_one(own, CrossPrompts)


@torch.no_grad()
def assert_batched_equals_one_by_one(own: Staged, method: Any) -> None:
    backbone, images = own.wrap(own.make_timm().double()), draw(3, own.size).double()
    prompts = shaken(method(backbone.spec)).double()
    together = encode(backbone, prompts, images).grid
    alone = torch.cat([encode(backbone, prompts, image[None]).grid for image in images])
    assert close(together, alone, 1e-12)
    assert not close(together, encode(backbone, Prompts(), images).grid, 1e-3)


@EACH
@METHODS
def test_every_method_learns_and_leaves_the_encoder_as_it_is(own: Staged, method: Any) -> None:
    assert_it_learns(own, method)


@SWINS
def test_prompts_that_are_apart_learn_and_leave_the_encoder_as_it_is(own: Staged) -> None:
    assert_it_learns(own, CrossPrompts)


def assert_it_learns(own: Staged, method: Any) -> None:
    backbone = own.wrap(own.make_timm())
    model = PromptedModel(backbone, method(backbone.spec), MaskHead(backbone.spec, classes=2, width=8, detail=8))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.trained().values(), lr=1e-2)
    for seed in range(3):
        optimizer.zero_grad()
        model(draw(2, own.size, seed)).square().mean().backward()
        optimizer.step()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("backbone."), name


@EACH
@torch.no_grad()
def test_projected_prompts_are_the_same(own: Staged) -> None:
    backbone, images = own.wrap(own.make_timm()), draw(2, own.size)
    model = PromptedModel(backbone, deep(backbone), MaskHead(backbone.spec, classes=2)).eval()
    before = model(images)
    assert torch.equal(model.project_prompts()(images), before)
    for i in (1, 2):
        assert isinstance(backbone.project(i, torch.randn(4, backbone.spec.blocks[i].width)), KeysValues)


@EACH
@torch.no_grad()
def test_what_is_stored_below_the_prompts_gives_the_same(own: Staged) -> None:
    backbone, images = own.wrap(own.make_timm()), draw(2, own.size)
    model = PromptedModel(backbone, deep(backbone, blocks="last:2"), MaskHead(backbone.spec, classes=2)).eval()
    below = frozen_below(model.first_trained_block(), backbone, images, model.head.levels)
    assert below.first == backbone.spec.depth - 2
    assert torch.equal(model.head(model.encode(None, below=below).features, images), model(images))


@EACH
def test_it_is_wrapped(own: Staged) -> None:
    assert_wrapped(partial(own.make_timm, num_classes=5), draw(2, own.size))


@pytest.mark.slow  # compiles
@EACH
@torch.no_grad()
def test_it_compiles(own: Staged) -> None:
    backbone, images = own.wrap(own.make_timm(**own.quick)), draw(2, own.size)
    model = PromptedModel(backbone, deep(backbone), ClassifyHead(backbone.spec, outputs=3)).eval()
    expected = model(images)
    torch.testing.assert_close(model.compile_blocks()(images), expected, rtol=1e-4, atol=1e-4)
