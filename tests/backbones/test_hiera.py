"""timm's Hiera, taken apart: equal to timm without prompts, and with them to the published form written out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from encoders import draw, shaken, total, tune
from hieras import KINDS, SIZE, SMALL, literal, literal_block, make_hiera, make_timm, timms_grid, wrap_hiera
from staged import assert_an_artifact_gives_it_back, close, deep, rows_of
from torch import Tensor, nn

from vpt.backbones import describe_backbone, load_backbone
from vpt.backbones.families import published
from vpt.backbones.tokens import SeparateContext
from vpt.errors import VptError
from vpt.explaining import read_prompts
from vpt.heads import ClassifyHead, MaskHead
from vpt.machine.precision import autocast, prepare_frozen
from vpt.model import PromptedModel, encode
from vpt.prompts import (
    CrossPrompts,
    DeepPrompts,
    Prompts,
    ShallowPrompts,
)

EVERY = pytest.mark.parametrize("kind", KINDS)


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
    before, after = ({i: each.weights for i, each in read_prompts(model, seen).items()} for seen in (images, other))
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
    assert_an_artifact_gives_it_back(small["plain"], tmp_path / "a.safetensors")


def test_images_of_another_size_are_refused_in_which_places_would_be_mistaken() -> None:
    backbone = make_hiera()
    height, width = backbone.spec.image_size
    with pytest.raises(VptError, match=rf"images \(1, 3, {width}, {height}\) .*\(B, 3, {height}, {width}\)"):
        backbone.embed(torch.zeros(1, 3, width, height))
