"""Several tasks in one pass: each gets what it gets alone, and what they share is computed once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from encoders import DEPTH, FAMILIES, Stages, draw, make_backbone, make_vit, shaken
from torch import Tensor

from vpt.backbones import Backbone
from vpt.heads import ClassifyHead, MaskHead
from vpt.model import PromptedModel
from vpt.prompts import (
    AdditivePrompts,
    ConditionedPrompts,
    CrossPrompts,
    DeepPrompts,
    GatedPrompts,
    LowRankPrompts,
    Prompts,
    ShallowPrompts,
    SmopePrompts,
)
from vpt.streams import Part, encode_together

METHODS: dict[str, Any] = {
    "none": lambda spec: Prompts(),
    "shallow": lambda spec: ShallowPrompts(spec, count=3),
    "shallow of another number": lambda spec: ShallowPrompts(spec, count=2),
    "gated": lambda spec: GatedPrompts(spec, count=3, gate=0.0),
    "deep": lambda spec: DeepPrompts(spec, count=3),
    "deep again": lambda spec: DeepPrompts(spec, count=3),
    "deep of another number": lambda spec: DeepPrompts(spec, count=5),
    "late": lambda spec: DeepPrompts(spec, count=3, blocks="last:1"),
    "scattered": lambda spec: DeepPrompts(spec, count=3, blocks=(1, 3)),
    "low_rank": lambda spec: LowRankPrompts(spec, count=3, rank=2),
    "conditioned": lambda spec: ConditionedPrompts(spec, count=3),
    "cross": lambda spec: CrossPrompts(spec, count=3),
    "additive": lambda spec: AdditivePrompts(spec),
    "smope": lambda spec: SmopePrompts(spec, experts=6, top=3, blocks=(1, 3)),
}


def make_model(backbone: Backbone, method: str, classify: bool = False) -> PromptedModel:
    spec = backbone.spec
    head = ClassifyHead(spec, outputs=4) if classify else MaskHead(spec, classes=3, width=16, detail=8, levels=2)
    own = 1 + 0.2 * list(METHODS).index(method)  # no two tasks have the same prompts
    prompts = shaken(METHODS[method](spec), 0.3 * own)
    return PromptedModel(backbone, prompts, shaken(head)).double().eval()


def answers(backbone: Backbone, images: Tensor, parts: list[Part]) -> list[Tensor]:
    features = encode_together(backbone, images, parts)
    return [part.model.head(own, images[list(part.images)]) for part, own in zip(parts, features, strict=True)]


@contextmanager
def counted(backbone: Backbone) -> Iterator[list[int]]:
    """Samples that went through each block."""
    plain, seen = backbone.block, [0] * backbone.spec.depth

    def block(i: int, tokens: Any, *more: Any) -> Any:
        seen[i] += len(tokens.grid)
        return plain(i, tokens, *more)

    backbone.block = block  # type: ignore[method-assign]
    yield seen
    del backbone.block


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("projected", [False, True], ids=["as they are", "projected"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_method_answers_in_a_mixed_batch_as_alone(family: str, projected: bool) -> None:
    backbone, images = make_backbone(family).double(), draw(4).double()
    models = [make_model(backbone, method) for method in METHODS]
    if family != "sam":
        models += [make_model(backbone, method, classify=True) for method in METHODS]
    if projected:
        models = [model.project_prompts() for model in models]
    looked_at = [(k % 4, (k + 1) % 4, k % 4)[: 1 + k % 3] for k in range(len(models))]
    parts = [Part(model, rows) for model, rows in zip(models, looked_at, strict=True)]
    for part, found in zip(parts, answers(backbone, images, parts), strict=True):
        torch.testing.assert_close(found, part.model(images[list(part.images)]), rtol=1e-9, atol=1e-11)


@pytest.mark.slow
@torch.no_grad()
def test_an_encoder_of_stages_answers_as_alone() -> None:
    backbone = Stages().double()
    images = draw(3, (64, 32)).double()
    models = [make_model(backbone, "none")]
    for blocks in ("all", "last:2", (1, 3)):
        prompts = shaken(DeepPrompts(backbone.spec, count=3, blocks=blocks))
        models.append(PromptedModel(backbone, prompts, make_model(backbone, "none").head).double().eval())
    parts = [Part(model, [2, 0]) for model in models]
    for part, found in zip(parts, answers(backbone, images, parts), strict=True):
        torch.testing.assert_close(found, part.model(images[[2, 0]]), rtol=1e-9, atol=1e-11)


@pytest.mark.slow
@torch.no_grad()
def test_answers_do_not_depend_on_the_other_tasks_nor_on_their_order() -> None:
    backbone, images = make_vit(), draw(3)
    parts = [Part(make_model(backbone, method).float(), [0, 2]) for method in METHODS]
    forward, backward = answers(backbone, images, parts), answers(backbone, images, parts[::-1])[::-1]
    for one, other in zip(forward, backward, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_blocks_below_the_prompts_of_all_tasks_run_once_for_an_image() -> None:
    backbone, images = make_vit().double(), draw(2).double()
    late = [Part(make_model(backbone, "late"), [0, 1]) for _ in range(5)]
    with counted(backbone) as seen:
        encode_together(backbone, images, late)
    assert seen == [2] * (DEPTH - 1) + [10]


@torch.no_grad()
def test_no_image_runs_in_common_that_no_task_waits_for() -> None:
    backbone, images = make_vit().double(), draw(3).double()
    parts = [Part(make_model(backbone, "deep"), [0, 1]), Part(make_model(backbone, "late"), [2])]
    with counted(backbone) as seen:
        encode_together(backbone, images, parts)
    assert seen == [3] * DEPTH
