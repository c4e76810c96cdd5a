"""SAM ViT-B's image encoder here beside segment-anything's own: forward passes, and steps of deep prompts.

    python benchmarks/sam.py                        # 256, 512 and 1024 px
    python benchmarks/sam.py --mended               # glibc told to keep its memory, for both
    python benchmarks/sam.py --cases forward_1024   # one case

Random weights, batch 1. "Original" is `segment_anything`'s module itself in forward passes; in steps its own arithmetic
with the prompts as keys and values in every block (`literal.sam_with_prompts`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from cached_prefix import reader, stored_tokens
from literal import sam_with_prompts
from timing import CPU, Case, Run, Variant, cosine, main, relative
from torch import Tensor

from vpt.backbones import load_backbone
from vpt.backbones.base import Backbone
from vpt.backbones.tokens import Tokens
from vpt.machine.precision import autocast, prepare_frozen
from vpt.model import Below, encode, encode_from, frozen_below
from vpt.prompts import DeepPrompts, Prompts

HALF = "bf16-mixed"
PRECISIONS = (("32-true", "", "float32"), (HALF, "_bf16", "bfloat16"))
LAST = 3


def encoder(name: str, px: int, precision: Any = None) -> Backbone:
    """Of a baseline as it was loaded (`precision` None), else prepared as `vpt train` prepares it."""
    backbone = load_backbone(name, weights="random", image_size=px)
    if precision:
        prepare_frozen(backbone, precision)
    return backbone


def draw(px: int) -> Tensor:
    return torch.randn(1, 3, px, px, generator=torch.Generator().manual_seed(1))


def original_forward(name: str, px: int, precision: Any) -> Run:
    own: Any = encoder(name, px).encoder
    images = draw(px)

    def run() -> Tensor:
        with torch.inference_mode(), autocast(precision, CPU):
            return own(images)

    return run


def forward(name: str, px: int, precision: Any) -> Run:
    backbone, images = encoder(name, px, precision), draw(px)

    def run() -> Tensor:
        with torch.inference_mode(), autocast(precision, CPU):
            return encode(backbone, Prompts(), images).grid

    return run


def prompts_for(backbone: Backbone, count: int, blocks: str = "all") -> tuple[DeepPrompts, Tensor]:
    """The same prompts every time, and the weights of the features whose sum is differentiated.

    Not the features' mean square, which the last norm makes constant.
    """
    torch.manual_seed(0)
    spec = backbone.spec
    return DeepPrompts(spec, count=count, blocks=blocks), torch.randn(1, spec.finished.width, *spec.finished.grid)


def differentiate(features: Callable[[], Tensor], prompts: DeepPrompts, weights: Tensor, precision: Any) -> Run:
    """Forward and backward of the weighted sum of the features -> the prompts' gradient."""

    def run() -> Tensor:
        prompts.zero_grad(set_to_none=True)
        with autocast(precision, CPU):
            grid = features()
        (grid.float() * weights).sum().backward()
        gradient = prompts.table.tokens.grad
        assert gradient is not None
        return gradient

    return run


def original_step(name: str, px: int, count: int, precision: Any = "32-true") -> Run:
    backbone, images = encoder(name, px), draw(px)
    own: Any = backbone
    prompts, weights = prompts_for(backbone, count)
    return differentiate(
        lambda: sam_with_prompts(own.encoder, prompts.table.tokens, images), prompts, weights, precision
    )


def step(name: str, px: int, count: int, precision: Any, *, blocks: str = "all", checkpointing: bool = False) -> Run:
    backbone, images = encoder(name, px, precision), draw(px)
    prompts, weights = prompts_for(backbone, count, blocks)

    def features() -> Tensor:
        return encode(backbone, prompts, images, checkpointing=checkpointing).grid

    return differentiate(features, prompts, weights, precision)


def cached_step(name: str, px: int, count: int, precision: Any, copies: int) -> Run:
    """Of prompts in the last blocks, over tokens (1, h, w, C) read from a file of so many images."""
    exact, backbone = encoder(name, px), encoder(name, px, precision)
    first = exact.spec.depth - LAST
    prompts, weights = prompts_for(backbone, count, f"last:{LAST}")
    read = reader(stored_tokens(frozen_below(first, exact, draw(px)).tokens.grid, copies, f"{name}{px}"), 1)

    def features() -> Tensor:
        tokens = read().float()
        entering = Tokens(tokens, tokens[:, 0, :0], tokens[:, 0, :0])
        return encode_from(Below(first, entering), backbone, prompts, None).grid

    return differentiate(features, prompts, weights, precision)


