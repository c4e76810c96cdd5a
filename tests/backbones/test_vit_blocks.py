"""timm's blocks that norm afterwards, sum several attentions, or run attention and MLP side by side: prompts in them
equal timm's own blocks on the longer sequence.
"""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from encoders import PREPROCESSING, VIT, draw, shaken, total, tune
from staged import assert_an_artifact_gives_it_back, assert_compiles, assert_wrapped, close
from timm.layers import RmsNorm
from timm.models.vision_transformer import ParallelScalingBlock, ParallelThingsBlock, ResPostBlock, VisionTransformer
from torch import Tensor

from vpt.backbones import describe_backbone, load_backbone
from vpt.backbones.vit import VitBackbone
from vpt.class_maps import class_attention, class_evidence
from vpt.errors import VptError
from vpt.explaining import read_prompts
from vpt.heads import ClassifyHead, MaskHead
from vpt.heads.class_scores import ClassScoreHead
from vpt.machine.precision import autocast, prepare_frozen
from vpt.model import PromptedModel, encode, frozen_below
from vpt.prompts import (
    AdditivePrompts,
    CodaPrompts,
    ConditionedPrompts,
    CrossPrompts,
    DeepPrompts,
    FourierPrompts,
    LowRankPrompts,
    Prompts,
    ShallowPrompts,
)
from vpt.prompts.class_queries import ClassQueries

KINDS: dict[str, dict[str, Any]] = {
    "norms after": {"block_fn": ResPostBlock, "init_values": 0.5, "qk_norm": True},
    "two at once": {"block_fn": ParallelThingsBlock, "init_values": 0.5, "reg_tokens": 2},
    "three at once, normed": {
        "block_fn": partial(ParallelThingsBlock, num_parallel=3),
        "qk_norm": True,
        "class_token": False,
        "global_pool": "avg",
    },
    "side by side": {
        "block_fn": ParallelScalingBlock,
        "qkv_bias": False,
        "qk_norm": True,
        "norm_layer": RmsNorm,
        "pre_norm": True,
        "no_embed_class": True,
    },
    "side by side, one projection behind": {
        "block_fn": partial(ParallelScalingBlock, fuse_out_proj=True),
        "init_values": 0.5,
        "reg_tokens": 1,
        "class_token": False,
        "global_pool": "avg",
    },
}
EVERY = pytest.mark.parametrize("kind", KINDS)
EACH = pytest.mark.parametrize("kind", ["norms after", "two at once", "side by side"])
APART = pytest.mark.parametrize("kind", ["norms after", "two at once", "three at once, normed"])
METHODS = [DeepPrompts, ShallowPrompts, LowRankPrompts, FourierPrompts, ConditionedPrompts, AdditivePrompts]


