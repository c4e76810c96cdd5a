"""Additive prompts: they start exactly at the frozen encoder, and add the same offset to every image."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from encoders import DEPTH, FAMILIES, WIDTH, draw, make_backbone, make_sam, plain_spec, total

from vpt.backbones.base import Backbone
from vpt.model import encode
from vpt.prompts import AdditivePrompts, Prompts

EVERY_FORM = pytest.mark.parametrize("form", ["vector", "grid"])


@pytest.fixture(scope="module", params=FAMILIES)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return make_backbone(request.param)


def make_prompts(backbone: Backbone, form: Any) -> AdditivePrompts:
    prompts = AdditivePrompts(backbone.spec, form=form)
    torch.manual_seed(2)
    with torch.no_grad():
        prompts.offset.normal_()
    return prompts


def test_a_vector_has_width_parameters_and_a_grid_one_vector_for_each_patch(backbone: Backbone) -> None:
    assert total(AdditivePrompts(backbone.spec, form="vector")) == WIDTH
    assert total(AdditivePrompts(backbone.spec, form="grid")) == 8 * 5 * WIDTH
    assert total(AdditivePrompts(backbone.spec)) == 8 * 5 * WIDTH
    assert total(AdditivePrompts(plain_spec(image_size=(1024, 1024)))) == (64 * 64 * 768)


@EVERY_FORM
def test_the_start_is_exactly_the_frozen_encoder(backbone: Backbone, form: Any) -> None:
    start, bare = (encode(backbone, p, draw(3)) for p in (AdditivePrompts(backbone.spec, form=form), Prompts()))

    assert torch.equal(start.grid, bare.grid)
    assert torch.equal(start.prefix, bare.prefix)


@EVERY_FORM
@pytest.mark.parametrize("attention", ["original", "fused"])
def test_the_start_is_exactly_sams_own_encoder(form: Any, attention: Any) -> None:
    backbone: Any = make_sam(attention)
    images, prompts = draw(3), AdditivePrompts(backbone.spec, form=form)

    found = encode(backbone, prompts, images).grid

    assert torch.equal(found, encode(backbone, Prompts(), images).grid)
    if attention == "original":
        assert torch.equal(found, backbone.encoder(images))


@EVERY_FORM
def test_the_offset_is_added_to_the_embedded_patches_once(backbone: Backbone, form: Any) -> None:
    prompts = make_prompts(backbone, form)
    tokens = backbone.embed(draw(3))

    entered, context = prompts.enter(0, tokens, None)

    assert context is None
    assert torch.equal(entered.grid, tokens.grid + prompts.offset)
    assert torch.equal(entered.prefix, tokens.prefix)
    assert all(prompts.enter(i, entered, None) == (entered, None) for i in range(1, DEPTH))


@EVERY_FORM
def test_the_gradient_reaches_every_offset(backbone: Backbone, form: Any) -> None:
    prompts = AdditivePrompts(backbone.spec, form=form)
    encode(backbone, prompts, draw(3)).grid[:, 0].square().sum().backward()

    assert (prompts.offset.grad.abs().amax(-1) > 0).all()
    assert all(parameter.grad is None for parameter in backbone.parameters())


@EVERY_FORM
def test_a_batch_equals_its_images_one_by_one(backbone: Backbone, form: Any) -> None:
    prompts, images = make_prompts(backbone, form), draw(5)

    with torch.no_grad():
        together = encode(backbone, prompts, images).grid
        alone = torch.cat([encode(backbone, prompts, image[None]).grid for image in images])

    assert (together - alone).abs().max() <= 1e-5
    assert (together - encode(backbone, Prompts(), images).grid).abs().max() > 0.1