def forward_case(name: str, px: int) -> Case:
    variants: dict[str, Variant] = {}
    for form, label, build in (
        ("original", "segment-anything's own", original_forward),
        ("ours", "here, no prompts", forward),
    ):
        for precision, end, dtype in PRECISIONS:
            variants[f"{form}{end}"] = Variant(
                f"{label}, {dtype}",
                lambda build=build, precision=precision: build(name, px, precision),
                precision,
                form,
            )

    def checks() -> dict[str, float]:
        expected = original_forward(name, px, "32-true")().clone()
        found = {
            "float32 features": relative(forward(name, px, "32-true")(), expected),
            "bfloat16 features cosine": cosine(forward(name, px, HALF)(), expected),
            "bfloat16 features cosine of the original": cosine(original_forward(name, px, HALF)(), expected),
        }
        if px <= 256:
            double = encoder(name, px).double()
            with torch.inference_mode():
                images = draw(px).double()
                found["float64 features"] = relative(encode(double, Prompts(), images).grid, double.encoder(images))
        return found

    return make_case("SAM forward", name, px, 0, variants, checks, tuple(variants))


def step_case(name: str, px: int, count: int, copies: int) -> Case:
    late = {"blocks": f"last:{LAST}"}
    variants = {
        "original": Variant("original arithmetic, float32", lambda: original_step(name, px, count)),
        "original_bf16": Variant(
            "original arithmetic under autocast, bfloat16",
            lambda: original_step(name, px, count, HALF),
            HALF,
            "original",
        ),
    }
    for precision, end, dtype in PRECISIONS:
        forms: tuple[tuple[str, str, Callable[..., Run]], ...] = (
            ("ours", "here", partial(step, name, px, count, precision)),
            ("ours_checkpointed", "here, checkpointed", partial(step, name, px, count, precision, checkpointing=True)),
            ("late", f"last {LAST} blocks, recomputed", partial(step, name, px, count, precision, **late)),
            ("cached", f"last {LAST} blocks, cached prefix", partial(cached_step, name, px, count, precision, copies)),
        )
        for form, label, build in forms:
            variants[f"{form}{end}"] = Variant(f"{label}, {dtype}", build, precision, form)

    def checks() -> dict[str, float]:
        expected = variants["original"].build()().clone()
        late_expected = variants["late"].build()().clone()
        return {
            "float32 gradient": relative(variants["ours"].build()(), expected),
            "bfloat16 gradient cosine": cosine(variants["ours_bf16"].build()(), expected),
            "bfloat16 gradient cosine, cached": cosine(variants["cached_bf16"].build()(), late_expected),
            "bfloat16 gradient cosine of the original": cosine(variants["original_bf16"].build()(), expected),
        }

    return make_case("SAM step", name, px, count, variants, checks, ("original", "ours", "ours_bf16", "cached_bf16"))


def make_case(
    what: str,
    name: str,
    px: int,
    count: int,
    variants: dict[str, Variant],
    checks: Callable[[], dict[str, float]],
    mended: tuple[str, ...],
) -> Case:
    patch, width = (8, 128) if name == "sam_micro" else (16, 768)
    settings: dict[str, Any] = {"backbone": name, "image": px, "batch": 1}
    return Case(
        title=f"{what}: {name}, {px} px, batch 1{f', P = {count}' if count else ''}",
        variants=variants,
        base="original",
        layer=((px // patch) ** 2, width),
        checks=checks,
        mended=mended,
        settings=settings | ({"prompts": count} if count else {}),
    )


def cases(quick: bool) -> dict[str, Case]:
    if quick:
        return {"forward": forward_case("sam_micro", 128), "step": step_case("sam_micro", 128, 10, 8)}
    forwards = {f"forward_{px}": forward_case("sam_vit_b", px) for px in (256, 512, 1024)}
    return forwards | {f"step_{px}": step_case("sam_vit_b", px, 10, 16) for px in (512, 1024)}


if __name__ == "__main__":
    main("sam", cases)
