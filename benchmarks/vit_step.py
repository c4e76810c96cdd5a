"""A training step of VPT-deep on a ViT: the published form and other baselines beside the package's.

    python benchmarks/vit_step.py            # ViT-B/16 224 px batch 8, and ViT-Ti/16 batch 16, P = 50
    python benchmarks/vit_step.py --mended   # the same with glibc told to keep its memory

Random weights. A step is forward and backward of the cross-entropy; the optimiser is left out, which favours full
fine-tuning.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from literal import Literal, Plain, with_lora
from models import draw, prompted, training_step
from timing import CPU, Case, Run, Variant, cosine, main, relative
from torch import nn

from vpt.machine.precision import autocast
from vpt.model import PromptedModel, encode

HALF = "bf16-mixed"


class AllRows(nn.Module):
    """The package's model without the shortcut in the last block: all its rows are computed."""

    def __init__(self, model: PromptedModel):
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model.head(encode(self.model.backbone, self.model.prompts, images, keep="all"), images)


def steps(name: str, px: int, batch: int, count: int) -> dict[str, Variant]:
    data = draw(batch, px)

    def of(wrap: Callable[[PromptedModel], nn.Module], precision: str = "32-true", kept: str | None = None):
        """kept: what the frozen weights are prepared for; those of the baselines stay as they were loaded."""
        return lambda: training_step(wrap(prompted(name, px, count, precision=kept)), data, precision)

    def set_up(model: PromptedModel, *, checkpointing: bool = False, compiled: bool = False) -> PromptedModel:
        model.checkpointing = checkpointing
        return model.compile_blocks() if compiled else model

    def ours(label: str, wrap: Callable[[PromptedModel], nn.Module] = set_up, same: str = "ours", **more: bool):
        single = Variant(f"{label}, float32", of(wrap, kept="32-true"), same_flops=same, **more)
        half = Variant(f"{label}, bfloat16", of(wrap, HALF, HALF), HALF, same_flops=same, **more)
        return single, half

    def saving(model: PromptedModel) -> Literal:
        return Literal(model, checkpointing=True)

    def unfrozen(model: PromptedModel) -> Literal:
        return Literal(model, frozen=False)

    ours32, ours16 = ours("keys and values, CLS row only in the last block")
    all32, all16 = ours("keys and values, all rows", AllRows, "ours_all_rows")
    saved32, saved16 = ours(
        "the same, checkpointed", lambda model: set_up(model, checkpointing=True), "ours_checkpointed"
    )
    built32, built16 = ours("the same, compiled", lambda model: set_up(model, compiled=True), memory=False)
    return {
        "literal": Variant("literal form on timm, float32", of(Literal)),
        "literal_same": Variant(
            "literal form, its frozen layers prepared as here, float32", of(Literal, kept="32-true"), memory=False
        ),
        "published": Variant("literal form, attention written out, float32", of(lambda m: Literal(m, fused=False))),
        "literal_checkpointed": Variant("literal form, checkpointed, float32", of(saving)),
        "literal_unfrozen": Variant("literal form, weights left unfrozen, float32", of(unfrozen)),
        "literal_bf16": Variant("literal form under autocast, bfloat16", of(Literal, HALF), HALF, "literal"),
        "full": Variant("full fine-tuning, no prompts, float32", of(lambda m: Plain(m, "full"))),
        "lora": Variant("LoRA by peft, rank 8, float32", of(with_lora)),
        "probe": Variant("linear probe, float32", of(lambda m: Plain(m, "probe"))),
        "ours_all_rows": all32,
        "ours": ours32,
        "ours_checkpointed": saved32,
        "ours_compiled": built32,
        "ours_all_rows_bf16": all16,
        "ours_bf16": ours16,
        "ours_checkpointed_bf16": saved16,
        "ours_compiled_bf16": built16,
    }  # fmt: skip


def checks(name: str, px: int, batch: int, count: int) -> dict[str, float]:
    """How far the package is from the literal form: logits and gradients of the prompts, relative to the largest."""
    images, classes = draw(batch, px)

    def gradient(run: Run) -> torch.Tensor:
        return run().detach().clone()

    def both(dtype: torch.dtype, data: tuple[torch.Tensor, torch.Tensor]) -> tuple[float, float]:
        ours = prompted(name, px, count).to(dtype)
        literal = Literal(prompted(name, px, count)).to(dtype)
        with torch.no_grad():
            logits = relative(ours(data[0]), literal(data[0]))
        return logits, relative(gradient(training_step(ours, data)), gradient(training_step(literal, data)))

    few = (images[:2].double(), classes[:2])
    (logits64, gradient64), (logits32, gradient32) = both(torch.float64, few), both(torch.float32, (images, classes))
    expected = gradient(training_step(Literal(prompted(name, px, count)), (images, classes)))
    half = prompted(name, px, count, precision=HALF)
    literal_half = gradient(training_step(Literal(prompted(name, px, count)), (images, classes), HALF))
    with torch.no_grad(), autocast(HALF, CPU):
        answered = half(images)
    with torch.no_grad():
        agreed = cosine(answered, Literal(prompted(name, px, count))(images))
    return {
        "float64 logits": logits64,
        "float64 gradient": gradient64,
        "float32 logits": logits32,
        "float32 gradient": gradient32,
        "bfloat16 logits cosine": agreed,
        "bfloat16 gradient cosine": cosine(gradient(training_step(half, (images, classes), HALF)), expected),
        "bfloat16 gradient cosine of the literal form": cosine(literal_half, expected),
    }


def case(title: str, name: str, px: int, batch: int, count: int, only: tuple[str, ...] = ()) -> Case:
    variants = steps(name, px, batch, count)
    patches, width = (px // 16) ** 2 + 1, {"b": 768, "s": 384, "t": 192}[name[4]]
    return Case(
        title=f"Step of VPT-deep: {title}, {px} px, batch {batch}, P = {count}",
        variants={key: variants[key] for key in only or variants},
        base="literal",
        layer=(batch * patches, width),
        checks=lambda: checks(name, px, batch, count),
        mended=tuple(
            key for key in ("literal", "literal_same", "literal_bf16", "ours", "ours_bf16") if not only or key in only
        ),
        settings={"backbone": name, "image": px, "batch": batch, "prompts": count, "tokens": patches},
    )


def cases(quick: bool) -> dict[str, Case]:
    some = ("literal", "literal_same", "literal_bf16", "ours", "ours_bf16")
    if quick:
        return {"vit_ti": case("ViT-Ti/16", "vit_tiny_patch16_224", 64, 8, 50, (*some, "ours_checkpointed"))}
    return {
        "vit_b": case("ViT-B/16", "vit_base_patch16_224", 224, 8, 50),
        "vit_ti": case("ViT-Ti/16", "vit_tiny_patch16_224", 224, 16, 50, some),
    }


if __name__ == "__main__":
    main("vit_step", cases)
