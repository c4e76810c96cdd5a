"""SAM ViT-B's image encoder here beside segment-anything's own: forward passes, and steps of deep prompts.

    python benchmarks/sam.py                        # 256, 512 and 1024 px
    python benchmarks/sam.py --mended               # glibc told to keep its memory, for both
    python benchmarks/sam.py --cases forward_1024   # one case

Random weights, batch 1. "Original" is `segment_anything`'s module itself in forward passes; in steps its own arithmetic
with the prompts as keys and values in every block, since its relative positions leave no room to concatenate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from cached_prefix import reader, stored_tokens
from timing import CPU, Case, Run, Variant, cosine, main, relative
from torch import Tensor

from vpt.backbones import load_backbone
from vpt.backbones.base import Backbone, Tokens
from vpt.model import encode, encode_from, frozen_prefix
from vpt.precision import autocast, halve_frozen
from vpt.prompts import DeepPrompts, Prompts

HALF = "bf16-mixed"
PRECISIONS = (("32-true", "", "float32"), (HALF, "_bf16", "bfloat16"))
LAST = 3


def encoder(name: str, px: int, attention: Any = "fused", precision: Any = "32-true") -> Backbone:
    backbone = load_backbone(name, weights="random", image_size=px, attention=attention)
    halve_frozen(backbone, precision)
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
    backbone, images = encoder(name, px, precision=precision), draw(px)

    def run() -> Tensor:
        with torch.inference_mode(), autocast(precision, CPU):
            return encode(backbone, Prompts(), images).grid

    return run


def step(
    backbone: Backbone,
    count: int,
    precision: Any,
    *,
    blocks: str = "all",
    checkpointing: bool = False,
    read: Callable[[], Tensor] | None = None,
) -> Run:
    """Forward and backward of a weighted sum of the features -> the prompts' gradient.

    read: gives tokens (1, h, w, C) that enter the first prompted block; without it the images are encoded whole.
    """
    spec = backbone.spec
    images = draw(spec.image_size[0])
    torch.manual_seed(0)
    prompts = DeepPrompts(spec, count=count, blocks=blocks)
    weights = torch.randn(1, spec.neck or spec.width, *spec.grid)

    def run() -> Tensor:
        prompts.zero_grad(set_to_none=True)
        with autocast(precision, CPU):
            if read is None:
                grid = encode(backbone, prompts, images, checkpointing=checkpointing).grid
            else:
                tokens = read().float()
                entering = Tokens(tokens, tokens[:, 0, :0], tokens[:, 0, :0])
                grid = encode_from(prompts.first(spec.depth), backbone, prompts, entering).grid
        (grid.float() * weights).sum().backward()  # not its mean square, which the last norm makes constant
        gradient = prompts.table.tokens.grad
        assert gradient is not None
        return gradient

    return run


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
    def whole(attention: str, precision: Any, **more: Any) -> Callable[[], Run]:
        return lambda: step(encoder(name, px, attention, precision), count, precision, **more)

    def cached(precision: Any) -> Callable[[], Run]:
        def build() -> Run:
            exact = encoder(name, px)
            tokens = frozen_prefix(exact.spec.depth - LAST, exact, draw(px)).grid
            path = stored_tokens(tokens, copies, f"{name}{px}")
            backbone = encoder(name, px, precision=precision)
            return step(backbone, count, precision, blocks=f"last:{LAST}", read=reader(path, 1))

        return build

    late = {"blocks": f"last:{LAST}"}
    variants = {"original": Variant("original arithmetic, float32", whole("original", "32-true"))}
    for precision, end, dtype in PRECISIONS:
        for form, label, build in (
            ("ours", "here", whole("fused", precision)),
            ("ours_checkpointed", "here, checkpointed", whole("fused", precision, checkpointing=True)),
            ("late", f"last {LAST} blocks, recomputed", whole("fused", precision, **late)),
            ("cached", f"last {LAST} blocks, cached prefix", cached(precision)),
        ):
            variants[f"{form}{end}"] = Variant(f"{label}, {dtype}", build, precision, form)

    def checks() -> dict[str, float]:
        expected = variants["original"].build()().clone()
        late_expected = variants["late"].build()().clone()
        found = {
            "float32 gradient": relative(variants["ours"].build()(), expected),
            "bfloat16 gradient cosine": cosine(variants["ours_bf16"].build()(), expected),
            "bfloat16 gradient cosine, cached": cosine(variants["cached_bf16"].build()(), late_expected),
        }
        return found

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
