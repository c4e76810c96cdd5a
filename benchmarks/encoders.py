"""A forward pass of Swin, Hiera and DINOv3 with deep prompts, beside timm's own and prompts as tokens of timm's blocks.

    python benchmarks/encoders.py
    python benchmarks/encoders.py --no-memory --cases swin

Random weights, no gradients, all rows of the last grid are needed. In the literal form prompts are tokens of every
window, and what becomes of them in a block is thrown away, as in the published forms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from models import CPU, draw, forward_pass, prompted
from products_alone import products_of
from timing import Case, Run, Variant, main, relative
from timm.models.hiera import Hiera
from torch import Tensor, nn

from vpt.machine.precision import autocast
from vpt.model import PromptedModel, encode
from vpt.prompts import DeepPrompts, Prompts

NAMES = {"swin": "swin_tiny_patch4_window7_224", "hiera": "hiera_tiny_224", "dinov3": "vit_small_patch16_dinov3"}
COUNT = 10
HALF = "bf16-mixed"
PRECISIONS = (("32-true", "", "float32"), (HALF, "_bf16", "bfloat16"))


class Encoder(nn.Module):
    """The encoder with prompts alone: images -> its last grid (B, C, h, w)."""

    def __init__(self, model: PromptedModel):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return encode(self.model.backbone, self.model.prompts, images).grid


class SwinAttention(nn.Module):
    """timm's windowed attention over windows (N, n, C) and prompts (P, C), which are tokens in front of each window."""

    def __init__(self, attention: Any, norm: nn.Module, prompts: Tensor):
        super().__init__()
        self.attention, self.norm, self.prompts = attention, norm, prompts

    def forward(self, windows: Tensor, mask: Tensor | None = None) -> Tensor:
        own, count, width = self.attention, len(self.prompts), windows.shape[-1]
        tokens = torch.cat([self.norm(self.prompts).expand(len(windows), -1, -1), windows], 1)
        qkv = own.qkv(tokens).reshape(*tokens.shape[:2], 3, own.num_heads, -1).permute(2, 0, 3, 1, 4)
        bias = F.pad(own._get_rel_pos_bias(), (count, 0, count, 0))
        if mask is not None:
            mask = F.pad(mask, (count, 0, count, 0)).repeat(len(windows) // len(mask), 1, 1)
            bias = bias + mask[:, None]
        mixed = F.scaled_dot_product_attention(*qkv.unbind(0), attn_mask=bias)
        return own.proj(mixed.transpose(1, 2).reshape(len(windows), -1, width))[:, count:]


class HieraAttention(nn.Module):
    """timm's attention in mask units over tokens (B, N, C), with prompts (P, C) as tokens of every unit."""

    def __init__(self, attention: Any, norm: nn.Module, prompts: Tensor):
        super().__init__()
        self.attention, self.norm, self.prompts = attention, norm, prompts
        self.q_stride = attention.q_stride  # which timm's block asks for

    def forward(self, tokens: Tensor) -> Tensor:
        own, (batch, number, width) = self.attention, tokens.shape
        units = number // (own.q_stride * own.window_size) if own.use_mask_unit_attn else 1
        beside = self.norm(self.prompts)[None, :, None].expand(batch, -1, units, -1)
        tokens = torch.cat([beside, tokens.view(batch, -1, units, width)], 1)
        qkv = own.qkv(tokens).unflatten(-1, (3, own.heads, -1)).permute(3, 0, 4, 2, 1, 5)  # (3, B, heads, units, n, d)
        queries, keys, values = qkv.unbind(0)
        queries = queries[..., len(self.prompts) :, :]
        if own.q_stride > 1:
            queries = queries.unflatten(3, (own.q_stride, -1)).amax(3)
        mixed = F.scaled_dot_product_attention(queries, keys, values)
        return own.proj(mixed.permute(0, 3, 2, 1, 4).reshape(batch, -1, own.dim_out))


class Literal(nn.Module):
    """timm's model with another attention in each block."""

    def __init__(self, model: PromptedModel, timms: Any, attention: Callable[..., nn.Module]):
        super().__init__()
        self.timms = timms
        for block, prompts in zip(blocks_of(timms), rows_of(model.prompts), strict=True):
            block.attn = attention(block.attn, block.norm1, prompts)

    def forward(self, images: Tensor) -> Tensor:
        return last_grid(self.timms, images)


class LiteralEva(nn.Module):
    """timm's blocks on the longer sequence; prompts are not turned, as its CLS token and registers are not."""

    def __init__(self, model: PromptedModel, timms: Any):
        super().__init__()
        self.timms, self.rows = timms, rows_of(model.prompts)

    def forward(self, images: Tensor) -> Tensor:
        eva, count = self.timms, len(self.rows[0])
        first = eva.num_prefix_tokens
        tokens, turns = eva._pos_embed(eva.patch_embed(images))
        for block, prompts in zip(eva.blocks, self.rows, strict=True):
            block.attn.num_prefix_tokens = first + count
            beside = prompts.expand(len(tokens), -1, -1)
            tokens = block(torch.cat([tokens[:, :first], beside, tokens[:, first:]], 1), rope=turns)
            tokens = torch.cat([tokens[:, :first], tokens[:, first + count :]], 1)
        rows, columns = eva.patch_embed.dynamic_feat_size(images.shape[-2:])
        return eva.norm(tokens)[:, first:].transpose(1, 2).unflatten(2, (rows, columns))


def blocks_of(timms: Any) -> list[Any]:
    stages = getattr(timms, "layers", None)
    return list(timms.blocks) if stages is None else [block for stage in stages for block in stage.blocks]


def rows_of(prompts: Prompts) -> Sequence[Tensor]:
    """Prompts (P, C) of each block."""
    assert isinstance(prompts, DeepPrompts)
    return [prompts.table.row(row, 1).detach() for row in range(len(prompts.table.widths))]


def last_grid(timms: Any, images: Tensor) -> Tensor:
    """What timm's model gives before its pooling, (B, C, h, w)."""
    return timms.forward_intermediates(images, indices=1, norm=not isinstance(timms, Hiera))[1][-1]


def timms_own(name: str) -> Any:
    """timm's model, in its native size, with the weights of `prompted`."""
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model: Any = timm.create_model(name, pretrained=False, num_classes=0)
    return model.eval()


class Timm(nn.Module):
    def __init__(self, timms: Any):
        super().__init__()
        self.timms = timms

    def forward(self, images: Tensor) -> Tensor:
        return last_grid(self.timms, images)


def literal(kind: str, px: int) -> nn.Module:
    model, timms = prompted(NAMES[kind], px, COUNT, pool="mean"), timms_own(NAMES[kind])
    if kind == "dinov3":
        return LiteralEva(model, timms)
    return Literal(model, timms, SwinAttention if kind == "swin" else HieraAttention)


def encoder(name: str, px: int, count: int, precision: Any = "32-true") -> Encoder:
    return Encoder(prompted(name, px, count, pool="mean", precision=precision).eval())


def variants(kind: str, images: Tensor, px: int) -> dict[str, Variant]:
    name = NAMES[kind]

    def ours(precision: str, count: int) -> Callable[[], Run]:
        return lambda: forward_pass(encoder(name, px, count, precision), images, precision)

    def timms(precision: str) -> Callable[[], Run]:
        return lambda: forward_pass(Timm(timms_own(name)), images, precision)

    def concatenated(precision: str) -> Callable[[], Run]:
        return lambda: forward_pass(literal(kind, px), images, precision)

    found: dict[str, Variant] = {}
    for precision, end, dtype in PRECISIONS:
        each = {
            "timm": (f"timm's own, no prompts, {dtype}", timms(precision)),
            "unprompted": (f"here, no prompts, {dtype}", ours(precision, 0)),
            "literal": (f"prompts concatenated in timm's blocks, {dtype}", concatenated(precision)),
            "ours": (f"keys and values, {dtype}", ours(precision, COUNT)),
        }
        found |= {
            f"{key}{end}": Variant(label, build, precision=precision, same_flops=key)
            for key, (label, build) in each.items()
        }
    alone = "the products of keys and values alone, bfloat16"
    found["products_bf16"] = Variant(
        alone, lambda: products_of(ours(HALF, COUNT)()), precision=HALF, same_flops="ours", memory=False
    )
    return found


def case(kind: str, batch: int, px: int) -> Case:
    name, (images, _) = NAMES[kind], draw(batch, px)

    def checks() -> dict[str, float]:
        with torch.inference_mode():
            prompted_forms = encoder(name, px, COUNT).eval()(images)
            with autocast(HALF, CPU):
                halved = encoder(name, px, COUNT, HALF).eval()(images)
            return {
                "no prompts": relative(encoder(name, px, 0).eval()(images), Timm(timms_own(name))(images)),
                "literal": relative(prompted_forms, literal(kind, px).eval()(images)),
                "bfloat16": relative(halved.float(), prompted_forms),
            }

    spec = prompted(name, px, 0, pool="mean").backbone.spec
    widest = max(spec.blocks, key=lambda block: block.width * block.grid[0] * block.grid[1])
    return Case(
        title=f"Forward: {name}, {px} px, batch {batch}, P = {COUNT} in every block",
        variants=variants(kind, images, px),
        base="timm",
        layer=(batch * widest.grid[0] * widest.grid[1], widest.width),
        checks=checks,
        settings={"backbone": name, "image": px, "batch": batch, "prompts": COUNT},
    )


def cases(quick: bool) -> dict[str, Case]:
    batch = 1 if quick else 8
    return {"swin": case("swin", batch, 224), "hiera": case("hiera", batch, 224), "dinov3": case("dinov3", batch, 256)}


if __name__ == "__main__":
    main("encoders", cases)
