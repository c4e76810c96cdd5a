"""The adapter over TinyViT: with no prompts the original, with prompts the published form written out."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_sam import ATTENDING, NECK, SIZE, WIDTHS, WINDOWS, draw, make_tiny_sam, make_vit, wrap
from torch import Tensor, nn

from vpt.backbones.sam_attention import Arithmetic
from vpt.backbones.tiny_vit import TinyVitBackbone
from vpt.backbones.tiny_vit_attention import into_windows, out_of_windows
from vpt.backbones.tokens import KeysValues, SeparateContext
from vpt.errors import VptError
from vpt.heads.mask import MaskHead
from vpt.machine.precision import autocast, prepare_frozen
from vpt.model import PromptedModel, encode
from vpt.prompts import AdditivePrompts, DeepPrompts, Prompts

BOTH = pytest.mark.parametrize("attention", ["original", "fused"])
SIZES = [SIZE, (60, 60), (24, 40), (12, 8)]  # 60: windows fill the grids of 60, 30 and 15
CPU = torch.device("cpu")
EXACT = {torch.float32: 1e-5, torch.float64: 1e-12}


def close(found: Tensor, wanted: Tensor, relative: float) -> bool:
    return bool((found - wanted).abs().max() <= relative * wanted.abs().max())


# Without prompts


@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_without_prompts_the_output_is_the_originals_bit_for_bit(size: tuple[int, int], strided: bool) -> None:
    vit, size = make_vit(strided), (size[0] * (4 if strided else 1), size[1] * (4 if strided else 1))
    backbone, images = wrap(vit, image_size=size), draw(2, size)

    features = encode(backbone, Prompts(), images)

    assert torch.equal(features.grid, vit.neck(vit.forward_features(images)))
    assert features.grid.shape == (2, NECK, *backbone.spec.finished.grid)
    assert features.prefix.shape == (2, 0, WIDTHS[-1])


@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("size", SIZES)
def test_the_fused_arithmetic_is_the_originals_up_to_rounding(size: tuple[int, int], dtype: torch.dtype) -> None:
    vit = make_vit().to(dtype)
    backbone, images = wrap(vit, "fused", size), draw(2, size).to(dtype)

    found = encode(backbone, Prompts(), images).grid

    assert close(found, vit.neck(vit.forward_features(images)), EXACT[dtype])
    assert not any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())


@BOTH
def test_the_spec_tells_what_enters_every_block(attention: Arithmetic) -> None:
    backbone = make_tiny_sam(attention)
    spec, tokens = backbone.spec, backbone.embed(draw(2))

    for i, block in enumerate(spec.blocks):
        assert tokens.grid.shape == (2, *block.grid, block.width)
        assert tokens.prefix.shape == tokens.prompts.shape == (2, 0, block.width)
        tokens = backbone.block(i, tokens, None, "first")  # there is no CLS token: everything is given
        assert tokens.grid.shape[1:] == (*spec.left(i).grid, spec.left(i).width)

    assert backbone.finish(tokens).grid.shape == (2, spec.finished.width, *spec.finished.grid)
    assert [block.grid for block in spec.blocks] == [(32, 32)] * 2 + [(16, 16)] * 2 + [(8, 8)] * 4
    assert [block.width for block in spec.blocks] == [8] * 2 + [16] * 2 + [24] * 3 + [32]
    assert [block.heads for block in spec.blocks][2:] == [2] * 2 + [3] * 3 + [4]
    assert [block.windowed for block in spec.blocks] == [False] * 2 + [True] * 6
    assert (spec.attending, spec.patch, spec.prefix) == (ATTENDING, (4, 4), 0)


def test_another_size_has_to_be_made_of_whole_patches() -> None:
    with pytest.raises(VptError, match="image size 32x30 is not a multiple of the patch of tiny, 4x4; take 32"):
        wrap(make_vit(), image_size=(32, 30))


# With prompts


def literal_window(attention: Any, patches: Tensor, beside: Tensor, window: int) -> Tensor:
    """One window (window * window, C) of tokens and prompts (P, C), all attending to all, written out."""
    count, tokens = len(patches), attention.norm(torch.cat([patches, beside]))
    row, column = torch.arange(count) // window, torch.arange(count) % window
    offset = (row[:, None] - row).abs() * window + (column[:, None] - column).abs()
    gathered = []
    for head, part in enumerate(attention.qkv(tokens).chunk(attention.num_heads, -1)):
        q, k, v = part.chunk(3, -1)
        bias = F.pad(attention.attention_biases[head][offset], (0, len(beside), 0, len(beside)))
        gathered.append((q @ k.T / q.shape[-1] ** 0.5 + bias).softmax(-1) @ v)
    return attention.proj(torch.cat(gathered, -1))[:count]


def literal_block(block: Any, grid: Tensor, beside: Tensor, window: int) -> Tensor:
    """One image (H, W, C) through a block of timm's with prompts (P, C) concatenated in every window."""
    height, width, channels = grid.shape
    padded = F.pad(grid, (0, 0, 0, -width % window, 0, -height % window))
    mixed = torch.zeros_like(padded)
    for top in range(0, height, window):
        for left in range(0, width, window):
            rows, columns = slice(top, top + window), slice(left, left + window)
            seen = literal_window(block.attn, padded[rows, columns].reshape(-1, channels), beside, window)
            mixed[rows, columns] = seen.view(window, window, channels)
    grid = grid + mixed[:height, :width]
    grid = block.local_conv(grid.permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    return grid + block.mlp(grid)


def literal(vit: Any, images: Tensor, prompts: Mapping[int, Tensor]) -> Tensor:
    """The whole encoder, image by image; prompts of block i (P, C)."""
    finished = []
    for image in images:
        x, i = vit.patch_embed(image[None]), 0
        for stage, window in zip(vit.stages, WINDOWS, strict=True):
            x = stage.downsample(x) if hasattr(stage, "downsample") else x
            for block in stage.blocks:
                if i in prompts:
                    x = literal_block(block, x[0].permute(1, 2, 0), prompts[i], window).permute(2, 0, 1)[None]
                elif hasattr(block, "attn"):
                    x = block(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
                else:
                    x = block(x)
                i += 1
        finished.append(vit.neck(x))
    return torch.cat(finished)


def deep(backbone: TinyVitBackbone, **options: Any) -> DeepPrompts:
    """Prompts of the size of tokens, so that much is gathered from them."""
    torch.manual_seed(2)
    prompts = DeepPrompts(backbone.spec, count=4, blocks=ATTENDING, **options)
    with torch.no_grad():
        for parameter in prompts.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return prompts


def tokens_of(prompts: DeepPrompts) -> dict[int, Tensor]:
    return {i: value for i in ATTENDING if isinstance(value := prompts.context(i, 1), Tensor)}


@BOTH
@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("size", SIZES)
def test_deep_prompts_are_a_literal_concatenation_in_every_window(
    size: tuple[int, int], dtype: torch.dtype, attention: Arithmetic
) -> None:
    vit = make_vit().to(dtype)
    backbone = wrap(vit, attention, size)
    prompts, images = deep(backbone).to(dtype), draw(2, size).to(dtype)

    found = encode(backbone, prompts, images).grid

    wanted = literal(vit, images, tokens_of(prompts))
    assert close(found, wanted, EXACT[dtype])
    assert not close(found, vit.neck(vit.forward_features(images)), 1e-2)  # they do something


@BOTH
def test_gradients_are_those_of_the_literal_form_and_reach_every_prompt(attention: Arithmetic) -> None:
    vit = make_vit().double()
    backbone = wrap(vit, attention)
    prompts, images = deep(backbone).double(), draw(2).double()
    written = copy.deepcopy(prompts)

    encode(backbone, prompts, images).grid.pow(2).sum().backward()
    literal(vit, images, tokens_of(written)).pow(2).sum().backward()

    for found, wanted in zip(prompts.parameters(), written.parameters(), strict=True):
        assert found.grad is not None
        assert wanted.grad is not None
        assert close(found.grad, wanted.grad, 1e-11)
        assert (found.grad.abs().amax(-1) > 0).all()


@BOTH
def test_a_context_of_each_image_is_that_images_alone(attention: Arithmetic) -> None:
    backbone = make_tiny_sam(attention)
    tokens = backbone.embed(draw(3))
    for i in range(4):
        tokens = backbone.block(i, tokens, None)
    context = torch.randn(3, 5, backbone.spec.blocks[4].width)

    together = backbone.block(4, tokens, context).grid

    for n in range(3):
        alone = replace(tokens, grid=tokens.grid[n : n + 1])
        assert torch.allclose(together[n : n + 1], backbone.block(4, alone, context[n]).grid, atol=1e-5)


@BOTH
@pytest.mark.parametrize("with_prompts", [False, True])
def test_batched_equals_one_by_one(attention: Arithmetic, with_prompts: bool) -> None:
    backbone, images = make_tiny_sam(attention), draw(3)
    prompts = deep(backbone) if with_prompts else Prompts()

    with torch.no_grad():
        together = encode(backbone, prompts, images).grid
        alone = torch.cat([encode(backbone, prompts, image[None]).grid for image in images])

    assert close(together, alone, 1e-5)


@BOTH
def test_inference_and_training_give_the_same(attention: Arithmetic) -> None:
    backbone, images = make_tiny_sam(attention), draw(2)
    prompts = deep(backbone)
    with torch.inference_mode():
        inferred = encode(backbone, prompts, images).grid
    assert close(encode(backbone, prompts, images).grid, inferred, 1e-5)


def test_bfloat16_is_as_near_as_the_original_is_in_bfloat16() -> None:
    vit, images = make_vit(), draw(4)
    fused = wrap(vit, "fused")
    exact = vit.neck(vit.forward_features(images))
    prepare_frozen(fused, "bf16-mixed")
    with autocast("bf16-mixed", CPU):
        original = vit.neck(vit.forward_features(images)).float()
        with torch.inference_mode():
            inferred = encode(fused, Prompts(), images).grid.float()
        prompts = AdditivePrompts(fused.spec)
        trained = encode(fused, prompts, images).grid.float()
        trained.sum().backward()

    rounding = (original - exact).norm()
    assert (inferred - exact).norm() < 1.5 * rounding
    assert (trained - exact).norm() < 1.5 * rounding
    assert prompts.offset.grad is not None
    assert prompts.offset.grad.isfinite().all()


@BOTH
def test_projected_prompts_are_the_same(attention: Arithmetic) -> None:
    backbone = make_tiny_sam(attention)
    model = PromptedModel(backbone, deep(backbone), MaskHead(backbone.spec, classes=2)).eval()
    images = draw(2)
    with torch.no_grad():
        before = model(images)
        assert torch.equal(model.project_prompts()(images), before)
    assert isinstance(backbone.project(2, torch.randn(4, 16)), KeysValues)


@BOTH
def test_separate_prompts_are_attended_to_after_the_windows(attention: Arithmetic) -> None:
    """x <- x + SA(norm(x)); x <- x + CA(norm(x), norm(P)); convolution; MLP, written out."""
    vit = make_vit().double()
    backbone = wrap(vit, attention)
    grid, prompts = torch.randn(1, 8, 8, 24).double(), torch.randn(4, 24).double()
    tokens = replace(backbone.embed(draw(1).double()), grid=grid, prompts=grid.new_empty(1, 0, 24))
    block, attn = vit.stages[2].blocks[0], vit.stages[2].blocks[0].attn

    found = backbone.block(4, tokens, SeparateContext(prompts)).grid

    block.local_conv, convolution, block.mlp, mlp = nn.Identity(), block.local_conv, _Zero(), block.mlp
    x = block(grid)
    heads = []
    for mine, its in zip(*(attn.qkv(attn.norm(part)).chunk(3, -1) for part in (x.flatten(1, 2), prompts)), strict=True):
        q, (_, k, v) = mine.chunk(3, -1)[0], its.chunk(3, -1)
        heads.append((q @ k.T / q.shape[-1] ** 0.5).softmax(-1) @ v)
    x = x + attn.proj(torch.cat(heads, -1)).view_as(x)
    x = convolution(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    assert torch.allclose(found, x + mlp(x), atol=1e-11)


class _Zero(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


@BOTH
@pytest.mark.parametrize("form", ["vector", "grid"])
def test_additive_prompts_start_at_the_original_and_train(attention: Arithmetic, form: Any) -> None:
    backbone, images = make_tiny_sam(attention), draw(2)
    prompts = AdditivePrompts(backbone.spec, form=form)

    found = encode(backbone, prompts, images).grid

    original = encode(backbone, Prompts(), images).grid
    assert torch.equal(found, original) if attention == "original" else close(found, original, 1e-5)
    found.pow(2).sum().backward()
    assert prompts.offset.grad is not None
    assert (prompts.offset.grad.abs() > 0).all()


@BOTH
def test_a_block_of_convolutions_takes_no_prompts(attention: Arithmetic) -> None:
    backbone = make_tiny_sam(attention)
    tokens = backbone.embed(draw(1))
    with pytest.raises(VptError, match=r"block 1 of tiny is made of convolutions .* 2, 3, 4, 5, 6, 7"):
        backbone.block(1, tokens, torch.zeros(4, 8))
    with pytest.raises(VptError, match="block 0 of tiny is made of convolutions"):
        backbone.project(0, torch.zeros(4, 8))
    with pytest.raises(VptError, match="block 0 of tiny is made of convolutions"):
        backbone.key_value_maps(0)


@BOTH
def test_prompts_cannot_travel(attention: Arithmetic) -> None:
    backbone = make_tiny_sam(attention)
    tokens = backbone.embed(draw(1))
    with pytest.raises(VptError, match=r"tiny has convolutions .* cannot travel .* choose deep or additive"):
        backbone.block(0, replace(tokens, prompts=torch.zeros(1, 2, 8)), None)


@BOTH
@pytest.mark.parametrize("i", [2, 4, 7])
def test_the_maps_of_keys_and_values_are_the_linear_part(attention: Arithmetic, i: int) -> None:
    """Of tokens with one mean and one deviation, differences of keys are differences of tokens, mapped."""
    backbone = wrap(make_vit().double(), attention)
    width = backbone.spec.blocks[i].width
    keys, values = backbone.key_value_maps(i)
    one = F.layer_norm(torch.randn(width).double(), (width,))
    tokens = torch.stack([one, one.flip(0)])

    made = backbone.project(i, tokens)

    for maps, found in ((keys, made.keys), (values, made.values)):
        difference = (found[0, :, 0] - found[0, :, 1]).flatten()
        mapped = (tokens[0] - tokens[1]) @ maps
        assert difference @ mapped / (difference.norm() * mapped.norm()) == pytest.approx(1)


# What is gathered once


@BOTH
def test_biases_that_train_are_gathered_anew_in_every_step(attention: Arithmetic) -> None:
    backbone, images = make_tiny_sam(attention), draw(1)
    with torch.inference_mode():
        encode(backbone, Prompts(), images)
    backbone.requires_grad_(True)
    tables = [p for name, p in backbone.named_parameters() if name.endswith("attention_biases")]
    optimizer = torch.optim.SGD(tables, lr=1.0)

    outputs = []
    for _ in range(2):
        optimizer.zero_grad()
        output = encode(backbone, Prompts(), images).grid
        output.pow(2).sum().backward()
        assert all(table.grad is not None and table.grad.abs().max() > 0 for table in tables)
        optimizer.step()
        outputs.append(output.detach())
    backbone.requires_grad_(False)
    outputs.append(encode(backbone, Prompts(), images).grid)

    assert not torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[1], outputs[2])


@BOTH
def test_loaded_biases_take_the_place_of_those_gathered_before(attention: Arithmetic) -> None:
    backbone, images = make_tiny_sam(attention), draw(1)
    state = {key: value.clone() for key, value in backbone.state_dict().items()}
    before = encode(backbone, Prompts(), images).grid
    changed = {key: value * 2 if key.endswith("attention_biases") else value for key, value in state.items()}

    backbone.load_state_dict(changed)
    after = encode(backbone, Prompts(), images).grid
    backbone.load_state_dict(state)

    assert not torch.equal(before, after)
    assert torch.equal(encode(backbone, Prompts(), images).grid, before)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(5, 7), (6, 6), (2, 2)])
def test_gradients_of_windows_are_those_of_finite_differences(size: tuple[int, int]) -> None:
    """Also of the padding, which trains where `qkv` or the norm does, and which not every window has."""
    whole = all(side % 3 == 0 for side in size)
    grid = torch.randn(2, *size, 2, 3, dtype=torch.float64, requires_grad=True)
    padding = torch.randn(2, 1, 1, 3, dtype=torch.float64, requires_grad=True)

    def there(grid: Tensor, padding: Tensor) -> Tensor:
        return into_windows(grid, 3, None if whole else padding)

    def and_back(grid: Tensor, padding: Tensor) -> Tensor:
        return out_of_windows(there(grid, padding)[..., :2].square(), size)

    torch.testing.assert_close(out_of_windows(there(grid, padding), size), grid)
    assert torch.autograd.gradcheck(there, (grid, padding))
    assert torch.autograd.gradcheck(and_back, (grid, padding))
