"""The package's own form of what is measured, and one way to run every form: a step of training, a forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from timing import CPU, Run
from torch import Tensor, nn

from vpt.backbones import load_backbone
from vpt.heads import ClassifyHead
from vpt.machine.precision import autocast, prepare_frozen
from vpt.model import PromptedModel
from vpt.prompts import DeepPrompts, Prompts

CLASSES = 100


def prompted(
    name: str, px: int, count: int, *, blocks: str = "all", pool: Any = "cls", precision: Any = None
) -> PromptedModel:
    """A random frozen ViT, `count` deep prompts in each of its chosen blocks (0: none), a linear head; always the same.

    Of a baseline the frozen layers stay as they were loaded (`precision` None); else they are prepared for a precision
    as `vpt train` prepares them.
    """
    backbone = load_backbone(name, weights="random", image_size=px)
    torch.manual_seed(0)
    prompts = DeepPrompts(backbone.spec, count=count, blocks=blocks) if count else Prompts()
    model = PromptedModel(backbone, prompts, ClassifyHead(backbone.spec, outputs=CLASSES, pool=pool))
    if precision:
        prepare_frozen(model.backbone, precision)
    return model


def draw(batch: int, px: int) -> tuple[Tensor, Tensor]:
    """Images (batch, 3, px, px) of noise and their classes."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(batch, 3, px, px, generator=generator)
    return images, torch.randint(CLASSES, (batch,), generator=generator)


def training_step(
    model: nn.Module, data: tuple[Tensor, Tensor], precision: Any = "32-true", read: Callable[[], Tensor] | None = None
) -> Run:
    """Forward and backward of the cross-entropy, without the optimiser -> the gradient of the first trained parameter.

    Of models with prompts that is theirs. read: where the inputs come from, if not from `data`.
    """
    trained, (images, classes) = [p for p in model.parameters() if p.requires_grad], data

    def run() -> Tensor:
        for parameter in trained:
            parameter.grad = None
        inputs = read() if read else images
        with autocast(precision, CPU):
            logits = model(inputs)
        F.cross_entropy(logits.float(), classes).backward()
        return trained[0].grad

    return run


def forward_pass(model: nn.Module, images: Tensor, precision: Any = "32-true") -> Run:
    model.eval().requires_grad_(False)

    def run() -> Tensor:
        with torch.inference_mode(), autocast(precision, CPU):
            return model(images)

    return run
