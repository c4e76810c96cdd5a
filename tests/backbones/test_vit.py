"""The adapter over timm: with no prompts its output is timm's own, bit for bit; what it cannot adapt it refuses."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from encoders import tune
from timm.layers import Attention, HybridEmbed, RmsNorm, SwiGLUPacked
from timm.models.vision_transformer import DiffParallelScalingBlock, VisionTransformer
from torch import Tensor, nn

from vpt.backbones import describe_backbone, load_backbone
from vpt.backbones.base import Backbone
from vpt.backbones.tokens import Features
from vpt.backbones.vit import VitBackbone
from vpt.errors import VptError
from vpt.heads import ClassifyHead
from vpt.model import PromptedModel, encode
from vpt.prompts import DeepPrompts, Prompts, ShallowPrompts


def stem(**options: Any) -> HybridEmbed:
    """Patches of 8x8 pixels: two of what a net with a norm of its own makes of four."""
    torch.manual_seed(2)
    net = nn.Sequential(nn.Conv2d(3, 6, 4, stride=4), nn.BatchNorm2d(6), nn.ReLU()).eval()
    net[1].running_mean.normal_(0, 0.2)
    net[1].running_var.uniform_(0.5, 2)
    return HybridEmbed(backbone=net, **(options | {"patch_size": 2}))


VARIANTS: dict[str, dict[str, Any]] = {
    "cls": {},
    "no_cls": {"class_token": False, "global_pool": "avg"},
    "registers": {"reg_tokens": 4},
    "registers_without_cls": {"reg_tokens": 2, "class_token": False, "global_pool": "avg"},
    "layer_scale": {"init_values": 0.5},
    "qk_norm": {"qk_norm": True},
    "pre_norm": {"pre_norm": True},
    "no_qkv_bias": {"qkv_bias": False},
    "no_embed_class": {"no_embed_class": True, "reg_tokens": 1},
    "no_position": {"pos_embed": "none"},
    "scale_attn_norm": {"scale_attn_norm": True},
    "scale_mlp_norm": {"scale_mlp_norm": True},
    "rms_norm_swiglu": {"norm_layer": RmsNorm, "mlp_layer": SwiGLUPacked},
    "no_final_norm": {"final_norm": False},
    "norm_after_pooling": {"global_pool": "avg"},
    "wide": {"img_size": (32, 72)},
    "tall": {"img_size": (72, 32)},
    "oblong_patch": {"img_size": (32, 40), "patch_size": (16, 8)},
    "patch_16": {"img_size": 64, "patch_size": 16},
    "patch_14": {"img_size": 42, "patch_size": 14},
    "dynamic": {"dynamic_img_size": True},
    "one_block": {"depth": 1},
    "convolutional_stem": {"embed_layer": stem},
    "every_dropout": {
        "pos_drop_rate": 0.5,
        "patch_drop_rate": 0.5,
        "proj_drop_rate": 0.5,
        "attn_drop_rate": 0.5,
        "drop_path_rate": 0.5,
    },
}


def tiny_vit(**options: Any) -> VisionTransformer:
    """A small ViT whose every tensor is random, so that no zero bias and no unit gain hides a mistake."""
    torch.manual_seed(0)
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2, "num_classes": 0}
    vit = VisionTransformer(**(size | options))
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return vit


def wrap(vit: VisionTransformer) -> VitBackbone:
    return VitBackbone(vit, name="tiny", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), sha256="")


def sequence(features: Features) -> Tensor:
    """Features -> (B, R + H*W, C), as timm orders its tokens."""
    return torch.cat([features.prefix, features.grid.flatten(2).transpose(1, 2)], dim=1)


def draw(backbone: Backbone, batch: int = 2) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, 3, *backbone.spec.image_size)


def timms_own(vit: Any, images: Tensor) -> Tensor:
    """timm's tokens (B, R + H*W, C). Where timm norms after pooling, CLS and registers have that norm already."""
    tokens = vit.forward_features(images)
    prefix = vit.num_prefix_tokens
    return torch.cat([vit.fc_norm(tokens[:, :prefix]), tokens[:, prefix:]], dim=1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_without_prompts_the_output_is_timms_own(variant: str) -> None:
    vit = tiny_vit(**VARIANTS[variant])
    backbone = wrap(vit)
    images = draw(backbone)

    features = encode(backbone, Prompts(), images)

    assert torch.equal(sequence(features), timms_own(vit.eval(), images))
    if backbone.spec.pool == "cls":
        assert features.pooled is None
    else:
        assert torch.equal(features.pooled, vit.forward_head(vit.forward_features(images), pre_logits=True))
    rows, columns = vit.patch_embed.grid_size
    assert features.grid.shape == (2, 32, rows, columns)
    assert features.prefix.shape == (2, vit.num_prefix_tokens, 32)
    assert backbone.spec.finished.grid == (rows, columns)


@pytest.mark.parametrize("variant", ["cls", "no_cls", "registers", "wide"])
def test_levels_are_timms_intermediate_grids(variant: str) -> None:
    vit = tiny_vit(**VARIANTS[variant])
    backbone = wrap(vit)
    images = draw(backbone)

    features = encode(backbone, Prompts(), images, levels=(0, 2))

    expected = vit.forward_intermediates(images, indices=[0, 2], intermediates_only=True)
    assert len(features.levels) == 2
    assert all(torch.equal(ours, timms) for ours, timms in zip(features.levels, expected, strict=True))


def test_a_gated_attention_is_timms_own() -> None:
    vit = tiny_vit()
    for block in vit.blocks:
        block.attn = Attention(32, num_heads=2, qkv_bias=True, gated=True)
    backbone = wrap(vit)
    images = draw(backbone)

    assert torch.equal(sequence(encode(backbone, Prompts(), images)), timms_own(vit, images))


@pytest.mark.parametrize(
    ("name", "image_size", "grid", "prefix"),
    [
        ("vit_micro", None, (8, 8), 1),
        ("vit_tiny_patch16_224", None, (14, 14), 1),
        ("vit_small_patch14_reg4_dinov2", 112, (8, 8), 5),
        ("test_vit2", (32, 64), (2, 4), 1),
    ],
)
def test_a_model_by_name_is_timms_own(name: str, image_size: Any, grid: tuple[int, int], prefix: int) -> None:
    backbone = load_backbone(name, weights="random", image_size=image_size)
    images = draw(backbone, batch=1)

    with torch.inference_mode():
        features = encode(backbone, Prompts(), images)
        expected = timms_own(backbone.vit, images)

    assert torch.equal(sequence(features), expected)
    assert features.grid.shape == (1, backbone.spec.blocks[0].width, *grid)
    assert features.prefix.shape == (1, prefix, backbone.spec.blocks[0].width)


@pytest.mark.parametrize("name", ["vit_micro", "test_vit2"])
@pytest.mark.parametrize("image_size", [32, (96, 64), (16, 128)])
def test_another_image_size_is_timms_own_resizing(name: str, image_size: Any) -> None:
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    native = load_backbone(name, weights="random")
    expected = copy.deepcopy(native.vit)
    expected.set_input_size(img_size=(height, width))

    backbone = load_backbone(name, weights="random", image_size=image_size)

    assert backbone.spec.image_size == (height, width)
    assert backbone.spec.finished.grid == (height // native.spec.patch[0], width // native.spec.patch[1])
    images = draw(backbone)
    assert torch.equal(sequence(encode(backbone, Prompts(), images)), timms_own(expected, images))


def test_the_native_image_size_leaves_every_tensor_as_it_is() -> None:
    native = load_backbone("vit_micro", weights="random").state_dict()
    asked = load_backbone("vit_micro", weights="random", image_size=64).state_dict()

    assert all(torch.equal(native[name], asked[name]) for name in native | asked)


@pytest.mark.parametrize("image_size", [60, (64, 60), (60, 64), 0, 7, -8])
def test_an_image_size_that_the_patches_do_not_divide_is_refused(image_size: Any) -> None:
    with pytest.raises(VptError, match=r"not a multiple of the patch of vit_micro, 8x8; take \d+"):
        load_backbone("vit_micro", weights="random", image_size=image_size)


def test_a_backbone_is_frozen_and_in_eval_mode() -> None:
    backbone = load_backbone("vit_micro", weights="random")

    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not any(module.training for module in backbone.modules())


@pytest.mark.parametrize("prompts", [Prompts, ShallowPrompts, DeepPrompts])
def test_a_dynamic_vit_takes_images_of_another_size_than_the_spec(prompts: type[Prompts]) -> None:
    vit = tiny_vit(dynamic_img_size=True)
    backbone = wrap(vit)
    images = torch.randn(2, 3, 48, 24)

    method = prompts() if prompts is Prompts else prompts(backbone.spec, count=2)
    features = encode(backbone, method, images)

    assert features.grid.shape == (2, 32, 6, 3)
    if prompts is Prompts:
        assert torch.equal(sequence(features), timms_own(vit, images))


def test_a_dynamic_vit_that_pads_counts_the_padded_patches() -> None:
    vit = tiny_vit(dynamic_img_size=True, dynamic_img_pad=True)
    backbone = wrap(vit)
    images = torch.randn(1, 3, 30, 37)

    features = encode(backbone, Prompts(), images)

    assert features.grid.shape == (1, 32, 4, 5)
    assert torch.equal(sequence(features), timms_own(vit, images))


def test_a_hybrid_is_made_of_whole_patches_of_its_net_and_resized() -> None:
    """vit_tiny_r_s16_p8: patches of 2x2 places of a ResNet's grid, whose stride is 16."""
    name = "vit_tiny_r_s16_p8_224"
    backbone = load_backbone(name, weights="random", image_size=(96, 64))
    assert (backbone.spec.patch, backbone.spec.finished) == ((32, 32), (192, (3, 2)))
    images = draw(backbone, 1)
    prompts = DeepPrompts(backbone.spec, count=2)
    assert encode(backbone, prompts, images).grid.shape == (1, 192, 3, 2)
    with pytest.raises(
        VptError, match="image size 112x112 is not a multiple of the patch of vit_tiny_r_s16_p8_224, 32x32"
    ):
        load_backbone(name, weights="random", image_size=112)


def test_a_fixed_vit_refuses_images_of_another_size_than_the_spec() -> None:
    with pytest.raises((VptError, AssertionError), match=r"48.*32"):
        wrap(tiny_vit()).embed(torch.randn(1, 3, 48, 48))


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("resnet50", "ResNet"),
        ("cait_xxs24_224", "Cait"),
        ("vit_dwee_patch16_reg1_gap_256", "DiffAttention"),
    ],
)
def test_another_family_is_refused_with_what_is_supported(name: str, found: str) -> None:
    with pytest.raises(VptError) as refusal:
        load_backbone(name, weights="random")

    for part in (name, found, "not supported", "VisionTransformer", "vit_small_patch16_224", "vit_micro"):
        assert part in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("maxvit_tiny_tf_224", "MaxxVit is not supported, since it attends between convolutions"),
        ("convnext_atto", "ConvNeXt is not supported, since it is made of convolutions"),
        ("cait_xxs24_224", "since its class token attends in blocks of its own"),
        ("xcit_nano_12_p16_224", "since it attends between channels"),
        ("pvt_v2_b0", "since its keys are of patches that a convolution has made fewer"),
        ("mixer_s32_224", "since nothing in it attends to tokens"),
        ("botnet26t_256", "since its attention is of a form that is not taken apart"),
    ],
)
def test_what_stays_out_is_refused_with_its_reason(name: str, reason: str) -> None:
    with pytest.raises(VptError, match=reason):
        describe_backbone(name)


