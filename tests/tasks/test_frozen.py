"""A model taken apart below its first trained block gives the features, the logits and the gradients of the whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from encoders import DEPTH, FAMILIES, draw, make_backbone, make_vit, shaken

from vpt.backbones.tokens import Features
from vpt.heads import ClassifyHead, MaskHead
from vpt.model import PromptedModel, encode
from vpt.prompts import CrossPrompts, DeepPrompts, Prompts
from vpt.tasks.batch import Batch
from vpt.tasks.frozen import FrozenPrefix
from vpt.tasks.segmentation import SliceModel, SliceModelOverPrefix

# Half precision has 11 bits; what is stored is rounded by 2**-11 of itself, and the blocks above pass that on.
HALF = {"rtol": 5e-3, "atol": 5e-3}


def model_of(family: str, late: int, levels: int = 4, prompts: Any = DeepPrompts) -> PromptedModel:
    """Prompts in the last `late` blocks, of 0 none; a mask head that reads `levels` blocks, of 4 all."""
    backbone = make_backbone(family)
    given = prompts(backbone.spec, count=3, blocks=f"last:{late}") if late else Prompts()
    return PromptedModel(backbone, given, shaken(MaskHead(backbone.spec, classes=2, width=8, detail=8, levels=levels)))


def prefix_of(model: PromptedModel) -> FrozenPrefix:
    return FrozenPrefix(model, model.first_trained_block())


def features_of(prefix: FrozenPrefix, rows: torch.Tensor) -> Features:
    return prefix.encode(rows).features


def tensors(features: Features) -> list[torch.Tensor]:
    return [features.grid, features.prefix, *features.levels]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("late", [0, 1, 2, 3])
@pytest.mark.parametrize("levels", [1, 2, 4])
def test_features_from_rows_are_those_of_the_whole_encoder(family: str, late: int, levels: int) -> None:
    model, images = model_of(family, late, levels).eval(), draw(2)
    prefix = prefix_of(model)
    assert prefix.first == DEPTH - late

    rows = prefix.rows(images)

    assert rows.shape == (2, prefix.size)
    whole = encode(model.backbone, model.prompts, images, levels=model.head.levels)
    for found, expected in zip(tensors(features_of(prefix, rows)), tensors(whole), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for found, expected in zip(tensors(features_of(prefix, rows.half())), tensors(whole), strict=True):
        torch.testing.assert_close(found, expected, **HALF)


@pytest.mark.parametrize("options", [{}, {"global_pool": "avg"}, {"class_token": False, "global_pool": "map"}])
def test_the_vector_that_an_encoder_pools_itself_is_stored_too(options: dict[str, Any]) -> None:
    backbone, images = make_vit(**options), draw(2)
    prefix = prefix_of(PromptedModel(backbone, Prompts(), ClassifyHead(backbone.spec, outputs=2)).eval())

    found, whole = features_of(prefix, prefix.rows(images)), encode(backbone, Prompts(), images)

    assert (whole.pooled is None) == (options == {})
    assert found.pooled is whole.pooled is None or torch.equal(found.pooled, whole.pooled)
    assert torch.equal(prefix.model.head(found, images), prefix.model.head(whole, images))


def test_a_grid_that_enters_and_is_read_is_stored_once() -> None:
    one = 8 * 5 * 32
    assert prefix_of(model_of("sam", late=2, levels=4)).size == 2 * one  # after blocks 0 and 1; that after 1 enters 2
    assert prefix_of(model_of("sam", late=1, levels=2)).size == 2 * one  # after block 1, and what enters block 3
    assert prefix_of(model_of("vit", late=2, levels=1)).size == one + 32  # and the CLS token


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prompts", [DeepPrompts, CrossPrompts])
def test_gradients_are_those_of_the_whole(family: str, prompts: Any) -> None:
    """Of prompts and head, from rows as they are, and as they are stored."""
    model, images = model_of(family, late=2, prompts=prompts), draw(2)
    parameters, stored = model.trained(), SliceModelOverPrefix(prefix_of(model))
    weights = torch.randn(2, 2, 64, 40)

    def gradients(logits: torch.Tensor) -> list[torch.Tensor]:
        return list(torch.autograd.grad((logits * weights).sum(), list(parameters.values())))

    whole = gradients(SliceModel(model)(Batch(images=images)).logits)
    exact = gradients(stored(Batch(images=images, rows=stored.encode(images))).logits)
    half = gradients(stored(Batch(images=images, rows=stored.encode(images).half())).logits)

    assert any(name.startswith("prompts.") for name in parameters)
    for name, expected, found, rounded in zip(parameters, whole, exact, half, strict=True):
        assert expected.abs().sum() > 0, name
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
        assert torch.nn.functional.cosine_similarity(rounded.flatten(), expected.flatten(), dim=0) > 0.9999, name


def test_without_rows_the_whole_model_runs() -> None:
    model, images = model_of("vit", late=2).eval(), draw(2)
    batch = Batch(images=images)
    assert torch.equal(SliceModelOverPrefix(prefix_of(model))(batch).logits, SliceModel(model)(batch).logits)
