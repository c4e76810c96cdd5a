"""What methods have in common with their authors' code, where this package once did otherwise: the right values."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vpt.backbones import Backbone, load_backbone
from vpt.backbones.tokens import SeparateContext
from vpt.config import load_config
from vpt.prompts import (
    ConditionedPrompts,
    CrossPrompts,
    DeepPrompts,
    FourierPrompts,
    GatedPrompts,
    LowRankPrompts,
    ShallowPrompts,
    initialise,
)
from vpt.prompts.starts.tokens import collect_tokens
from vpt.prompts.starts.vipamin import vipamin_prompts

ENCODERS = ("vit_micro", "sam_micro")


@pytest.fixture(scope="module", params=ENCODERS)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    """Of 64 px, with tensors none of which is at a start that hides a mistake."""
    found = load_backbone(request.param, weights="random", image_size=64)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return found


def own(backbone: Any) -> Any:
    (encoder,) = backbone.children()
    return encoder


def images(count: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def settings(**prompts: Any) -> Any:
    return load_config({"data": {"path": "x"}, "prompts": prompts}).prompts


# Gated (Yoo et al., ICML 2023)


def test_gates_start_almost_shut(backbone: Backbone) -> None:
    for prompts in (GatedPrompts(backbone.spec, count=2), settings(method="gated").build(backbone.spec)):
        assert torch.equal(prompts.gates, torch.full((backbone.spec.depth - 1,), -5.0))
        assert prompts.gates.sigmoid().max().item() == pytest.approx(0.0067, abs=1e-4)


# Fourier (Zeng et al., NeurIPS 2024)


@pytest.mark.parametrize(
    ("share", "count", "m", "nearest"),
    [(0.7, 5, 3, 4), (0.5, 3, 1, 2), (0.3, 9, 2, 3), (0.5, 10, 5, 5), (0.1, 4, 1, 1)],
)
def test_the_number_of_fourier_prompts_is_floored(share: float, count: int, m: int, nearest: int) -> None:
    spec = load_backbone("vit_micro", weights="random").spec

    assert FourierPrompts(spec, count=count, share=share).transformed == m
    assert FourierPrompts(spec, count=count, share=share, rounded=True).transformed == nearest


# Low rank (Wang et al., ICCV 2025)


@pytest.mark.parametrize("rank", [2, 8, 50])
def test_low_rank_factors_start_as_bpt_bilinear(rank: int) -> None:
    torch.manual_seed(0)
    spec = load_backbone("vit_micro", weights="random").spec
    prompts, width = LowRankPrompts(spec, count=100, rank=rank), spec.blocks[0].width
    left, right, bound = prompts.left.detach(), prompts.right.detach(), math.sqrt(6 / (width + rank))

    assert left.std().item() == pytest.approx(0.02, rel=0.05)
    assert left.abs().max() > 0.05  # normal, not uniform
    assert right.abs().max() <= bound
    assert right.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    expected = 0.02 * math.sqrt(2 * rank / (width + rank))
    assert (left @ right.mT).std().item() == pytest.approx(expected, rel=0.1)


# Input-conditioned (Le et al., ICLR 2026)


def test_conditioned_prompts_drop_hidden_units_and_whole_channels_in_training_only() -> None:
    backbone = load_backbone("vit_micro", weights="random")
    prompts = ConditionedPrompts(backbone.spec, count=4, hidden=64, dropout=0.5)
    assert ConditionedPrompts(backbone.spec).dropout.p == settings(method="conditioned").dropout == 0.1
    with torch.no_grad():
        prompts.places.add_(torch.randn_like(prompts.places))
    tokens = backbone.embed(images(1))
    at_rest = prompts.eval().enter(1, tokens, None)[1]
    assert torch.equal(at_rest, prompts.enter(1, tokens, None)[1])
    wide = prompts.mlp[2].weight

    with torch.no_grad():
        wide.zero_()  # what is left is the offset and what was gathered
        gathered = prompts.enter(1, tokens, None)[1] - prompts.offset
        dropped = prompts.train().enter(1, tokens, None)[1] - prompts.offset
        gone = dropped[0].abs() < 1e-7
        assert 0.3 < gone[0].float().mean() < 0.7
        assert (gone == gone[:1]).all()  # of all prompts the same channels
        assert torch.allclose(dropped[0][~gone], 2 * gathered[0][~gone], rtol=1e-4, atol=1e-5)

        wide.normal_()
        seen: list[Tensor] = []
        hook = prompts.mlp[2].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        prompts.enter(1, tokens, None)
        hook.remove()
    assert (seen[0] == 0).float().mean() > 0.6  # half by the activation, of the rest half by dropout


# Cross-attention (Huang et al., ICCV 2025)


def crossed(attention: Any, tokens: Tensor, prompts: Tensor) -> Tensor:
    """CA(x, P) of tokens (N, C) and prompts (P, C): every head's softmax over the prompts alone."""
    q = F.linear(tokens, *(part.chunk(3)[0] for part in (attention.qkv.weight, attention.qkv.bias)))
    k, v = (
        F.linear(prompts, *(part.chunk(3)[n] for part in (attention.qkv.weight, attention.qkv.bias))) for n in (1, 2)
    )
    heads = [part.chunk(attention.num_heads, -1) for part in (q, k, v)]
    mixed = [(a @ b.T / a.shape[-1] ** 0.5).softmax(-1) @ c for a, b, c in zip(*heads, strict=True)]
    return attention.proj(torch.cat(mixed, -1))


