"""timm's Eva, taken apart: equal to timm without prompts, and with them to timm's own blocks on a longer sequence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from encoders import (
    EVA,
    assert_controls_start_as_nothing,
    assert_gradients_reach_prompts_alone,
    draw,
    make_eva,
    shaken,
    total,
    tune,
)
from staged import assert_compiles
from timm.layers import RmsNorm
from timm.models.eva import Eva
from torch import Tensor

from vpt.backbones import describe_backbone, load_backbone
from vpt.backbones.eva import EvaBackbone, turned
from vpt.backbones.families import published
from vpt.class_maps import class_attention, class_evidence
from vpt.errors import VptError
from vpt.explaining import read_prompts
from vpt.heads import ClassifyHead
from vpt.heads.class_scores import ClassScoreHead
from vpt.model import PromptedModel, encode
from vpt.prompts import CrossPrompts, DeepPrompts, Prompts, ShallowPrompts
from vpt.prompts.class_queries import ClassQueries

EVA_02: dict[str, Any] = {
    "qkv_fused": False,
    "swiglu_mlp": True,
    "scale_mlp": True,
    "num_reg_tokens": 0,
    "use_abs_pos_emb": True,
    "rope_type": "cat",
    "init_values": None,
    "global_pool": "avg",
    "ref_feat_shape": (4, 4),
}
KINDS: dict[str, dict[str, Any]] = {
    "DINOv3": {},
    "DINOv3, any size": {"dynamic_img_size": True},
    "EVA": {"use_abs_pos_emb": True, "use_rot_pos_emb": False, "num_reg_tokens": 0, "global_pool": "avg"},
    "EVA-02": EVA_02,
    "Perception Encoder": {
        "attn_type": "rope",
        "use_abs_pos_emb": True,
        "rope_type": "cat",
        "num_reg_tokens": 0,
        "use_pre_transformer_norm": True,
        "global_pool": "map",
        "rope_grid_offset": 1.0,
    },
    "mixed": {"attn_type": "rope", "rope_type": "mixed", "num_reg_tokens": 0, "global_pool": "avg"},
    "normed, gated, without CLS": {
        "attn_type": "rope",
        "qk_norm": True,
        "scale_attn_inner": True,
        "class_token": False,
        "rope_rotate_half": True,
        "num_reg_tokens": 0,
        "global_pool": "avg",
    },
    "Sapiens2, groups of heads": {
        "attn_type": "rope",
        "qkv_fused": False,
        "num_heads": 4,
        "num_kv_heads": (4, 2, 1, 2),
        "qk_norm": True,
        "swiglu_mlp": True,
        "norm_layer": RmsNorm,
        "attn_only_layer_scale": True,
        "global_pool": "avg",
    },
    "EVA-02, norms after": EVA_02 | {"use_post_norm": True, "scale_mlp": False},
}
ANY_SIZE = {"dynamic_img_size": True}
EVERY = pytest.mark.parametrize("kind", KINDS)


def timm_of(kind: str, **options: Any) -> Any:
    """timm's model with the values that `make_eva` draws, untouched by the adapter."""
    backbone = make_eva(**KINDS[kind], **options)
    model: Any = Eva(**(EVA | KINDS[kind] | options)).eval()
    state = backbone.vit.state_dict()
    merged = {name: value for name, value in state.items() if name.endswith("qkv.bias")}
    own = model.state_dict()
    for name, value in merged.items():
        if name not in own:
            stem = name.removesuffix("qkv.bias")
            state[f"{stem}q_bias"], _, state[f"{stem}v_bias"] = value.chunk(3)
            del state[name]
    model.load_state_dict(state)
    return model


def literal(model: Any, images: Tensor, prompts: list[Tensor | None]) -> Tensor:
    """timm's own blocks on [CLS, registers; prompts; patches], the prompts of each dropped after it -> tokens."""
    tokens, rope = model._pos_embed(model.patch_embed(images))
    tokens, prefix = model.norm_pre(tokens), model.num_prefix_tokens
    for i, (block, own) in enumerate(zip(model.blocks, prompts, strict=True)):
        count = 0 if own is None else len(own)
        if own is not None:
            tokens = torch.cat([tokens[:, :prefix], own.expand(len(tokens), -1, -1), tokens[:, prefix:]], 1)
        block.attn.num_prefix_tokens = prefix + count
        tokens = block(tokens, rope=rope[i] if model.rope_mixed else rope)
        tokens = torch.cat([tokens[:, :prefix], tokens[:, prefix + count :]], 1)
    return model.norm(tokens)


