"""SAM 2's image encoder, taken apart: timm's without prompts, with them the published form written out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from encoders import draw, shaken, tune
from hieradets import SIZE, SMALL, literal, literal_block, make_timm, timms_grid, wrap_hiera
from safetensors.torch import save_file
from staged import assert_an_artifact_gives_it_back, close, deep, rows_of
from torch import Tensor, nn

import vpt
from vpt.backbones import describe_backbone, load_backbone
from vpt.backbones.tokens import SeparateContext
from vpt.errors import VptError
from vpt.explaining import read_prompts
from vpt.heads import ClassifyHead
from vpt.machine.precision import autocast, prepare_frozen
from vpt.model import PromptedModel, encode
from vpt.prompts import CrossPrompts, DeepPrompts, Prompts

EXACT = {torch.float32: 1e-5, torch.float64: 1e-12}


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
    before, after = ({i: each.weights for i, each in read_prompts(model, seen).items()} for seen in (images, other))
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
    assert_an_artifact_gives_it_back(small, tmp_path / "a.safetensors")
