"""Encoders of language models, taken apart: timm's output without prompts, with them that of its own blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from encoders import (
    PREPROCESSING,
    WIDTH,
    assert_controls_start_as_nothing,
    assert_gradients_reach_prompts_alone,
    draw,
    shaken,
    total,
    tune,
)
from safetensors.torch import save_file
from staged import assert_compiles
from timm.models.deepseek_vit import DeepseekVitClassifier
from timm.models.qwen3_vit import Qwen3VitClassifier
from torch import Tensor

import vpt
from vpt.backbones import describe_backbone, load_backbone
from vpt.backbones.towers import TowerBackbone
from vpt.backbones.weights import load_weights
from vpt.errors import VptError
from vpt.heads import ClassifyHead
from vpt.model import PromptedModel, encode
from vpt.prompts import CrossPrompts, DeepPrompts, Prompts, ShallowPrompts

SIZE: dict[str, Any] = {"img_size": (64, 40), "patch_size": 8, "embed_dim": WIDTH, "depth": 4, "num_heads": 2}
KINDS = {"Qwen3-VL": Qwen3VitClassifier, "DeepSeek-V4": DeepseekVitClassifier}
EVERY = pytest.mark.parametrize("kind", KINDS)
EXACT = {"Qwen3-VL": 1e-12, "DeepSeek-V4": 1e-6}  # in float64; DeepSeek's norms are of float32 all the same


def timm_of(kind: str, classes: int = 0) -> Any:
    """timm's model whose every tensor is random."""
    torch.manual_seed(0)
    model: Any = KINDS[kind](**SIZE, num_classes=classes).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.2 + (parameter.ndim == 1))
    return model.requires_grad_(False)


def make(kind: str) -> TowerBackbone:
    return TowerBackbone(timm_of(kind), name="tiny", **PREPROCESSING)


def literal(model: Any, images: Tensor, prompts: list[Tensor]) -> Tensor:
    """timm's own blocks on [prompts; patches], prompts not turned, those of each dropped after it -> patches."""
    encoder = model.encoder
    tokens, rope = encoder._pos_embed(encoder.patch_embed(images))
    for block, own in zip(encoder.blocks, prompts, strict=True):
        block.attn.num_prefix_tokens = len(own)
        tokens = block(torch.cat([own.expand(len(tokens), -1, -1), tokens], 1), rope=rope)[:, len(own) :]
    return encoder.norm(tokens) if hasattr(encoder, "norm") else tokens


def patches_of(backbone: TowerBackbone, prompts: Prompts, images: Tensor) -> Tensor:
    return encode(backbone, prompts, images).grid.flatten(2).transpose(1, 2)


@EVERY
@torch.no_grad()
def test_without_prompts_the_output_is_timms_bit_for_bit(kind: str) -> None:
    model, images = timm_of(kind), draw(3)
    found, expected = encode(make(kind), Prompts(), images), model.forward_features(images)
    assert torch.equal(found.grid.permute(0, 2, 3, 1), expected)
    assert found.pooled is not None
    assert torch.equal(found.pooled, model.forward_head(expected, pre_logits=True))


@EVERY
@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_deep_prompts_are_a_longer_sequence_for_timms_own_blocks(kind: str, dtype: torch.dtype) -> None:
    close = 1e-5 if dtype == torch.float32 else EXACT[kind]
    backbone, images = make(kind).to(dtype), draw(2).to(dtype)
    prompts = shaken(DeepPrompts(backbone.spec, count=3)).to(dtype)
    expected = literal(timm_of(kind).to(dtype), images, [prompts.context(i, 1) for i in range(4)])
    found = patches_of(backbone, prompts, images)
    assert (found - expected).abs().max() <= close * expected.abs().max()
    plain = patches_of(backbone, Prompts(), images)
    assert (found - plain).abs().max() > 1e-3 * plain.abs().max()


@EVERY
@torch.no_grad()
def test_travelling_prompts_are_not_turned(kind: str) -> None:
    backbone, images = make(kind).double(), draw(2).double()
    prompts, encoder = shaken(ShallowPrompts(backbone.spec, count=3)).double(), timm_of(kind).double().encoder
    tokens, rope = encoder._pos_embed(encoder.patch_embed(images))
    tokens = torch.cat([prompts.table.row(0, 2).expand(2, -1, -1), tokens], 1)
    for block in encoder.blocks:
        block.attn.num_prefix_tokens = 3
        tokens = block(tokens, rope=rope)
    expected = (encoder.norm(tokens) if hasattr(encoder, "norm") else tokens)[:, 3:]
    torch.testing.assert_close(patches_of(backbone, prompts, images), expected, rtol=10 * EXACT[kind], atol=EXACT[kind])


@EVERY
@torch.no_grad()
def test_images_of_a_batch_know_nothing_of_each_other(kind: str) -> None:
    backbone, images = make(kind).double(), draw(3).double()
    prompts = shaken(CrossPrompts(backbone.spec, count=3)).double()
    one_by_one = torch.cat([patches_of(backbone, prompts, image[None]) for image in images])
    torch.testing.assert_close(
        patches_of(backbone, prompts, images), one_by_one, rtol=10 * EXACT[kind], atol=EXACT[kind]
    )


