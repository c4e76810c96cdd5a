"""The prompt methods are the published ones (Jia et al., ECCV 2022): size, start, arithmetic, place, dropout."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pytest
import torch
from encoders import DEPTH, VIT_B16, WIDTH, make_vit, plain_spec, total
from scipy.stats import kstest
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from vpt.backbones.base import BackboneSpec
from vpt.backbones.tokens import Features, Tokens
from vpt.backbones.vit import VitBackbone
from vpt.errors import VptError
from vpt.model import encode
from vpt.prompts import DeepPrompts, Prompts, ShallowPrompts
from vpt.prompts.base import choose_blocks

BATCH = 3
SAM_B_SHAPE: dict[str, Any] = {"name": "sam_vit_b", "image_size": (1024, 1024), "prefix": 0, "neck": 256}
SAM_B = plain_spec(**SAM_B_SHAPE, windowed=(0, 1, 3, 4, 6, 7, 9, 10))
VITS: dict[str, dict[str, Any]] = {
    "cls": {},
    "no_cls": {"class_token": False, "global_pool": "avg"},
    "registers": {"reg_tokens": 2},
    "dinov2_like": {"reg_tokens": 4, "init_values": 0.5, "no_embed_class": True},
    "clip_like": {"pre_norm": True, "qk_norm": True, "img_size": (24, 40)},
}
METHODS: dict[str, tuple[type[ShallowPrompts | DeepPrompts], dict[str, Any]]] = {
    "shallow": (ShallowPrompts, {}),
    "shallow_projected": (ShallowPrompts, {"project": 6}),
    "deep": (DeepPrompts, {}),
    "deep_projected": (DeepPrompts, {"project": 6}),
    "deep_last": (DeepPrompts, {"blocks": "last:2"}),
    "deep_chosen": (DeepPrompts, {"blocks": [0, 2]}),
}


def make_backbone(**options: Any) -> VitBackbone:
    return make_vit(**({"img_size": 32} | options))


@pytest.fixture(scope="module")
def backbone() -> VitBackbone:
    return make_backbone()


@pytest.fixture(scope="module")
def spec(backbone: VitBackbone) -> BackboneSpec:
    return backbone.spec


def make_prompts(method: str, spec: BackboneSpec, count: int = 3, **options: Any) -> ShallowPrompts | DeepPrompts:
    torch.manual_seed(1)
    kind, settings = METHODS[method]
    return kind(spec, count=count, **(settings | options))


def draw(backbone: VitBackbone, batch: int = BATCH) -> Tensor:
    torch.manual_seed(2)
    return torch.randn(batch, 3, *backbone.spec.image_size)


def sequence(features: Features) -> Tensor:
    """Features -> (B, R + H*W, C), as timm orders its tokens."""
    return torch.cat([features.prefix, features.grid.flatten(2).transpose(1, 2)], dim=1)


# Size


@pytest.mark.parametrize("count", [1, 10, 50])
def test_shallow_has_count_times_width_parameters(count: int) -> None:
    assert total(ShallowPrompts(VIT_B16, count=count)) == count * 768


@pytest.mark.parametrize("count", [1, 10, 50])
def test_deep_has_depth_times_count_times_width_parameters(count: int) -> None:
    assert total(DeepPrompts(VIT_B16, count=count)) == 12 * count * 768
    assert total(DeepPrompts(VIT_B16, count=count, blocks="last:4")) == 4 * count * 768
    assert total(DeepPrompts(VIT_B16, count=count, blocks=[0, 11])) == 2 * count * 768


def test_eight_deep_prompts_in_sam_vit_b_have_the_published_number_of_parameters() -> None:
    assert total(DeepPrompts(SAM_B, count=8)) == 73_728
    assert total(DeepPrompts(SAM_B, count=8, blocks="global")) == 4 * 8 * 768
    assert total(ShallowPrompts(SAM_B, count=8)) == 8 * 768


def test_a_projection_is_shared_by_all_blocks() -> None:
    linear = 32 * 768 + 768

    assert total(ShallowPrompts(VIT_B16, count=10, project=32)) == 10 * 32 + linear
    assert total(DeepPrompts(VIT_B16, count=10, project=32)) == 12 * 10 * 32 + linear


def test_no_prompts_have_no_parameters() -> None:
    assert total(Prompts()) == 0


@pytest.mark.parametrize("kind", [ShallowPrompts, DeepPrompts])
@pytest.mark.parametrize("count", [0, -3])
def test_a_count_below_one_is_refused(kind: type[ShallowPrompts | DeepPrompts], count: int) -> None:
    with pytest.raises(VptError, match=rf"count is {count}; at least 1 .* `none`"):
        kind(VIT_B16, count=count)


@pytest.mark.parametrize("kind", [ShallowPrompts, DeepPrompts])
@pytest.mark.parametrize("project", [0, -1])
def test_a_projection_from_no_width_is_refused(kind: type[ShallowPrompts | DeepPrompts], project: int) -> None:
    with pytest.raises(VptError, match=rf"project is {project}; at least 1"):
        kind(VIT_B16, count=2, project=project)


# Start


def starting_bound(prompts: ShallowPrompts | DeepPrompts, bound: float) -> None:
    """Assert that all values are in [-bound, bound] and spread evenly over it."""
    values = prompts.table.tokens.detach().flatten().numpy()
    assert abs(values).max() <= bound
    assert kstest(values, "uniform", args=(-bound, 2 * bound)).pvalue > 0.01


@pytest.mark.parametrize("kind", [ShallowPrompts, DeepPrompts])
def test_prompts_of_vit_b16_start_uniform_within_a_sixteenth(kind: type[ShallowPrompts | DeepPrompts]) -> None:
    torch.manual_seed(0)

    starting_bound(kind(VIT_B16, count=50), bound=0.0625)


@pytest.mark.parametrize(
    ("width", "patch", "bound"),
    [
        (768, (32, 32), (6 / (3 * 32 * 32 + 768)) ** 0.5),
        (384, (14, 14), (6 / (3 * 14 * 14 + 384)) ** 0.5),
        (128, (8, 16), (6 / (3 * 8 * 16 + 128)) ** 0.5),
    ],
)
def test_the_starting_bound_follows_patch_and_width(width: int, patch: tuple[int, int], bound: float) -> None:
    torch.manual_seed(0)

    starting_bound(DeepPrompts(plain_spec(width=width, patch=patch), count=50), bound)


def test_projected_prompts_start_in_the_width_they_are_learned_in() -> None:
    torch.manual_seed(0)
    prompts = DeepPrompts(VIT_B16, count=100, project=32)

    starting_bound(prompts, (6 / (3 * 16 * 16 + 32)) ** 0.5)
    weight = prompts.table.project.weight.detach()
    assert weight.shape == (768, 32)
    assert weight.std().item() == pytest.approx((2 / 768) ** 0.5, rel=0.05)  # Kaiming, fan-out


def test_blocks_start_with_prompts_of_their_own() -> None:
    tokens = DeepPrompts(VIT_B16, count=5).table.tokens

    assert tokens.shape == (12, 5, 768)
    assert len({tuple(row.flatten().tolist()) for row in tokens}) == 12


def test_the_seed_decides_how_prompts_start() -> None:
    def start(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return DeepPrompts(VIT_B16, count=2).table.tokens

    assert torch.equal(start(5), start(5))
    assert not torch.equal(start(5), start(6))


# Arithmetic: the published form, literally


def published_deep(vit: VisionTransformer, images: Tensor, prompts: dict[int, Tensor]) -> Tensor:
    """Jia et al., equations 6 to 8: [CLS; P_i; patches] through block i, the outputs of P_i thrown away."""
    kept = vit.num_prefix_tokens
    tokens = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
    for i, block in enumerate(vit.blocks):
        if i not in prompts:
            tokens = block(tokens)
            continue
        inserted = prompts[i].expand(len(images), -1, -1)
        tokens = block(torch.cat([tokens[:, :kept], inserted, tokens[:, kept:]], dim=1))
        tokens = torch.cat([tokens[:, :kept], tokens[:, kept + inserted.shape[1] :]], dim=1)
    return vit.norm(tokens)


def published_shallow(vit: VisionTransformer, images: Tensor, prompts: Tensor) -> Tensor:
    """Jia et al., equations 4 and 5: [CLS; P; patches] through all blocks."""
    kept = vit.num_prefix_tokens
    tokens = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
    tokens = torch.cat([tokens[:, :kept], prompts.expand(len(images), -1, -1), tokens[:, kept:]], dim=1)
    tokens = vit.norm(vit.blocks(tokens))
    return torch.cat([tokens[:, :kept], tokens[:, kept + len(prompts) :]], dim=1)


def published(method: ShallowPrompts | DeepPrompts, vit: VisionTransformer, images: Tensor) -> Tensor:
    table = method.table.project(method.table.tokens)
    if isinstance(method, ShallowPrompts):
        return published_shallow(vit, images, table[0])
    return published_deep(vit, images, {block: table[row] for block, row in method.rows.items()})


@pytest.mark.parametrize("options", VITS.values(), ids=VITS)
@pytest.mark.parametrize("method", METHODS)
def test_the_whole_encoder_equals_the_published_form(method: str, options: dict[str, Any]) -> None:
    backbone = make_backbone(**options)
    prompts, images = make_prompts(method, backbone.spec), draw(backbone)
    with torch.no_grad():
        prompts.table.tokens.mul_(5)  # far from nothing, so that equality says something
    along = torch.randn_like(sequence(encode(backbone, Prompts(), images)))

    def results(output: Tensor) -> list[Tensor]:
        return [output.detach(), *torch.autograd.grad((output * along).sum(), list(prompts.parameters()))]

    ours = results(sequence(encode(backbone, prompts, images)))
    literal = results(published(prompts, backbone.vit, images))

    for a, b in zip(ours, literal, strict=True):
        assert ((a - b).abs().max() / b.abs().max().clamp(min=1)).item() <= 1e-5
    assert not torch.allclose(ours[0], sequence(encode(backbone, Prompts(), images)), atol=1e-2)


# Place


@pytest.mark.parametrize(
    ("blocks", "chosen"),
    [
        ("all", (0, 1, 2, 3)),
        ("last:1", (3,)),
        ("last:2", (2, 3)),
        ("last:4", (0, 1, 2, 3)),
        ([0, 2], (0, 2)),
        ((2, 0, 2), (0, 2)),
        ([3], (3,)),
        ("global", (0, 1, 2, 3)),
    ],
)
def test_blocks_are_chosen_by_word_or_by_number(spec: BackboneSpec, blocks: Any, chosen: tuple[int, ...]) -> None:
    prompts, tokens = DeepPrompts(spec, count=3, blocks=blocks), no_tokens()

    contexts = [prompts.enter(i, tokens, None)[1] for i in range(DEPTH)]

    assert choose_blocks(blocks, spec) == chosen
    assert tuple(i for i, context in enumerate(contexts) if context is not None) == chosen
    given = [context for context in contexts if context is not None]
    assert all(torch.equal(context, row) for context, row in zip(given, prompts.table.tokens, strict=True))


@pytest.mark.parametrize(
    ("blocks", "chosen"),
    [("all", tuple(range(12))), ("global", (2, 5, 8, 11)), ("last:2", (10, 11)), ([0, 5], (0, 5))],
)
def test_global_chooses_the_blocks_that_have_no_windows(blocks: Any, chosen: tuple[int, ...]) -> None:
    prompts, tokens = DeepPrompts(SAM_B, count=2, blocks=blocks), no_tokens()

    contexts = [prompts.enter(i, tokens, None)[1] for i in range(SAM_B.depth)]

    assert choose_blocks(blocks, SAM_B) == chosen
    assert tuple(i for i, context in enumerate(contexts) if context is not None) == chosen
    given = [context for context in contexts if context is not None]
    assert all(torch.equal(context, row) for context, row in zip(given, prompts.table.tokens, strict=True))


def test_global_blocks_of_an_encoder_that_has_none_are_refused() -> None:
    with pytest.raises(VptError, match=r"prompts: blocks .*global"):
        DeepPrompts(plain_spec(**SAM_B_SHAPE, windowed=range(12)), blocks="global")


@pytest.mark.parametrize(
    "blocks", ["last:0", "last:5", "last:", "last:-1", "last:two", "last:²", "first:2", "", [], [4], [-1], [0, 9]]
)
def test_blocks_that_the_encoder_does_not_have_are_refused(spec: BackboneSpec, blocks: Any) -> None:
    with pytest.raises(
        VptError, match=r"prompts: blocks .*(expected all, global, last:K with K in 1\.\.4|not in 0\.\.3)"
    ):
        DeepPrompts(spec, blocks=blocks)


def test_deep_prompts_leave_the_tokens_as_they_are(spec: BackboneSpec) -> None:
    tokens = no_tokens()

    assert all(DeepPrompts(spec, count=3).enter(i, tokens, None)[0] is tokens for i in range(DEPTH))


def test_shallow_prompts_enter_once_and_travel(spec: BackboneSpec) -> None:
    prompts, tokens = ShallowPrompts(spec, count=3), no_tokens()

    entered, context = prompts.enter(0, tokens, None)

    assert context is None
    assert torch.equal(entered.prompts, prompts.table.tokens.expand(BATCH, -1, -1))
    assert all(prompts.enter(i, entered, None) == (entered, None) for i in range(1, DEPTH))


def no_tokens() -> Tokens:
    return Tokens(torch.zeros(BATCH, 4, 4, WIDTH), torch.zeros(BATCH, 1, WIDTH), torch.zeros(BATCH, 0, WIDTH))


# Dropout


def given(prompts: ShallowPrompts | DeepPrompts) -> Tensor:
    """What the prompts give to the first block: (P, C) or (B, P, C)."""
    tokens, context = prompts.enter(0, no_tokens(), None)
    return tokens.prompts if context is None else context


@pytest.mark.parametrize("method", ["shallow", "deep", "shallow_projected", "deep_projected"])
def test_dropout_is_drawn_for_each_sample_and_after_the_projection(spec: BackboneSpec, method: str) -> None:
    prompts = make_prompts(method, spec, count=50, dropout=0.25).train()

    dropped, whole = given(prompts), prompts.table.project(prompts.table.tokens[0])

    assert dropped.shape == (BATCH, 50, WIDTH)
    assert not torch.equal(dropped[0] == 0, dropped[1] == 0)
    share = (dropped == 0).float().mean().item()
    assert share == pytest.approx(0.25, abs=0.03)
    kept = dropped != 0
    assert torch.allclose(dropped[kept], (whole / 0.75).expand_as(dropped)[kept])
    assert not torch.equal(dropped, given(prompts))


@pytest.mark.parametrize("method", ["shallow", "deep"])
def test_dropout_is_absent_in_eval_mode(spec: BackboneSpec, method: str) -> None:
    prompts = make_prompts(method, spec, dropout=0.5).eval()

    assert torch.equal(given(prompts), given(prompts))
    assert torch.equal(given(prompts).expand(BATCH, -1, -1)[1], prompts.table.tokens[0])


@pytest.mark.parametrize("method", ["shallow", "deep"])
def test_dropout_makes_the_features_of_equal_images_differ_in_training_only(backbone: VitBackbone, method: str) -> None:
    prompts = make_prompts(method, backbone.spec, dropout=0.5)
    images = draw(backbone, batch=1).expand(2, -1, -1, -1)

    first, second = encode(backbone, prompts.train(), images).grid
    assert not torch.allclose(first, second, atol=1e-3)
    first, second = encode(backbone, prompts.eval(), images).grid
    assert torch.allclose(first, second, atol=1e-6)


# Batches


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_equals_its_images_one_by_one(backbone: VitBackbone, method: str) -> None:
    prompts, images = make_prompts(method, backbone.spec), draw(backbone, batch=5)

    with torch.no_grad():
        together = sequence(encode(backbone, prompts, images))
        alone = torch.cat([sequence(encode(backbone, prompts, image[None])) for image in images])

    assert (together - alone).abs().max() <= 1e-5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("order", [[4, 3, 2, 1, 0], [2, 0, 4, 1, 3]])
def test_permuting_the_batch_permutes_the_output(backbone: VitBackbone, method: str, order: Collection[int]) -> None:
    prompts, images = make_prompts(method, backbone.spec), draw(backbone, batch=5)

    with torch.no_grad():
        features = encode(backbone, prompts, images, levels=range(DEPTH))
        permuted = encode(backbone, prompts, images[list(order)], levels=range(DEPTH))

    assert (sequence(features)[list(order)] - sequence(permuted)).abs().max() <= 1e-5
    for before, after in zip(features.levels, permuted.levels, strict=True):
        assert (before[list(order)] - after).abs().max() <= 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_travelling_prompts_are_left_behind(backbone: VitBackbone, method: str) -> None:
    features = encode(backbone, make_prompts(method, backbone.spec), draw(backbone), levels=[1])

    assert features.grid.shape == (BATCH, WIDTH, 4, 4)
    assert features.prefix.shape == (BATCH, 1, WIDTH)
    assert features.levels[0].shape == (BATCH, WIDTH, 4, 4)


@pytest.mark.parametrize("count", [2.0, "3", None, True])
def test_a_count_that_is_no_whole_number_is_refused(spec: BackboneSpec, count: Any) -> None:
    with pytest.raises(VptError, match=f"prompts: count is {count!r}; expected a whole number"):
        DeepPrompts(spec, count=count)


def test_numbers_of_numpy_are_numbers(spec: BackboneSpec) -> None:
    assert DeepPrompts(spec, count=np.int64(3), blocks=np.array([1, 0])).starts == (0, 1)  # type: ignore[arg-type]
