"""AdaptFormer: as its authors' code has it, and the form of versions before 0.2.0."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from vpt.backbones import load_backbone
from vpt.heads import MaskHead
from vpt.model import PromptedModel
from vpt.prompts import DeepPrompts
from vpt.tuning.adapter import AdapterConfig, tune_adapter


def make(encoder: str, **settings: Any) -> tuple[PromptedModel, Any]:
    """A model with adapters that are not at their start, and its encoder."""
    backbone = load_backbone(encoder, weights="random", image_size=64)
    model = PromptedModel(backbone, DeepPrompts(backbone.spec, count=2), MaskHead(backbone.spec, classes=2))
    tune_adapter(model, **settings)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    (inner,) = backbone.children()
    return model, inner


def of_a_block(model: PromptedModel, inner: Any) -> tuple[Tensor, Tensor]:
    """The tokens as attention left them in block 1, and what the block adds to them."""
    block, seen = inner.blocks[1], []
    hook = block.norm2.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    tokens = model.backbone.embed(torch.randn(2, 3, 64, 64))
    left = model.backbone.block(1, tokens, torch.randn(3, tokens.grid.shape[-1]))
    hook.remove()
    joined = tokens.sequence is not None
    after = left.sequence if joined else left.grid
    return seen[0], after - seen[0]


@pytest.mark.parametrize("encoder", ["vit_micro", "sam_micro"])
@pytest.mark.parametrize("normed", [False, True])
@torch.no_grad()
def test_it_reads_the_tokens_as_attention_left_them_or_normed(encoder: str, normed: bool) -> None:
    plain = load_backbone(encoder, weights="random", image_size=64)
    (untouched,) = plain.children()
    model, inner = make(encoder, normed=normed)
    model.eval()
    x, added = of_a_block(model, inner)
    own, adapted = untouched.blocks[1], inner.blocks[1].mlp
    read = own.norm2(x) if normed else x
    narrow = (read @ adapted.down.weight.T + adapted.down.bias).clamp(min=0)
    expected = own.mlp(own.norm2(x)) + 0.1 * (narrow @ adapted.up.weight.T + adapted.up.bias)

    assert (added - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("normed", [False, True])
@torch.no_grad()
def test_tiny_vit_has_its_norm_inside_the_mlp_and_blocks_without_one(normed: bool) -> None:
    plain = load_backbone("lite_medsam", weights="random", image_size=64)
    (untouched,) = plain.children()
    fresh = load_backbone("lite_medsam", weights="random", image_size=64)
    model = PromptedModel(fresh, DeepPrompts(fresh.spec, count=2), MaskHead(fresh.spec, classes=2))
    tune_adapter(model, width=5, normed=normed)
    (inner,) = fresh.children()
    own = untouched.blocks[4].mlp
    branch = inner.blocks[4].mlp
    adapted = branch[1] if normed else branch
    x = torch.randn(1, 6, 6, own.fc1.in_features)

    assert (branch.eval()(x) - own(x)).abs().max() <= 1e-5  # at its start
    adapted.up.weight.normal_()
    read = own.norm(x) if normed else x
    narrow = (read @ adapted.down.weight.T + adapted.down.bias).clamp(min=0)
    assert (branch(x) - own(x) - 0.1 * narrow @ adapted.up.weight.T).abs().max() <= 1e-4
    assert model.count_parameters()["backbone"] == sum(
        2 * 5 * block.width + 5 + block.width for block in fresh.spec.blocks if block.attends
    )


def test_the_authors_form_is_the_default() -> None:
    assert (AdapterConfig().normed, AdapterConfig().dropout, AdapterConfig().scale) == (False, 0.1, 0.1)


@pytest.mark.parametrize("encoder", ["vit_micro", "sam_micro"])
@torch.no_grad()
def test_its_dropout_follows_the_model_while_the_encoder_stays_in_eval_mode(encoder: str) -> None:
    model, inner = make(encoder, dropout=0.5)
    images = torch.randn(1, 3, 64, 64)
    dropouts = {block.mlp.dropout for block in inner.blocks}

    assert {module for module in model.backbone.modules() if module.training} == dropouts  # as it was tuned
    assert not torch.equal(model(images), model(images))
    assert {module for module in model.eval().backbone.modules() if module.training} == set()
    assert torch.equal(model(images), model(images))
    assert {module for module in model.train().backbone.modules() if module.training} == dropouts


def test_it_drops_hidden_units_after_the_activation() -> None:
    model, inner = make("vit_micro", dropout=0.5)
    adapted, seen = inner.blocks[0].mlp, []
    adapted.up.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        adapted.down.weight.zero_()
        adapted.down.bias.fill_(1.0)
        model(torch.randn(2, 3, 64, 64))

    assert set(seen[0].unique().tolist()) == {0.0, 2.0}
    assert 0.4 < (seen[0] == 0).float().mean() < 0.6