def test_blocks_and_attention_of_another_kind_are_refused() -> None:
    for odd in ({"attn_layer": "diff"}, {"block_fn": DiffParallelScalingBlock}):
        with pytest.raises(VptError, match=r"(DiffAttention|DiffParallelScalingBlock).*not supported.*vit_micro"):
            wrap(tiny_vit(**odd))


@pytest.mark.parametrize(
    ("name", "hints"),
    [
        ("vit_smal_patch16_224", ["did you mean vit_small_patch16_224", "vit_micro"]),
        ("vit_mikro", ["did you mean vit_micro"]),
        ("no/such/folder", ["no such model or folder", "VisionTransformer", "config.json"]),
        ("timm", ["no such model or folder", "vit_micro"]),
        ("vit_tiny_patch16_224.augrek", ["no such weights", "augreg_in21k"]),
    ],
)
def test_an_unknown_name_is_refused_with_a_suggestion(name: str, hints: list[str]) -> None:
    with pytest.raises(VptError) as refusal:
        load_backbone(name)

    for hint in (name, *hints):
        assert hint in str(refusal.value)


def test_every_name_in_the_refusal_is_a_model_that_timm_knows() -> None:
    with pytest.raises(VptError) as refusal:
        load_backbone("resnet50", weights="random")

    names = [word.strip(",;.") for word in str(refusal.value).split() if "_patch" in word]
    assert names
    assert all(timm.is_model(name) for name in names)


