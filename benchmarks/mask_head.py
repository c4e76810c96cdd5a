"""MaskHead beside the same layers written plainly: steps of training and forward passes.

    python benchmarks/mask_head.py
    python benchmarks/mask_head.py --cases default   # one case

Random features in the layout that an encoder leaves them in. "Plainly": maps are concatenated and the image stays in
the layout that it comes in. A step reaches the head's weights and, as with prompts, the features.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timing import CPU, Case, Run, Variant, cosine, main, relative
from torch import Tensor

from vpt.backbones import load_backbone
from vpt.backbones.tokens import Features
from vpt.heads import MaskHead
from vpt.heads.mask import resized
from vpt.machine.precision import autocast

HALF = "bf16-mixed"
PRECISIONS = (("32-true", "", "float32"), (HALF, "_bf16", "bfloat16"))


class Plain(MaskHead):
    """The same layers and weights, one after the other."""

    def forward(self, features: Features, images: Tensor, hints: Tensor | None = None) -> Tensor:
        projected = [project(grid) for project, grid in zip(self.project, features.levels, strict=True)]
        finest = max((grid.shape[-2:] for grid in projected), key=lambda size: size[0] * size[1])
        mask = self.mix(torch.stack([resized(grid, finest) for grid in projected]).sum(0))
        full = self.image_full(images)
        half = self.image_half(full)
        quarter = self.image_quarter(half)
        for merge, detail in ((self.at_quarter, quarter), (self.at_half, half), (self.at_full, full)):
            mask = F.interpolate(mask, size=detail.shape[-2:], mode="bilinear", align_corners=False)
            mask = merge(torch.cat([mask, detail], dim=1))
        return self.classify(mask)


def make(kind: type[MaskHead], name: str, px: int, batch: int) -> tuple[MaskHead, Features, Tensor]:
    spec = load_backbone(name, weights="random", image_size=px).spec
    torch.manual_seed(0)
    head = kind(spec, classes=2)
    grids = []
    for level in head.levels:
        (height, width), channels = spec.left(level).grid, spec.left(level).width
        grids.append(torch.randn(batch, height, width, channels).permute(0, 3, 1, 2))
    return (
        head,
        Features(grid=grids[-1], prefix=grids[-1].new_empty(0), levels=tuple(grids)),
        torch.rand(batch, 3, px, px),
    )


def forward(kind: type[MaskHead], name: str, px: int, batch: int, precision: Any) -> Run:
    head, features, images = make(kind, name, px, batch)

    def run() -> Tensor:
        with torch.inference_mode(), autocast(precision, CPU):
            return head(features, images)

    return run


def step(kind: type[MaskHead], name: str, px: int, batch: int, precision: Any) -> Run:
    head, features, images = make(kind, name, px, batch)
    learned = [*head.parameters(), *(grid.requires_grad_() for grid in features.levels)]

    def run() -> Tensor:
        with autocast(precision, CPU):
            logits = head(features, images)
        for part in learned:
            part.grad = None
        logits.float().square().mean().backward()
        return torch.cat([part.grad.flatten() for part in learned if part.grad is not None])

    return run


def case(name: str, px: int, batch: int) -> Case:
    variants: dict[str, Variant] = {}
    for what, label, run in (("step", "step", step), ("forward", "forward", forward)):
        for form, words, kind in (("plain", "plainly", Plain), ("ours", "here", MaskHead)):
            for precision, end, dtype in PRECISIONS:
                build = partial(run, kind, name, px, batch, precision)
                variants[f"{what}_{form}{end}"] = Variant(
                    f"{label} {words}, {dtype}", build, precision, f"{what}_plain"
                )

    def checks() -> dict[str, float]:
        expected = {what: variants[f"{what}_plain"].build()().clone() for what in ("forward", "step")}
        found = {what: variants[f"{what}_ours"].build()().clone() for what in expected}
        return {
            "float32 logits": relative(found["forward"], expected["forward"]),
            "float32 gradient": relative(found["step"], expected["step"]),
            "bfloat16 gradient cosine": cosine(variants["step_ours_bf16"].build()(), expected["step"]),
            "bfloat16 gradient cosine, plainly": cosine(variants["step_plain_bf16"].build()(), expected["step"]),
        }

    return Case(
        title=f"MaskHead on {name}: {px} px, batch {batch}",
        variants=variants,
        base="step_plain",
        layer=(batch * (px // 2) ** 2, 64),
        checks=checks,
        settings={"backbone": name, "image": px, "batch": batch},
    )


def cases(quick: bool) -> dict[str, Case]:
    if quick:
        return {"default": case("vit_tiny_patch16_224", 64, 4)}
    return {"default": case("vit_micro", 64, 32), "large": case("vit_small_patch14_dinov2", 336, 8)}


if __name__ == "__main__":
    main("mask_head", cases)
