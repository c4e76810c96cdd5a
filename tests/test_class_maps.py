"""The map of a class prompt is the softmax of the last block, written out; hiding a planted cause takes the score."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from encoders import draw, make_eva, make_vit, shaken
from torch import Tensor

import vpt
from vpt.backbones.base import Backbone
from vpt.backbones.vit_models import ASSETS
from vpt.class_maps import class_attention, class_evidence
from vpt.explaining import deletion
from vpt.heads.class_scores import ClassScoreHead
from vpt.model import PromptedModel
from vpt.prompts.class_queries import ClassQueries
from vpt.tasks.frozen import FrozenPrefix

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


@torch.no_grad()
def test_evidence_is_the_slope_of_the_score_by_what_a_patch_is_gathered_as() -> None:
    """Against a small step of one patch's value in one head, with the last block written out."""
    model = prompted(make_vit())
    images, vit, step = draw(1), model.backbone.vit, 1e-3
    tokens = model.backbone.embed(images).sequence
    for block in vit.blocks[:-1]:
        tokens = block(tokens)
    block, own = vit.blocks[-1], model.prompts.queries.tokens[0].expand(1, -1, -1)
    sequence = torch.cat([tokens[:, :1], own, tokens[:, 1:]], 1)

    def logit(patch: int, head: int, factor: float) -> float:
        queries, keys, values = block.attn.qkv(block.norm1(sequence)).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        values[:, head, 1 + CLASSES + patch] *= factor
        mixed = (queries @ keys.mT / queries.shape[-1] ** 0.5).softmax(-1) @ values
        left = sequence + block.ls1(block.attn.proj(mixed.transpose(1, 2).flatten(2)))
        left = vit.norm(left + block.ls2(block.mlp(block.norm2(left))))
        return float(left[0, 2].double() @ model.head.output.weight[0].double())

    found = class_evidence(model, images, lambda logits: logits[:, 1])

    assert found.shape == (1, 2, 8, 5)
    for patch, head in ((0, 0), (17, 1), (39, 0)):
        slope = (logit(patch, head, 1 + step) - logit(patch, head, 1 - step)) / (2 * step)
        assert float(found[0, head].flatten()[patch]) == pytest.approx(slope, rel=0.05, abs=1e-3)


COLOURS = torch.tensor([[1.5, -1.5, -1.5], [-1.5, 1.5, -1.5], [-1.5, -1.5, 1.5], [1.5, 1.5, -1.5]])


def planted(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Noise (count, 3, 64, 64) with one coloured patch of 8 x 8, which alone decides the class; its place, class."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.randn(count, 3, 64, 64, generator=generator)
    places, classes = torch.randint(0, 64, (count,), generator=generator), torch.arange(count) % len(COLOURS)
    for image, place, colour in zip(images, places.tolist(), COLOURS[classes], strict=True):
        row, column = 8 * (place // 8), 8 * (place % 8)
        image[:, row : row + 8, column : column + 8] += colour[:, None, None]
    return images, places, classes


def learned(images: Tensor, classes: Tensor, steps: int = 80) -> PromptedModel:
    torch.manual_seed(0)
    earlier = ASSETS / "vit_micro_2.safetensors"  # whose attention goes to what it reads; of later ones elsewhere, too
    spec = (backbone := vpt.load_backbone("vit_micro", weights=earlier, image_size=64)).spec
    count = len(COLOURS)
    model = PromptedModel(backbone, ClassQueries(spec, classes=count, last=1), ClassScoreHead(spec, classes=count))
    prefix = FrozenPrefix(model, spec.depth - 1)
    rows, optimizer = prefix.rows(images), torch.optim.Adam(model.trained().values(), lr=5e-3)
    for _ in range(steps):
        loss = F.cross_entropy(model.head(prefix.encode(rows).features, images), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.mark.slow
def test_the_map_finds_what_was_planted_and_hiding_it_takes_the_score() -> None:
    """By chance a patch is among the first three of 64 in one image of 21, and a random order is as good as the map."""
    images, _, classes = planted(96, seed=0)
    model = learned(images, classes)
    images, places, classes = planted(24, seed=1)
    own = class_attention(model, images).mean(2)[torch.arange(24), classes]  # (24, 8, 8)

    evidence = class_evidence(model, images, lambda logits: logits.log_softmax(1).gather(1, classes[:, None])[:, 0])
    for maps in (own, evidence.sum(1).abs()):  # it counts most, for a class or against all others
        flat = maps.flatten(1)
        before_it = (flat > flat.gather(1, places[:, None])).sum(1)
        assert (before_it < 3).float().mean() > 0.9

    less = []
    for image, label, order in zip(images[:8], classes[:8].tolist(), own[:8], strict=True):
        curve = deletion(model, image[None], lambda logits, k=label: float(logits.softmax(1)[0, k]), order)
        less.append(curve[1].random - curve[1].most_attending)
    assert torch.tensor(less).mean() > 0.3
