"""Gated prompts: each gate mixes what left a block with what entered it, and nothing of a forward pass stays behind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from encoders import DEPTH, FAMILIES, VIT_B16, WIDTH, draw, flat, make_backbone, plain_spec, shaken, total
from swins import make_swin
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from vpt.backbones.base import Backbone
from vpt.backbones.tokens import Tokens
from vpt.errors import VptError
from vpt.model import encode
from vpt.prompts import DeepPrompts, GatedPrompts, ShallowPrompts
from vpt.prompts.base import Info


@pytest.fixture(scope="module", params=FAMILIES)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return make_backbone(request.param)


def make(backbone: Backbone, gates: list[float], **options: Any) -> GatedPrompts:
    prompts = shaken(GatedPrompts(backbone.spec, count=3, **options))
    with torch.no_grad():
        prompts.gates.copy_(torch.tensor(gates))
    return prompts


@pytest.mark.parametrize("count", [1, 50])
def test_it_has_one_gate_more_than_shallow_prompts_for_every_block_but_the_last(count: int) -> None:
    prompts = GatedPrompts(VIT_B16, count=count)

    assert total(prompts) == count * 768 + 11
    assert torch.equal(prompts.gates, torch.full((11,), -5.0))
    assert total(GatedPrompts(VIT_B16, count=count, gate=5, project=32)) == count * 32 + 32 * 768 + 768 + 11


def literal(vit: VisionTransformer, images: Tensor, prompts: Tensor, gates: Tensor) -> Tensor:
    """[CLS; P; patches] through timm's own blocks; P mixed with its former self after each."""
    count = len(prompts)
    tokens = vit._pos_embed(vit.patch_embed(images))
    before = prompts.expand(len(images), -1, -1)
    for i, block in enumerate(vit.blocks):
        tokens = block(torch.cat([tokens[:, :1], before, tokens[:, 1:]], dim=1))
        after, tokens = tokens[:, 1 : 1 + count], torch.cat([tokens[:, :1], tokens[:, 1 + count :]], dim=1)
        if i < len(vit.blocks) - 1:
            open_ = 1 / (1 + torch.exp(-gates[i]))
            before = open_ * after + (1 - open_) * before
    return vit.norm(tokens)


def test_the_whole_encoder_equals_the_formula() -> None:
    backbone: Any = make_backbone("vit")
    prompts, images = make(backbone, [-1.0, 0.3, 2.0]), draw(3)
    features = encode(backbone, prompts, images)
    ours = torch.cat([features.prefix, features.grid.flatten(2).transpose(1, 2)], dim=1)
    theirs = literal(backbone.vit, images, prompts.table.tokens[0], prompts.gates)
    along = torch.randn_like(ours)

    assert (ours - theirs).abs().max() <= 1e-5
    ours, theirs = (torch.autograd.grad((o * along).sum(), list(prompts.parameters())) for o in (ours, theirs))
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() <= 1e-4 * b.abs().max()


def test_every_gate_mixes_on_its_own_block(backbone: Backbone) -> None:
    """On both families: the prompts that enter block i + 1, computed here from the blocks alone."""
    prompts, images, gates = make(backbone, [-1.0, 0.3, 2.0]), draw(2), [-1.0, 0.3, 2.0]
    tokens, state = backbone.embed(images), prompts.begin(images, Info())
    plain = replace(tokens, prompts=prompts.table.tokens[0].expand(2, -1, -1))
    with torch.no_grad():
        for i in range(DEPTH):
            tokens, context = prompts.enter(i, tokens, state)
            assert context is None
            assert (tokens.prompts - plain.prompts).abs().max() <= 1e-5
            tokens, left = backbone.block(i, tokens, None), backbone.block(i, plain, None)
            if i < DEPTH - 1:
                share = 1 / (1 + 2.718281828 ** -gates[i])
                plain = replace(left, prompts=share * left.prompts + (1 - share) * plain.prompts)


