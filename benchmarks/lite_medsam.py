"""LiteMedSAM's image encoder here beside timm's own modules: forward passes, and steps of deep prompts.

    python benchmarks/lite_medsam.py                   # 256 px
    python benchmarks/lite_medsam.py --cases forward   # one case

The published weights where the extra lite-medsam is installed, else random ones, batch 1. "Original" is timm's modules
in float32, batch norms and all. Stored tokens are those that enter the first block with prompts, read from a file.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from cached_prefix import reader, stored_tokens
from timing import CPU, Case, Run, Variant, cosine, main, relative
from torch import Tensor

from vpt.backbones import load_backbone
from vpt.backbones.base import Backbone
from vpt.backbones.tokens import Tokens
from vpt.errors import VptError
from vpt.machine.precision import autocast, prepare_frozen
from vpt.model import Below, encode, encode_from, frozen_below
from vpt.prompts import DeepPrompts, Prompts

NAME, COUNT = "lite_medsam", 16
HALF = "bf16-mixed"
PRECISIONS = (("32-true", "", "float32"), (HALF, "_bf16", "bfloat16"))
STAGES = {"stage 1": 2, "stage 2": 4, "stage 3": 10}  # the first of their blocks
STORED = ("stage 2", "stage 3")


def encoder(px: int, precision: Any = None, attention: str = "fused") -> Backbone:
    """As it was loaded (`precision` None), else prepared as `vpt train` prepares it."""
    try:
        backbone = load_backbone(NAME, image_size=px, attention=attention)
    except VptError:  # the package is not installed
        backbone = load_backbone(NAME, weights="random", image_size=px, attention=attention)
    if precision:
        prepare_frozen(backbone, precision)
    return backbone


def draw(px: int) -> Tensor:
    return torch.rand(1, 3, px, px, generator=torch.Generator().manual_seed(1))


def forward(backbone: Backbone, px: int, precision: Any) -> Run:
    images = draw(px)

    def run() -> Tensor:
        with torch.inference_mode(), autocast(precision, CPU):
            return encode(backbone, Prompts(), images).grid

    return run


def original_forward(px: int, precision: Any) -> Run:
    return forward(encoder(px, attention="original"), px, precision)


def our_forward(px: int, precision: Any) -> Run:
    return forward(encoder(px, precision), px, precision)


def step(px: int, precision: Any, first: int, copies: int = 0) -> Run:
    """Forward and backward of prompts from block `first` on; over tokens from a file of so many images, if any."""
    backbone, images = encoder(px, precision), draw(px)
    torch.manual_seed(0)
    prompts = DeepPrompts(backbone.spec, count=COUNT, blocks=range(first, backbone.spec.depth))
    finished = backbone.spec.finished
    weights = torch.randn(1, finished.width, *finished.grid)
    tokens = frozen_below(first, encoder(px), images).tokens.grid if copies else None
    read = reader(stored_tokens(tokens, copies, f"{NAME}{px}_{first}"), 1) if tokens is not None else None

    def features() -> Tensor:
        if read is None:
            return encode(backbone, prompts, images).grid
        stored = read().float()
        entering = Tokens(stored, stored[:, 0, :0], stored[:, 0, :0])
        return encode_from(Below(first, entering), backbone, prompts, None).grid

    def run() -> Tensor:
        prompts.zero_grad(set_to_none=True)
        with autocast(precision, CPU):
            grid = features()
        (grid.float() * weights).sum().backward()
        return torch.cat([parameter.grad.flatten() for parameter in prompts.parameters() if parameter.grad is not None])

    return run


def forward_case(px: int) -> Case:
    variants: dict[str, Variant] = {}
    forms: tuple[tuple[str, str, Callable[..., Run]], ...] = (
        ("original", "timm's own", original_forward),
        ("ours", "here, no prompts", our_forward),
    )
    for form, label, build in forms:
        for precision, end, dtype in PRECISIONS:
            variants[f"{form}{end}"] = Variant(
                f"{label}, {dtype}", partial(build, px, precision), precision, "original"
            )

    def checks() -> dict[str, float]:
        expected = original_forward(px, "32-true")().clone()
        return {
            "float32 features": relative(our_forward(px, "32-true")(), expected),
            "bfloat16 features cosine": cosine(our_forward(px, HALF)(), expected),
            "bfloat16 features cosine of the original": cosine(original_forward(px, HALF)(), expected),
        }

    return make_case("LiteMedSAM forward", px, variants, "original", checks)


def step_case(px: int, copies: int) -> Case:
    variants: dict[str, Variant] = {}
    for precision, end, dtype in PRECISIONS:
        for stage, first in STAGES.items():
            name = stage.replace(" ", "_")
            label = f"prompts from {stage} on"
            variants[f"{name}{end}"] = Variant(
                f"{label}, {dtype}", partial(step, px, precision, first), precision, name
            )
            if stage in STORED:
                build = partial(step, px, precision, first, copies)
                stored = f"{name}_stored"
                variants[f"{stored}{end}"] = Variant(f"{label}, stored tokens, {dtype}", build, precision, stored)

    def checks() -> dict[str, float]:
        whole = {name: variants[name].build()().clone() for name in ("stage_2", "stage_3")}
        return {
            f"{precision} gradient cosine, {stage}": cosine(variants[f"{stage}_stored{end}"].build()(), whole[stage])
            for stage in whole
            for _, end, precision in PRECISIONS
        }

    return make_case("LiteMedSAM step", px, variants, "stage_2", checks, COUNT)


def make_case(
    what: str,
    px: int,
    variants: dict[str, Variant],
    base: str,
    checks: Callable[[], dict[str, float]],
    count: int = 0,
) -> Case:
    settings: dict[str, Any] = {"backbone": NAME, "image": px, "batch": 1}
    return Case(
        title=f"{what}: {px} px, batch 1{f', P = {count}' if count else ''}",
        variants=variants,
        base=base,
        layer=((px // 4) ** 2, 160),
        checks=checks,
        settings=settings | ({"prompts": count} if count else {}),
    )


def cases(quick: bool) -> dict[str, Case]:
    px = 64 if quick else 256
    return {"forward": forward_case(px), "step": step_case(px, 8 if quick else 16)}


if __name__ == "__main__":
    main("lite_medsam", cases)
