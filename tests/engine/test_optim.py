"""The optimiser's groups and the schedule of their rates."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from vpt.backbones import load_backbone
from vpt.engine.optim import build_optimizer, schedule, set_rates
from vpt.heads import MaskHead
from vpt.model import PromptedModel
from vpt.prompts import DeepPrompts, Prompts
from vpt.tuning.full import tune_full

RATES = {"lr": 1e-3, "prompt_lr": 2e-3, "backbone_lr": 3e-4, "weight_decay": 0.1}


@pytest.fixture
def model() -> PromptedModel:
    backbone = load_backbone("vit_micro", weights="random")
    prompts = DeepPrompts(backbone.spec, count=2, project=8)  # the projection brings a matrix and a vector
    return PromptedModel(backbone, prompts, MaskHead(backbone.spec, classes=3, width=16, detail=8))


@pytest.mark.parametrize(("steps", "warmup"), [(200, 0.05), (200, 0.5), (40, 0.1), (7, 0.3)])
def test_rates_rise_from_above_zero_to_the_peak_and_fall_as_a_cosine_to_the_floor(steps: int, warmup: float) -> None:
    factors = [schedule(step, steps, warmup) for step in range(steps)]
    peak = factors.index(1.0)
    assert factors[0] > 0
    assert max(factors) == 1.0
    assert all(a < b for a, b in pairwise(factors[: peak + 1]))
    falling = factors[round(warmup * steps) :]
    assert all(a > b for a, b in pairwise(falling))
    assert schedule(steps, steps, warmup) == pytest.approx(0.01)
    middle = (round(warmup * steps) + steps) / 2
    assert schedule(middle, steps, warmup) == pytest.approx(0.505)  # halfway between 1 and the floor


@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.9])
def test_a_run_of_one_step_trains_at_the_peak(warmup: float) -> None:
    assert schedule(0, 1, warmup) == 1.0


def test_set_rates_scales_every_group_from_its_own_peak(model: PromptedModel) -> None:
    optimizer = build_optimizer(model, **RATES)
    peaks = [group["lr"] for group in optimizer.param_groups]
    for factor in (0.5, 0.1):  # from the peak each time, not from the rate before
        set_rates(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([peak * factor for peak in peaks])


@pytest.mark.parametrize("full", [False, True])
def test_every_trained_parameter_is_in_one_group_and_no_frozen_one_is(model: PromptedModel, full: bool) -> None:
    if full:
        tune_full(model)
    grouped = [id(p) for group in build_optimizer(model, **RATES).param_groups for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in model.parameters() if p.requires_grad}
    assert full == any(id(p) in grouped for p in model.backbone.parameters())


def test_each_part_has_its_own_rate(model: PromptedModel) -> None:
    tune_full(model)
    rates = {id(p): group["lr"] for group in build_optimizer(model, **RATES).param_groups for p in group["params"]}
    for part, rate in (("prompts", 2e-3), ("head", 1e-3), ("backbone", 3e-4)):
        assert {rates[id(p)] for p in getattr(model, part).parameters()} == {rate}


def test_prompts_and_vectors_do_not_decay(model: PromptedModel) -> None:
    tune_full(model)
    optimizer = build_optimizer(model, **RATES)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        decays = parameter.ndim > 1 and not name.startswith("prompts.")
        assert decay[id(parameter)] == (0.1 if decays else 0), name


def test_without_prompts_only_the_head_trains() -> None:
    backbone = load_backbone("vit_micro", weights="random")
    model = PromptedModel(backbone, Prompts(), MaskHead(backbone.spec, classes=2, width=16, detail=8))
    grouped = [p for group in build_optimizer(model, **RATES).param_groups for p in group["params"]]
    assert {id(p) for p in grouped} == {id(p) for p in model.head.parameters()}
    assert isinstance(build_optimizer(model, **RATES), torch.optim.AdamW)
