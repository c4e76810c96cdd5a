"""timm's Hiera, taken apart: equal to timm without prompts, and with them to the published form written out."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from encoders import PREPROCESSING, draw, shaken, total, tune
from timm.models.hiera import Hiera
from torch import Tensor, nn

import vpt
from vpt.artifact import read_artifact, restore_model, save_artifact
from vpt.backbones import describe_backbone, load_backbone
from vpt.backbones.families import published
from vpt.backbones.hiera import HieraBackbone
from vpt.backbones.tokens import KeysValues, SeparateContext
from vpt.building import build_model
from vpt.config import load_config
from vpt.data.plan import Percentiles, Plan
from vpt.errors import VptError
from vpt.explaining import attention_to_prompts
from vpt.heads import ClassifyHead, MaskHead
from vpt.machine.precision import autocast, prepare_frozen
from vpt.model import PromptedModel, encode
from vpt.prompts import (
    AdditivePrompts,
    CrossPrompts,
    DeepPrompts,
    FourierPrompts,
    LowRankPrompts,
    Prompts,
    ShallowPrompts,
)

SIZE = (64, 32)  # 16x8 patches in mask units of 4x4, then 8x4 in units of 2x2, then 4x2 all together
SMALL: dict[str, Any] = {
    "img_size": SIZE,
    "embed_dim": 16,
    "stages": (1, 2, 2),
    "q_pool": 2,
    "mask_unit_size": (4, 4),
    "mask_unit_attn": (True, True, False),
    "num_classes": 0,
}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "positions of units": {"abs_win_pos_embed": True, "global_pos_size": (3, 3)},
    "without projections": {"use_expand_proj": False, "init_values": 0.5},
    "pooled once": {"q_pool": 1},
}
EVERY = pytest.mark.parametrize("kind", KINDS)
OTHERS = [pytest.param(own, marks=pytest.mark.slow) for own in (AdditivePrompts, LowRankPrompts, FourierPrompts)]
METHODS = pytest.mark.parametrize("method", [DeepPrompts, *OTHERS])
PLAN = Plan(plane="axial", pixel_mm=1.0, image_size=48, neighbours=True, channels=("CT",), intensity=(Percentiles(),))


def make_timm(kind: str = "plain", **options: Any) -> Any:
    """timm's model; no zero bias and no unit gain hides a mistake."""
    torch.manual_seed(0)
    hiera: Any = Hiera(**(SMALL | KINDS[kind] | options))
    with torch.no_grad():
        for parameter in hiera.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return hiera.eval().requires_grad_(False)


def wrap_hiera(hiera: Any, **more: Any) -> HieraBackbone:
    """The adapter over a copy of timm's model, frozen."""
    return HieraBackbone(copy.deepcopy(hiera), name="tiny", **(PREPROCESSING | more)).requires_grad_(False)


def make_hiera(kind: str = "plain") -> HieraBackbone:
    return wrap_hiera(make_timm(kind))


def close(found: Tensor, wanted: Tensor, relative: float) -> bool:
    return bool((found - wanted).abs().max() <= relative * wanted.abs().max())


def deep(backbone: HieraBackbone) -> DeepPrompts:
    """Prompts of the size of tokens, so that much is gathered from them."""
    return shaken(DeepPrompts(backbone.spec, count=3), 1.0)


def rows_of(prompts: DeepPrompts) -> dict[int, Tensor]:
    return {i: row for i in prompts.rows if isinstance(row := prompts.context(i, 1), Tensor)}


def timms_grid(hiera: Any, images: Tensor) -> Tensor:
    """Its features (B, C, H, W), all strides consumed or not."""
    return hiera.forward_features(images, return_intermediates=True)[1][-1].permute(0, 3, 1, 2)


def literal(hiera: Any, images: Tensor, prompts: Mapping[int, Tensor]) -> Tensor:
    """The whole encoder (B, C, H, W), image by image, patches in their places; prompts (P, C) of block i."""
    finished = []
    for image in images:
        grid = hiera._pos_embed(hiera.patch_embed(image[None]))[0].view(*hiera.tokens_spatial_shape, -1)
        side = hiera.mask_unit_size[0]
        for i, block in enumerate(hiera.blocks):
            step = 2 if block.attn.q_stride > 1 else 1
            window = (side, side) if block.attn.use_mask_unit_attn else grid.shape[:2]
            grid = literal_block(block, grid, prompts.get(i, grid.new_empty(0, grid.shape[-1])), window, step)
            side //= step
        finished.append(grid.permute(2, 0, 1))
    return torch.stack(finished)