@EVERY
def test_gradients_reach_every_prompt_and_no_frozen_weight(kind: str) -> None:
    assert_gradients_reach_prompts_alone(make(kind))


@EVERY
def test_the_controls_train_what_their_formulas_say(kind: str) -> None:
    backbone = make(kind)
    lora = tune(PromptedModel(backbone, Prompts(), ClassifyHead(backbone.spec, outputs=3)), "lora", rank=2)
    assert total(lora.backbone) == 4 * 2 * WIDTH * 6
    assert_controls_start_as_nothing(lambda: make(kind))


@EVERY
@torch.no_grad()
def test_in_a_loop_of_ones_own_it_answers_as_timms_classifier_does(kind: str) -> None:
    model = timm_of(kind, classes=3)
    expected = model(draw(2))
    torch.testing.assert_close(vpt.wrap(model, prompts="none")(draw(2)), expected, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_other_image_sizes_resize_positions_and_prompts_still_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0}
    build = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **options: build(name, **(options | small)))
    for name, size, grid in (("qwen3_vit_88m", (64, 96), (4, 6)), ("deepseek_vit_412m", (56, 84), (4, 6))):
        backbone = load_backbone(name, weights="random", image_size=size)
        found = encode(backbone, DeepPrompts(backbone.spec, count=2), draw(1, size))
        assert backbone.spec.finished.grid == tuple(found.grid.shape[-2:]) == grid
        timms = build(name, pretrained=False, num_classes=0, **small).eval()
        timms.load_state_dict({k.removeprefix("vit."): v for k, v in _as_timms(backbone).items()})
        plain = encode(backbone, Prompts(), draw(1, size)).grid.permute(0, 2, 3, 1)
        assert torch.equal(plain, timms.forward_features(draw(1, size)))


def _as_timms(backbone: Any) -> dict[str, Tensor]:
    return {key.replace("vit.", "encoder.", 1): value for key, value in backbone.state_dict().items() if "vit." in key}


@EVERY
def test_files_of_the_whole_language_model_load_and_what_is_missing_is_named(kind: str, tmp_path: Path) -> None:
    """In their authors' own names, as timm converts them; the language model's own tensors are left out."""
    model, other = timm_of(kind), timm_of(kind)
    state = authors_names(kind, model.encoder.state_dict())
    save_file(state | {"model.language_model.norm.weight": torch.ones(3)}, tmp_path / "whole.safetensors")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    load_weights(other, tmp_path / "whole.safetensors", "tiny")
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in other.state_dict().items())

    lost = next(key for key in state if "blocks.1" in key and "qkv" in key)
    save_file({key: value for key, value in state.items() if key != lost}, tmp_path / "cut.safetensors")
    with pytest.raises(VptError, match=r"missing keys: encoder\.blocks\.1\.attn\.qkv"):
        load_weights(other, tmp_path / "cut.safetensors", "tiny")


def authors_names(kind: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    if kind == "Qwen3-VL":
        renames = {".mlp.fc1.": ".mlp.linear_fc1.", ".mlp.fc2.": ".mlp.linear_fc2."}
        named = {f"model.visual.{_renamed(key, renames)}": value for key, value in state.items() if "rope" not in key}
        named["model.visual.pos_embed.weight"] = named.pop("model.visual.pos_embed")[0].clone()
        return named
    renames = {".attn.qkv.": ".attn.wqkv.", ".attn.proj.": ".attn.wo.", ".mlp.fc": ".mlp.w"}
    named = {f"vision.{_renamed(key, renames)}": value for key, value in state.items() if "rope" not in key}
    return named | {"vision.patch_embed.proj.weight": named["vision.patch_embed.proj.weight"].flatten(1).clone()}


def _renamed(key: str, renames: dict[str, str]) -> str:
    for own, theirs in renames.items():
        key = key.replace(own, theirs)
    return key


@pytest.mark.slow
def test_real_names_are_described_and_those_with_a_projection_refused() -> None:
    spec = describe_backbone("qwen3_vit_88m.qwen3_5_0_8b")
    assert (spec.depth, spec.blocks[0].width, spec.prefix, spec.pool) == (12, 768, 0, "mean")
    assert (spec.image_size, spec.mean, spec.interpolation) == ((768, 768), (0.5, 0.5, 0.5), "bicubic")
    assert describe_backbone("deepseek_vit_412m").depth == 32
    with pytest.raises(VptError, match=r"projection into a language model is not supported.*without _merge or _align"):
        describe_backbone("qwen3_vit_88m_merge")
    for name in ("qwen3_vit_88m_enc", "deepseek_vit_412m_enc"):
        with pytest.raises(VptError, match="its name without _enc is the encoder alone"):
            describe_backbone(name)


@pytest.mark.slow  # compiles
@EVERY
def test_it_compiles(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_compiles(make(kind), draw(2), monkeypatch)
