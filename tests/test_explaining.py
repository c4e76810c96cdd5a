"""What is said of a prompt is what the model computes: weights against the formula, influence against a fresh pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from encoders import draw, make_eva, make_sam, make_vit, shaken
from swins import make_swin
from tiny_sam import make_tiny_sam
from torch import Tensor

from vpt.backbones.base import Backbone
from vpt.errors import VptError
from vpt.explaining import answer, influence, read_prompts
from vpt.heads import ClassifyHead, MaskHead
from vpt.model import UNKNOWN, Below, PromptedModel, informed
from vpt.prompts import (
    AdditivePrompts,
    CodaPrompts,
    CrossPrompts,
    DeepPrompts,
    GatedPrompts,
    L2pPrompts,
    Prompts,
    ShallowPrompts,
    SmopePrompts,
)


def deep(backbone: Backbone, count: int = 3, **how: Any) -> PromptedModel:
    return PromptedModel(
        backbone, shaken(DeepPrompts(backbone.spec, count=count, **how)), MaskHead(backbone.spec, classes=2)
    ).eval()


@torch.no_grad()
def test_weights_are_those_of_the_softmax_written_out() -> None:
    model = deep(make_vit())
    images, vit, prompts = draw(2), model.backbone.vit, model.prompts
    found = read_prompts(model, images)
    tokens = model.backbone.embed(images).sequence
    for i, block in enumerate(vit.blocks):
        own = prompts.context(i, 1).expand(2, -1, -1)
        normed = block.norm1(torch.cat([own, tokens], 1))
        queries, keys, values = (
            block.attn.qkv(normed).unflatten(-1, (3, block.attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
        )
        weights = (queries @ keys.mT / queries.shape[-1] ** 0.5).softmax(-1)
        rows, columns = model.backbone.spec.finished.grid
        expected = weights[:, :, -rows * columns :, :3].unflatten(2, (rows, columns))
        torch.testing.assert_close(found[i].weights, expected, rtol=1e-4, atol=1e-6)
        mixed = block.attn.proj((weights @ values).transpose(1, 2).flatten(2))
        whole = torch.cat([own, tokens], 1) + block.ls1(mixed)
        tokens = (whole + block.ls2(block.mlp(block.norm2(whole))))[:, 3:]


@pytest.mark.parametrize(
    "make",
    [
        lambda spec: CodaPrompts(spec, components=2, length=2, blocks=(1,)),
        lambda spec: SmopePrompts(spec, experts=3, top=1, blocks=(1,)),
    ],
)
def test_prompts_that_are_keys_and_values_by_an_image_s_own_query_are_read_and_left_out_too(make: Any) -> None:
    backbone, image = make_vit(), draw(1)
    prompts = shaken(make(backbone.spec), 3.0)
    model = PromptedModel(backbone, prompts, ClassifyHead(backbone.spec, outputs=2)).eval()
    (found,) = read_prompts(model, image).values()
    assert found.cosines is None
    assert found.weights.shape[-1] == 1
    whole, without = answer(model, image, prompts), answer(model, image, Prompts())
    changes = influence(model, image, lambda logits: float(logits[0, 0]), {1: 1})
    assert changes[1, 0] == pytest.approx(float((whole - without)[0, 0].detach()), abs=1e-6)
    assert abs(changes[1, 0]) > 1e-4


@pytest.mark.parametrize("make", [make_vit, make_eva, make_sam, make_tiny_sam, make_swin])
def test_every_kind_of_encoder_can_be_read(make: Any) -> None:
    model = deep(make())
    side = model.backbone.spec.image_size
    found = read_prompts(model, draw(2, side))
    assert list(found) == list(model.backbone.spec.attending)
    for i, (weights, _) in found.items():
        block = model.backbone.spec.blocks[i]
        assert weights.shape == (2, block.heads, *block.grid, 3)
        assert (weights > 0).all()
        assert (weights.sum(-1) < 1).all()


@pytest.mark.slow
def test_windows_that_are_computed_some_at_a_time_are_read_as_one_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    model = deep(make_tiny_sam("fused"))
    images = draw(2, model.backbone.spec.image_size)
    whole = read_prompts(model, images)
    monkeypatch.setattr("vpt.backbones.strips.WIDE", 1)  # one row of windows of one image at a time
    for i, (weights, _) in read_prompts(model, images).items():
        torch.testing.assert_close(weights, whole[i].weights, rtol=1e-4, atol=1e-6)


def test_more_prompts_than_a_head_has_numbers_and_a_prompt_that_all_attend_to() -> None:
    model = deep(make_vit(), count=20, blocks=(1,))
    found = read_prompts(model, draw(1))
    assert found[1].weights.shape[-1] == 20
    with torch.no_grad():
        few = deep(model.backbone, count=20, blocks=(1,))
        few.prompts.load_state_dict(model.prompts.state_dict())
        few.prompts.table.tokens[0, 17] = few.prompts.table.tokens[0, 2]
    alike, cosines = read_prompts(few, draw(1))[1]
    torch.testing.assert_close(alike[..., 17], alike[..., 2], rtol=1e-4, atol=1e-6)
    assert cosines[2, 17] == pytest.approx(1)


def test_influence_is_the_change_of_a_pass_without_the_prompt() -> None:
    backbone = make_vit()
    model = PromptedModel(
        backbone, shaken(DeepPrompts(backbone.spec, count=3)), ClassifyHead(backbone.spec, outputs=3)
    ).eval()
    image = draw(1)

    def score(logits: Tensor) -> float:
        return float(logits.softmax(1)[0, 1])

    found = influence(model, image, score, {2: 3})
    kept = shaken(DeepPrompts(backbone.spec, count=3))
    kept.load_state_dict(model.prompts.state_dict())

    class Fewer(Prompts):
        def context(self, i: int, batch: int) -> Any:
            own = kept.context(i, batch)
            return own[1:] if i == 2 else own

    with torch.no_grad():
        expected = score(model(image)) - score(answer(model, image, Fewer()))
    assert found[2, 0] == pytest.approx(expected, abs=1e-6)
    assert set(found) == {(2, 0), (2, 1), (2, 2)}


def test_a_blocks_only_prompt_can_be_left_out() -> None:
    model = deep(make_vit(), count=1, blocks=(0,))
    with torch.no_grad():
        plain = answer(model, draw(1), Prompts())
    found = influence(model, draw(1), lambda logits: float(logits[0, 1].mean()), {0: 1})
    with torch.no_grad():
        assert found[0, 0] == pytest.approx(float(model(draw(1))[0, 1].mean() - plain[0, 1].mean()), abs=1e-6)


@torch.no_grad()
def test_weights_on_prompts_that_travel_are_those_of_the_softmax_written_out() -> None:
    backbone: Any = make_vit()
    shallow = shaken(ShallowPrompts(backbone.spec, count=3))
    model, images = PromptedModel(backbone, shallow, ClassifyHead(backbone.spec, outputs=2)).eval(), draw(2)
    found = read_prompts(model, images)
    tokens = backbone.embed(images).sequence
    tokens = torch.cat([tokens[:, :1], shallow.table.tokens.expand(2, -1, -1), tokens[:, 1:]], 1)
    rows, columns = backbone.spec.finished.grid
    for i, block in enumerate(backbone.vit.blocks):
        queries, keys, _ = (
            block.attn.qkv(block.norm1(tokens)).unflatten(-1, (3, block.attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
        )
        weights = (queries @ keys.mT / queries.shape[-1] ** 0.5).softmax(-1)
        expected = weights[:, :, 4:, 1:4].unflatten(2, (rows, columns))
        torch.testing.assert_close(found[i].weights, expected, rtol=1e-4, atol=1e-6)
        rest = torch.nn.functional.normalize(tokens[0, 1:4], dim=-1)
        torch.testing.assert_close(found[i].cosines, rest @ rest.mT, rtol=1e-4, atol=1e-5)
        tokens = block(tokens)
    assert list(found) == list(range(backbone.spec.depth))


@pytest.mark.parametrize("make", [make_vit, make_eva, make_sam, make_swin])
@torch.no_grad()
def test_to_patches_prompts_that_travel_are_as_prompts_beside_them(make: Any) -> None:
    """In the first block both are the same tokens, so patches give them the same attention, windows or none."""
    backbone = make()
    shallow, beside = shaken(ShallowPrompts(backbone.spec, count=3)), DeepPrompts(backbone.spec, count=3, blocks=(0,))
    beside.table.row(0, 1).copy_(shallow.table.row(0, 1))
    images = draw(2, backbone.spec.image_size)
    one, other = (
        read_prompts(PromptedModel(backbone, each, MaskHead(backbone.spec, classes=2)).eval(), images)
        for each in (shallow, beside)
    )
    torch.testing.assert_close(one[0].weights, other[0].weights, rtol=1e-4, atol=1e-6)
    entering = encode_first(backbone, shallow, images), encode_first(backbone, beside, images)
    torch.testing.assert_close(*entering, rtol=1e-4, atol=1e-5)


def encode_first(backbone: Backbone, prompts: Prompts, images: Tensor) -> Tensor:
    """The patches that leave the first block."""
    tokens, context = prompts.enter(0, backbone.embed(images), None)
    return backbone.block(0, tokens, context).grid


def travelling(backbone: Backbone) -> list[Prompts]:
    pool = L2pPrompts(backbone.spec, pool=4, top=2, length=1)
    return [shaken(each) for each in (ShallowPrompts(backbone.spec, count=2), pool)]


@torch.no_grad()
def test_one_that_travels_is_left_out_from_its_block_on() -> None:
    backbone: Any = make_vit()
    image = draw(1)

    def score(logits: Tensor) -> float:
        return float(logits[0, 0])

    for prompts in travelling(backbone):
        model = PromptedModel(backbone, prompts, ClassifyHead(backbone.spec, outputs=2)).eval()
        found = influence(model, image, score, dict.fromkeys(range(backbone.spec.depth), 2))
        tokens, whole = backbone.embed(image), score(model(image))
        state = prompts.begin(image, informed(UNKNOWN, prompts, backbone, Below(0, tokens)))
        tokens, _ = prompts.enter(0, tokens, state)
        for i in range(backbone.spec.depth):
            for number in (0, 1):
                left = replace(tokens, prompts=tokens.prompts[:, [1 - number]])
                for later in range(i, backbone.spec.depth):
                    left = backbone.block(later, left, None)
                expected = whole - score(model.head(backbone.finish(left), image))
                assert found[i, number] == pytest.approx(expected, abs=1e-6)
            tokens = backbone.block(i, tokens, None)
        assert max(map(abs, found.values())) > 1e-4


@torch.no_grad()
def test_gated_prompts_without_one_are_those_that_never_had_it() -> None:
    backbone = make_vit()
    gated, fewer = shaken(GatedPrompts(backbone.spec, count=2, gate=0.5)), GatedPrompts(backbone.spec, count=1)
    fewer.gates.copy_(gated.gates)
    fewer.table.row(0, 1).copy_(gated.table.row(0, 1)[1:])
    model = PromptedModel(backbone, gated, ClassifyHead(backbone.spec, outputs=2)).eval()
    found = influence(model, draw(1), lambda logits: float(logits[0, 0]), {0: 2})
    expected = model(draw(1)) - answer(model, draw(1), fewer)
    assert found[0, 0] == pytest.approx(float(expected[0, 0]), abs=1e-6)


@pytest.mark.parametrize("prompts", [AdditivePrompts, CrossPrompts])
def test_prompts_that_cannot_be_read_are_refused(prompts: Any) -> None:
    backbone = make_vit()
    model = PromptedModel(backbone, prompts(backbone.spec), ClassifyHead(backbone.spec, outputs=3)).eval()
    with pytest.raises(VptError, match="explain reads prompts that blocks attend to as they do to patches"):
        read_prompts(model, draw(1))


def test_a_model_without_prompts_is_refused() -> None:
    backbone = make_vit()
    model = PromptedModel(backbone, Prompts(), ClassifyHead(backbone.spec, outputs=3)).eval()
    with pytest.raises(VptError, match=r"no prompts to explain \(prompts.method is none\)"):
        read_prompts(model, draw(1))
