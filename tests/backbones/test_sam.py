"""The adapter over SAM's encoder: with no prompts the original, with prompts the published form written out."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from encoders import DEPTH, NECK, SAM, WIDTH, literal_attention, windowed, wrap_sam
from segment_anything.modeling import ImageEncoderViT
from timm.layers import resample_abs_pos_embed_nhwc
from torch import Tensor, nn

from vpt.backbones.sam import SamBackbone
from vpt.backbones.sam_attention import Arithmetic
from vpt.backbones.tokens import Tokens
from vpt.errors import VptError
from vpt.heads import MaskHead
from vpt.model import PromptedModel, encode
from vpt.prompts import AdditivePrompts, DeepPrompts, Prompts, ShallowPrompts

BATCH = 3
BOTH = pytest.mark.parametrize("attention", ["original", "fused"])
PADDED, WHOLE = 64, 48  # grids of 8, which windows of 3 reach over, and of 6, which they fill


def make_encoder(image_size: int = PADDED, **options: Any) -> ImageEncoderViT:
    """A small SAM encoder whose every tensor is random: tables of relative positions and many biases start at zero."""
    torch.manual_seed(0)
    encoder = ImageEncoderViT(**(SAM | {"img_size": image_size} | options))
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            parameter.add_((0.5 if "rel_pos" in name else 0.2) * torch.randn_like(parameter))
    return encoder.eval()


def wrap(encoder: ImageEncoderViT, image_size: Any = None, attention: Arithmetic = "original") -> SamBackbone:
    return wrap_sam(copy.deepcopy(encoder), image_size or (encoder.img_size, encoder.img_size), attention)


def draw(backbone: SamBackbone, batch: int = BATCH, dtype: torch.dtype = torch.float32) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, 3, *backbone.spec.image_size).to(dtype)


def original_at(native: ImageEncoderViT, image_size: tuple[int, int]) -> ImageEncoderViT:
    """The original built for another size: positions resized, tables of the native size, which it interpolates."""
    resized = ImageEncoderViT(**(SAM | {"img_size": max(image_size)})).eval()
    grid = [side // 8 for side in image_size]
    resized.pos_embed = nn.Parameter(resample_abs_pos_embed_nhwc(native.pos_embed.detach(), grid))
    for own, its in zip(resized.blocks, native.blocks, strict=True):
        own.attn.rel_pos_h, own.attn.rel_pos_w = its.attn.rel_pos_h, its.attn.rel_pos_w
    resized.load_state_dict(native.state_dict() | {"pos_embed": resized.pos_embed})
    return resized


# Without prompts


@pytest.mark.parametrize("image_size", [PADDED, WHOLE, 72, 24, 16])
def test_without_prompts_the_output_is_the_originals_bit_for_bit(image_size: int) -> None:
    encoder = make_encoder(image_size)
    backbone = wrap(encoder)
    images = draw(backbone)

    features = encode(backbone, Prompts(), images)

    assert torch.equal(features.grid, encoder(images))
    assert features.grid.shape == (BATCH, NECK, *backbone.spec.finished.grid)
    assert features.prefix.shape == (BATCH, 0, WIDTH)


@pytest.mark.parametrize("image_size", [(96, 96), (48, 48), (16, 16), (64, 40), (48, 80), (24, 88), (72, 24)])
def test_another_image_size_is_the_originals_own_resizing(image_size: tuple[int, int]) -> None:
    native = make_encoder()
    original = original_at(native, image_size)
    exact, fused = wrap(native, image_size), wrap(native, image_size, "fused")
    images = draw(exact)

    assert torch.equal(encode(exact, Prompts(), images).grid, original(images))
    assert (encode(fused, Prompts(), images).grid - original(images)).abs().max() <= 1e-4
    assert exact.spec.image_size == image_size
    assert exact.spec.finished.grid == (image_size[0] // 8, image_size[1] // 8)


@pytest.mark.parametrize("image_size", [PADDED, WHOLE, 24, 16])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-12)])
def test_fused_attention_equals_the_original(image_size: int, dtype: torch.dtype, tolerance: float) -> None:
    encoder = make_encoder(image_size).to(dtype)
    backbone = wrap(encoder, attention="fused")
    images = draw(backbone, dtype=dtype)

    assert (encode(backbone, Prompts(), images).grid - encoder(images)).abs().max() <= tolerance


@pytest.mark.parametrize(
    "options",
    [
        {"use_rel_pos": False},
        {"use_abs_pos": False},
        {"qkv_bias": False},
        {"window_size": 0},
        {"global_attn_indexes": ()},
        {"window_size": 8},
        {"window_size": 14},
        {"depth": 1},
    ],
    ids=str,
)
def test_any_configuration_of_the_encoder_is_the_original(options: dict[str, Any]) -> None:
    encoder = make_encoder(**options)
    exact, fused = wrap(encoder), wrap(encoder, attention="fused")
    images = draw(exact)

    assert torch.equal(encode(exact, Prompts(), images).grid, encoder(images))
    assert (encode(fused, Prompts(), images).grid - encoder(images)).abs().max() <= 1e-4


@BOTH
def test_levels_are_what_the_blocks_give(attention: Arithmetic) -> None:
    encoder = make_encoder()
    backbone = wrap(encoder, attention=attention)
    images, expected = draw(backbone), []
    for block in encoder.blocks:
        block.register_forward_hook(lambda _, __, output: expected.append(output.permute(0, 3, 1, 2)))
    encoder(images)

    levels = encode(backbone, Prompts(), images, levels=range(DEPTH)).levels

    assert levels[0].shape == (BATCH, WIDTH, 8, 8)
    for found, own in zip(levels, expected, strict=True):
        assert (found - own).abs().max() <= 1e-4
        assert attention == "fused" or torch.equal(found, own)


def test_the_spec_tells_what_prompts_and_heads_need() -> None:
    spec = wrap(make_encoder(), image_size=(96, 40)).spec

    assert (spec.name, spec.depth, spec.finished) == ("tiny", DEPTH, (NECK, (12, 5)))
    assert {(block.width, block.heads, block.grid) for block in spec.blocks} == {(WIDTH, 2, (12, 5))}
    assert (spec.patch, spec.prefix, spec.image_size) == ((8, 8), 0, (96, 40))
    assert (windowed(spec), spec.padding) == ((0, 2), "corner")


@pytest.mark.parametrize("image_size", [(60, 64), (64, 60), (4, 64), (0, 0)])
def test_an_image_size_that_the_patches_do_not_divide_is_refused(image_size: tuple[int, int]) -> None:
    with pytest.raises(VptError, match=r"not a multiple of the patch of tiny, 8x8; take \d+"):
        wrap(make_encoder(), image_size)


def test_the_native_image_size_leaves_every_tensor_as_it_is() -> None:
    encoder = make_encoder()
    backbone = wrap(encoder)

    assert set(backbone.state_dict()) == {f"encoder.{name}" for name in encoder.state_dict()}
    assert all(torch.equal(backbone.encoder.state_dict()[name], own) for name, own in encoder.state_dict().items())


# With prompts: the published form, literally


class Given(Prompts):
    """Prompts as they are given: context of a block, (P, C) or (B, P, C), and (B, P, C) that travel."""

    def __init__(self, contexts: Mapping[int, Tensor], travelling: Tensor | None = None):
        super().__init__()
        self.contexts, self.travelling = contexts, travelling

    def enter(self, i: int, tokens: Tokens, state: Any) -> tuple[Tokens, Tensor | None]:
        if i == 0 and self.travelling is not None:
            tokens = replace(tokens, prompts=self.travelling)
        return tokens, self.contexts.get(i)

    def leaves(self) -> list[Tensor]:
        return [*self.contexts.values(), *([] if self.travelling is None else [self.travelling])]

    def of(self, image: int) -> Given:
        """The prompts of one image of the batch."""
        contexts = {i: c if c.ndim == 2 else c[image, None] for i, c in self.contexts.items()}
        return Given(contexts, None if self.travelling is None else self.travelling[image, None])


def literal_windows(block: Any, patches: Tensor, beside: Tensor) -> tuple[Tensor, Tensor]:
    """One image's normed patches (H, W, C): zero-padded, window by window, with a copy of `beside` (E, C) in each."""
    size = block.window_size
    if size == 0:
        return literal_attention(block.attn, patches, beside)
    height, width, _ = patches.shape
    padded = F.pad(patches, (0, 0, 0, -width % size, 0, -height % size))
    rows, copies = [], []
    for row in padded.split(size, dim=0):
        results = [literal_attention(block.attn, window, beside) for window in row.split(size, dim=1)]
        rows.append(torch.cat([seen for seen, _ in results], dim=1))
        copies += [met for _, met in results]
    return torch.cat(rows)[:height, :width], torch.stack(copies).mean(0)