def test_the_spec_tells_what_prompts_and_heads_need() -> None:
    spec = load_backbone("vit_small_patch14_reg4_dinov2", weights="random", image_size=(28, 56)).spec

    assert (spec.name, spec.depth, spec.finished) == ("vit_small_patch14_reg4_dinov2", 12, (384, (2, 4)))
    assert {(block.width, block.heads, block.grid) for block in spec.blocks} == {(384, 6, (2, 4))}
    assert (spec.patch, spec.prefix, spec.image_size, spec.finished.grid) == ((14, 14), 5, (28, 56), (2, 4))
    assert spec.mean == pytest.approx((0.485, 0.456, 0.406))  # ImageNet, as DINOv2 was trained
    assert spec.std == pytest.approx((0.229, 0.224, 0.225))


def test_a_hybrid_is_scaled_and_shifted_from_its_stem_on() -> None:
    """SSF: a batch norm's output is an image, whose channels lie second."""
    backbone = wrap(tiny_vit(embed_layer=stem))
    images, model = draw(backbone, 2), PromptedModel(backbone, Prompts(), ClassifyHead(backbone.spec, outputs=2)).eval()
    with torch.no_grad():
        expected = model(images)
    tune(model, "ssf")
    torch.testing.assert_close(model(images), expected)
    gammas = {name: p for name, p in model.trained().items() if "patch_embed.backbone" in name}
    assert len(gammas) == 4  # of the convolution and of its norm
    model(images).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in gammas.values())
