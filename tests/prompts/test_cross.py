"""CVPT: after a block's self-attention its tokens attend to prompts alone, with the block's own frozen weights."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from encoders import (
    DEPTH,
    FAMILIES,
    VIT_B16,
    WIDTH,
    draw,
    flat,
    make_backbone,
    make_sam,
    make_vit,
    plain_spec,
    shaken,
    total,
)
from segment_anything.modeling.image_encoder import window_partition, window_unpartition
from timm.layers import RmsNorm
from torch import Tensor

from vpt.backbones.base import Backbone, SeparateContext, Tokens
from vpt.errors import VptError
from vpt.model import encode
from vpt.prompts import CrossPrompts, DeepPrompts, Prompts
from vpt.tuning.base import encoder_of
from vpt.tuning.ssf import Scaled

SPEC = plain_spec(width=WIDTH, depth=DEPTH)
TOKENS = Tokens(torch.zeros(2, 8, 5, WIDTH), torch.zeros(2, 1, WIDTH), torch.zeros(2, 0, WIDTH))


# Size and place


@pytest.mark.parametrize("count", [1, 20, 200])
def test_it_has_blocks_times_count_times_width_parameters(count: int) -> None:
    assert total(CrossPrompts(VIT_B16, count=count)) == 12 * count * 768
    assert total(CrossPrompts(VIT_B16, count=count, blocks="last:4")) == 4 * count * 768


@pytest.mark.parametrize("count", [0, -1])
def test_no_prompts_at_all_are_refused(count: int) -> None:
    with pytest.raises(VptError, match=rf"prompts: count is {count}; at least 1 .*`none`"):
        CrossPrompts(SPEC, count=count)


def test_only_the_chosen_blocks_are_given_prompts_of_their_own() -> None:
    prompts = CrossPrompts(SPEC, count=3, blocks=[3, 1])

    for block, row in ((1, 0), (3, 1)):
        entered, context = prompts.enter(block, TOKENS, None)
        assert entered is TOKENS
        assert context is not None
        assert torch.equal(context.prompts, prompts.table.tokens[row])
    assert all(prompts.enter(i, TOKENS, None) == (TOKENS, None) for i in (0, 2))
    assert prompts.starts == (1, 3)


def test_dropout_is_drawn_for_each_sample_in_training_only() -> None:
    prompts = CrossPrompts(SPEC, count=3, dropout=0.5)

    assert prompts.train().enter(0, TOKENS, None)[1].prompts.shape == (2, 3, WIDTH)
    assert prompts.eval().enter(0, TOKENS, None)[1].prompts.shape == (3, WIDTH)


# Arithmetic: the formula, written out


def attention_to(attention: Any, tokens: Tensor, prompts: Tensor) -> Tensor:
    """CA(x, P) of one image: (N, C) and (P, C) -> (N, C), a head and a token at a time, in float64."""
    heads, width = attention.num_heads, tokens.shape[-1] // attention.num_heads
    q = attention.qkv(tokens).double().chunk(3, -1)[0]
    _, k, v = attention.qkv(prompts).double().chunk(3, -1)
    mixed = torch.zeros_like(q)
    for h in range(heads):
        own = slice(h * width, (h + 1) * width)
        queries, keys = q[:, own], k[:, own]
        if isinstance(getattr(attention, "q_norm", None), torch.nn.Module):
            queries = attention.q_norm(queries.float()).double()
            keys = attention.k_norm(keys.float()).double()
        for n in range(len(q)):
            scores = torch.stack([(queries[n] * keys[p]).sum() / math.sqrt(width) for p in range(len(k))])
            weights = scores.exp() / scores.exp().sum()
            mixed[n, own] = sum(weights[p] * v[p, own] for p in range(len(k)))
    return (mixed @ attention.proj.weight.double().T + attention.proj.bias.double()).float()


def after_self_attention(block: Any, family: str, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """x + SA(norm1(x)) by the model's own modules: (B, N, C), for SAM in its windows."""
    normed = block.norm1(tokens)
    if family == "vit":
        return tokens + block.ls1(block.attn(normed))
    images = normed.unflatten(1, grid)
    if block.window_size == 0:
        return tokens + block.attn(images).flatten(1, 2)
    windows, padded = window_partition(images, block.window_size)
    seen = window_unpartition(block.attn(windows), block.window_size, padded, grid)
    return tokens + seen.flatten(1, 2)


def literal(backbone: Backbone, family: str, images: Tensor, prompts: CrossPrompts) -> Tensor:
    """(B, R + HW, C) after all blocks: x + SA, x + CA, x + MLP; CA of x and P as they are, or both normed."""
    embedded = backbone.embed(images)
    x = torch.cat([embedded.prefix, embedded.grid.flatten(1, 2)], 1)
    for i, block in enumerate(encoder_of(backbone).blocks):
        x = after_self_attention(block, family, x, embedded.grid.shape[1:3])
        scale = block.ls1 if family == "vit" else torch.nn.Identity()
        if i in prompts.rows:
            norm = block.norm1 if prompts.normed else torch.nn.Identity()
            learned = norm(prompts.table.tokens[prompts.rows[i]])
            crossed = [attention_to(block.attn, norm(image), learned) for image in x]
            x = x + scale(torch.stack(crossed))
        x = x + (block.ls2 if family == "vit" else torch.nn.Identity())(block.mlp(block.norm2(x)))
    return x


