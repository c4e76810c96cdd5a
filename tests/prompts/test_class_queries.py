"""Prompts of classes travel through the last blocks, and the heads read what has become of them: against plain code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from encoders import DEPTH, WIDTH, Stages, draw, make_eva, make_sam, make_vit, shaken
from torch import Tensor

import vpt
from vpt.errors import VptError
from vpt.heads.class_masks import ClassMaskHead
from vpt.heads.class_scores import ClassScoreHead
from vpt.model import PromptedModel
from vpt.prompts.class_queries import ClassQueries
from vpt.streams import Part, encode_together
from vpt.tasks.frozen import FrozenPrefix

CLASSES = 3


def scored(make: Any = make_vit, **how: Any) -> PromptedModel:
    backbone = make()
    prompts = shaken(ClassQueries(backbone.spec, classes=CLASSES, **({"last": 1} | how)))
    return PromptedModel(backbone, prompts, shaken(ClassScoreHead(backbone.spec, classes=CLASSES))).eval()


def masked(make: Any = make_vit, **how: Any) -> PromptedModel:
    backbone = make()
    prompts = shaken(ClassQueries(backbone.spec, classes=CLASSES, **({"last": 2} | how)))
    return PromptedModel(backbone, prompts, shaken(ClassMaskHead(backbone.spec, classes=CLASSES, width=8), 0.1)).eval()


def written_out(model: PromptedModel, images: Tensor, last: int) -> Tensor:
    """The finished sequence [CLS; queries; patches], by timm's own blocks on the longer sequence."""
    vit: Any = model.backbone.vit
    tokens = model.backbone.embed(images).sequence
    for i, block in enumerate(vit.blocks):
        if i == DEPTH - last:
            queries = model.prompts.queries.tokens[0].expand(len(images), -1, -1)
            tokens = torch.cat([tokens[:, :1], queries, tokens[:, 1:]], 1)
        below = model.prompts.below
        if below is not None and i < DEPTH - last:
            count = below.tokens.shape[1]
            beside = below.tokens[i].expand(len(images), -1, -1)
            tokens = block(torch.cat([beside, tokens], 1))[:, count:]
        else:
            tokens = block(tokens)
    return vit.norm(tokens)


@pytest.mark.parametrize("before", [0, 2])
@torch.no_grad()
def test_a_score_is_one_vector_times_what_has_become_of_a_prompt(before: int) -> None:
    model, images = scored(before=before), draw(2)
    finished = written_out(model, images, 1)[:, 1 : 1 + CLASSES]
    expected = finished @ model.head.output.weight[0] + model.head.output.bias

    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_mask_is_a_query_times_the_enlarged_features() -> None:
    model, images = masked(count=2), draw(2)
    finished, head = written_out(model, images, 2), model.head
    grid = finished[:, 1 + 2 * CLASSES :].mT.unflatten(2, (8, 5))
    features = head.enlarge(head.project(grid))
    assert features.shape == (2, 8, 16, 10)
    expected = torch.zeros(2, CLASSES, 16, 10)
    for image in range(2):
        for k in range(CLASSES):
            for n in range(2):
                query = head.of_query(finished[image, 1 + 2 * k + n])
                expected[image, k] += (torch.einsum("c,chw->hw", query, features[image]) / 8**0.5).exp()
    expected = F.interpolate(expected.log(), size=(64, 40), mode="bilinear", align_corners=False)

    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [make_vit, make_eva])
@pytest.mark.parametrize("model", [scored, masked])
@torch.no_grad()
def test_a_batch_equals_its_images_one_by_one(make: Any, model: Any) -> None:
    own, images = model(make, before=2), draw(4)
    together = own(images)
    assert (together - torch.cat([own(image[None]) for image in images])).abs().max() <= 2e-5
    assert (together[0] - together[1]).abs().max() > 1e-3


@pytest.mark.parametrize("model", [scored, masked])
def test_the_gradient_reaches_every_row_and_no_parameter_of_the_encoder(model: Any) -> None:
    own = model(before=2)
    own(draw(3)).square().sum().backward()
    for name, parameter in own.trained().items():
        rows = parameter.grad.flatten(1) if parameter.ndim > 1 else parameter.grad[:, None]
        assert (rows.abs().amax(1) > 0).all(), name
    assert all(parameter.grad is None for parameter in own.backbone.parameters())


