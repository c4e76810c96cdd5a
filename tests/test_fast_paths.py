"""Every fast path gives what its plain form gives, forward and backward; what is precomputed is never stale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from encoders import DEPTH, FAMILIES, Saved, draw, make_backbone, make_vit, shaken, tune
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vpt.backbones import Backbone
from vpt.backbones.tokens import Tokens
from vpt.heads import ClassifyHead, MaskHead
from vpt.machine.precision import autocast, choose_precision, prepare_frozen
from vpt.model import PromptedModel, encode
from vpt.prompts import (
    ConditionedPrompts,
    CrossPrompts,
    DeepPrompts,
    FourierPrompts,
    LowRankPrompts,
    Prompts,
    ShallowPrompts,
)

CPU = torch.device("cpu")
METHODS: dict[str, Callable[[Any], Prompts]] = {
    "none": lambda spec: Prompts(),
    "shallow": lambda spec: ShallowPrompts(spec, count=3),
    "deep": lambda spec: DeepPrompts(spec, count=3),
    "late": lambda spec: DeepPrompts(spec, count=3, blocks="last:1"),
    "projected": lambda spec: DeepPrompts(spec, count=3, project=8),
    "low_rank": lambda spec: LowRankPrompts(spec, count=3, rank=2),
    "fourier": lambda spec: FourierPrompts(spec, count=3),
    "conditioned": lambda spec: ConditionedPrompts(spec, count=3, dropout=0.0),
    "cross": lambda spec: CrossPrompts(spec, count=3),
}
EVERY = pytest.mark.parametrize("method", METHODS)
FIXED = ("deep", "late", "projected", "low_rank", "fourier")


def make_model(family: str = "vit", method: str = "deep", *, classify: bool = True, tuning: str = "prompts") -> Any:
    backbone = make_backbone(family).double()
    spec = backbone.spec
    head = ClassifyHead(spec, outputs=4) if classify else MaskHead(spec, classes=3, width=16, detail=8, levels=2)
    model = PromptedModel(backbone, shaken(METHODS[method](spec)), shaken(head)).double()
    tune(model, tuning, **({"dropout": 0.0} if tuning == "adapter" else {}))  # so that two passes are alike
    return model


def gradients(model: PromptedModel, images: Tensor) -> list[Tensor]:
    model.zero_grad()
    output = model(images)
    torch.manual_seed(5)
    (output * torch.randn_like(output)).sum().backward()
    return [output.detach(), *(p.grad.clone() for p in model.trained().values() if p.grad is not None)]


def apart(some: list[Tensor], others: list[Tensor]) -> float:
    assert len(some) == len(others)
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-30)) for a, b in zip(some, others, strict=True))


# --- the last block computes only the row that is read ----------------------------------------------------------------


@pytest.mark.parametrize("tuning", ["prompts", "full", "bias", "ssf", "adapter", "partial"])
@EVERY
def test_the_cls_token_alone_is_what_it_is_among_the_others(method: str, tuning: str) -> None:
    model, images = make_model(method=method, tuning=tuning), draw(3).double()

    ours = gradients(model, images)
    model.head.reads = "all"

    assert apart(ours, gradients(model, images)) <= 1e-12


def test_registers_and_rows_of_patches_are_left_out_of_the_last_block_only() -> None:
    backbone = make_vit(reg_tokens=2, class_token=True)
    prompts = shaken(DeepPrompts(backbone.spec, count=3))
    whole = encode(backbone, prompts, draw(2), levels=(1,))
    first = encode(backbone, prompts, draw(2), levels=(1,), keep="first")

    assert first.prefix.shape == (2, 1, backbone.spec.blocks[0].width)
    assert first.grid.shape == (2, backbone.spec.blocks[0].width, 0, 0)
    assert (first.prefix[:, 0] - whole.prefix[:, 0]).abs().max() <= 1e-5
    assert torch.equal(first.levels[0], whole.levels[0])


@pytest.mark.parametrize("make", [lambda: make_vit(class_token=False, global_pool="avg"), lambda: make_backbone("sam")])
def test_without_a_cls_token_nothing_is_left_out(make: Callable[[], Backbone]) -> None:
    backbone = make()
    assert torch.equal(
        encode(backbone, Prompts(), draw(2), keep="first").grid, encode(backbone, Prompts(), draw(2)).grid
    )


def test_a_head_on_the_cls_token_saves_the_last_blocks_arithmetic() -> None:
    model, images = make_model(), draw(2).double()
    counts = {}
    for reads in ("first", "all"):
        model.head.reads = reads
        with FlopCounterMode(display=False) as counter:
            model(images)
        counts[reads] = counter.get_total_flops()

    # of the last block of DEPTH all but keys and values and a row of the rest: 10 of 12 C^2 per token
    assert counts["first"] < counts["all"] * (1 - 0.7 / DEPTH)


# --- prompts that are computed once -----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@EVERY
def test_projected_prompts_answer_as_before(family: str, method: str) -> None:
    model, images = make_model(family, method).eval(), draw(2).double()
    with torch.no_grad():
        before = model(images)
        model.project_prompts()
        calls = count_calls(model.prompts)
        after = model(images)

    assert (after - before).abs().max() <= 1e-12
    assert len(calls) == (0 if method in FIXED else DEPTH)


def count_calls(prompts: Prompts) -> list[int]:
    calls, enter = [], prompts.enter

    def counted(i: int, tokens: Tokens, state: Any) -> Any:
        calls.append(i)
        return enter(i, tokens, state)

    prompts.enter = counted  # type: ignore[method-assign]
    return calls


def test_training_drops_what_was_precomputed() -> None:
    model, images = make_model().project_prompts(), draw(2).double()
    frozen = model(images)
    with torch.no_grad():
        for parameter in model.prompts.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert torch.equal(model(images), frozen)  # the keys and values of before

    assert (model.train()(images) - frozen).abs().max() > 1e-3
    assert all(grad.abs().max() > 0 for grad in gradients(model, images)[1:])
    assert not any("frozen" in name for name in model.trained_state())


# --- memory for time --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@EVERY
def test_checkpointing_changes_no_gradient_and_keeps_less(family: str, method: str) -> None:
    model, images = make_model(family, method, classify=family == "vit"), draw(2).double()
    found, kept = [], []
    for checkpointing in (False, True):
        model.checkpointing = checkpointing
        saved = Saved()
        with saved:
            model(images)
        kept.append(sum(t.numel() for t in saved.tensors))
        found.append(gradients(model, images))

    assert apart(found[1], found[0]) <= 1e-12
    assert kept[1] < 0.75 * kept[0] or method in ("none", "late")


def test_checkpointing_drops_the_same_units_when_it_computes_again() -> None:
    model, images = make_model(tuning="prompts"), draw(2).double()
    tune(model, "adapter", dropout=0.5)
    shaken(model.backbone.double())
    found = []
    for checkpointing, seed in ((False, 3), (True, 3), (False, 4)):
        model.checkpointing = checkpointing
        torch.manual_seed(seed)
        found.append(gradients(model, images))

    assert apart(found[1], found[0]) <= 1e-12
    assert apart(found[2], found[0]) > 1e-3


# --- half precision ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["deep", "shallow", "cross", "conditioned"])
def test_weights_kept_in_half_precision_are_autocast_bit_for_bit(family: str, method: str) -> None:
    model, images = make_model(family, method, classify=family == "vit").float(), draw(2)
    found = []
    for halved in (False, True):
        if halved:
            prepare_frozen(model.backbone, "bf16-mixed")
        with autocast("bf16-mixed", CPU):
            found.append(gradients(model, images))

    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    stored = {p.dtype for m in model.backbone.modules() if type(m) is nn.Linear for p in m.parameters()}
    assert stored == {torch.bfloat16}
    assert {p.dtype for p in model.trained().values()} == {torch.float32}


@pytest.mark.parametrize("tuning", ["full", "bias", "partial", "lora", "ssf", "adapter"])
def test_what_trains_stays_in_float32(tuning: str) -> None:
    model = make_model(tuning=tuning).float()
    prepare_frozen(model.backbone, "bf16-mixed")
    assert {p.dtype for p in model.trained().values()} == {torch.float32}
    with autocast("bf16-mixed", CPU):
        assert all(torch.isfinite(grad).all() for grad in gradients(model, draw(2)))


def test_float32_halves_nothing_and_casts_nothing() -> None:
    model = make_model().float()
    prepare_frozen(model.backbone, "32-true")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    with autocast("32-true", CPU):
        assert (torch.ones(1, 1) @ torch.ones(1, 1)).dtype == torch.float32


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_points_the_gradients_of_a_whole_model_the_same_way(family: str) -> None:
    model, images = make_model(family, classify=family == "vit").float(), draw(3)
    exact = gradients(model, images)
    prepare_frozen(model.backbone, "bf16-mixed")
    with autocast("bf16-mixed", CPU):
        rough = gradients(model, images)
    prompts = [torch.cat([g.flatten().float() for g in grads[1:]]) for grads in (exact, rough)]
    assert F.cosine_similarity(*prompts, dim=0) >= 0.999


@pytest.mark.parametrize("wanted", ["32-true", "bf16-mixed", "16-mixed"])
def test_a_precision_that_was_asked_for_is_taken(wanted: Any) -> None:
    assert choose_precision(wanted, CPU) == wanted


# --- compiled ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_compiled_blocks_give_the_same_gradients() -> None:
    model, images = make_model().float(), draw(2)
    plain = gradients(model, images)
    assert apart(gradients(model.compile_blocks(), images), plain) <= 5e-6 * 20
