"""Ten tasks on one encoder beside ten models, and a batch that mixes ten tasks beside a batch of one.

    python benchmarks/bank.py

Random weights, no gradients, every head reads all patches. "Ten models" have an encoder each, as ten processes would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from models import draw
from timing import CPU, Case, Run, Variant, main, relative

from vpt.backbones import Backbone, load_backbone
from vpt.heads import ClassifyHead
from vpt.machine.precision import autocast, prepare_frozen
from vpt.model import PromptedModel
from vpt.prompts import DeepPrompts
from vpt.streams import Part, encode_together

HALF: Any = "bf16-mixed"
TASKS, COUNT, CLASSES = 10, 16, 4


def tasks(backbones: Sequence[Backbone], blocks: str, counts: Sequence[int]) -> list[PromptedModel]:
    """A model for each of the encoders, which may be one and the same, with prompts of its own."""
    models = []
    for number, (backbone, count) in enumerate(zip(backbones, counts, strict=True)):
        torch.manual_seed(number)
        prompts = DeepPrompts(backbone.spec, count=count, blocks=blocks)
        model = PromptedModel(backbone, prompts, ClassifyHead(backbone.spec, outputs=CLASSES, pool="mean"))
        with autocast(HALF, CPU):
            models.append(model.project_prompts())
    return models


def load(name: str, px: int) -> Backbone:
    backbone = load_backbone(name, weights="random", image_size=px).eval()
    prepare_frozen(backbone, HALF)
    return backbone


def inference(work: Callable[[], Any]) -> Run:
    def run() -> Any:
        with torch.inference_mode(), autocast(HALF, CPU):
            return work()

    return run


def together(models: Sequence[PromptedModel], images: torch.Tensor, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    parts = [Part(model, own) for model, own in zip(models, rows, strict=True)]
    features = encode_together(models[0].backbone, images, parts)
    return torch.cat([model.head(found, images) for model, found in zip(models, features, strict=True)])


def same_scan(name: str, px: int, batch: int, blocks: str) -> Case:
    """All tasks look at the same images."""
    images, _ = draw(batch, px)
    rows = [range(batch)] * TASKS

    def apart(own_encoders: bool) -> Callable[[], Run]:
        def build() -> Run:
            shared = [load(name, px)] * TASKS
            models = tasks([load(name, px) for _ in range(TASKS)] if own_encoders else shared, blocks, [COUNT] * TASKS)
            return inference(lambda: torch.cat([model(images) for model in models]))

        return build

    def side_by_side() -> Run:
        models = tasks([load(name, px)] * TASKS, blocks, [COUNT] * TASKS)
        return inference(lambda: together(models, images, rows))

    def checks() -> dict[str, float]:
        return {"logits": relative(side_by_side()(), apart(False)()())} | megabytes(name, px)

    more = {"precision": HALF, "memory": False}
    return Case(
        title=f"{TASKS} tasks on the same images: {name}, {px} px, batch {batch}, prompts in {blocks}",
        variants={
            "models": Variant(f"{TASKS} models, an encoder each", apart(True), **more),
            "shared": Variant("one encoder, one task after the other", apart(False), **more),
            "together": Variant("a bank, side by side", side_by_side, **more),
        },
        base="models",
        layer=(batch * (px // 16) ** 2, 384),
        checks=checks,
        settings={"backbone": name, "image": px, "batch": batch, "prompts": COUNT, "blocks": blocks},
    )


def megabytes(name: str, px: int) -> dict[str, float]:
    """Of what lies in memory for the tasks: encoders, prompts, heads."""
    encoder = load(name, px)
    models = tasks([encoder] * TASKS, "all", [COUNT] * TASKS)
    own = sum(p.numel() * p.element_size() for model in models for p in model.trained().values()) / 1e6
    weights = sum(p.numel() * p.element_size() for p in encoder.parameters()) / 1e6
    return {f"MB of {TASKS} models": TASKS * weights + own, "MB of a bank": weights + own}


def mixed_batch(name: str, px: int, batch: int) -> Case:
    """Every image belongs to one task."""
    images, _ = draw(batch, px)

    def of(counts: Sequence[int]) -> Callable[[], Run]:
        def build() -> Run:
            models = tasks([load(name, px)] * len(counts), "all", counts)
            rows = [range(number, batch, len(models)) for number in range(len(models))]
            return inference(lambda: together(models, images, rows))

        return build

    def alone() -> Run:
        (model,) = tasks([load(name, px)], "all", [COUNT])
        return inference(lambda: model(images))

    unequal = [COUNT + number % 3 for number in range(TASKS)]
    more = {"precision": HALF, "memory": False}
    return Case(
        title=f"A batch of {batch} images: {name}, {px} px, {COUNT} prompts in all blocks",
        variants={
            "one": Variant("of one task", alone, **more),
            "mixed": Variant(f"of {TASKS} tasks", of([COUNT] * TASKS), **more),
            "unequal": Variant(f"of {TASKS} tasks, {COUNT} to {COUNT + 2} prompts", of(unequal), **more),
        },
        base="one",
        layer=(batch * (px // 16) ** 2, 384),
        settings={"backbone": name, "image": px, "batch": batch, "prompts": COUNT},
    )


def cases(quick: bool) -> dict[str, Case]:
    if quick:
        return {"mixed": mixed_batch("vit_tiny_patch16_224", 64, 20)}
    name = "vit_small_patch16_224"
    return {
        "same_scan": same_scan(name, 224, 4, "all"),
        "same_scan_late": same_scan(name, 224, 4, "last:4"),
        "mixed": mixed_batch(name, 224, 20),
    }


if __name__ == "__main__":
    main("bank", cases)