def literal_block(block: Any, grid: Tensor, beside: Tensor, window: Any, step: int) -> Tensor:
    """One image (H, W, C) through a block with prompts (P, C) beside the tokens of every window."""
    normed, beside = block.norm1(grid), block.norm1(beside)
    skip = grid
    if block.dim != block.dim_out:
        parts = [largest(block.proj(normed), step)] if block.proj else [largest(grid, step), average(grid, step)]
        skip = torch.cat(parts, -1)
    mixed = torch.zeros_like(skip)
    for top in range(0, grid.shape[0], window[0]):
        for left in range(0, grid.shape[1], window[1]):
            inside = normed[top : top + window[0], left : left + window[1]]
            seen = literal_window(block.attn, inside, beside, step)
            rows, columns = top // step, left // step
            mixed[rows : rows + seen.shape[0], columns : columns + seen.shape[1]] = seen
    x = skip + block.ls1(mixed)
    return x + block.ls2(block.mlp(block.norm2(x)))


def literal_window(attention: Any, patches: Tensor, beside: Tensor, step: int) -> Tensor:
    """Patches (h, w, C) and prompts, all attending to all, queries pooled over `step` x `step` patches."""
    tokens, gathered = torch.cat([patches.flatten(0, 1), beside]), []
    for q, k, v in zip(*(part.chunk(attention.heads, -1) for part in attention.qkv(tokens).chunk(3, -1)), strict=True):
        asking = largest(q[: patches.shape[0] * patches.shape[1]].view(*patches.shape[:2], -1), step)
        gathered.append((asking @ k.T / k.shape[-1] ** 0.5).softmax(-1) @ v)
    return attention.proj(torch.cat(gathered, -1))


def largest(grid: Tensor, step: int) -> Tensor:
    """(H, W, C) -> (H / step, W / step, C)."""
    return F.max_pool2d(grid.permute(2, 0, 1), step).permute(1, 2, 0)


def average(grid: Tensor, step: int) -> Tensor:
    return F.avg_pool2d(grid.permute(2, 0, 1), step).permute(1, 2, 0)


# Without prompts


@EVERY
@torch.no_grad()
def test_without_prompts_the_output_is_timms_bit_for_bit(kind: str) -> None:
    hiera, images = make_timm(kind), draw(2, SIZE)
    found = encode(wrap_hiera(hiera), Prompts(), images)
    assert torch.equal(found.grid, timms_grid(hiera, images))
    assert found.pooled is not None
    assert torch.equal(found.pooled, hiera(images))
    assert found.prefix.shape == (2, 0, 64)
    assert encode(wrap_hiera(hiera, pooling="plain"), Prompts(), images).pooled is None


@EVERY
@torch.no_grad()
def test_the_spec_tells_what_enters_every_block(kind: str) -> None:
    backbone = make_hiera(kind)
    spec, tokens = backbone.spec, backbone.embed(draw(2, SIZE))
    assert not torch.equal(backbone.patches(draw(2, SIZE)), tokens.grid)  # they have no positions yet
    for i, block in enumerate(spec.blocks):
        assert tokens.grid.shape == (2, *block.grid, block.width)
        tokens = backbone.block(i, tokens, None, "first")  # there is no CLS token: everything is given
        assert tokens.grid.shape[1:] == (*spec.left(i).grid, spec.left(i).width)
        assert tokens.prefix.shape == tokens.prompts.shape == (2, 0, spec.left(i).width)
    assert backbone.finish(tokens).grid.shape == (2, spec.finished.width, *spec.finished.grid)
    last = (4, 2) if kind != "pooled once" else (8, 4)
    assert [block.grid for block in spec.blocks] == [(16, 8)] * 2 + [(8, 4)] * 2 + [last]
    assert [block.width for block in spec.blocks] == [16, 16, 32, 32, 64]
    assert [block.heads for block in spec.blocks] == [1, 2, 2, 4, 4]
    assert [block.windowed for block in spec.blocks] == [True] * 4 + [False]
    assert (spec.patch, spec.attending, spec.pool) == ((16, 16), (0, 1, 2, 3, 4), "mean")


# With prompts


