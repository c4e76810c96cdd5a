"""configs/vtab_1k.yaml says it is as published (Jia et al., ECCV 2022): option by option."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vpt.backbones import describe_backbone
from vpt.config import load_config
from vpt.data.planned import EncoderInput
from vpt.data.planning import _choose_size
from vpt.data.slices.slice_stacks import draw_stacks
from vpt.engine.fit import Settings, rate
from vpt.engine.optim import schedule_of_epochs
from vpt.heads import Answer

RECIPE = Path(__file__).parents[2] / "configs" / "vtab_1k.yaml"


@pytest.fixture(scope="module")
def recipe() -> Any:
    return load_config(RECIPE).resolved("classification")


def test_the_recipe_is_the_published_one(recipe: Any) -> None:
    optim, train = recipe.optim, recipe.train
    assert (optim.method, optim.momentum, optim.clip) == ("sgd", 0.9, None)
    assert optim.lr == optim.prompt_lr == 5 / 256 * train.batch_size
    assert optim.weight_decay == optim.prompt_weight_decay == 0.001
    assert (optim.schedule, optim.warmup * train.epochs, train.epochs) == ("epoch", 10, 100)
    assert (train.augment, recipe.data.use_val, recipe.loss.smoothing) == ("none", True, 0)
    assert (recipe.prompts.method, recipe.prompts.blocks, recipe.prompts.init) == ("deep", "all", "uniform")
    assert recipe.precision == "32-true"


def test_its_encoder_is_the_original_one_on_images_normalised_as_imagenets(recipe: Any) -> None:
    spec = describe_backbone(recipe.backbone.name, **recipe.backbone.options)

    assert recipe.backbone.name == "vit_base_patch16_224.orig_in21k"
    assert (spec.mean, spec.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (spec.image_size, spec.patch, spec.depth, spec.pool) == ((224, 224), (16, 16), 12, "cls")


def test_every_image_is_seen_once_in_an_epoch(recipe: Any) -> None:
    steps, size = recipe.train.max_steps, recipe.train.batch_size
    batches = draw_stacks(1000, steps=steps, batch_size=size, seed=0, epoch=0)

    assert sorted(draw.example for batch in batches for draw in batch) == list(range(1000))


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_the_head_can_start_by_kaiming(kind: str) -> None:
    class Encoder:
        spec = describe_backbone("vit_micro")

    torch.manual_seed(0)
    config = load_config({"data": {"path": "x"}, "task": "classification", "head": {"kind": kind, "start": "kaiming"}})
    assert config.head is not None
    output = config.head.build(Encoder(), Answer(100)).output

    assert output.weight.std().item() == pytest.approx(math.sqrt(2 / 100), rel=0.03)
    assert output.bias.abs().max() == 0
    assert config.head.model_copy(update={"start": "normal"}).build(Encoder(), Answer(100)).output.weight.std() < 0.03


def test_a_constant_bias_of_the_head_changes_nothing_under_a_softmax() -> None:
    """Theirs start at -ln 99, ours at 0: the same losses and gradients."""
    logits, truth = torch.randn(6, 5, dtype=torch.float64, requires_grad=True), torch.tensor([0, 1, 2, 3, 4, 0])
    found = []
    for bias in (0.0, -math.log(99)):
        loss = nn.functional.cross_entropy(logits + bias, truth)
        found.append((loss, *torch.autograd.grad(loss, logits)))

    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)


def test_the_rate_follows_the_epochs() -> None:
    factors = [schedule_of_epochs(epoch, 100, 0.1) for epoch in range(100)]

    assert factors[:11] == pytest.approx([epoch / 10 for epoch in range(11)])
    assert factors[55] == pytest.approx(0.5)
    assert factors[99] == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))
    assert schedule_of_epochs(0, 3, 0.1) == 1.0  # no whole epoch of warm-up
    settings = Settings(
        epochs=100, steps=16, validate_every=1, patience=None, workers=0, warmup=0.1, clip=None, schedule="epoch"
    )
    assert [rate(3, step, settings) for step in (0, 7, 15)] == [pytest.approx(0.3)] * 3


@pytest.mark.parametrize(("native", "patch", "expected"), [(384, 14, 378), (224, 16, 224), (518, 14, 518), (20, 8, 16)])
def test_a_plans_own_size_is_a_whole_number_of_patches(native: int, patch: int, expected: int) -> None:
    assert _choose_size(10, EncoderInput(native, patch), True)[0] == expected
    for voxels in range(1, 3000, 37):
        size = _choose_size(voxels, EncoderInput(native, patch), True)[0]
        assert size % patch == 0
        assert size >= expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_so400m_patch14_siglip_384", "vit_so400m_patch14_siglip_gap_384"])
def test_so_is_that_of_the_two_encoders_of_timm_whose_native_size_is_none(name: str) -> None:
    """Of the 165 that are accepted, in version 1.0.31."""
    spec = describe_backbone(name)

    assert spec.finished.grid == (27, 27)
    assert _choose_size(10, EncoderInput(max(spec.image_size), max(spec.patch)), True)[0] == 27 * 14