@pytest.mark.parametrize("normed", [False, True])
def test_cross_attention_takes_tokens_and_prompts_as_they_are(backbone: Backbone, normed: bool) -> None:
    block, tokens = own(backbone).blocks[1], backbone.embed(images())
    prompts = 3 * torch.randn(4, backbone.spec.blocks[1].width)
    joined: list[Tensor] = []  # what enters the MLP's norm: the tokens after both attentions
    hook = block.norm2.register_forward_pre_hook(lambda module, inputs: joined.append(inputs[0].flatten(1, -2)))
    with torch.no_grad():
        backbone.block(1, tokens, SeparateContext(prompts, normed))
        backbone.block(1, tokens, None)
        hook.remove()
        after, before = joined
        norm = block.norm1 if normed else torch.nn.Identity()
        expected = torch.stack([x + crossed(block.attn, norm(x), norm(prompts)) for x in before])

    assert (after - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert (after - before).abs().max() > 1e-2


def test_the_published_form_of_cross_attention_is_the_default(backbone: Backbone) -> None:
    for prompts in (CrossPrompts(backbone.spec, count=2), settings(method="cross").build(backbone.spec)):
        assert prompts.context(0, 1).normed is False
    normed = settings(method="cross", normed=True).build(backbone.spec).context(0, 1)
    assert normed.normed is True


# Starts from tokens (SPT: Wang et al., ICML 2024)


def distance(found: Tensor, among: Tensor) -> Tensor:
    return torch.cdist(found, among, compute_mode="donot_use_mm_for_euclid_dist")


def entering(backbone: Any, given: Tensor) -> list[Tensor]:
    """The patches (N, C) that enter each block; of the first those without a position."""
    encoder = own(backbone)
    embedded = encoder.patch_embed(given)
    tokens, found = backbone.embed(given), [embedded.reshape(-1, embedded.shape[-1])]
    for i in range(backbone.spec.depth - 1):
        tokens = backbone.block(i, tokens, None)
        found.append(tokens.grid.flatten(0, 2))
    return found


@pytest.mark.parametrize("method", [ShallowPrompts, DeepPrompts])
@torch.no_grad()
def test_prompts_of_the_first_block_start_from_patches_without_a_position(backbone: Backbone, method: Any) -> None:
    prompts = method(backbone.spec, count=3)
    initialise(backbone, prompts, [images()], "tokens")

    among = entering(backbone, images())
    for row, block in enumerate(prompts.starts):
        distances = distance(prompts.table.tokens[row], among[block])
        assert distances.min(1).values.max() <= 1e-3
    placed = backbone.embed(images()).grid.flatten(0, 2)
    assert distance(prompts.table.tokens[0], placed).min(1).values.min() > 1e-2
    assert (torch.cat(collect_tokens(backbone, [images()], (0,))) - placed).abs().max() <= 1e-6


# VIPAMIN (Park and Chung, NeurIPS 2025)


def test_vipamin_compares_keys_averaged_over_the_heads() -> None:
    tokens, drawn, keys = torch.randn(9, 8), torch.randn(3, 8), torch.randn(8, 8)
    (found,) = vipamin_prompts([tokens], [drawn], [(keys, torch.eye(8))], heads=[4], nearest=1, share=0)

    def key(x: Tensor) -> Tensor:
        projected = x @ keys
        return sum(projected[2 * h : 2 * h + 2] for h in range(4)) / 4

    for prompt, start in zip(drawn, found, strict=True):
        alike = [torch.cosine_similarity(key(prompt), key(token), dim=0).item() for token in tokens]
        assert torch.equal(start, tokens[alike.index(max(alike))])


def test_initialise_gives_vipamin_each_blocks_heads(backbone: Backbone) -> None:
    prompts, spec = DeepPrompts(backbone.spec, count=3, blocks=[1]), backbone.spec
    initialise(backbone, prompts, [images()], "vipamin", seed=4)
    tokens = collect_tokens(backbone, [images()], (1,), 5_000, 4)
    bound = (6 / (3 * spec.patch[0] * spec.patch[1] + spec.blocks[1].width)) ** 0.5
    generator = torch.Generator().manual_seed(4)
    drawn = torch.empty(1, 3, spec.blocks[1].width).uniform_(-bound, bound, generator=generator)
    expected = vipamin_prompts(tokens, [drawn[0]], [backbone.key_value_maps(1)], heads=[spec.blocks[1].heads])

    assert torch.equal(prompts.table.tokens[0], expected[0])


def test_tokens_in_a_pass_of_travelling_prompts_keep_the_context_apart(backbone: Backbone) -> None:
    """Travelling prompts ask a separate context as patches do, in either form."""
    tokens = replace(backbone.embed(images(1)), prompts=torch.randn(1, 2, backbone.spec.blocks[0].width))
    with torch.no_grad():
        forms = [
            backbone.block(0, tokens, SeparateContext(torch.ones(1, tokens.grid.shape[-1]), normed)).prompts
            for normed in (False, True)
        ]
    assert (forms[0] - forms[1]).abs().max() > 1e-4