@EVERY
@pytest.mark.parametrize(("dtype", "exact"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@torch.no_grad()
def test_deep_prompts_are_a_literal_concatenation_in_every_mask_unit(
    kind: str, dtype: torch.dtype, exact: float
) -> None:
    hiera, images = make_timm(kind).to(dtype), draw(2, SIZE).to(dtype)
    backbone = wrap_hiera(hiera)
    prompts = deep(backbone).to(dtype)
    found = encode(backbone, prompts, images).grid
    assert close(found, literal(hiera, images, rows_of(prompts)), exact)
    assert not close(found, encode(backbone, Prompts(), images).grid, 1e-2)  # they do something


@EVERY
def test_gradients_are_those_of_the_literal_form_and_reach_every_prompt(kind: str) -> None:
    hiera, images = make_timm(kind).double(), draw(2, SIZE).double()
    backbone = wrap_hiera(hiera)
    prompts = deep(backbone).double()
    written = copy.deepcopy(prompts)
    encode(backbone, prompts, images).grid.pow(2).sum().backward()
    literal(hiera, images, rows_of(written)).pow(2).sum().backward()
    for found, wanted in zip(prompts.parameters(), written.parameters(), strict=True):
        assert found.grad is not None
        assert wanted.grad is not None
        assert close(found.grad, wanted.grad, 1e-11)
        assert (found.grad.abs().amax(-1) > 0).all()
    assert all(parameter.grad is None for parameter in backbone.parameters())


@METHODS
@torch.no_grad()
def test_batched_equals_one_by_one(method: Any) -> None:
    backbone, images = wrap_hiera(make_timm().double()), draw(3, SIZE).double()
    prompts = shaken(method(backbone.spec)).double()
    together = encode(backbone, prompts, images).grid
    alone = torch.cat([encode(backbone, prompts, image[None]).grid for image in images])
    assert close(together, alone, 1e-12)
    assert not close(together, encode(backbone, Prompts(), images).grid, 1e-3)


@METHODS
def test_every_method_learns_and_leaves_the_encoder_as_it_is(method: Any) -> None:
    backbone = make_hiera()
    model = PromptedModel(backbone, method(backbone.spec), MaskHead(backbone.spec, classes=2, width=8, detail=8))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.trained().values(), lr=1e-2)
    for seed in range(3):
        optimizer.zero_grad()
        model(draw(2, SIZE, seed)).square().mean().backward()
        optimizer.step()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("backbone."), name


@torch.no_grad()
def test_projected_prompts_are_the_same() -> None:
    backbone, images = make_hiera(), draw(2, SIZE)
    model = PromptedModel(backbone, deep(backbone), MaskHead(backbone.spec, classes=2)).eval()
    before = model(images)
    assert torch.equal(model.project_prompts()(images), before)
    assert isinstance(backbone.project(1, torch.randn(4, 16)), KeysValues)


@torch.no_grad()
def test_separate_prompts_are_attended_to_after_the_units_where_no_stage_begins() -> None:
    hiera = make_timm("without projections").double()
    backbone, block = wrap_hiera(hiera), hiera.blocks[2]
    grid, prompts = torch.randn(1, 8, 4, 32).double(), torch.randn(4, 32).double()
    tokens = replace(backbone.embed(draw(1, SIZE).double()), grid=grid)
    found = backbone.block(2, tokens, SeparateContext(prompts, normed=True)).grid
    mlp, block.mlp = block.mlp, nn.Identity()
    block.ls2, ls2 = Nothing(), block.ls2
    x = literal_block(block, grid[0], prompts[:0], (2, 2), 1)
    (q, _, _), (_, k, v) = (block.attn.qkv(block.norm1(part)).chunk(3, -1) for part in (x, prompts))
    heads = [part.chunk(2, -1) for part in (q, k, v)]
    mixed = [(a @ b.T / 16**0.5).softmax(-1) @ c for a, b, c in zip(*heads, strict=True)]
    x = x + block.ls1(block.attn.proj(torch.cat(mixed, -1)))
    assert close(found[0], x + ls2(mlp(block.norm2(x))), 1e-12)
    with pytest.raises(VptError, match=r"block 1 of tiny gives wider tokens .* among the blocks 0, 2, 4"):
        encode(backbone, CrossPrompts(backbone.spec).double(), draw(1, SIZE).double())
    chosen = shaken(CrossPrompts(backbone.spec, blocks=(0, 2, 4))).double()
    assert encode(backbone, chosen, draw(1, SIZE).double()).grid.isfinite().all()


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


def test_prompts_cannot_travel() -> None:
    backbone = make_hiera()
    with pytest.raises(VptError, match=r"travels through all blocks \(shallow\) needs blocks of one width"):
        ShallowPrompts(backbone.spec)
    with pytest.raises(VptError, match=r"tiny pools its tokens .* cannot travel .* choose deep or additive"):
        backbone.block(0, replace(backbone.embed(draw(1, SIZE)), prompts=torch.zeros(1, 2, 16)), None)


@torch.no_grad()
def test_the_maps_of_keys_and_values_are_those_of_the_widened_block_too() -> None:
    backbone = make_hiera()
    keys, values = backbone.key_value_maps(1)
    assert keys.shape == values.shape == (16, 32)


def test_explained_attention_is_of_the_patches_that_ask() -> None:
    """Another pixel in patch (5, 3) changes what is given in its window, of pooled queries in a quarter of it."""
    backbone, images = make_hiera(), draw(1, SIZE)
    model, other = (
        PromptedModel(backbone, deep(backbone), ClassifyHead(backbone.spec, outputs=3)).eval(),
        images.clone(),
    )
    other[:, :, 20, 12] += 3
    before, after = attention_to_prompts(model, images), attention_to_prompts(model, other)
    changed = [(before[i] != after[i]).any(-1).any(1)[0].nonzero() for i in range(2)]
    assert before[1].shape == (1, 2, 8, 4, 3)
    assert [places.amin(0).tolist() for places in changed] == [[4, 0], [2, 0]]
    assert [places.amax(0).tolist() for places in changed] == [[7, 3], [3, 1]]


# In training


def test_both_heads_take_a_step_and_checkpointing_changes_nothing() -> None:
    backbone = make_hiera()
    for head in (MaskHead(backbone.spec, classes=2, width=8, detail=8), ClassifyHead(backbone.spec, outputs=3)):
        model, gradients = PromptedModel(backbone, deep(backbone), head), []
        for checkpointing in (False, True):
            model.checkpointing = checkpointing
            model.zero_grad()
            model(draw(2, SIZE)).square().sum().backward()
            gradients.append([parameter.grad.clone() for parameter in model.trained().values()])
        for found, wanted in zip(*gradients, strict=True):
            assert torch.equal(found, wanted)
            assert wanted.abs().max() > 0


@pytest.mark.slow
def test_the_controls_train_what_their_formulas_say() -> None:
    """Blocks that widen their tokens have projections and an MLP of the wider width."""
    inside, outside = (16, 16, 32, 32, 64), (16, 32, 32, 64, 64)
    expected = {
        "lora": sum(2 * (width + 3 * wide + 2 * wide) for width, wide in zip(inside, outside, strict=True)),
        "adapter": sum(2 * wide * (wide // 4) + wide // 4 + wide for wide in outside),
    }
    for method in ("lora", "adapter", "ssf", "bias", "partial", "full"):
        backbone = make_hiera()
        model = PromptedModel(backbone, Prompts(), ClassifyHead(backbone.spec, outputs=3))
        with torch.no_grad():
            before = model(draw(2, SIZE))
            tune(model, method, **({"rank": 2} if method == "lora" else {}))
            torch.testing.assert_close(model.eval()(draw(2, SIZE)), before, rtol=1e-4, atol=1e-5)
        assert total(backbone) == expected.get(method, total(backbone)), method
        model.train()
        shaken(nn.ParameterList(model.trained().values()), 0.1)
        model(draw(2, SIZE)).square().sum().backward()
        assert all(bool(p.grad.abs().max() > 0) for p in model.trained().values()), method


def test_bfloat16_is_as_near_as_timms_own_is_in_bfloat16() -> None:
    hiera, images = make_timm(), draw(4, SIZE)
    backbone, exact = wrap_hiera(hiera), timms_grid(hiera, images)
    prompts = DeepPrompts(backbone.spec, count=2)
    wanted = literal(hiera, images, rows_of(prompts)).detach()
    prepare_frozen(backbone, "bf16-mixed")
    with autocast("bf16-mixed", torch.device("cpu")):
        original = timms_grid(hiera, images).float()
        with torch.inference_mode():
            plain = encode(backbone, Prompts(), images).grid.float()
        found = encode(backbone, prompts, images).grid.float()
        found.square().sum().backward()
    assert (plain - exact).norm() < 2 * (original - exact).norm()
    assert (found - wanted).norm() < 2 * (original - exact).norm()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in prompts.parameters())


# By name


def test_timms_names_are_described() -> None:
    spec = describe_backbone("hiera_tiny_224.mae_in1k_ft_in1k")
    assert (spec.image_size, spec.patch, spec.depth, spec.finished) == ((224, 224), (32, 32), 12, (768, (7, 7)))
    assert [block.grid[0] for block in spec.blocks] == [56] * 2 + [28] * 2 + [14] * 7 + [7]
    assert [block.windowed for block in spec.blocks] == [True] * 4 + [False] * 8
    assert published("hiera_tiny_224.mae").licence == "cc-by-nc-4.0"
    assert describe_backbone("hiera_small_abswin_256").image_size == (256, 256)


def test_what_it_cannot_take_apart_is_refused() -> None:
    with pytest.raises(VptError, match="its stages, strides and pooling is not supported"):
        wrap_hiera(make_timm(stages=(1, 2, 1)))
    with pytest.raises(VptError, match="Hiera with its stages, strides and pooling is not supported"):
        wrap_hiera(make_timm(global_pool=""))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders as timm saves them for the hub."""
    folders = {}
    for kind in ("plain", "positions of units"):
        own = SMALL | KINDS[kind]
        model = timm.create_model("hiera_tiny_224", pretrained=False, **own)
        model.load_state_dict(make_timm(kind).state_dict())
        folders[kind] = str(tmp_path_factory.mktemp("hieras") / "own")
        own = {name: value for name, value in own.items() if name != "num_classes"}
        timm.models.save_for_hf(model, folders[kind], model_args=own, safe_serialization=True)
    return folders


@pytest.mark.parametrize("kind", ["plain", "positions of units"])
@torch.no_grad()
def test_a_folder_loads_at_its_own_size_and_at_another(kind: str, small: dict[str, str]) -> None:
    own, larger = load_backbone(small[kind]), load_backbone(small[kind], image_size=(96, 80))
    images = draw(1, SIZE)
    assert torch.equal(encode(own, Prompts(), images).grid, timms_grid(make_timm(kind), images))
    model = make_timm(kind, img_size=(96, 80))
    if kind == "plain":
        old = make_timm(kind).pos_embed.unflatten(1, (16, 8)).permute(0, 3, 1, 2)
        resized = F.interpolate(old, size=(24, 20), mode="bicubic", antialias=True)
        model.pos_embed.copy_(resized.flatten(2).transpose(1, 2))
    model.load_state_dict(
        make_timm(kind).state_dict() | {"pos_embed": model.pos_embed if kind == "plain" else make_timm(kind).pos_embed}
    )
    images = draw(1, (96, 80))
    found = encode(larger, Prompts(), images)
    assert close(found.grid, timms_grid(model, images), 1e-5)
    assert larger.sha256 == own.sha256
    assert encode(larger, deep(larger), images).grid.isfinite().all()  # type: ignore[arg-type]
    with pytest.raises(VptError, match=r"image size 60x60 is not a multiple of the patch of .*, 16x16"):
        load_backbone(small[kind], image_size=60)


def test_the_authors_own_layout_is_read(small: dict[str, str], tmp_path: Path) -> None:
    state = {key.replace("head.norm.", "norm."): value for key, value in make_timm().state_dict().items()}
    state |= {"head.projection.weight": torch.zeros(5, 64), "head.projection.bias": torch.zeros(5)}
    torch.save({"model_state": state}, tmp_path / "hiera.pth")
    own = load_backbone(small["plain"])
    assert load_backbone(small["plain"], weights=tmp_path / "hiera.pth").sha256 == own.sha256


def test_an_artifact_gives_the_same_model_back(small: dict[str, str], tmp_path: Path) -> None:
    values: dict[str, Any] = {"data": {"path": str(tmp_path)}, "backbone": {"name": small["plain"]}}
    config = load_config(values | {"prompts": {"method": "deep", "count": 2}}).resolved("segmentation")
    model, path, images = build_model(config, PLAN, 2), tmp_path / "a.safetensors", draw(2, (48, 48))
    shaken(nn.ParameterList(model.trained().values()), 0.1)
    save_artifact(path, model.eval(), config=config, plan=PLAN, labels={0: "background", 1: "liver"}, scores={})
    with torch.no_grad():
        assert torch.equal(restore_model(read_artifact(path))(images), model(images))


# In a loop of one's own


def test_it_is_wrapped() -> None:
    hiera, images = make_timm(num_classes=5), draw(2, SIZE)
    with torch.no_grad():
        assert torch.equal(vpt.wrap(copy.deepcopy(hiera), "none").eval()(images), hiera(images))
    model = vpt.wrap(hiera, "deep:3")
    model(images).square().sum().backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert {name.partition(".")[0] for name in trained} == {"prompts", "head"}
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in trained.values())


@pytest.mark.slow  # compiles
@torch.no_grad()
def test_it_compiles() -> None:
    backbone, images = make_hiera(), draw(2, SIZE)
    model = PromptedModel(backbone, deep(backbone), ClassifyHead(backbone.spec, outputs=3)).eval()
    expected = model(images)
    torch.testing.assert_close(model.compile_blocks()(images), expected, rtol=1e-4, atol=1e-4)
