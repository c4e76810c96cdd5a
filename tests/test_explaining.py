"""What is said of a prompt is what the model computes: weights against the formula, influence against a fresh pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from encoders import draw, make_eva, make_sam, make_vit, shaken
from tiny_sam import make_tiny_sam
from torch import Tensor

from vpt.backbones.base import Backbone
from vpt.errors import VptError
from vpt.explaining import answer, influence, read_prompts
from vpt.heads import ClassifyHead, MaskHead
from vpt.model import PromptedModel
from vpt.prompts import CodaPrompts, CrossPrompts, DeepPrompts, Prompts, ShallowPrompts


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


def test_prompts_that_are_keys_and_values_by_an_image_s_own_query_are_read_and_left_out_too() -> None:
    backbone, image = make_vit(), draw(1)
    coda = shaken(CodaPrompts(backbone.spec, components=2, length=2, blocks=(1,)), 3.0)
    model = PromptedModel(backbone, coda, ClassifyHead(backbone.spec, outputs=2)).eval()
    (found,) = read_prompts(model, image).values()
    assert found.cosines is None
    assert found.weights.shape[-1] == 1
    whole, without = answer(model, image, coda), answer(model, image, Prompts())
    changes = influence(model, image, lambda logits: float(logits[0, 0]), {1: 1})
    assert changes[1, 0] == pytest.approx(float((whole - without)[0, 0].detach()), abs=1e-6)
    assert abs(changes[1, 0]) > 1e-4


@pytest.mark.parametrize("make", [make_vit, make_eva, make_sam, make_tiny_sam])
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


@pytest.mark.parametrize("prompts", [ShallowPrompts, CrossPrompts])
def test_prompts_that_cannot_be_read_are_refused(prompts: Any) -> None:
    backbone = make_vit()
    model = PromptedModel(backbone, prompts(backbone.spec, count=2), ClassifyHead(backbone.spec, outputs=3)).eval()
    with pytest.raises(VptError, match="explain reads prompts that blocks attend to beside their tokens"):
        read_prompts(model, draw(1))


def test_a_model_without_prompts_is_refused() -> None:
    backbone = make_vit()
    model = PromptedModel(backbone, Prompts(), ClassifyHead(backbone.spec, outputs=3)).eval()
    with pytest.raises(VptError, match="explain reads prompts"):
        read_prompts(model, draw(1))
