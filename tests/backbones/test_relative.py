"""BEiT and timm's relative ViTs: equal to timm without prompts, and with them to the formula written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from encoders import (
    PREPROCESSING,
    assert_controls_start_as_nothing,
    assert_gradients_reach_prompts_alone,
    draw,
    shaken,
    total,
    tune,
)
from staged import assert_compiles
from timm.models.beit import Beit
from timm.models.vision_transformer_relpos import ResPostRelPosBlock, VisionTransformerRelPos
from torch import Tensor

from vpt.backbones import describe_backbone, load_backbone
from vpt.backbones.relative import RelativeBackbone
from vpt.class_maps import class_attention
from vpt.errors import VptError
from vpt.explaining import read_prompts
from vpt.heads import ClassifyHead
from vpt.heads.class_scores import ClassScoreHead
from vpt.model import PromptedModel, encode
from vpt.prompts import CrossPrompts, DeepPrompts, Prompts, ShallowPrompts
from vpt.prompts.class_queries import ClassQueries
from vpt.wrapping import wrap

SIZE: dict[str, Any] = {"img_size": (64, 40), "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2}
KINDS: dict[str, dict[str, Any]] = {
    "BEiT": {"use_abs_pos_emb": False, "use_rel_pos_bias": True, "qkv_bias": True, "init_values": 0.5},
    "BEiT, one bias for all": {"use_abs_pos_emb": True, "use_shared_rel_pos_bias": True, "global_pool": "token"},
    "BEiT, both": {"use_rel_pos_bias": True, "use_shared_rel_pos_bias": True, "swiglu_mlp": True, "scale_mlp": True},
    "relative": {"rel_pos_type": "bias", "init_values": 0.5},
    "relative, CLS": {"rel_pos_type": "bias", "class_token": True, "global_pool": "token", "fc_norm": True},
    "relative, MLP": {"rel_pos_type": "mlp", "rel_pos_dim": 8, "qk_norm": True},
    "relative, one MLP for all": {"rel_pos_type": "mlp", "rel_pos_dim": 8, "shared_rel_pos": True},
    "relative, norm after": {"rel_pos_type": "bias", "block_fn": ResPostRelPosBlock, "init_values": 0.5},
}
EVERY = pytest.mark.parametrize("kind", KINDS)


def timm_of(kind: str) -> Any:
    """timm's model with values that make every bias matter."""
    torch.manual_seed(0)
    own = Beit if kind.startswith("BEiT") else VisionTransformerRelPos
    model: Any = own(**SIZE, num_classes=0, **KINDS[kind]).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.normal_(std=0.7 if "rel" in name else 0.1 if "after" in kind else 0.3)
    return model


def make(kind: str) -> RelativeBackbone:
    return RelativeBackbone(timm_of(kind), name=kind, **PREPROCESSING).requires_grad_(False).eval()


def all_of(backbone: RelativeBackbone, prompts: Prompts, images: Tensor) -> Tensor:
    """Its finished patches (B, N, C)."""
    return encode(backbone, prompts, images).grid.flatten(2).transpose(1, 2)


def written_out(model: Any, i: int, tokens: Tensor, prompts: Tensor | None) -> Tensor:
    """Block i of timm's on [prefix; prompts; patches] with softmax(q k^T / sqrt(d) + bias), prompts without a bias."""
    block, prefix = model.blocks[i], model.num_prefix_tokens
    count = 0 if prompts is None else prompts.shape[1]
    whole = tokens if prompts is None else torch.cat([tokens[:, :prefix], prompts, tokens[:, prefix:]], 1)
    after = isinstance(block, ResPostRelPosBlock)
    entering, attention = whole if after else block.norm1(whole), block.attn
    projected = torch.nn.functional.linear(entering, attention.qkv.weight, attention.qkv.bias)
    if getattr(attention, "q_bias", None) is not None:
        projected = projected + torch.cat([attention.q_bias, torch.zeros_like(attention.q_bias), attention.v_bias])
    heads = projected.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    queries, keys, values = heads
    if hasattr(attention, "q_norm"):
        queries, keys = attention.q_norm(queries), attention.k_norm(keys)
    scores = queries @ keys.mT / queries.shape[-1] ** 0.5
    places = [k for k in range(whole.shape[1]) if not prefix <= k < prefix + count]
    for bias in biases(model, attention):
        for row, at in enumerate(places):
            scores[:, :, at, places] += bias.reshape(attention.num_heads, len(places), -1)[:, row]
    mixed = attention.proj((scores.softmax(-1) @ values).transpose(1, 2).flatten(2))
    first, second = scales(block)
    whole = whole + first(block.norm1(mixed) if after else mixed)
    whole = whole + second(block.norm2(block.mlp(whole)) if after else block.mlp(block.norm2(whole)))
    return torch.cat([whole[:, :prefix], whole[:, prefix + count :]], 1)