def timm_of(kind: str, **options: Any) -> Any:
    """No zero bias and no unit gain hides a mistake."""
    torch.manual_seed(0)
    model: Any = VisionTransformer(**(VIT | KINDS[kind] | options)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def make(kind: str) -> VitBackbone:
    return VitBackbone(timm_of(kind), name="tiny", **PREPROCESSING).requires_grad_(False)


def tokens_of(model: Any, images: Tensor) -> Tensor:
    return model.norm_pre(model._pos_embed(model.patch_embed(images)))


def literal(model: Any, images: Tensor, prompts: list[Tensor | None]) -> Tensor:
    """timm's own blocks on [CLS, registers; prompts; patches], the prompts of each dropped after it -> patches."""
    tokens, prefix = tokens_of(model, images), model.num_prefix_tokens
    for block, own in zip(model.blocks, prompts, strict=True):
        if own is None:
            tokens = block(tokens)
            continue
        whole = block(torch.cat([tokens[:, :prefix], own.expand(len(tokens), -1, -1), tokens[:, prefix:]], 1))
        tokens = torch.cat([whole[:, :prefix], whole[:, prefix + len(own) :]], 1)
    return model.norm(tokens)[:, prefix:]


def patches(backbone: VitBackbone, prompts: Prompts, images: Tensor) -> Tensor:
    """Finished patches (B, N, C)."""
    return encode(backbone, prompts, images).grid.flatten(2).transpose(1, 2)


# --- the encoder ------------------------------------------------------------------------------------------------------


@EVERY
@torch.no_grad()
def test_without_prompts_the_output_is_timms_bit_for_bit(kind: str) -> None:
    model, images = timm_of(kind), draw(3)
    found, expected = encode(make(kind), Prompts(), images), model.forward_features(images)
    assert torch.equal(found.grid.flatten(2).transpose(1, 2), expected[:, model.num_prefix_tokens :])
    own = found.prefix[:, 0] if found.pooled is None else found.pooled
    assert torch.equal(own, model.forward_head(expected, pre_logits=True))


@EVERY
@torch.no_grad()
@pytest.mark.parametrize(("dtype", "exact"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_deep_prompts_are_a_longer_sequence_for_timms_own_blocks(kind: str, dtype: torch.dtype, exact: float) -> None:
    backbone, model, images = make(kind).to(dtype), timm_of(kind).to(dtype), draw(2).to(dtype)
    prompts = shaken(DeepPrompts(backbone.spec, count=3, blocks=(0, 2, 3)), 1.0).to(dtype)
    expected = literal(model, images, [prompts.context(i, 1) for i in range(4)])
    found = patches(backbone, prompts, images)
    assert close(found, expected, exact)
    assert not close(found, patches(backbone, Prompts(), images), 1e-2)
    if backbone.spec.has_cls:
        first = encode(backbone, prompts, images, keep="first").prefix
        assert close(first, encode(backbone, prompts, images).prefix[:, :1], exact)


@EVERY
@torch.no_grad()
def test_travelling_prompts_are_tokens_of_timms_own_blocks(kind: str) -> None:
    backbone, model, images = make(kind).double(), timm_of(kind).double(), draw(2).double()
    prompts = shaken(ShallowPrompts(backbone.spec, count=3), 1.0).double()
    tokens, prefix = tokens_of(model, images), model.num_prefix_tokens
    own = prompts.table.row(0, 2).expand(2, -1, -1)
    tokens = model.norm(model.blocks(torch.cat([tokens[:, :prefix], own, tokens[:, prefix:]], 1)))
    assert close(patches(backbone, prompts, images), tokens[:, prefix + 3 :], 1e-12)


@APART
@torch.no_grad()
def test_separate_prompts_are_attended_to_after_the_attention(kind: str) -> None:
    """x <- x + SA(x); x <- x + CA(x, P); x <- x + MLP(x): each attention asks the prompts, and nothing else, again."""
    backbone, model = make(kind).double(), timm_of(kind).double()
    prompts = shaken(CrossPrompts(backbone.spec, count=3, blocks=(1,)), 1.0).double()
    asked = prompts.context(1, 1).prompts
    tokens = backbone.block(0, backbone.embed(draw(2).double()), None)
    own: Any = model.blocks[1]
    x = tokens.sequence
    branches = [(own.norm1, own.attn)] if kind == "norms after" else [(each.norm, each.attn) for each in own.attns]
    scales = [own.norm1] if kind == "norms after" else [each.ls for each in own.attns]

    def gathered(attention: Any, asking: Tensor, beside: Tensor) -> Tensor:
        heads = []
        queries, keys, values = attention.qkv(asking)[..., :32], *attention.qkv(beside).chunk(3, -1)[1:]
        for q, k, v in zip(*(part.chunk(2, -1) for part in (queries, keys, values)), strict=True):
            q, k = attention.q_norm(q), attention.k_norm(k)
            heads.append((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v)
        return attention.proj(torch.cat(heads, -1))

    entering = [x if kind == "norms after" else norm(x) for norm, _ in branches]
    x = x + sum(
        scale(gathered(attention, each, each))
        for scale, (_, attention), each in zip(scales, branches, entering, strict=True)
    )
    x = x + sum(scale(gathered(attention, x, asked)) for scale, (_, attention) in zip(scales, branches, strict=True))
    if kind == "norms after":
        x = x + own.norm2(own.mlp(x))
    else:
        x = x + sum(each.ls(each.mlp(each.norm(x))) for each in own.ffns)
    assert close(backbone.block(1, tokens, prompts.context(1, 1)).sequence, x, 1e-12)


@torch.no_grad()
def test_separate_prompts_have_no_place_between_what_runs_side_by_side() -> None:
    backbone = make("side by side")
    with pytest.raises(VptError, match="tiny runs attention and MLP side by side, so nothing comes between them"):
        encode(backbone, CrossPrompts(backbone.spec), draw(1))
    after = make("norms after")
    with pytest.raises(VptError, match="normed, but tiny norms after its attention, nothing before it"):
        encode(after, CrossPrompts(after.spec, normed=True), draw(1))


@EACH
@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_images_of_a_batch_know_nothing_of_each_other(kind: str, method: Any) -> None:
    backbone, images = make(kind).double(), draw(3).double()
    prompts = shaken(method(backbone.spec)).double().eval()
    together = patches(backbone, prompts, images)
    assert close(together, torch.cat([patches(backbone, prompts, image[None]) for image in images]), 1e-12)
    assert not close(together, patches(backbone, Prompts(), images), 1e-3)


@EVERY
def test_gradients_are_those_of_the_longer_sequence_and_reach_every_prompt(kind: str) -> None:
    backbone, model, images = make(kind).double(), timm_of(kind).double(), draw(2).double()
    prompts = shaken(DeepPrompts(backbone.spec, count=3), 1.0).double()
    written = copy.deepcopy(prompts)
    patches(backbone, prompts, images).square().sum().backward()
    literal(model, images, [written.context(i, 1) for i in range(4)]).square().sum().backward()
    found, wanted = prompts.table.tokens.grad, written.table.tokens.grad
    assert close(found, wanted, 1e-10)
    assert (found.abs().amax(-1) > 0).all()
    assert all(parameter.grad is None for parameter in backbone.parameters())


@EVERY
@torch.no_grad()
def test_the_maps_of_keys_and_values_are_the_linear_part(kind: str) -> None:
    """Of two tokens of one mean and one deviation, up to that deviation."""
    backbone = make(kind).double()
    own, tokens = backbone.attention_of(1), torch.randn(2, 32).double()
    tokens = torch.nn.functional.layer_norm(tokens, (32,))
    both = backbone.project(1, tokens)
    for maps, part in zip(backbone.key_value_maps(1), own.qkv(own.norm(tokens)).chunk(3, -1)[1:], strict=True):
        assert maps.shape == (32, both.keys.shape[1] * both.keys.shape[-1])
        wanted, mapped = part[0] - part[1], (tokens[0] - tokens[1]) @ maps
        assert float(wanted @ mapped / (wanted.norm() * mapped.norm())) == pytest.approx(1)


@EACH
def test_bfloat16_is_as_near_as_timms_own_is_in_bfloat16(kind: str) -> None:
    model, images = timm_of(kind), draw(2)
    backbone = make(kind)
    prompts = DeepPrompts(backbone.spec, count=2)
    exact = model.forward_features(images)[:, model.num_prefix_tokens :].detach()
    wanted = literal(model, images, [prompts.context(i, 1) for i in range(4)]).detach()
    prepare_frozen(backbone, "bf16-mixed")
    with autocast("bf16-mixed", torch.device("cpu")):
        original = model.forward_features(images)[:, model.num_prefix_tokens :].float().detach()
        found = patches(backbone, prompts, images).float()
        found.square().sum().backward()
    assert (found - wanted).norm() < 2 * (original - exact).norm()
    assert prompts.table.tokens.grad.isfinite().all()


# --- trained and used -------------------------------------------------------------------------------------------------


@EACH
def test_both_heads_train_what_is_stored_serves_and_the_encoder_stays(kind: str) -> None:
    backbone, images = make(kind), draw(2)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    for head in (MaskHead(backbone.spec, classes=2, width=8, detail=8), ClassifyHead(backbone.spec, outputs=3)):
        model = PromptedModel(backbone, DeepPrompts(backbone.spec, count=2, blocks="last:2"), head)
        optimizer = torch.optim.AdamW(model.trained().values(), lr=1e-2)
        model(images).square().mean().backward()
        assert all(parameter.grad.abs().max() > 0 for parameter in model.trained().values())
        optimizer.step()
        model.eval()
        below = frozen_below(model.first_trained_block(), backbone, images, head.levels)
        with torch.no_grad():
            stored = head(model.encode(None, below=below).features, images)
            assert below.first == 2
            assert torch.equal(stored, model(images))
            assert torch.equal(model.project_prompts()(images), stored)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


@EACH
def test_the_controls_train_what_their_formulas_say_or_are_refused(kind: str) -> None:
    """Of blocks of width 32; two at once have two attentions and two MLPs each."""
    times = {"two at once": 2}.get(kind, 1)
    block = 11 * 32 * times if kind != "side by side" else 4 * 32 + 2 * 32  # an MLP's own bias, and those behind
    block += 32 if kind == "norms after" else 0  # norms of queries and keys
    others = 64 if kind != "side by side" else 0  # RMS norms have no bias, nor have patches that are normed
    expected = {
        "lora": 4 * 2 * 6 * 32 * times,
        "adapter": 4 * times * (2 * 32 * 8 + 8 + 32),
        "bias": 4 * block + others,
    }
    for method in ("lora", "adapter", "bias", "ssf", "partial", "full"):
        backbone = make(kind)
        model = PromptedModel(backbone, Prompts(), ClassifyHead(backbone.spec, outputs=3)).eval()
        with torch.no_grad():
            before = model(draw(2))
        if kind == "side by side" and method in ("lora", "adapter"):
            with pytest.raises(VptError, match=rf"tuning {method}: .* tiny .*choose ssf, partial or bias"):
                tune(model, method)
            continue
        tune(model, method, **({"rank": 2} if method == "lora" else {}))
        torch.testing.assert_close(model(draw(2)), before, rtol=1e-4, atol=1e-5)
        if method in expected:
            assert total(backbone) == expected[method], method
        model(draw(2)).square().sum().backward()
        assert sum(p.grad is not None and bool(p.grad.abs().sum()) for p in model.trained().values()) > 2, method


@EACH
def test_it_is_wrapped(kind: str) -> None:
    assert_wrapped(partial(timm_of, kind, num_classes=5), draw(2))


def test_who_attends_to_whom_is_read_off_or_refused() -> None:
    for kind, heads in (("norms after", 2), ("two at once", 4)):
        backbone = make(kind)
        spec = backbone.spec
        assert spec.blocks[3].heads == heads
        deep = PromptedModel(backbone, shaken(DeepPrompts(spec, count=2)), ClassifyHead(spec, outputs=2)).eval()
        classes = PromptedModel(backbone, ClassQueries(spec, classes=3, last=1), ClassScoreHead(spec, classes=3)).eval()
        for weights in (read_prompts(deep, draw(1))[3].weights, class_attention(classes, draw(1))):
            assert weights.shape[1] == heads or weights.shape[2] == heads
            assert (weights >= 0).all()
            assert 0 < float(weights.sum(-1).max()) < 1
    with pytest.raises(VptError, match="block 3 of tiny: its attention cannot be read off"):
        class_evidence(classes, draw(1), lambda logits: logits[:, 1])
    aside = make("side by side")
    deep = PromptedModel(aside, DeepPrompts(aside.spec, count=2), ClassifyHead(aside.spec, outputs=2)).eval()
    with pytest.raises(VptError, match="block 0 of tiny: its attention cannot be read off"):
        read_prompts(deep, draw(1))


# --- by name ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "depth", "width", "heads"),
    [
        ("vit_small_patch16_18x2_224", 18, 384, 12),
        ("vit_base_patch16_rpn_224", 12, 768, 12),
        ("vit_base_patch16_xp_224", 12, 768, 12),
    ],
)
def test_timms_names_are_described(name: str, depth: int, width: int, heads: int) -> None:
    spec = describe_backbone(name)
    assert (spec.depth, spec.blocks[0].width, spec.blocks[0].heads) == (depth, width, heads)


SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "two at once": ("vit_small_patch16_18x2_224", {}),
    "norms after": ("vit_base_patch16_rpn_224", {}),
    "side by side": ("vit_base_patch16_xp_224", {}),
    "groups of heads": ("vit_large_patch16_sapiens2", {"num_heads": 4, "num_kv_heads": (4, 2, 1, 2)}),
    "EVA, norms after": ("eva02_enormous_patch14_clip_224", {"patch_size": 16}),
}


@pytest.mark.parametrize("kind", SMALL)
def test_a_folder_loads_at_other_sizes_and_an_artifact_gives_the_same_model_back(kind: str, tmp_path: Path) -> None:
    name, more = SMALL[kind]
    own = {"img_size": 48, "embed_dim": 32, "depth": 4, "num_heads": 2} | more
    model: Any = timm.create_model(name, pretrained=False, num_classes=0, **own).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    folder = str(tmp_path / "mine")
    timm.models.save_for_hf(model, folder, model_args=own, safe_serialization=True)
    assert_an_artifact_gives_it_back(folder, tmp_path / "a.safetensors")
    images = draw(1, (64, 32))
    found = encode(load_backbone(folder, image_size=(64, 32)), Prompts(), images)
    model.set_input_size(img_size=(64, 32))
    with torch.no_grad():
        wanted = model.forward_features(images)[:, model.num_prefix_tokens :]
    assert torch.equal(found.grid.flatten(2).transpose(1, 2), wanted)


def test_prefixes_have_no_form_for_several_attentions_at_once() -> None:
    with pytest.raises(VptError, match="block 1 of tiny runs 2 attentions at once, which coda has no form for"):
        CodaPrompts(make("two at once").spec, blocks=(1,))


@pytest.mark.slow  # compiles
@EVERY
def test_it_compiles(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_compiles(make(kind), draw(2), monkeypatch)
