"""A forward pass with deep prompts beside one without: batches and single images, prompts frozen or not, compiled.

    python benchmarks/vit_inference.py
    python benchmarks/vit_inference.py --mended

Random weights, no gradients. In the cases of all rows the head averages the patch tokens, so that every row is needed.
"""

from __future__ import annotations

from typing import Any

import torch
from literal import Literal
from models import draw, forward_pass, prompted
from timing import CPU, Case, Run, Variant, main, relative

from vpt.machine.precision import autocast

HALF = "bf16-mixed"


def forwards(name: str, px: int, batch: int, count: int, pool: str) -> dict[str, Variant]:
    images, _ = draw(batch, px)

    def ours(precision: Any, prompts: int = count, *, freeze: bool = False, compiled: bool = False):
        def build() -> Run:
            model = prompted(name, px, prompts, pool=pool, precision=precision).eval()
            if freeze:
                with autocast(precision, CPU):
                    model.project_prompts()
            if compiled:
                model.compile_blocks()
            return forward_pass(model, images, precision)

        return build

    def literal(precision: str):
        return lambda: forward_pass(Literal(prompted(name, px, count, pool=pool)), images, precision)

    found: dict[str, Variant] = {}
    for precision, end, dtype in (("32-true", "", "float32"), (HALF, "_bf16", "bfloat16")):
        more = {"precision": precision}
        found |= {
            f"unprompted{end}": Variant(f"no prompts, {dtype}", ours(precision, 0), same_flops="unprompted", **more),
            f"literal{end}": Variant(
                f"literal form on timm, {dtype}", literal(precision), same_flops="literal", **more
            ),
            f"ours{end}": Variant(f"keys and values, {dtype}", ours(precision), same_flops="ours", **more),
            f"frozen{end}": Variant(
                f"the same, `project_prompts`, {dtype}", ours(precision, freeze=True), same_flops="frozen", **more
            ),
            f"compiled{end}": Variant(
                f"the same, compiled, {dtype}",
                ours(precision, freeze=True, compiled=True),
                same_flops="frozen",
                memory=False,
                **more,
            ),
        }
    return found


def case(name: str, px: int, batch: int, count: int, pool: str, quick: bool = False) -> Case:
    variants = forwards(name, px, batch, count, pool)
    if quick or pool == "cls":  # compiling takes minutes
        variants = {key: variant for key, variant in variants.items() if "compiled" not in key}
    patches, width = (px // 16) ** 2 + 1, 768 if "base" in name else 192
    rows = "all rows" if pool == "mean" else "CLS only"
    images, _ = draw(batch, px)

    def checks() -> dict[str, float]:
        model = prompted(name, px, count, pool=pool).eval()
        published = Literal(prompted(name, px, count, pool=pool)).eval()
        with torch.inference_mode():
            expected, loose = published(images), model(images)
            return {
                "float32 logits": relative(loose, expected),
                "frozen": relative(model.project_prompts()(images), loose),
            }

    return Case(
        title=f"Forward, {rows}: {name}, {px} px, batch {batch}, P = {count}",
        variants=variants,
        base="unprompted",
        layer=(batch * patches, width),
        checks=checks,
        mended=tuple(key for key in variants if "compiled" not in key),
        settings={"backbone": name, "image": px, "batch": batch, "prompts": count, "head reads": rows},
    )


def cases(quick: bool) -> dict[str, Case]:
    if quick:
        return {"batch": case("vit_tiny_patch16_224", 64, 8, 50, "mean", quick=True)}
    name = "vit_base_patch16_224"
    return {
        "batch": case(name, 224, 8, 50, "mean"),
        "single": case(name, 224, 1, 50, "mean"),
        "single_cls": case(name, 224, 1, 50, "cls"),
    }


if __name__ == "__main__":
    main("vit_inference", cases)