def literal_encode(encoder: Any, images: Tensor, prompts: Given) -> Tensor:
    """Jia et al., equations 4 to 8, in ViTDet's blocks: image by image, the context's outputs cut off."""
    grids = []
    for b, image in enumerate(images):
        grid = (encoder.patch_embed(image[None]) + encoder.pos_embed)[0]
        moving = grid.new_empty(0, WIDTH) if prompts.travelling is None else prompts.travelling[b]
        for i, block in enumerate(encoder.blocks):
            context = prompts.contexts.get(i, grid.new_empty(0, WIDTH))
            context = context if context.ndim == 2 else context[b]
            seen, met = literal_windows(block, block.norm1(grid), block.norm1(torch.cat([moving, context])))
            grid, moving = grid + seen, moving + met[: len(moving)]
            grid, moving = (tokens + block.mlp(block.norm2(tokens)) for tokens in (grid, moving))
        grids.append(grid)
    return encoder.neck(torch.stack(grids).permute(0, 3, 1, 2))


def random_prompts(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, WIDTH, generator=generator, dtype=torch.float64).to(dtype).requires_grad_(True)


def make_given(kind: str, dtype: torch.dtype = torch.float64) -> Given:
    every = range(DEPTH)
    shared = {i: random_prompts(5, seed=i, dtype=dtype) for i in every}
    per_sample = {i: random_prompts(BATCH, 5, seed=i, dtype=dtype) for i in every}
    travelling = random_prompts(BATCH, 2, seed=99, dtype=dtype)
    return {
        "deep": Given(shared),
        "deep_per_sample": Given(per_sample),
        "deep_windowed": Given({i: shared[i] for i in (0, 2)}),
        "deep_global": Given({i: per_sample[i] for i in (1, 3)}),
        "shallow": Given({}, travelling),
        "shallow_and_deep": Given(per_sample, travelling),
    }[kind]