def all_of(backbone: EvaBackbone, prompts: Prompts, images: Tensor) -> Tensor:
    """Its finished patches (B, N, C)."""
    return encode(backbone, prompts, images).grid.flatten(2).transpose(1, 2)


@EVERY
@torch.no_grad()
def test_without_prompts_the_output_is_timms_bit_for_bit(kind: str) -> None:
    backbone, model, images = make_eva(**KINDS[kind]), timm_of(kind), draw(3)
    found = encode(backbone, Prompts(), images)
    expected = model.forward_features(images)
    assert torch.equal(found.grid.flatten(2).transpose(1, 2), expected[:, backbone.spec.prefix :])
    pooled = model.fc_norm(model.pool(expected))
    own = found.pooled if backbone.spec.pool != "cls" else found.prefix[:, 0]
    assert own is not None
    assert torch.equal(own, pooled)


@EVERY
@torch.no_grad()
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_deep_prompts_are_a_longer_sequence_for_timms_own_blocks(kind: str, dtype: torch.dtype, close: float) -> None:
    backbone, model, images = make_eva(**KINDS[kind]).to(dtype), timm_of(kind).to(dtype), draw(2).to(dtype)
    prompts = shaken(DeepPrompts(backbone.spec, count=3, blocks=(0, 2, 3))).to(dtype)
    rows = [prompts.context(i, 1) for i in range(4)]
    expected = literal(model, images, rows)[:, backbone.spec.prefix :]
    found = all_of(backbone, prompts, images)
    assert (found - expected).abs().max() <= close * expected.abs().max()
    plain = all_of(backbone, Prompts(), images)
    assert (found - plain).abs().max() > 1e-3 * plain.abs().max()


@EVERY
@torch.no_grad()
def test_travelling_prompts_are_not_turned(kind: str) -> None:
    backbone, model = make_eva(**KINDS[kind]).double(), timm_of(kind).double()
    images, prompts = draw(2).double(), shaken(ShallowPrompts(make_eva(**KINDS[kind]).spec, count=3)).double()
    tokens, rope = model._pos_embed(model.patch_embed(images))
    prefix, own = model.num_prefix_tokens, prompts.table.row(0, 2).expand(2, -1, -1)
    tokens = model.norm_pre(tokens)
    tokens = torch.cat([tokens[:, :prefix], own, tokens[:, prefix:]], 1)
    for i, block in enumerate(model.blocks):
        block.attn.num_prefix_tokens = prefix + 3
        tokens = block(tokens, rope=rope[i] if model.rope_mixed else rope)
    expected = model.norm(tokens)[:, prefix + 3 :]
    torch.testing.assert_close(all_of(backbone, prompts, images), expected, rtol=1e-9, atol=1e-11)


@EVERY
@torch.no_grad()
def test_images_of_a_batch_know_nothing_of_each_other(kind: str) -> None:
    backbone, images = make_eva(**KINDS[kind]).double(), draw(3).double()
    prompts = shaken(CrossPrompts(backbone.spec, count=3)).double()
    one_by_one = torch.cat([all_of(backbone, prompts, image[None]) for image in images])
    torch.testing.assert_close(all_of(backbone, prompts, images), one_by_one, rtol=1e-9, atol=1e-11)


@EVERY
def test_gradients_reach_every_prompt_and_no_frozen_weight(kind: str) -> None:
    assert_gradients_reach_prompts_alone(make_eva(**KINDS[kind]))


@pytest.mark.parametrize("kind", ["DINOv3", "EVA-02", "EVA-02, norms after"])
def test_the_controls_train_what_their_formulas_say(kind: str) -> None:
    backbone = make_eva(**KINDS[kind])
    lora = tune(PromptedModel(backbone, Prompts(), ClassifyHead(backbone.spec, outputs=3)), "lora", rank=2)
    width, factors = 32, 6 if kind == "DINOv3" else 6 + 2
    assert total(lora.backbone) == 4 * 2 * width * factors
    assert_controls_start_as_nothing(lambda: make_eva(**KINDS[kind]))


@torch.no_grad()
def test_other_image_sizes_resize_positions_and_prompts_still_answer() -> None:
    backbone = load_backbone("eva02_tiny_patch14_224", weights="random", image_size=(56, 84))
    assert backbone.spec.finished.grid == (4, 6)
    found = encode(backbone, DeepPrompts(backbone.spec, count=2), draw(1, (56, 84)))
    assert found.grid.shape == (1, 192, 4, 6)
    assert found.grid.isfinite().all()


@pytest.mark.slow
def test_real_names_with_groups_of_heads_and_with_norms_after_are_described() -> None:
    spec = describe_backbone("vit_large_patch16_sapiens2")
    assert (spec.depth, spec.blocks[0].width, spec.blocks[-1].heads, spec.image_size) == (24, 1024, 16, (1024, 768))
    assert describe_backbone("eva02_enormous_patch14_clip_224").depth == 64


