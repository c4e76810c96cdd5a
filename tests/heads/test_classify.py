"""One vector per image or volume, and a small classifier on it."""

from __future__ import annotations

import pytest
import torch
from encoders import GRID, NECK, WIDTH, draw, make_sam, make_vit, plain_spec, shaken, total

from vpt.errors import VptError
from vpt.heads import ClassifyHead
from vpt.heads.linear import SliceAttention
from vpt.model import PromptedModel, encode
from vpt.prompts import DeepPrompts, Prompts, ShallowPrompts
from vpt.tasks.batch import Batch
from vpt.tasks.classification import StackModel

# --- pooling ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pool", "first"), [("cls", True), ("auto", True), ("mean", False)])
def test_a_vit_gives_its_cls_token_or_the_mean_of_its_patches_after_the_final_norm(pool, first):
    backbone, images = make_vit(), draw(3)
    tokens = backbone.vit.forward_features(images)  # timm's own, normed: (B, 1 + patches, C)
    head = ClassifyHead(backbone.spec, outputs=2, pool=pool)
    pooled = head.pool(encode(backbone, Prompts(), images))
    expected = tokens[:, 0] if first else tokens[:, 1:].mean(1)
    torch.testing.assert_close(pooled, expected)


@pytest.mark.parametrize("pool", ["auto", "mean"])
def test_a_sam_encoder_gives_the_mean_of_its_neck(pool):
    backbone, images = make_sam(), draw(2)
    head = ClassifyHead(backbone.spec, outputs=5, pool=pool)
    features = encode(backbone, Prompts(), images)
    pooled = head.pool(features)
    assert pooled.shape == (2, NECK)
    torch.testing.assert_close(pooled, features.grid.flatten(2).mean(2))
    assert head(features, images).shape == (2, 5)


def test_registers_are_neither_the_cls_token_nor_patches():
    backbone, images = make_vit(reg_tokens=2), draw(2)
    tokens = backbone.vit.forward_features(images)
    features = encode(backbone, Prompts(), images)
    by_pool = {pool: ClassifyHead(backbone.spec, outputs=2, pool=pool).pool(features) for pool in ("cls", "mean")}
    torch.testing.assert_close(by_pool["cls"], tokens[:, 0])
    torch.testing.assert_close(by_pool["mean"], tokens[:, 3:].mean(1))


@pytest.mark.parametrize("kind", ["sam", "vit without", "registers alone"])
def test_cls_without_such_a_token_is_refused_and_auto_takes_what_the_encoder_does(kind):
    """A register is no CLS token, though it lies where one would (timm's `..._reg4_gap_256`)."""
    registers = 2 * (kind == "registers alone")
    bare = {"class_token": False, "global_pool": "avg", "reg_tokens": registers}
    backbone = make_sam() if kind == "sam" else make_vit(**bare)
    assert backbone.spec.prefix == registers
    with pytest.raises(VptError, match="head: pool is cls, but tiny has no CLS token; choose mean"):
        ClassifyHead(backbone.spec, outputs=2, pool="cls")
    images = draw(2)
    features = encode(backbone, Prompts(), images)
    for pool in ("auto", "mean"):
        pooled = ClassifyHead(backbone.spec, outputs=2, pool=pool).pool(features)
        if kind == "sam":
            assert torch.equal(pooled, features.grid.mean((2, 3)))
        else:  # timm norms the mean of the patches, not the patches
            vit = backbone.vit
            assert torch.equal(pooled, vit.forward_head(vit.forward_features(images), pre_logits=True))
            torch.testing.assert_close(pooled, vit.fc_norm(features.grid.mean((2, 3))))


