"""Prompts as keys and values only equal the published, literal form: concatenated, and their outputs thrown away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.layers import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor

from vpt.backbones.attention import attend, keys_and_values
from vpt.backbones.tokens import KeysValues, Tokens
from vpt.backbones.vit import VitBackbone

BATCH, GRID, PREFIX, PROMPTS, WIDTH = 3, (4, 4), 1, 5, 32

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "qk_norm": {"qk_norm": True},
    "no_bias": {"qkv_bias": False},
    "layer_scale": {"init_values": 0.5},
    "scale_norms": {"scale_attn_norm": True, "scale_mlp_norm": True},
    "all": {"qk_norm": True, "qkv_bias": False, "init_values": 0.5, "scale_attn_norm": True},
}
SHAPES = {"shared": (PROMPTS, WIDTH), "per_sample": (BATCH, PROMPTS, WIDTH), "one": (1, WIDTH)}
PRECISIONS = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=["float32", "float64"]
)


def tiny_backbone(dtype: torch.dtype = torch.float32, noise: float = 0.2, **options: Any) -> VitBackbone:
    """One block, every tensor of it random, so that no zero bias and no unit gain hides a mistake."""
    torch.manual_seed(0)
    vit = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=WIDTH, depth=1, num_heads=4, num_classes=0, **options
    ).to(dtype)
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return VitBackbone(vit, name="tiny", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), sha256="").requires_grad_(False)


def draw(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Input tokens (B, N, C), context of `shape`, and a direction (B, N, C) to differentiate along."""
    torch.manual_seed(1)
    count = PREFIX + GRID[0] * GRID[1]
    inputs, along = torch.randn(2, BATCH, count, WIDTH, dtype=dtype)
    return inputs.clone().requires_grad_(), torch.randn(shape, dtype=dtype).requires_grad_(), along


def through_the_backbone(backbone: VitBackbone, inputs: Tensor, context: Tensor) -> Tensor:
    prefix, grid = inputs.split([PREFIX, GRID[0] * GRID[1]], dim=1)
    tokens = Tokens(grid.unflatten(1, GRID), prefix, inputs.new_empty(BATCH, 0, WIDTH))
    left = backbone.block(0, tokens, context)
    assert left.prompts.shape[1] == 0
    return torch.cat([left.prefix, left.grid.flatten(1, 2)], dim=1)


def concatenated(block: Block | Attention, inputs: Tensor, context: Tensor) -> Tensor:
    """The published form: prompts beside the tokens, timm's own block over all, the prompts' outputs cut away."""
    prompts = context.expand(len(inputs), -1, -1)
    return block(torch.cat([inputs[:, :PREFIX], prompts, inputs[:, PREFIX:]], dim=1))[
        :, [0, *range(PREFIX + prompts.shape[1], inputs.shape[1] + prompts.shape[1])]
    ]


def results(run: Callable[[Tensor, Tensor], Tensor], inputs: Tensor, context: Tensor, along: Tensor) -> list[Tensor]:
    """Output, gradient of the input tokens, gradient of the prompts."""
    output = run(inputs, context)
    return [output.detach(), *torch.autograd.grad((output * along).sum(), (inputs, context))]


def worst(ours: list[Tensor], theirs: list[Tensor]) -> list[float]:
    """Largest difference of each pair, relative to the larger of 1 and the largest value."""
    return [((a - b).abs().max() / b.abs().max().clamp(min=1)).item() for a, b in zip(ours, theirs, strict=True)]


@PRECISIONS
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_block_with_context_equals_the_concatenated_form(
    variant: str, shape: tuple[int, ...], dtype: torch.dtype, tolerance: float
) -> None:
    backbone = tiny_backbone(dtype, **VARIANTS[variant])
    inputs, context, along = draw(shape, dtype)

    ours = results(lambda x, p: through_the_backbone(backbone, x, p), inputs, context, along)
    published = results(lambda x, p: concatenated(backbone.vit.blocks[0], x, p), inputs, context, along)

    assert max(worst(ours, published)) <= tolerance
    assert ours[2].shape == shape
    assert published[2].abs().max() > 1e-3  # the prompts matter, so that equality says something


