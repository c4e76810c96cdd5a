"""How time and memory grow: a step with the batch, the tokens and the depth of the encoder; a prediction with the scan.

    python benchmarks/growth.py

ViT-S/16, P = 10 in all blocks, random weights, in the literal form and here; scans through `Segmenter.segment`
with the embedded backbone. `python benchmarks/report.py` fits the lines and draws the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import nibabel as nib
import numpy as np
from literal import Literal
from models import draw, prompted, training_step
from timing import CPU, Case, Run, Variant, main
from torch import nn

from vpt.backbones.vit import VitBackbone
from vpt.data.plan import Plan
from vpt.heads import MaskHead
from vpt.model import PromptedModel
from vpt.prompts import DeepPrompts
from vpt.use.segmenter import Segmenter

HALF = "bf16-mixed"
COUNT = 10


def shortened(model: PromptedModel, depth: int) -> PromptedModel:
    """The same model of the first `depth` blocks."""
    backbone: Any = model.backbone
    if depth == backbone.spec.depth:
        return model
    backbone.vit.blocks = backbone.vit.blocks[:depth]
    mean, std = backbone.spec.mean, backbone.spec.std
    shorter = VitBackbone(backbone.vit, name=backbone.spec.name, mean=mean, std=std, sha256="")
    return PromptedModel(shorter, DeepPrompts(shorter.spec, count=COUNT), model.head)


def step(form: str, name: str, px: int, batch: int, depth: int) -> Callable[[], Run]:
    precision: Any = HALF if form == "ours_bf16" else "32-true"

    def build() -> Run:
        model: nn.Module = shortened(prompted(name, px, COUNT, precision=precision), depth)
        return training_step(Literal(model) if form == "literal" else model, draw(batch, px), precision)

    return build


def grow(what: str, values: Sequence[int], at: dict[str, int], name: str, forms: Sequence[str]) -> Case:
    """what: the key of `at` that takes the values in turn."""
    labels = {"literal": "literal form, float32", "ours": "here, float32", "ours_bf16": "here, bfloat16"}
    variants = {}
    for form in forms:
        for value in values:
            size = at | {what: value}
            build = step(form, name, size["px"], size["batch"], size["depth"])
            precision = HALF if form == "ours_bf16" else "32-true"
            same = None if form != "ours_bf16" else f"ours@{value}"
            variants[f"{form}@{value}"] = Variant(f"{labels[form]}, {what} {value}", build, precision, same)
    rest = {key: value for key, value in at.items() if key != what}
    return Case(
        title=f"Step of {name} against {what}",
        variants=variants,
        base=f"{forms[0]}@{values[0]}",
        layer=(at["batch"] * ((at["px"] // 16) ** 2 + 1), 384 if "small" in name else 192),
        settings={"backbone": name, "prompts": COUNT, **rest, "grows": what, "values": list(values)},
    )


def predict(depth: int, side: int, precision: Any) -> Callable[[], Run]:
    """A scan (side, side, depth) through the embedded encoder: slices of `side` pixels in the encoder's 64."""

    def build() -> Run:
        from vpt.backbones import load_backbone

        backbone = load_backbone("vit_micro")
        model = PromptedModel(backbone, DeepPrompts(backbone.spec, count=COUNT), MaskHead(backbone.spec, classes=3))
        plan = Plan(
            plane="axial",
            pixel_mm=None,
            image_size=64,
            neighbours=False,
            channels=("CT",),
            intensity=({"kind": "window", "low": -200.0, "high": 300.0},),  # type: ignore[arg-type]
        )
        model.requires_grad_(False)
        segmenter = Segmenter.from_model(model, plan, {0: "background", 1: "one", 2: "two"}, CPU, precision)
        scan = nib.Nifti1Image(
            (100 * np.random.default_rng(0).standard_normal((side, side, depth))).astype("i2"), np.eye(4)
        )
        return lambda: segmenter.segment(scan)

    return build


def predictions(depths: Sequence[int], side: int) -> Case:
    variants = {}
    for form, precision, dtype in (("predict", "32-true", "float32"), ("predict_bf16", HALF, "bfloat16")):
        for depth in depths:
            label, build = f"prediction, {dtype}, slices {depth}", predict(depth, side, precision)
            variants[f"{form}@{depth}"] = Variant(label, build, precision, f"predict@{depth}")
    return Case(
        title="Prediction of a volume against its slices",
        variants=variants,
        base=f"predict@{depths[0]}",
        layer=(32 * 65, 128),
        settings={"backbone": "vit_micro", "slice": f"{side} x {side}", "grows": "slices", "values": list(depths)},
    )


def cases(quick: bool) -> dict[str, Case]:
    if quick:
        at, tiny = {"px": 64, "batch": 4, "depth": 12}, "vit_tiny_patch16_224"
        return {
            "batch": grow("batch", (2, 4, 8), at, tiny, ("literal", "ours")),
            "slices": predictions((8, 16, 32), 64),
        }
    at, small = {"px": 224, "batch": 4, "depth": 12}, "vit_small_patch16_224"
    forms = ("literal", "ours", "ours_bf16")
    return {
        "batch": grow("batch", (1, 4, 8, 16), at, small, forms),
        "px": grow("px", (112, 224, 320, 448), at, small, forms),
        "depth": grow("depth", (3, 6, 12), at, small, forms),
        "slices": predictions((16, 32, 64, 128, 256), 256),
    }


if __name__ == "__main__":
    main("growth", cases)
