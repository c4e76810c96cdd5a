"""The map of a class prompt is the softmax of the last block, written out; hiding a planted cause takes the score."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from encoders import draw, make_eva, make_vit, shaken

from vpt.backbones.base import Backbone
from vpt.class_maps import class_attention
from vpt.heads.class_scores import ClassScoreHead
from vpt.model import PromptedModel
from vpt.prompts.class_queries import ClassQueries

CLASSES = 3


def prompted(backbone: Backbone, **how: Any) -> PromptedModel:
    prompts = shaken(ClassQueries(backbone.spec, classes=CLASSES, **({"last": 1} | how)))
    return PromptedModel(backbone, prompts, ClassScoreHead(backbone.spec, classes=CLASSES)).eval()


@torch.no_grad()
def test_the_map_is_the_softmax_of_the_last_block_written_out() -> None:
    model = prompted(make_vit())
    images, vit = draw(2), model.backbone.vit
    tokens = model.backbone.embed(images).sequence
    for block in vit.blocks[:-1]:
        tokens = block(tokens)
    block, own = vit.blocks[-1], model.prompts.queries.tokens[0].expand(2, -1, -1)
    sequence = torch.cat([tokens[:, :1], own, tokens[:, 1:]], 1)
    queries, keys, _ = (
        block.attn.qkv(block.norm1(sequence)).unflatten(-1, (3, block.attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    )
    weights = (queries @ keys.mT / queries.shape[-1] ** 0.5).softmax(-1)[:, :, 1 : 1 + CLASSES, 1 + CLASSES :]
    expected = weights.unflatten(3, model.backbone.spec.finished.grid).transpose(1, 2)

    found = class_attention(model, images)

    assert found.shape == (2, CLASSES, 2, 8, 5)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [{}, {"qkv_fused": False, "qkv_bias": False}, {"scale_attn_inner": True}],
    ids=["fused", "apart", "normed"],
)
def test_every_weight_is_read_that_a_rotary_encoder_gives(options: dict[str, Any]) -> None:
    """The rest goes to the prefix and the prompts: weights are positive, and their sum is less than 1."""
    model = prompted(make_eva(**options))
    before = [name for name, _ in model.named_modules()]
    found = class_attention(model, draw(2))
    assert (found > 0).all()
    assert (found.sum((-1, -2)) < 1).all()
    assert [name for name, _ in model.named_modules()] == before
    same = class_attention(model, draw(2)[1:])
    torch.testing.assert_close(found[1:], same, rtol=1e-3, atol=1e-6)