@pytest.mark.parametrize(("model", "first"), [(scored, DEPTH - 1), (masked, DEPTH - 2)])
@torch.no_grad()
def test_over_a_stored_prefix_all_is_the_same(model: Any, first: int) -> None:
    own, images = model(), draw(2)
    assert own.first_trained_block() == first
    prefix = FrozenPrefix(own, first)
    features = prefix.encode(prefix.rows(images)).features
    torch.testing.assert_close(own.head(features, images), own(images), rtol=1e-4, atol=1e-4)
    assert model(before=1).first_trained_block() == 0


@torch.no_grad()
def test_tasks_with_prompts_of_classes_answer_in_a_mixed_batch_as_alone() -> None:
    """With as many prompts they run in one batch, beside tasks of another number and another kind."""
    backbone, images = make_vit().double(), draw(3).double()

    def task(prompts: Any, head: Any) -> PromptedModel:
        return PromptedModel(backbone, shaken(prompts), shaken(head, 0.1)).double().eval()

    spec, scores = backbone.spec, ClassScoreHead
    models = [
        task(ClassQueries(spec, classes=3, last=1), scores(spec, classes=3)),
        task(ClassQueries(spec, classes=3, last=1, before=2), scores(spec, classes=3)),
        task(ClassQueries(spec, classes=2, last=2, count=2), ClassMaskHead(spec, classes=2, width=8)),
        task(vpt.DeepPrompts(spec, count=2), vpt.ClassifyHead(spec, outputs=3)),
    ]
    parts = [Part(model, rows) for model, rows in zip(models, ([0, 2], [1], [2, 1, 0], [0]), strict=True)]
    for part, features in zip(parts, encode_together(backbone, images, parts), strict=True):
        own = images[list(part.images)]
        torch.testing.assert_close(part.model.head(features, own), part.model(own), rtol=1e-9, atol=1e-11)


def test_what_trains_is_counted_as_promised() -> None:
    counts = scored(before=2).count_parameters()
    assert counts["prompts"] == CLASSES * WIDTH + 2 * (DEPTH - 1) * WIDTH
    assert counts["head"] == WIDTH + 1
    assert masked(count=2).count_parameters()["prompts"] == 2 * CLASSES * WIDTH


@torch.no_grad()
def test_slices_of_a_volume_are_weighed_by_each_class_itself() -> None:
    head = shaken(ClassScoreHead(make_vit().spec, classes=CLASSES, slices=True))
    pooled = torch.randn(2, 4, CLASSES, WIDTH, generator=torch.Generator().manual_seed(5))
    alone = [head.output(head.over_slices(pooled[:, :, k])) for k in range(CLASSES)]
    torch.testing.assert_close(head.classify(pooled), torch.cat(alone, 1))


@torch.no_grad()
def test_rows_of_known_classes_are_taken_over() -> None:
    spec = make_vit().spec
    learned = shaken(ClassQueries(spec, classes=3, count=2, before=1))
    fresh = ClassQueries(spec, classes=2, count=2, before=1)
    unknown = fresh.queries.tokens[0, 2:].clone()
    fresh.take_over(learned, [2, None])
    assert torch.equal(fresh.queries.tokens[0, :2], learned.queries.tokens[0, 4:])
    assert torch.equal(fresh.queries.tokens[0, 2:], unknown)
    assert torch.equal(fresh.below.tokens, learned.below.tokens)


@pytest.mark.parametrize("make", [make_sam, Stages])
def test_encoders_that_leave_prompts_behind_are_refused(make: Any) -> None:
    with pytest.raises(VptError, match=r"to the end of (tiny|stages).*choose a plain ViT"):
        ClassQueries(make().spec, classes=2)


def test_what_means_nothing_is_refused() -> None:
    backbone = make_vit()
    with pytest.raises(VptError, match="last is 5; tiny has 4 blocks"):
        ClassQueries(backbone.spec, classes=2, last=5)
    model = PromptedModel(
        backbone, vpt.ShallowPrompts(backbone.spec, count=2), ClassScoreHead(backbone.spec, classes=3)
    )
    with pytest.raises(VptError, match="prompts of 3 classes are to be read and 2 have come"):
        model(draw(1))