def test_open_gates_are_shallow_prompts_and_shut_ones_deep_prompts_shared_by_all_blocks(backbone: Backbone) -> None:
    shallow = ShallowPrompts(backbone.spec, count=3)
    deep, images = DeepPrompts(backbone.spec, count=3, shared=True), draw(3)

    for gate, other in ((60.0, shallow), (-60.0, deep)):
        prompts = make(backbone, [gate] * (DEPTH - 1))
        other.start_from(prompts.table.tokens.detach())
        with torch.no_grad():
            ours, theirs = flat(encode(backbone, prompts, images)), flat(encode(backbone, other, images))
        assert (ours - theirs).abs().max() <= 2e-5


def test_two_passes_that_take_turns_do_not_see_each_other(backbone: Backbone) -> None:
    prompts = make(backbone, [-1.0, 0.3, 2.0])
    batches = [draw(2, seed=5), draw(3, seed=6)]
    with torch.no_grad():
        alone = [flat(encode(backbone, prompts, images)) for images in batches]
        passes = [backbone.embed(images) for images in batches]
        states = [prompts.begin(images, Info()) for images in batches]
        for i in range(DEPTH):
            for n in (0, 1):
                entered, _ = prompts.enter(i, passes[n], states[n])
                passes[n] = backbone.block(i, entered, None)
        together = [flat(backbone.finish(tokens)) for tokens in passes]

    for a, b in zip(alone, together, strict=True):
        assert torch.equal(a, b)


def test_a_pass_leaves_nothing_in_the_module(backbone: Backbone) -> None:
    prompts = make(backbone, [0.0] * (DEPTH - 1))
    before = {key: id(value) for key, value in vars(prompts).items()}
    first = flat(encode(backbone, prompts, draw(2)))
    encode(backbone, prompts, draw(4, seed=9))

    assert {key: id(value) for key, value in vars(prompts).items()} == before
    assert not list(prompts.buffers())
    assert torch.equal(first, flat(encode(backbone, prompts, draw(2))))


def test_a_pass_keeps_the_prompts_of_the_block_before_in_its_state() -> None:
    prompts = GatedPrompts(plain_spec(width=WIDTH, depth=DEPTH), count=2)
    tokens = Tokens(torch.zeros(1, 4, 4, WIDTH), torch.zeros(1, 1, WIDTH), torch.zeros(1, 0, WIDTH))
    state = prompts.begin(None, Info())
    entered, _ = prompts.enter(0, tokens, state)
    left = Tokens(entered.grid, entered.prefix, torch.zeros_like(entered.prompts))  # a new object: nothing rides on it

    again, _ = prompts.enter(1, left, state)

    share = torch.tensor(-5.0).sigmoid()
    assert torch.allclose(again.prompts, (1 - share) * entered.prompts)
    assert state.prompts is again.prompts
    assert prompts.begin(None, Info()).prompts is None


def test_dropout_is_drawn_once_for_each_sample_as_in_shallow_prompts() -> None:
    prompts = GatedPrompts(plain_spec(width=WIDTH, depth=DEPTH), count=50, dropout=0.5).train()
    tokens = Tokens(torch.zeros(2, 4, 4, WIDTH), torch.zeros(2, 1, WIDTH), torch.zeros(2, 0, WIDTH))
    state = prompts.begin(None, Info())
    entered, _ = prompts.enter(0, tokens, state)

    assert not torch.equal(entered.prompts[0] == 0, entered.prompts[1] == 0)
    again, _ = prompts.enter(1, entered, state)
    assert torch.equal(entered.prompts == 0, again.prompts == 0)


def test_stages_of_several_widths_are_refused_though_shallow_prompts_travel_through_them() -> None:
    spec = make_swin().spec
    ShallowPrompts(spec, count=3)
    with pytest.raises(VptError, match=r"\(gated\) needs blocks of one width, those of tiny have 16, 32"):
        GatedPrompts(spec, count=3)
