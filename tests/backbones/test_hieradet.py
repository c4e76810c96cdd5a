"""SAM 2's image encoder, taken apart: timm's without prompts, with them the published form written out."""

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
from encoders import PREPROCESSING, draw, shaken, tune
from safetensors.torch import save_file
from timm.models.hieradet_sam2 import HieraDet
from torch import Tensor, nn

import vpt
from vpt.artifact import read_artifact, restore_model, save_artifact
from vpt.backbones import describe_backbone, load_backbone
from vpt.backbones.hieradet import HieraDetBackbone
from vpt.backbones.tokens import SeparateContext
from vpt.building import build_model
from vpt.config import load_config
from vpt.data.plan import Percentiles, Plan
from vpt.errors import VptError
from vpt.explaining import attention_to_prompts
from vpt.heads import ClassifyHead, MaskHead
from vpt.machine.precision import autocast, prepare_frozen
from vpt.model import PromptedModel, encode
from vpt.prompts import AdditivePrompts, CrossPrompts, DeepPrompts, LowRankPrompts, Prompts

SIZE = (64, 32)  # 16x8 patches in windows of 4, then 8x4 in windows of 6 and 4x2 in windows of 3, which are cut off
SMALL: dict[str, Any] = {
    "embed_dim": 16,
    "stages": (1, 2, 3),
    "q_pool": 2,
    "window_spec": (4, 6, 3),
    "global_att_blocks": (5,),
    "global_pos_size": (3, 3),
    "init_values": 0.5,
    "num_classes": 0,
}
EXACT = {torch.float32: 1e-5, torch.float64: 1e-12}
OTHERS = [pytest.param(own, marks=pytest.mark.slow) for own in (AdditivePrompts, LowRankPrompts)]
METHODS = pytest.mark.parametrize("method", [DeepPrompts, *OTHERS])
PLAN = Plan(plane="axial", pixel_mm=1.0, image_size=48, neighbours=True, channels=("CT",), intensity=(Percentiles(),))


def make_timm(size: tuple[int, int] = SIZE, **options: Any) -> Any:
    """timm's model; no zero bias and no unit gain hides a mistake."""
    torch.manual_seed(0)
    hiera: Any = HieraDet(**(SMALL | options))
    with torch.no_grad():
        for parameter in hiera.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    half = (0.5, 0.5, 0.5)
    hiera.pretrained_cfg = {"input_size": (3, *size), "mean": half, "std": half}
    return hiera.eval().requires_grad_(False)


def wrap_hiera(hiera: Any) -> HieraDetBackbone:
    """The adapter over a copy of timm's model, frozen."""
    return HieraDetBackbone(copy.deepcopy(hiera), name="tiny", **PREPROCESSING).requires_grad_(False)


def close(found: Tensor, wanted: Tensor, relative: float) -> bool:
    return bool((found - wanted).abs().max() <= relative * wanted.abs().max())


def deep(backbone: HieraDetBackbone) -> DeepPrompts:
    """Prompts of the size of tokens, so that much is gathered from them."""
    return shaken(DeepPrompts(backbone.spec, count=3), 1.0)


def rows_of(prompts: DeepPrompts) -> dict[int, Tensor]:
    return {i: row for i in prompts.rows if isinstance(row := prompts.context(i, 1), Tensor)}


def timms_grid(hiera: Any, images: Tensor) -> Tensor:
    return hiera.forward_features(images).permute(0, 3, 1, 2)


def literal(hiera: Any, images: Tensor, prompts: Mapping[int, Tensor]) -> Tensor:
    """The whole encoder (B, C, H, W), image by image and window by window; prompts (P, C) of block i."""
    finished = []
    for image in images:
        grid = hiera._pos_embed(hiera.patch_embed(image[None]))[0]
        for i, block in enumerate(hiera.blocks):
            grid = literal_block(block, grid, prompts.get(i, grid.new_empty(0, grid.shape[-1])))
        finished.append(grid.permute(2, 0, 1))
    return torch.stack(finished)


