"""`auto` pooling is the encoder's own: what timm's `forward_head` gives, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from vpt.backbones import describe_backbone, load_backbone
from vpt.backbones.vit import VitBackbone
from vpt.heads import ClassifyHead
from vpt.model import encode
from vpt.prompts import Prompts, ShallowPrompts

SIZE: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 0}
FORMS: dict[str, dict[str, Any]] = {
    "cls": {},
    "cls and registers": {"reg_tokens": 2},
    "mean beside a CLS token, normed after it": {"global_pool": "avg"},  # beit3_*, eva_large_*
    "mean without a CLS token": {"global_pool": "avg", "class_token": False},
    "mean normed before": {"global_pool": "avg", "class_token": False, "fc_norm": False},  # *_siglip_gap_*
    "mean beside registers": {"global_pool": "avg", "class_token": False, "reg_tokens": 4},  # *_reg4_gap_*
    "attention": {"global_pool": "map", "class_token": False},  # *_siglip_*
    "attention beside registers": {"global_pool": "map", "class_token": False, "reg_tokens": 1},
}


def make(pooling: Any = "own", **options: Any) -> VitBackbone:
    torch.manual_seed(0)
    vit = VisionTransformer(**SIZE | options)
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    preprocessing: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "sha256": ""}
    return VitBackbone(vit, name="tiny", pooling=pooling, **preprocessing).requires_grad_(False)


def pooled(backbone: VitBackbone, images: torch.Tensor, **settings: Any) -> torch.Tensor:
    head = ClassifyHead(backbone.spec, outputs=2, **settings)
    return head.pool(encode(backbone, Prompts(), images, keep=head.reads))


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_auto_pooling_is_timms(form: str) -> None:
    backbone, images = make(**FORMS[form]), torch.randn(3, 3, 32, 32)
    vit = backbone.vit
    expected = vit.forward_head(vit.forward_features(images), pre_logits=True)

    if form.startswith("cls"):  # of the last block only that row is computed, which rounds otherwise
        assert (pooled(backbone, images) - expected).abs().max() <= 1e-5
        features = encode(backbone, Prompts(), images)
        assert torch.equal(ClassifyHead(backbone.spec, outputs=2).pool(features), expected)
    else:
        assert torch.equal(pooled(backbone, images), expected)


@torch.no_grad()
def test_the_cls_token_of_an_encoder_that_averages_its_patches_is_normed_too() -> None:
    backbone, images = make(**FORMS["mean beside a CLS token, normed after it"]), torch.randn(2, 3, 32, 32)
    tokens = backbone.vit.forward_features(images)

    assert backbone.spec.pool == "mean"
    assert torch.allclose(pooled(backbone, images, pool="cls"), backbone.vit.fc_norm(tokens[:, 0]), atol=1e-6)
    assert torch.equal(pooled(backbone, images, pool="mean"), pooled(backbone, images))


@pytest.mark.parametrize("form", ["mean beside a CLS token, normed after it", "mean beside registers", "attention"])
@torch.no_grad()
def test_travelling_prompts_are_not_averaged(form: str) -> None:
    """Of MAE the authors of VPT average them too; see `ClassifyHead`."""
    backbone, images = make(**FORMS[form]), torch.randn(2, 3, 32, 32)
    prompts, head = ShallowPrompts(backbone.spec, count=3), ClassifyHead(backbone.spec, outputs=2)
    tokens = backbone.embed(images)
    for i in range(2):
        tokens = backbone.block(i, prompts.enter(i, tokens, None)[0], None)
    sequence = backbone.vit.norm(torch.cat([tokens.prefix, tokens.grid.flatten(1, 2)], 1))
    expected = backbone.vit.forward_head(sequence, pre_logits=True)

    assert (head.pool(encode(backbone, prompts, images)) - expected).abs().max() <= 1e-5


@torch.no_grad()
def test_plain_pooling_is_what_older_versions_read() -> None:
    images = torch.randn(2, 3, 32, 32)
    for form, options in FORMS.items():
        backbone = make("plain", **options)
        tokens, first = backbone.vit.forward_features(images), backbone.spec.prefix
        expected = tokens[:, 0] if backbone.spec.has_cls else tokens[:, first:].mean(1)
        assert (pooled(backbone, images) - expected).abs().max() <= 1e-5, form


@pytest.mark.parametrize("name", ["test_vit2", "test_vit3", "test_vit4"])
@torch.no_grad()
def test_real_architectures_of_timm_are_pooled_as_timm_does(name: str) -> None:
    backbone: Any = load_backbone(name, weights="random")
    images = torch.randn(2, 3, *backbone.spec.image_size)
    theirs = timm.create_model(name, num_classes=0).eval()
    theirs.load_state_dict(backbone.vit.state_dict())

    assert torch.equal(pooled(backbone, images), theirs.forward_head(theirs.forward_features(images), pre_logits=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "pool"),
    [
        ("beit3_base_patch16_224", "mean"),
        ("eva_large_patch14_196", "mean"),
        ("vit_little_patch16_reg4_gap_256", "mean"),
        ("vit_base_patch16_siglip_224", "attention"),
        ("vit_base_patch16_224", "cls"),
    ],
)
def test_the_pooling_is_read_from_the_model(name: str, pool: str) -> None:
    assert describe_backbone(name).pool == pool


@pytest.mark.slow
def test_images_can_be_normalised_as_imagenet_whatever_the_weights_saw() -> None:
    own, imagenet = (describe_backbone("test_vit2", normalisation=how) for how in ("own", "imagenet"))

    assert own.mean == (0.5, 0.5, 0.5)
    assert (imagenet.mean, imagenet.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert load_backbone("test_vit2", weights="random", normalisation="imagenet").spec.mean == imagenet.mean