@PRECISIONS
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("head_dim", [None, 16])
def test_attend_equals_timms_attention_over_the_concatenation(
    gated: bool, head_dim: int | None, dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    attention = Attention(WIDTH, num_heads=4, attn_head_dim=head_dim, qkv_bias=True, gated=gated).to(dtype).eval()
    torch.nn.init.normal_(attention.qkv.bias)
    inputs, context, along = draw(SHAPES["shared"], dtype)

    ours = results(
        lambda x, p: attend(
            attention, x, KeysValues(*keys_and_values(attention.qkv, 4, p, attention.k_norm)), x.shape[1]
        ),
        inputs,
        context,
        along,
    )
    published = results(lambda x, p: concatenated(attention, x, p), inputs, context, along)

    assert max(worst(ours, published)) <= tolerance


def test_training_keeps_queries_keys_and_values_once() -> None:
    """Beside a context, keys and values are copied; the projection that they come from is not kept as well."""
    backbone, (inputs, context, _) = tiny_backbone(), draw(SHAPES["shared"])
    own = {parameter.untyped_storage().data_ptr() for parameter in backbone.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        left = through_the_backbone(backbone, inputs, context)

    one = inputs.numel() * inputs.element_size()
    beside = 2 * BATCH * PROMPTS * WIDTH * inputs.element_size()
    # two norms' inputs, queries, keys, values, the mixed values, four widths before GELU; statistics and the context
    assert left.shape == inputs.shape
    assert 3 * one not in kept.values()
    assert sum(kept.values()) <= 10 * one + beside + 0.6 * one


def test_the_plain_form_of_timms_attention_gives_the_same() -> None:
    backbone = tiny_backbone()
    inputs, context, along = draw(SHAPES["shared"])
    ours = results(lambda x, p: through_the_backbone(backbone, x, p), inputs, context, along)

    backbone.vit.blocks[0].attn.fused_attn = False
    plain = results(lambda x, p: concatenated(backbone.vit.blocks[0], x, p), inputs, context, along)

    assert max(worst(ours, plain)) <= 1e-5


def test_the_order_of_the_prompts_changes_nothing_and_their_values_do() -> None:
    backbone = tiny_backbone()
    inputs, context, _ = draw(SHAPES["shared"])
    output = through_the_backbone(backbone, inputs, context)

    assert torch.allclose(through_the_backbone(backbone, inputs, context.flip(0)), output, atol=1e-5)
    assert not torch.allclose(through_the_backbone(backbone, inputs, torch.randn(PROMPTS, WIDTH)), output, atol=1e-2)


def test_a_shared_context_is_the_same_context_for_every_sample() -> None:
    backbone = tiny_backbone()
    inputs, context, _ = draw(SHAPES["shared"])

    shared = through_the_backbone(backbone, inputs, context)
    copied = through_the_backbone(backbone, inputs, context.expand(BATCH, -1, -1))

    assert torch.allclose(shared, copied, atol=1e-6)


def test_context_and_travelling_prompts_may_meet_in_one_block() -> None:
    backbone = tiny_backbone()
    inputs, context, _ = draw(SHAPES["shared"])
    prefix, grid = inputs.split([PREFIX, GRID[0] * GRID[1]], dim=1)
    travelling = torch.randn(BATCH, 2, WIDTH)

    left = backbone.block(0, Tokens(grid.unflatten(1, GRID), prefix, travelling), context)

    whole = torch.cat([prefix, travelling, context.expand(BATCH, -1, -1), grid], dim=1)
    published = backbone.vit.blocks[0](whole)
    assert torch.allclose(left.prompts, published[:, PREFIX : PREFIX + 2], atol=1e-5)
    assert torch.allclose(left.grid.flatten(1, 2), published[:, PREFIX + 2 + PROMPTS :], atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_bfloat16_points_the_gradients_the_same_way(variant: str) -> None:
    backbone = tiny_backbone(noise=0.1, **VARIANTS[variant])
    inputs, context, along = draw(SHAPES["shared"])

    def mixed(x: Tensor, p: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return through_the_backbone(backbone, x, p).float()

    exact = results(lambda x, p: through_the_backbone(backbone, x, p), inputs, context, along)
    rounded = results(mixed, inputs, context, along)

    for theirs, ours in zip(exact, rounded, strict=True):
        assert torch.cosine_similarity(theirs.flatten(), ours.flatten(), dim=0) >= 0.9998