def literal_block(block: Any, grid: Tensor, beside: Tensor) -> Tensor:
    """One image (H, W, C) through a block with prompts (P, C) beside the tokens of every window."""
    step, (height, width) = (2 if block.q_stride else 1), grid.shape[:2]
    side = block.window_size[0]
    high, wide = (side, side) if side else (height, width)
    normed, beside = block.norm1(grid), block.norm1(beside)
    skip = grid if block.dim == block.dim_out else largest(block.proj(normed), step)
    padded = F.pad(normed, (0, 0, 0, -width % wide, 0, -height % high))
    mixed = torch.zeros(padded.shape[0] // step, padded.shape[1] // step, block.dim_out, dtype=grid.dtype)
    for top in range(0, height, high):
        for left in range(0, width, wide):
            seen = literal_window(block.attn, padded[top : top + high, left : left + wide], beside, step)
            mixed[top // step : (top + high) // step, left // step : (left + wide) // step] = seen
    x = skip + block.ls1(mixed[: skip.shape[0], : skip.shape[1]])
    return x + block.ls2(block.mlp(block.norm2(x)))


def literal_window(attention: Any, patches: Tensor, beside: Tensor, step: int) -> Tensor:
    """Patches (h, w, C) and prompts, all attending to all, queries pooled over `step` x `step` patches."""
    (high, wide), gathered = patches.shape[:2], []
    parts = attention.qkv(torch.cat([patches.flatten(0, 1), beside])).chunk(3, -1)
    for q, k, v in zip(*(part.chunk(attention.num_heads, -1) for part in parts), strict=True):
        asking = largest(q[: high * wide].view(high, wide, -1), step)
        gathered.append((asking @ k.T / k.shape[-1] ** 0.5).softmax(-1) @ v)
    return attention.proj(torch.cat(gathered, -1))


def largest(grid: Tensor, step: int) -> Tensor:
    """(H, W, C) -> (H / step, W / step, C)."""
    return F.max_pool2d(grid.permute(2, 0, 1), step).permute(1, 2, 0)


@torch.no_grad()
def test_without_prompts_the_output_is_timms_bit_for_bit() -> None:
    hiera, images = make_timm(), draw(2, SIZE)
    found = encode(wrap_hiera(hiera), Prompts(), images)
    assert torch.equal(found.grid, timms_grid(hiera, images))
    assert found.pooled is not None
    assert torch.equal(found.pooled, hiera(images))


@torch.no_grad()
def test_the_spec_tells_what_enters_every_block() -> None:
    backbone = wrap_hiera(make_timm())
    spec, tokens = backbone.spec, backbone.embed(draw(2, SIZE))
    for i, block in enumerate(spec.blocks):
        assert tokens.grid.shape == (2, *block.grid, block.width)
        tokens = backbone.block(i, tokens, None, "first")  # there is no CLS token: everything is given
        assert tokens.grid.shape[1:] == (*spec.left(i).grid, spec.left(i).width)
    assert backbone.finish(tokens).grid.shape == (2, spec.finished.width, *spec.finished.grid)
    assert [block.grid for block in spec.blocks] == [(16, 8)] * 2 + [(8, 4)] * 2 + [(4, 2)] * 2
    assert [block.width for block in spec.blocks] == [16, 16, 32, 32, 64, 64]
    assert [block.windowed for block in spec.blocks] == [True] * 5 + [False]
    assert (spec.patch, spec.pool) == ((16, 16), "mean")


@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("size", [SIZE, (48, 80)])
@torch.no_grad()
def test_deep_prompts_are_a_literal_concatenation_in_every_window(size: tuple[int, int], dtype: torch.dtype) -> None:
    hiera, images = make_timm(size).to(dtype), draw(2, size).to(dtype)
    backbone = wrap_hiera(hiera)
    prompts = deep(backbone).to(dtype)
    found = encode(backbone, prompts, images).grid
    assert close(found, literal(hiera, images, rows_of(prompts)), EXACT[dtype])
    assert not close(found, encode(backbone, Prompts(), images).grid, 1e-2)  # they do something


def test_gradients_are_those_of_the_literal_form_and_reach_every_prompt() -> None:
    hiera, images = make_timm().double(), draw(2, SIZE).double()
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


@METHODS
def test_every_method_learns_and_leaves_the_encoder_as_it_is(method: Any) -> None:
    backbone = wrap_hiera(make_timm())
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
def test_projected_prompts_are_the_same_and_a_context_of_each_image_its_own() -> None:
    backbone, images = wrap_hiera(make_timm()), draw(3, SIZE)
    model = PromptedModel(backbone, deep(backbone), ClassifyHead(backbone.spec, outputs=2)).eval()
    before = model(images)
    assert torch.equal(model.project_prompts()(images), before)
    tokens, context = backbone.embed(images), torch.randn(3, 5, 16)
    together = backbone.block(1, tokens, context).grid
    for n in range(3):
        alone = replace(tokens, grid=tokens.grid[n : n + 1])
        torch.testing.assert_close(together[n : n + 1], backbone.block(1, alone, context[n]).grid)


@torch.no_grad()
def test_separate_prompts_are_attended_to_after_the_windows_where_no_stage_begins() -> None:
    hiera = make_timm().double()
    backbone, block = wrap_hiera(hiera), hiera.blocks[2]
    grid, prompts = torch.randn(1, 8, 4, 32).double(), torch.randn(4, 32).double()
    tokens = replace(backbone.embed(draw(1, SIZE).double()), grid=grid)
    found = backbone.block(2, tokens, SeparateContext(prompts)).grid
    mlp, block.mlp = block.mlp, Nothing()
    x = literal_block(block, grid[0], prompts[:0])
    parts = [
        part.chunk(2, -1) for part in (block.attn.qkv(x).chunk(3, -1)[0], *block.attn.qkv(prompts).chunk(3, -1)[1:])
    ]
    mixed = [(q.flatten(0, 1) @ k.T / 16**0.5).softmax(-1) @ v for q, k, v in zip(*parts, strict=True)]
    x = x + block.ls1(block.attn.proj(torch.cat(mixed, -1))).view_as(x)
    assert close(found[0], x + block.ls2(mlp(block.norm2(x))), 1e-12)
    with pytest.raises(VptError, match=r"block 1 of tiny gives wider tokens .* among the blocks 0, 2, 4, 5"):
        encode(backbone, CrossPrompts(backbone.spec).double(), draw(1, SIZE).double())


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


def test_explained_attention_is_of_the_patches_that_ask() -> None:
    """Another pixel in patch (5, 3) changes what is given in its window, of pooled queries in a quarter of it."""
    backbone, images = wrap_hiera(make_timm()), draw(1, SIZE)
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


@pytest.mark.slow
def test_the_controls_train() -> None:
    for method in ("lora", "adapter", "ssf", "bias", "partial", "full"):
        backbone = wrap_hiera(make_timm())
        model = PromptedModel(backbone, Prompts(), ClassifyHead(backbone.spec, outputs=3))
        with torch.no_grad():
            before = model(draw(2, SIZE))
            tune(model, method)
            torch.testing.assert_close(model.eval()(draw(2, SIZE)), before, rtol=1e-4, atol=1e-5)
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
    assert (plain - exact).norm() < 2 * (original - exact).norm()
    assert (found - wanted).norm() < 2 * (original - exact).norm()


# By name


def test_timms_names_are_described() -> None:
    spec = describe_backbone("sam2_hiera_tiny.fb_r896_2pt1")
    assert (spec.image_size, spec.patch, spec.depth, spec.finished) == ((896, 896), (32, 32), 12, (768, (28, 28)))
    assert [i for i, block in enumerate(spec.blocks) if not block.windowed] == [5, 7, 9]
    assert describe_backbone("sam2_hiera_large").image_size == (1024, 1024)
    assert spec.mean == (0.485, 0.456, 0.406)


def test_what_it_cannot_take_apart_is_refused() -> None:
    with pytest.raises(VptError, match="HieraDet with its stages and pooling is not supported"):
        wrap_hiera(make_timm(global_att_blocks=(), stages=(1, 2, 1)))
    with pytest.raises(VptError, match="HieraDet with PatchEmbed is not supported"):
        wrap_hiera(make_timm(patch_size=(4, 4)))
    model = make_timm()
    del model.pretrained_cfg
    with pytest.raises(VptError, match="does not say for which images it is; set its pretrained_cfg"):
        vpt.wrap(model)
    with pytest.raises(VptError, match="image size 64x40 is not a multiple of the patch of tiny, 16x16"):
        wrap_hiera(make_timm((64, 40)))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder as timm saves it for the hub."""
    own = {name: value for name, value in SMALL.items() if name != "num_classes"}
    model = timm.create_model(
        "sam2_hiera_tiny", pretrained=False, pretrained_cfg_overlay={"input_size": (3, *SIZE)}, **own
    )
    model.load_state_dict(make_timm().state_dict())
    folder = str(tmp_path_factory.mktemp("hieradet") / "own")
    timm.models.save_for_hf(model, folder, model_args=own, safe_serialization=True)
    return folder


@torch.no_grad()
def test_a_folder_loads_at_its_own_size_and_at_another(small: str) -> None:
    own, larger, hiera = load_backbone(small), load_backbone(small, image_size=(96, 80)), make_timm()
    for backbone, size in ((own, SIZE), (larger, (96, 80))):
        assert backbone.spec.image_size == size
        images = draw(1, size)
        assert torch.equal(encode(backbone, Prompts(), images).grid, timms_grid(hiera, images))
    assert larger.sha256 == own.sha256


@torch.no_grad()
def test_the_image_encoder_of_a_whole_sam_2_is_read(small: str, tmp_path: Path) -> None:
    hiera, state = make_timm(), {"sam_mask_decoder.iou_token.weight": torch.zeros(1, 4)}
    for name, value in hiera.state_dict().items():
        if not name.startswith("head."):
            key = name.replace("mlp.fc1", "mlp.layers.0").replace("mlp.fc2", "mlp.layers.1")
            state[f"image_encoder.trunk.{key}"] = value
    torch.save({"model": state}, tmp_path / "sam2.pt")
    backbone = load_backbone(small, weights=tmp_path / "sam2.pt")
    images = draw(1, SIZE)
    assert torch.equal(encode(backbone, Prompts(), images).grid, timms_grid(hiera, images))
    del state["image_encoder.trunk.blocks.1.attn.qkv.bias"]
    save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(VptError, match=r"missing keys: blocks\.1\.attn\.qkv\.bias"):
        load_backbone(small, weights=tmp_path / "less.safetensors")


def test_an_artifact_gives_the_same_model_back(small: str, tmp_path: Path) -> None:
    values: dict[str, Any] = {"data": {"path": str(tmp_path)}, "backbone": {"name": small}}
    config = load_config(values | {"prompts": {"method": "deep", "count": 2}}).resolved("segmentation")
    model, path, images = build_model(config, PLAN, 2), tmp_path / "a.safetensors", draw(2, (48, 48))
    shaken(nn.ParameterList(model.trained().values()), 0.1)
    save_artifact(path, model.eval(), config=config, plan=PLAN, labels={0: "background", 1: "liver"}, scores={})
    with torch.no_grad():
        assert torch.equal(restore_model(read_artifact(path))(images), model(images))


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
    backbone, images = wrap_hiera(make_timm()), draw(2, SIZE)
    model = PromptedModel(backbone, deep(backbone), ClassifyHead(backbone.spec, outputs=3)).eval()
    expected = model(images)
    torch.testing.assert_close(model.compile_blocks()(images), expected, rtol=1e-4, atol=1e-4)