EVERY_KIND = pytest.mark.parametrize(
    "kind", ["deep", "deep_per_sample", "deep_windowed", "deep_global", "shallow", "shallow_and_deep"]
)
EVERY_SIZE = pytest.mark.parametrize("image_size", [(PADDED, PADDED), (WHOLE, WHOLE), (40, 56)], ids=str)


@BOTH
@EVERY_SIZE
@EVERY_KIND
def test_the_whole_encoder_equals_the_published_form(
    kind: str, image_size: tuple[int, int], attention: Arithmetic
) -> None:
    backbone = wrap(make_encoder().double(), image_size, attention)
    prompts, images = make_given(kind), draw(backbone, dtype=torch.float64)
    along = torch.randn_like(encode(backbone, Prompts(), images).grid)

    def results(output: Tensor) -> list[Tensor]:
        return [output.detach(), *torch.autograd.grad((output * along).sum(), prompts.leaves())]

    ours = results(encode(backbone, prompts, images).grid)
    literal = results(literal_encode(backbone.encoder, images, prompts))

    for a, b in zip(ours, literal, strict=True):
        assert ((a - b).abs().max() / b.abs().max().clamp(min=1)).item() <= 1e-11
    assert (ours[0] - encode(backbone, Prompts(), images).grid).abs().max() > 0.02


@EVERY_SIZE
@EVERY_KIND
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-12)])
def test_fused_attention_with_prompts_equals_the_originals_arithmetic(
    kind: str, image_size: tuple[int, int], dtype: torch.dtype, tolerance: float
) -> None:
    encoder, prompts = make_encoder().to(dtype), make_given(kind, dtype)
    exact, fused = (wrap(encoder, image_size, attention) for attention in ("original", "fused"))
    images = draw(exact, dtype=dtype)

    with torch.no_grad():
        difference = encode(exact, prompts, images).grid - encode(fused, prompts, images).grid

    assert difference.abs().max() <= tolerance


@BOTH
@pytest.mark.parametrize("kind", ["deep", "shallow", "shallow_and_deep"])
def test_bfloat16_runs_and_is_close(kind: str, attention: Arithmetic) -> None:
    backbone, prompts = wrap(make_encoder(), attention=attention), make_given(kind, torch.float32)
    images = draw(backbone)

    exact = encode(backbone, prompts, images).grid
    with torch.autocast("cpu", torch.bfloat16):
        rough = encode(backbone, prompts, images).grid.float()
    gradients = torch.autograd.grad(rough.square().sum(), prompts.leaves())

    assert F.cosine_similarity(exact.flatten(1), rough.flatten(1)).min() > 0.999
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_travelling_prompts_are_left_behind() -> None:
    backbone = wrap(make_encoder())

    features = encode(backbone, ShallowPrompts(backbone.spec, count=7), draw(backbone), levels=[0, 1])

    assert features.grid.shape == (BATCH, NECK, 8, 8)
    assert features.prefix.shape == (BATCH, 0, WIDTH)
    assert [level.shape for level in features.levels] == [(BATCH, WIDTH, 8, 8)] * 2