def biases(model: Any, attention: Any) -> list[Tensor]:
    found = []
    if getattr(attention, "relative_position_bias_table", None) is not None:
        found.append(attention._get_rel_pos_bias())
    if getattr(attention, "rel_pos", None) is not None:
        found.append(attention.rel_pos.get_bias())
    if getattr(model, "rel_pos_bias", None) is not None:
        found.append(model.rel_pos_bias())
    if getattr(model, "shared_rel_pos", None) is not None:
        found.append(model.shared_rel_pos.get_bias())
    return found


def scales(block: Any) -> tuple[Any, Any]:
    if getattr(block, "gamma_1", None) is not None:
        return (lambda x: block.gamma_1 * x), (lambda x: block.gamma_2 * x)
    return getattr(block, "ls1", torch.nn.Identity()), getattr(block, "ls2", torch.nn.Identity())


@EVERY
@torch.no_grad()
def test_without_prompts_the_output_is_timms_bit_for_bit(kind: str) -> None:
    backbone, model, images = make(kind), timm_of(kind), draw(3)
    found = encode(backbone, Prompts(), images)
    expected = model.forward_features(images)
    assert torch.equal(found.grid.flatten(2).transpose(1, 2), expected[:, backbone.spec.prefix :])
    own = found.prefix[:, 0] if backbone.spec.pool == "cls" else found.pooled
    assert own is not None
    assert torch.equal(own, model.forward_head(expected, pre_logits=True))


@EVERY
@torch.no_grad()
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_deep_prompts_equal_the_formula_written_out(kind: str, dtype: torch.dtype, close: float) -> None:
    backbone, model, images = make(kind).to(dtype), timm_of(kind).to(dtype), draw(2).to(dtype)
    prompts = shaken(DeepPrompts(backbone.spec, count=3, blocks=(0, 2, 3))).to(dtype)
    tokens = plain = model.norm_pre(start(model, images)) if hasattr(model, "norm_pre") else start(model, images)
    for i in range(4):
        own = prompts.context(i, 1)
        tokens = written_out(model, i, tokens, None if own is None else own.expand(2, -1, -1))
        plain = written_out(model, i, plain, None)
    expected, without = (model.norm(each)[:, backbone.spec.prefix :] for each in (tokens, plain))
    assert (all_of(backbone, prompts, images) - expected).abs().max() <= close * expected.abs().max()
    assert (expected - without).abs().max() > 1e-3 * expected.abs().max()


def start(model: Any, images: Tensor) -> Tensor:
    tokens = model.patch_embed(images)
    if model.cls_token is not None:
        tokens = torch.cat([model.cls_token.expand(len(tokens), -1, -1), tokens], 1)
    return tokens if getattr(model, "pos_embed", None) is None else tokens + model.pos_embed


@EVERY
@torch.no_grad()
def test_travelling_prompts_have_no_place(kind: str) -> None:
    backbone, model = make(kind).double(), timm_of(kind).double()
    images, prompts = draw(2).double(), shaken(ShallowPrompts(backbone.spec, count=3)).double()
    tokens, own = start(model, images), prompts.table.row(0, 2).expand(2, -1, -1)
    prefix = model.num_prefix_tokens
    backbone_tokens = backbone.embed(images)
    found = backbone.block(
        0,
        backbone_tokens.__class__.parts_of(
            torch.cat([tokens[:, :prefix], own, tokens[:, prefix:]], 1), prefix, 3, backbone.spec.finished.grid
        ),
        None,
    )
    expected = written_out(model, 0, tokens, own)[:, prefix:]
    torch.testing.assert_close(found.grid.flatten(1, 2), expected, rtol=1e-9, atol=1e-11)


@EVERY
@torch.no_grad()
def test_images_of_a_batch_know_nothing_of_each_other(kind: str) -> None:
    backbone, images = make(kind).double(), draw(3).double()
    prompts = shaken(CrossPrompts(backbone.spec, count=3)).double()
    one_by_one = torch.cat([all_of(backbone, prompts, image[None]) for image in images])
    torch.testing.assert_close(all_of(backbone, prompts, images), one_by_one, rtol=1e-9, atol=1e-11)


@EVERY
def test_gradients_reach_every_prompt_and_no_frozen_weight(kind: str) -> None:
    assert_gradients_reach_prompts_alone(make(kind))