def test_travelling_prompts_are_not_among_what_is_pooled():
    """Against the published arithmetic, written out: [CLS; prompts; patches] through every block."""
    backbone, images = make_vit(), draw(2)
    prompts = shaken(ShallowPrompts(backbone.spec, count=3))
    vit = backbone.vit
    sequence = vit._pos_embed(vit.patch_embed(images))
    own = prompts.table.row(0, 2).expand(2, -1, -1)
    sequence = torch.cat([sequence[:, :1], own, sequence[:, 1:]], dim=1)
    normed = vit.norm(vit.blocks(sequence))
    features = encode(backbone, prompts, images)
    pooled = ClassifyHead(backbone.spec, outputs=2, pool="mean").pool(features)
    torch.testing.assert_close(pooled, normed[:, 1 + 3 :].mean(1), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(pooled, normed[:, 1:].mean(1), atol=1e-3)
    cls = ClassifyHead(backbone.spec, outputs=2, pool="cls").pool(features)
    torch.testing.assert_close(cls, normed[:, 0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("make", [ShallowPrompts, DeepPrompts])
@pytest.mark.parametrize("make_backbone", [make_vit, make_sam])
def test_what_is_pooled_has_the_shape_of_one_vector_per_image_and_moves_with_the_prompts(make, make_backbone):
    backbone, images = make_backbone(), draw(2)
    head = ClassifyHead(backbone.spec, outputs=2, pool="mean")
    bare = encode(backbone, Prompts(), images)
    prompted = encode(backbone, shaken(make(backbone.spec, count=4)), images)
    assert prompted.grid.shape[2:] == GRID
    assert head.pool(prompted).shape == head.pool(bare).shape
    assert not torch.allclose(head.pool(prompted), head.pool(bare))


# --- slices -----------------------------------------------------------------------------------------------------------


def test_the_attention_starts_as_the_plain_mean():
    slices = torch.randn(3, 5, WIDTH, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(SliceAttention(WIDTH)(slices), slices.mean(1))


def test_the_attention_is_the_published_one_and_ignores_the_order():
    """Ilse et al., equation 9, slice by slice."""
    attention = shaken(SliceAttention(WIDTH, hidden=7))
    slices = torch.randn(2, 6, WIDTH, generator=torch.Generator().manual_seed(0))
    found = attention(slices)
    for volume, vector in zip(slices, found, strict=True):
        scores = torch.stack(
            [
                (attention.weight.weight[0] * torch.tanh(attention.value(x)) * torch.sigmoid(attention.gate(x))).sum()
                for x in volume
            ]
        )
        weights = scores.exp() / scores.exp().sum()
        torch.testing.assert_close(vector, sum(w * x for w, x in zip(weights, volume, strict=True)))
    torch.testing.assert_close(attention(slices[:, torch.tensor([3, 0, 5, 1, 4, 2])]), found)
    assert not torch.allclose(found, slices.mean(1), atol=1e-3)


def test_the_attention_learns_though_it_starts_equal():
    attention = SliceAttention(WIDTH)
    slices = torch.randn(2, 4, WIDTH, generator=torch.Generator().manual_seed(0))
    attention(slices)[:, 0].sum().backward()
    assert attention.weight.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("make_backbone", [make_vit, make_sam])
def test_a_volume_of_equal_slices_is_its_slice(make_backbone):
    backbone = make_backbone()
    head = shaken(ClassifyHead(backbone.spec, outputs=3, hidden=8, slices=True))
    image = draw(2).unsqueeze(1)
    model = StackModel(PromptedModel(backbone, Prompts(), head)).eval()
    with torch.no_grad():
        found, expected = (model(Batch(images=given)).logits for given in (image.expand(-1, 4, -1, -1, -1), image))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_the_logits_of_a_volume_do_not_depend_on_the_order_of_its_slices():
    backbone = make_vit()
    head = shaken(ClassifyHead(backbone.spec, outputs=3, slices=True))
    model = StackModel(PromptedModel(backbone, shaken(DeepPrompts(backbone.spec, count=2)), head)).eval()
    volumes = torch.stack([draw(5, seed=1), draw(5, seed=2)])
    with torch.no_grad():
        found, turned = (model(Batch(images=given)).logits for given in (volumes, volumes.flip(1)))
    torch.testing.assert_close(found, turned, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found[0], found[1], atol=1e-3)


# --- size -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slices", [False, True])
@pytest.mark.parametrize("hidden", [None, 24])
@pytest.mark.parametrize(("make_backbone", "width"), [(make_vit, WIDTH), (make_sam, NECK)])
def test_parameters_are_those_of_the_formula(make_backbone, width, hidden, slices):
    head = ClassifyHead(make_backbone().spec, outputs=7, hidden=hidden, slices=slices)
    linear = 7 * width + 7 if hidden is None else (hidden * width + hidden) + (7 * hidden + 7)
    attention = 2 * (64 * width + 64) + 64 if slices else 0
    assert total(head) == linear + attention


def test_the_width_of_a_neck_counts_for_the_mean_only():
    """A spec with both a CLS token and a neck: the token has the encoder's own width, the grid the neck's."""
    spec = plain_spec(width=WIDTH, neck=NECK)
    assert ClassifyHead(spec, outputs=2, pool="cls").output.in_features == WIDTH
    assert ClassifyHead(spec, outputs=2, pool="mean").output.in_features == NECK


def test_it_starts_near_even_odds():
    backbone = make_vit()
    torch.manual_seed(0)
    head = ClassifyHead(backbone.spec, outputs=4)
    probabilities = head(encode(backbone, Prompts(), draw(4)), draw(4)).softmax(1)
    assert (probabilities - 0.25).abs().max() < 0.15
    assert head.levels == ()