# Batches

METHODS = {
    "shallow": lambda spec: ShallowPrompts(spec, count=3),
    "shallow_projected": lambda spec: ShallowPrompts(spec, count=3, project=6),
    "deep": lambda spec: DeepPrompts(spec, count=3),
    "deep_global": lambda spec: DeepPrompts(spec, count=3, blocks="global"),
    "additive": lambda spec: AdditivePrompts(spec),
}
EVERY_METHOD = pytest.mark.parametrize("method", METHODS)


def make_prompts(method: str, backbone: SamBackbone) -> Prompts:
    """Prompts far from nothing, so that equality says something."""
    torch.manual_seed(2)
    prompts = METHODS[method](backbone.spec)
    with torch.no_grad():
        for parameter in prompts.parameters():
            parameter.add_(torch.randn_like(parameter))
    return prompts


@BOTH
@EVERY_SIZE
@EVERY_METHOD
def test_a_batch_equals_its_images_one_by_one(method: str, image_size: tuple[int, int], attention: Arithmetic) -> None:
    backbone = wrap(make_encoder(), image_size, attention)
    prompts, images = make_prompts(method, backbone), draw(backbone, batch=5)

    with torch.no_grad():
        together = encode(backbone, prompts, images).grid
        alone = torch.cat([encode(backbone, prompts, image[None]).grid for image in images])

    assert (together - alone).abs().max() <= 1e-5


@BOTH
@EVERY_SIZE
@pytest.mark.parametrize("kind", ["deep_per_sample", "shallow", "shallow_and_deep"])
def test_prompts_that_differ_between_images_stay_with_their_image(
    kind: str, image_size: tuple[int, int], attention: Arithmetic
) -> None:
    backbone = wrap(make_encoder(), image_size, attention)
    prompts, images = make_given(kind, torch.float32), draw(backbone)

    with torch.no_grad():
        together = encode(backbone, prompts, images).grid
        alone = torch.cat([encode(backbone, prompts.of(b), images[b, None]).grid for b in range(BATCH)])

    assert (together - alone).abs().max() <= 1e-5


@BOTH
@EVERY_METHOD
def test_permuting_the_batch_permutes_the_output(method: str, attention: Arithmetic) -> None:
    backbone, order = wrap(make_encoder(), attention=attention), [2, 0, 4, 1, 3]
    prompts, images = make_prompts(method, backbone), draw(backbone, batch=5)

    with torch.no_grad():
        features = encode(backbone, prompts, images, levels=range(DEPTH))
        permuted = encode(backbone, prompts, images[order], levels=range(DEPTH))

    for before, after in zip((features.grid, *features.levels), (permuted.grid, *permuted.levels), strict=True):
        assert (before[order] - after).abs().max() <= 1e-5


# Training


@BOTH
@EVERY_METHOD
def test_gradients_reach_every_prompt_of_every_chosen_block(method: str, attention: Arithmetic) -> None:
    backbone = wrap(make_encoder(), attention=attention)
    prompts, images = make_prompts(method, backbone), draw(backbone)
    encode(backbone, prompts, images).grid[:, :, 2, 2].sum().backward()

    assert list(prompts.parameters())
    for parameter in prompts.parameters():
        assert (parameter.grad.abs().amax(-1) > 0).all()
    assert all(parameter.grad is None for parameter in backbone.parameters())


@BOTH
def test_nothing_is_recorded_below_the_first_prompted_block(attention: Arithmetic) -> None:
    backbone = wrap(make_encoder(), attention=attention)
    prompts = DeepPrompts(backbone.spec, count=2, blocks="global")

    levels = encode(backbone, prompts, draw(backbone), levels=range(DEPTH)).levels

    assert [level.requires_grad for level in levels] == [False, True, True, True]


@BOTH
@EVERY_METHOD
def test_the_encoder_is_bit_identical_after_training_under_the_mask_head(method: str, attention: Arithmetic) -> None:
    backbone = wrap(make_encoder(), attention=attention)
    head = MaskHead(backbone.spec, classes=3, width=16, detail=8, levels=2)
    model = PromptedModel(backbone, make_prompts(method, backbone), head)
    images, before = draw(backbone), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.trained().values(), lr=1e-2)

    for _ in range(3):
        logits = model(images)
        logits.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    assert logits.shape == (BATCH, 3, PADDED, PADDED)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if not name.startswith("backbone.")}
    assert all(parameter.grad is None for parameter in backbone.parameters())
    assert not any(module.training for module in backbone.modules())