@pytest.mark.parametrize("kind", ["BEiT", "relative, norm after"])
def test_the_controls_train(kind: str) -> None:
    own = make(kind)
    lora = tune(PromptedModel(own, Prompts(), ClassifyHead(own.spec, outputs=3)), "lora", rank=2)
    assert total(lora.backbone) == 4 * 2 * 32 * (1 + 3 + 1 + 1)
    assert_controls_start_as_nothing(lambda: make(kind))


@torch.no_grad()
def test_blocks_that_norm_after_take_no_normed_prompts() -> None:
    backbone = make("relative, norm after")
    with pytest.raises(VptError, match="normed, but relative, norm after norms after its attention"):
        encode(backbone, CrossPrompts(backbone.spec, normed=True), draw(1))


def test_a_bias_that_trains_is_made_anew() -> None:
    own = make("BEiT")
    before = own.bias(0)
    assert own.bias(0) is before
    with torch.no_grad():
        own.vit.blocks[0].attn.relative_position_bias_table.add_(1.0)
    after = own.bias(0)
    assert before is not None
    assert after is not None
    torch.testing.assert_close(after, before + 1)


def test_real_names_are_described_and_other_sizes_resize_their_biases() -> None:
    assert describe_backbone("beit_base_patch16_384").finished.grid == (24, 24)
    assert describe_backbone("vit_relpos_small_patch16_224").prefix == 0
    backbone = load_backbone("test_vit_relpos", weights="random", image_size=(64, 96))
    found = encode(backbone, DeepPrompts(backbone.spec, count=2), draw(1, (64, 96)))
    assert found.grid.shape[-2:] == backbone.spec.finished.grid
    assert found.grid.isfinite().all()


@torch.no_grad()
def test_a_distilled_vit_answers_with_the_mean_of_its_two_tokens() -> None:
    backbone = load_backbone("deit_tiny_distilled_patch16_224", weights="random", image_size=32)
    assert (backbone.spec.prefix, backbone.spec.registers, backbone.spec.pool) == (2, 0, "tokens")
    images = draw(2, (32, 32))
    found = encode(backbone, Prompts(), images)
    vit: Any = backbone.vit
    expected = vit.forward_features(images)
    assert torch.equal(found.grid.flatten(2).transpose(1, 2), expected[:, 2:])
    assert found.pooled is not None
    torch.testing.assert_close(found.pooled, vit.forward_head(expected, pre_logits=True))


def test_a_model_with_two_classifiers_is_not_wrapped() -> None:
    import timm

    with pytest.raises(VptError, match="has two classifiers, one on each of two tokens"):
        wrap(timm.create_model("deit_tiny_distilled_patch16_224", img_size=32), prompts="deep:2")


def test_a_beit_is_wrapped_with_its_classifier() -> None:
    torch.manual_seed(0)
    model = Beit(**SIZE, num_classes=5, **KINDS["BEiT"]).eval()
    images = draw(2)
    with torch.no_grad():
        expected = model(images)
        found = wrap(model, prompts="none").eval()(images)
    torch.testing.assert_close(found, expected)


@EVERY
def test_who_attends_to_whom_is_read_off_every_kind(kind: str) -> None:
    """Deep prompts by the patches, class prompts to the patches; the weights of both sum to less than 1."""
    backbone = make(kind)
    spec = backbone.spec
    deep = PromptedModel(backbone, shaken(DeepPrompts(spec, count=2)), ClassifyHead(spec, outputs=2)).eval()
    patches = read_prompts(deep, draw(1))[3].weights
    classes = PromptedModel(backbone, ClassQueries(spec, classes=3, last=1), ClassScoreHead(spec, classes=3)).eval()
    for weights in (patches, class_attention(classes, draw(1)).flatten(3)):
        assert (weights >= 0).all()  # the least of them are lost in rounding
        assert (weights.sum(-1) > 0).all()
        assert (weights.sum(-1) < 1).all()


@EVERY
@torch.no_grad()
def test_what_autocast_computed_is_not_kept_for_float32(kind: str) -> None:
    backbone, images = make(kind), draw(1)
    prompts = shaken(DeepPrompts(backbone.spec, count=2))
    expected = encode(backbone, prompts, images).grid
    other = make(kind)
    with torch.autocast("cpu", torch.bfloat16):
        encode(other, prompts, images)
    assert torch.equal(encode(other, prompts, images).grid, expected)


@pytest.mark.slow  # compiles
@EVERY
def test_it_compiles(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_compiles(make(kind), draw(2), monkeypatch)
