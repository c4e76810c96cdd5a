"""Small encoders of both families, images for them, and what the tests of prompts, heads and adapters share."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from segment_anything.modeling import ImageEncoderViT
from timm.models.eva import Eva
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from vpt.backbones.attention import attend, attend_apart
from vpt.backbones.base import Backbone, BackboneSpec, BlockAttention, BlockSpec, Level, no_place, uniform_blocks
from vpt.backbones.eva import EvaBackbone
from vpt.backbones.sam import SamBackbone
from vpt.backbones.sam_attention import Arithmetic
from vpt.backbones.tokens import Context, Features, Keep, KeysValues, SeparateContext, Tokens
from vpt.backbones.vit import VitBackbone
from vpt.heads import ClassifyHead
from vpt.model import PromptedModel
from vpt.prompts import DeepPrompts, Prompts
from vpt.sections import TUNINGS

WIDTH, DEPTH, NECK, GRID = 32, 4, 16, (8, 5)
FAMILIES = ("vit", "sam", "eva")
PREPROCESSING: dict[str, Any] = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "sha256": ""}
_SIZE: dict[str, Any] = {"patch_size": 8, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": 2}
VIT = _SIZE | {"img_size": (64, 40), "num_classes": 0}
EVA: dict[str, Any] = VIT | {  # as DINOv3
    "class_token": True,
    "num_reg_tokens": 2,
    "use_abs_pos_emb": False,
    "use_rot_pos_emb": True,
    "rope_type": "dinov3",
    "init_values": 0.5,
    "global_pool": "token",
}
SAM = _SIZE | {
    "img_size": 64,
    "use_rel_pos": True,
    "window_size": 3,
    "global_attn_indexes": (1, 3),
    "out_chans": NECK,
}


def plain_spec(
    *,
    width: int = 768,
    depth: int = 12,
    heads: int = 12,
    image_size: tuple[int, int] = (224, 224),
    patch: tuple[int, int] = (16, 16),
    windowed: Collection[int] = (),
    neck: int | None = None,
    **more: Any,
) -> BackboneSpec:
    """Of an encoder whose blocks are alike; by default of ViT-B/16."""
    grid = (image_size[0] // patch[0], image_size[1] // patch[1])
    return BackboneSpec(
        **{"name": "vit_base_patch16_224", "prefix": 1, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)} | more,
        image_size=image_size,
        patch=patch,
        blocks=uniform_blocks(depth, width, heads, grid, windowed),
        finished=Level(neck or width, grid),
    )


VIT_B16 = plain_spec()


class Stages(Backbone):
    """A frozen encoder of two stages for images of 64 x 32 pixels, whose every tensor is random.

    Blocks: convolutions of width 16 on 8 x 4 patches; attention there, which ends with a merging of 2 x 2 patches into
    one of width 32; two of attention on 4 x 2. No CLS token.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 16, 8, stride=8)
        self.convolution = nn.Conv2d(16, 16, 3, padding=1)
        self.blocks = nn.ModuleList([Block(16, 2), Block(32, 4), Block(32, 4)])
        self.merge = nn.Conv2d(16, 32, 2, stride=2)
        self.norm = nn.LayerNorm(32)
        _randomise(self)
        fine, coarse = (8, 4), (4, 2)
        blocks = (
            BlockSpec(16, 1, fine, attends=False),
            BlockSpec(16, 2, fine),
            BlockSpec(32, 4, coarse),
            BlockSpec(32, 4, coarse),
        )
        half = (0.5, 0.5, 0.5)
        self.spec = BackboneSpec("stages", (64, 32), (8, 8), 0, half, half, blocks, Level(32, coarse))
        self.sha256 = ""
        self.requires_grad_(False).eval()

    def embed(self, images: Tensor) -> Tokens:
        grid = self.stem(images).permute(0, 2, 3, 1)
        none = grid.new_empty(len(grid), 0, grid.shape[-1])
        return Tokens(grid, none, none)

    def block(self, i: int, tokens: Tokens, context: Context | None, keep: Keep = "all") -> Tokens:
        if i == 0:
            if context is not None:
                raise no_place(self.spec, 0)
            mixed = self.convolution(tokens.grid.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            return replace(tokens, grid=tokens.grid + mixed)
        block: Any = self.blocks[i - 1]
        rows, columns = tokens.grid.shape[1:3]
        sequence = tokens.grid.flatten(1, 2)
        beside = self.project(i, context) if isinstance(context, Tensor) else context
        given = beside if isinstance(beside, KeysValues) else None
        sequence = sequence + attend(block.attn, block.norm1(sequence), given, rows * columns)
        if isinstance(beside, SeparateContext):
            sequence = sequence + attend_apart(block.attn, block.norm1(sequence), block.norm1(beside.prompts))
        grid = (sequence + block.mlp(block.norm2(sequence))).unflatten(1, (rows, columns))
        if i > 1:
            return replace(tokens, grid=grid)
        merged = self.merge(grid.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        none = merged.new_empty(len(merged), 0, 32)
        return Tokens(merged, none, none)

    def attention_of(self, i: int) -> BlockAttention:
        if i == 0:
            raise no_place(self.spec, 0)
        block: Any = self.blocks[i - 1]
        return BlockAttention(block.norm1, block.attn.qkv, block.attn.num_heads, block.attn.k_norm)

    def finish(self, tokens: Tokens) -> Features:
        return Features(self.norm(tokens.grid).permute(0, 3, 1, 2), tokens.prefix)


class Saved(torch.autograd.graph.saved_tensors_hooks):
    """Every tensor that is kept for the backward pass."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        super().__init__(self._keep, lambda tensor: tensor)

    def _keep(self, tensor: Tensor) -> Tensor:
        self.tensors.append(tensor)
        return tensor


def make_vit(**options: Any) -> VitBackbone:
    """A frozen ViT for images of 64 x 40 pixels, whose every tensor is random."""
    torch.manual_seed(0)
    encoder = VisionTransformer(**(VIT | options))
    _randomise(encoder)
    return VitBackbone(encoder, name="tiny", **PREPROCESSING).requires_grad_(False)


def make_eva(**options: Any) -> EvaBackbone:
    """A frozen Eva for images of 64 x 40 pixels, whose every tensor is random."""
    torch.manual_seed(0)
    encoder = Eva(**(EVA | options))
    _randomise(encoder)
    return EvaBackbone(encoder, name="tiny", **PREPROCESSING).requires_grad_(False)


def make_sam(attention: Arithmetic = "original") -> SamBackbone:
    """A frozen encoder of SAM for images of 64 x 40 pixels, whose every tensor is random."""
    torch.manual_seed(0)
    encoder = ImageEncoderViT(**SAM)
    _randomise(encoder)
    return wrap_sam(encoder, (64, 40), attention)


def make_backbone(family: str) -> Backbone:
    """A frozen encoder of 8 x 5 patches."""
    return {"vit": make_vit, "sam": make_sam, "eva": make_eva}[family]()


def wrap_sam(encoder: ImageEncoderViT, image_size: tuple[int, int], attention: Arithmetic = "original") -> SamBackbone:
    """The adapter over that encoder, frozen, without a decoder."""
    backbone = SamBackbone(
        encoder, None, name="tiny", padding="corner", image_size=image_size, attention=attention, **PREPROCESSING
    )
    return backbone.requires_grad_(False)


def _randomise(encoder: nn.Module) -> None:
    """No zero bias and no unit gain hides a mistake."""
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


def tune(model: PromptedModel, method: str, **settings: Any) -> PromptedModel:
    """The model, tuned as a config's section of that name says."""
    TUNINGS.section(method)(**settings).apply(model)
    return model


def assert_controls_start_as_nothing(make: Callable[[], Backbone]) -> None:
    """Each way to tune an encoder leaves its answers as they are at first, and then learns."""
    for method in ("ssf", "adapter", "bias", "partial", "full"):
        own = make()
        model = PromptedModel(own, Prompts(), ClassifyHead(own.spec, outputs=3)).eval()
        before = model(draw(2)).detach()
        model = tune(model, method)
        torch.testing.assert_close(model(draw(2)), before, rtol=1e-4, atol=1e-5)
        model(draw(2)).sum().backward()
        assert sum(p.grad is not None and bool(p.grad.abs().sum()) for p in model.trained().values()) > 2, method


def assert_gradients_reach_prompts_alone(backbone: Backbone) -> None:
    """Every deep prompt gets a gradient, and no frozen weight."""
    prompts = DeepPrompts(backbone.spec, count=2)
    PromptedModel(backbone, prompts, ClassifyHead(backbone.spec, outputs=3))(draw(2)).square().sum().backward()
    assert (prompts.table.tokens.grad.abs().sum(-1) > 0).all()
    assert all(parameter.grad is None for parameter in backbone.parameters())


def draw(batch: int, size: tuple[int, int] = (64, 40), seed: int = 1) -> Tensor:
    """Images (batch, 3, *size) of noise."""
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


def shaken(module: Any, amount: float = 0.3) -> Any:
    """The module, as if trained: nothing is at its start."""
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(amount * torch.randn_like(parameter))
    return module


def windowed(spec: BackboneSpec) -> tuple[int, ...]:
    """The blocks that attend within windows."""
    return tuple(i for i, block in enumerate(spec.blocks) if block.windowed)


def flat(features: Features) -> Tensor:
    """Features -> (B, all of them)."""
    return torch.cat([features.grid.flatten(1), features.prefix.flatten(1)], dim=1)


def total(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def table(relative: Tensor, size: int) -> Tensor:
    """A table of relative positions (L, d) -> (2 * size - 1, d), linearly as the original resizes it."""
    return F.interpolate(relative.T[None], size=2 * size - 1, mode="linear")[0].T


def literal_attention(attention: Any, patches: Tensor, beside: Tensor) -> tuple[Tensor, Tensor]:
    """One window (H, W, C) and tokens beside it (E, C), all attending to all; only pairs of patches have a bias."""
    height, width, _ = patches.shape
    count = height * width
    tokens = torch.cat([patches.flatten(0, 1), beside])
    gathered = []
    queries, keys, values = attention.qkv(tokens).chunk(3, dim=-1)
    for q, k, v in zip(*(part.chunk(attention.num_heads, -1) for part in (queries, keys, values)), strict=True):
        scores = q @ k.T / q.shape[-1] ** 0.5
        if attention.use_rel_pos:
            row, column = torch.arange(count) // width, torch.arange(count) % width
            rows = table(attention.rel_pos_h, height)[row[:, None] - row + height - 1]
            columns = table(attention.rel_pos_w, width)[column[:, None] - column + width - 1]
            bias = (q[:count, None] * (rows + columns)).sum(-1)
            scores = scores + F.pad(bias, (0, len(beside), 0, len(beside)))
        gathered.append(scores.softmax(-1) @ v)
    mixed = attention.proj(torch.cat(gathered, -1))
    return mixed[:count].view_as(patches), mixed[count:]