@torch.no_grad()
def test_blocks_that_norm_after_take_no_normed_prompts() -> None:
    backbone = make_eva(**KINDS["EVA-02, norms after"])
    with pytest.raises(VptError, match="normed, but tiny norms after its attention, nothing before it; leave normed"):
        encode(backbone, CrossPrompts(backbone.spec, normed=True), draw(1))


def test_dinov3_is_described_with_its_registers_its_preprocessing_and_its_licence() -> None:
    spec = describe_backbone("vit_small_patch16_dinov3.lvd1689m")
    assert (spec.prefix, spec.registers, spec.depth, spec.pool) == (5, 4, 12, "mean")
    assert spec.mean == (0.485, 0.456, 0.406)
    assert "dinov3" in published("vit_small_patch16_dinov3.lvd1689m").licence


def test_learned_turns_are_made_once_as_long_as_they_stay_and_anew_when_they_change() -> None:
    backbone = make_eva(**KINDS["mixed"])
    rope: Any = backbone.vit.rope
    with torch.inference_mode():
        first = backbone.rope(0)
        assert backbone.rope(1).data_ptr() != first.data_ptr()
        assert backbone.rope(0).data_ptr() == first.data_ptr()
    with torch.no_grad():
        rope.freqs.add_(0.1)
        assert not torch.equal(backbone.rope(0), first)
    rope.freqs.requires_grad_(True)
    assert backbone.rope(0).requires_grad


def test_who_attends_to_whom_is_read_off_where_heads_share_values() -> None:
    """Against the softmax of a head written out; what single heads add is refused, since their values are shared."""
    backbone = make_eva(**KINDS["Sapiens2, groups of heads"])
    spec, images = backbone.spec, draw(1)
    prompts = shaken(DeepPrompts(spec, count=2))
    deep = PromptedModel(backbone, prompts, ClassifyHead(spec, outputs=2)).eval()
    with torch.no_grad():
        found = read_prompts(deep, images)[1].weights[0, 3]
        block: Any = backbone.vit.blocks[1]
        before = backbone.block(0, backbone.embed(images), prompts.context(0, 1)).sequence
        attention, rope = block.attn, backbone.rope(1)
        normed, own = block.norm1(before), block.norm1(prompts.context(1, 1))
        query = attention.q_norm(attention.q_proj(normed)[0, :, 24:])[None, None]  # head 3 of 4, in the second group
        keys = attention.k_norm(attention.k_proj(normed)[0, :, 8:])[None, None]
        asked = attention.k_norm(attention.k_proj(own)[:, 8:])
        query, keys = (turned(each, rope, spec.prefix, attention.rotate_half)[0, 0] for each in (query, keys))
        scores = query @ torch.cat([asked, keys]).T / 8**0.5
        wanted = scores.softmax(-1)[spec.prefix :, :2].unflatten(0, (8, 5))
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
        classes = PromptedModel(backbone, ClassQueries(spec, classes=3, last=1), ClassScoreHead(spec, classes=3)).eval()
        attention_map = class_attention(classes, images)
        assert attention_map.shape == (1, 3, 4, 8, 5)
        assert 0 < float(attention_map.sum((-1, -2)).max()) < 1
    with pytest.raises(VptError, match="block 3 of tiny: its attention cannot be read off"):
        class_evidence(classes, images, lambda logits: logits[:, 1])


@pytest.mark.parametrize("kind", ["DINOv3", "mixed"])
@pytest.mark.parametrize("size", [(40, 64), (64, 64)])  # its own is 64 x 40
@torch.no_grad()
def test_images_of_any_size_are_turned_by_their_own_grid(kind: str, size: tuple[int, int]) -> None:
    """Where timm's model takes them: as timm without prompts, and as the longer sequence with them."""
    backbone, model = make_eva(**KINDS[kind] | ANY_SIZE).double(), timm_of(kind, **ANY_SIZE).double()
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    for prompts in (Prompts(), shaken(DeepPrompts(backbone.spec, count=3)).double()):
        expected = literal(model, images, [prompts.context(i, 1) for i in range(4)])[:, backbone.spec.prefix :]
        found = encode(backbone, prompts, images)
        assert found.grid.shape[2:] == (size[0] // 8, size[1] // 8)
        torch.testing.assert_close(found.grid.flatten(2).transpose(1, 2), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.slow  # compiles
@EVERY
def test_it_compiles(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_compiles(make_eva(**KINDS[kind]), draw(2), monkeypatch)
