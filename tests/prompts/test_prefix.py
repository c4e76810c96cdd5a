"""What lies below the first prompted block can be computed once: exactly the same features, whatever the method."""

from __future__ import annotations

import pytest
import torch
from encoders import DEPTH, FAMILIES, make_backbone

from vpt.heads import MaskHead
from vpt.model import PromptedModel, encode, encode_from, frozen_below
from vpt.prompts import (
    AdditivePrompts,
    ConditionedPrompts,
    CrossPrompts,
    DeepPrompts,
    FourierPrompts,
    GatedPrompts,
    LowRankPrompts,
    Prompts,
    ShallowPrompts,
)
from vpt.tuning.bias import tune_bias

LATE = {
    "deep": DeepPrompts,
    "low_rank": LowRankPrompts,
    "fourier": FourierPrompts,
    "cross": CrossPrompts,
    "conditioned": ConditionedPrompts,
}
EARLY = (ShallowPrompts, GatedPrompts, AdditivePrompts)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", LATE)
def test_features_from_the_frozen_prefix_are_those_of_the_whole_encoder(family: str, method: str) -> None:
    backbone, images = make_backbone(family), torch.randn(3, 3, 64, 40)
    prompts = LATE[method](backbone.spec, count=4, blocks="last:2").eval()

    first = prompts.first(DEPTH)
    found = encode_from(frozen_below(first, backbone, images), backbone, prompts, None)

    whole = encode(backbone, prompts, images)
    assert first == DEPTH - 2
    assert torch.equal(found.grid, whole.grid)
    assert torch.equal(found.prefix, whole.prefix)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_prompts_the_prefix_is_the_encoder(family: str) -> None:
    backbone, images = make_backbone(family), torch.randn(2, 3, 64, 40)

    found = backbone.finish(frozen_below(Prompts().first(DEPTH), backbone, images).tokens)

    assert torch.equal(found.grid, encode(backbone, Prompts(), images).grid)


@pytest.mark.parametrize("method", EARLY, ids=lambda method: method.__name__)
def test_what_acts_on_the_first_tokens_leaves_no_prefix(method: type[Prompts]) -> None:
    assert method(make_backbone("vit").spec).first(DEPTH) == 0


def test_gradients_of_prompts_are_those_of_the_whole_encoder() -> None:
    backbone, images = make_backbone("vit"), torch.randn(2, 3, 64, 40)
    prompts, weights = DeepPrompts(backbone.spec, count=4, blocks=[2]), torch.randn(2, 32, 8, 5)
    (whole,) = torch.autograd.grad((encode(backbone, prompts, images).grid * weights).sum(), prompts.table.tokens)
    rest = encode_from(frozen_below(2, backbone, images), backbone, prompts, None).grid

    (found,) = torch.autograd.grad((rest * weights).sum(), prompts.table.tokens)

    assert torch.equal(found, whole)


def test_a_tuned_backbone_has_no_frozen_prefix() -> None:
    backbone = make_backbone("vit")
    prompts = DeepPrompts(backbone.spec, blocks="last:1")
    model = PromptedModel(backbone, prompts, MaskHead(backbone.spec, classes=2, width=8, detail=8, levels=1))
    assert model.first_trained_block() == DEPTH - 1

    tune_bias(model)

    assert model.first_trained_block() == 0
