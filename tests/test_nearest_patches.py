"""The training patches nearest to a prompt are those whose keys are, as the model's own projection makes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from encoders import draw, make_eva, make_sam, make_vit, shaken
from tiny_sam import make_tiny_sam
from torch import Tensor

from vpt.backbones.base import Backbone
from vpt.errors import VptError
from vpt.heads import ClassifyHead
from vpt.model import PromptedModel
from vpt.nearest_patches import keys_of, nearest_patches
from vpt.prompts import AdditivePrompts, CodaPrompts, CrossPrompts, DeepPrompts, Prompts, ShallowPrompts

BLOCK = 1


def prompted(backbone: Backbone, prompts: Prompts) -> PromptedModel:
    return PromptedModel(backbone, shaken(prompts), ClassifyHead(backbone.spec, outputs=2)).eval()


def images(count: int, side: Any) -> Callable[[], Iterator[Tensor]]:
    return lambda: iter(draw(count, side, seed=5).split(1))


@torch.no_grad()
def entering(model: PromptedModel, image: Tensor, block: int) -> Tensor:
    """The patches that enter a block, (rows, columns, C); no block below has prompts."""
    tokens = model.backbone.embed(image)
    for i in range(block):
        tokens = model.backbone.block(i, tokens, None)
    return tokens.grid[0]


@pytest.mark.parametrize("make", [make_vit, make_eva, make_sam, make_tiny_sam])
def test_a_prompt_that_is_a_patchs_token_finds_that_patch(make: Any) -> None:
    backbone = make()
    side, block = backbone.spec.image_size, backbone.spec.attending[1]
    model, others = prompted(backbone, DeepPrompts(backbone.spec, count=3, blocks=(block,))), images(4, side)
    planted = entering(model, list(others())[2], block)
    row, column = planted.shape[0] - 1, 1
    with torch.no_grad():
        model.prompts.table.tokens[0, 1] = planted[row, column]
    found = nearest_patches(model, draw(1, side), others, most=3)
    (of_block,) = found.values()
    assert [len(each) for each in of_block] == [3, 3, 3]
    first = of_block[1][0]
    assert (first.image, first.row, first.column) == (2, row, column)
    assert (first.rows, first.columns) == tuple(planted.shape[:2])
    assert first.cosine == pytest.approx(1, abs=1e-6)
    assert all(near.cosine < 0.9998 for near in (of_block[1][1], of_block[0][0], of_block[2][0]))


@torch.no_grad()
def test_cosines_are_those_of_a_plain_computation() -> None:
    backbone = make_vit()
    model = prompted(backbone, DeepPrompts(backbone.spec, count=2, blocks=(BLOCK,)))
    attention, norm = backbone.vit.blocks[BLOCK].attn, backbone.vit.blocks[BLOCK].norm1

    def keys(tokens: Tensor) -> Tensor:
        width = tokens.shape[-1]
        return attention.qkv(norm(tokens))[..., width : 2 * width].double()

    side = backbone.spec.image_size
    others = images(3, side)
    patches = torch.stack([keys(entering(model, image, BLOCK)).flatten(0, 1) for image in others()])
    mean = patches.flatten(0, 1).mean(0)
    asked = keys(model.prompts.context(BLOCK, 1)) - mean
    own = patches - mean
    cosines = torch.einsum("npc,kc->knp", own, asked) / own.norm(dim=-1) / asked.norm(dim=-1)[:, None, None]
    best, places = cosines.max(-1)
    found = nearest_patches(model, draw(1, side), others, most=3)[BLOCK]
    for k in range(2):
        order = best[k].argsort(descending=True).tolist()
        assert [near.image for near in found[k]] == order
        assert [near.row * near.columns + near.column for near in found[k]] == places[k][order].tolist()
        assert [near.cosine for near in found[k]] == pytest.approx(best[k][order].tolist(), abs=1e-5)


def test_prompts_that_are_keys_already_are_compared_too() -> None:
    backbone = make_vit()
    coda = CodaPrompts(backbone.spec, components=2, length=2, blocks=(BLOCK,))
    model = prompted(backbone, coda)
    found = nearest_patches(model, draw(1), images(2, backbone.spec.image_size))
    assert list(found) == [BLOCK]
    keys = dict(keys_of(model, draw(1)))[BLOCK].prompts
    assert len(found[BLOCK]) == len(keys)


@torch.no_grad()
def test_prompts_that_travel_are_compared_as_they_enter_each_block() -> None:
    backbone: Any = make_vit()
    model, image = prompted(backbone, ShallowPrompts(backbone.spec, count=3)), draw(1)
    found = dict(keys_of(model, image))
    assert list(found) == list(range(backbone.spec.depth))
    tokens = backbone.embed(image).sequence
    tokens = torch.cat([tokens[:, :1], model.prompts.table.tokens, tokens[:, 1:]], 1)
    for i, block in enumerate(backbone.vit.blocks):
        keys = block.attn.qkv(block.norm1(tokens)).chunk(3, -1)[1][0]
        torch.testing.assert_close(found[i].prompts, keys[1:4], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[i].patches.flatten(0, 1), keys[4:], rtol=1e-4, atol=1e-5)
        tokens = block(tokens)


@pytest.mark.parametrize("prompts", [AdditivePrompts, CrossPrompts])
def test_prompts_that_are_not_beside_the_patches_are_refused(prompts: Any) -> None:
    backbone = make_vit()
    model = prompted(backbone, prompts(backbone.spec))
    with pytest.raises(VptError, match="explain reads prompts that blocks attend to as they do to patches"):
        nearest_patches(model, draw(1), images(2, backbone.spec.image_size))