def tuned(backbone: Any) -> Any:
    """The backbone with something other than a plain Linear in the place of every block's projection."""
    for block in encoder_of(backbone).blocks:
        block.attn.qkv = shaken(Scaled(block.attn.qkv, image=False))
    return backbone.requires_grad_(False)


ENCODERS: dict[str, tuple[str, Any]] = {
    "vit": ("vit", make_vit),
    "vit_everything": ("vit", lambda: make_vit(qk_norm=True, qkv_bias=False, init_values=0.5, reg_tokens=2)),
    "vit_rms": ("vit", lambda: make_vit(norm_layer=RmsNorm)),
    "vit_tuned": ("vit", lambda: tuned(make_vit())),
    "sam_tuned": ("sam", lambda: tuned(make_sam())),
    "sam_original": ("sam", lambda: make_sam("original")),
    "sam_fused": ("sam", lambda: make_sam("fused")),
}


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"normed": True}], ids=["published", "normed"])
@pytest.mark.parametrize("blocks", ["all", (1, 2)])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_all_blocks_equal_the_formula_written_out(encoder: str, blocks: Any, options: dict[str, bool]) -> None:
    family, make = ENCODERS[encoder]
    backbone, images = make(), draw(2)
    prompts = shaken(CrossPrompts(backbone.spec, count=3, blocks=blocks, **options))
    assert prompts.normed == bool(options)
    with torch.no_grad():
        tokens = backbone.embed(images)
        for i in range(DEPTH):
            tokens = backbone.block(i, *prompts.enter(i, tokens, None))
        found = torch.cat([tokens.prefix, tokens.grid.flatten(1, 2)], 1)
        expected = literal(backbone, family, images, prompts)

    assert (found - expected).abs().max() <= 2e-5 * expected.abs().max().clamp(min=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_for_each_sample_reach_their_own_sample(family: str) -> None:
    backbone, images = make_backbone(family), draw(3)
    context = torch.randn(3, 4, WIDTH, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        tokens = backbone.embed(images)
        together = backbone.block(0, tokens, SeparateContext(context)).grid
        for n in range(3):
            alone = backbone.block(0, backbone.embed(images[n : n + 1]), SeparateContext(context[n])).grid
            assert (together[n] - alone[0]).abs().max() <= 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_travelling_prompts_ask_the_separate_context_too(family: str) -> None:
    backbone = make_backbone(family)
    tokens = replace(backbone.embed(draw(2)), prompts=torch.randn(2, 3, WIDTH))
    with torch.no_grad():
        before = backbone.block(0, tokens, SeparateContext(torch.zeros(1, WIDTH))).prompts
        after = backbone.block(0, tokens, SeparateContext(torch.randn(1, WIDTH))).prompts

    assert before.shape == (2, 3, WIDTH)
    assert ((before - after).abs().amax(-1) > 1e-3).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_repeating_the_prompts_changes_nothing_as_their_softmax_is_their_own(family: str) -> None:
    """Under one softmax with the patches twice the prompts would have twice the weight."""
    backbone, images = make_backbone(family), draw(2)
    once = shaken(CrossPrompts(backbone.spec, count=3))
    twice, deep_once, deep_twice = (
        CrossPrompts(backbone.spec, count=6),
        DeepPrompts(backbone.spec, count=3),
        DeepPrompts(backbone.spec, count=6),
    )
    learned = once.table.tokens.detach()
    twice.start_from(torch.cat([learned, learned], 1))
    deep_once.start_from(learned)
    deep_twice.start_from(torch.cat([learned, learned], 1))
    with torch.no_grad():
        a, b, c, d = (flat(encode(backbone, prompts, images)) for prompts in (once, twice, deep_once, deep_twice))

    assert (a - b).abs().max() <= 2e-5
    assert (c - d).abs().max() > 1e-2
    assert (a - c).abs().max() > 1e-2


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_that_are_not_chosen_are_the_encoders_own_bit_for_bit(family: str) -> None:
    backbone, images = make_backbone(family), draw(2)
    with torch.no_grad():
        bare = encode(backbone, Prompts(), images, levels=range(DEPTH))
        late = encode(backbone, CrossPrompts(backbone.spec, count=3, blocks=[2]), images, levels=range(DEPTH))

    assert torch.equal(bare.levels[1], late.levels[1])
    assert not torch.allclose(bare.levels[2], late.levels[2], atol=1e-3)


# Keys and values as linear maps


@pytest.mark.parametrize("encoder", ENCODERS)
def test_key_value_maps_are_the_blocks_own_but_for_the_tokens_deviation_and_the_bias(encoder: str) -> None:
    _, make = ENCODERS[encoder]
    backbone = make()
    for i, block in enumerate(encoder_of(backbone).blocks):
        keys, values = backbone.key_value_maps(i)
        x = 3 * torch.randn(7, WIDTH) + 1
        own = block.attn.qkv(block.norm1(x)) - block.attn.qkv(block.norm1(torch.zeros_like(x)))
        for found, expected in ((x @ keys, own[:, WIDTH : 2 * WIDTH]), (x @ values, own[:, 2 * WIDTH :])):
            alike = torch.cosine_similarity(found, expected)
            assert (alike - 1).abs().max() <= 1e-5
        factors = (x @ values).norm(dim=-1) / own[:, 2 * WIDTH :].norm(dim=-1)
        spread = x.square().mean(-1).sqrt() if encoder == "vit_rms" else x.std(-1, correction=0)
        assert ((factors / spread) / (factors / spread)[0] - 1).abs().max() <= 1e-4
        assert not keys.requires_grad
