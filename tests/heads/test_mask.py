"""The mask decoder: logits in the image's own size, from several depths, every parameter of use, and few of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from encoders import make_sam, plain_spec
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from vpt.backbones import load_backbone
from vpt.backbones.base import BackboneSpec
from vpt.backbones.vit import VitBackbone
from vpt.errors import VptError
from vpt.heads import MaskHead
from vpt.heads.mask import MaskHeadConfig, convolution, merged
from vpt.model import PromptedModel
from vpt.prompts import DeepPrompts, Prompts, ShallowPrompts
from vpt.prompts.deep import DeepConfig
from vpt.prompts.shallow import ShallowConfig

CLASSES = 3


def make_model(**options: Any) -> PromptedModel:
    torch.manual_seed(0)
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2, "num_classes": 0}
    vit = VisionTransformer(**(size | options))
    backbone = VitBackbone(vit, name="tiny", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), sha256="")
    head = MaskHead(backbone.spec, classes=CLASSES, width=16, detail=8, levels=2)
    return PromptedModel(backbone, DeepPrompts(backbone.spec, count=2), head)


def draw(model: PromptedModel, batch: int = 2) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, 3, *model.backbone.spec.image_size)


def spec_of_depth(depth: int) -> BackboneSpec:
    return plain_spec(name="tiny", width=32, depth=depth, heads=2, image_size=(32, 32), patch=(8, 8))


@pytest.mark.parametrize(
    ("patch", "image_size"),
    [
        (8, 32),
        (8, (32, 72)),
        (8, (72, 32)),
        (14, 56),
        (14, (42, 70)),  # a quarter of it is no whole number
        (16, 64),
        (16, (80, 48)),
        ((16, 8), (32, 40)),
        (4, 20),
        (2, 6),
    ],
)
def test_logits_have_the_size_of_the_image(patch: Any, image_size: Any) -> None:
    model = make_model(patch_size=patch, img_size=image_size)
    images = draw(model)

    logits = model(images)

    assert logits.shape == (2, CLASSES, *images.shape[-2:])
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("options", [{"class_token": False, "global_pool": "avg"}, {"reg_tokens": 4}])
def test_prefix_tokens_do_not_matter_to_the_shape(options: dict[str, Any]) -> None:
    model = make_model(**options)

    assert model(draw(model)).shape == (2, CLASSES, 32, 32)


def test_two_maps_are_merged_as_one_behind_the_other() -> None:
    torch.manual_seed(0)
    merge, mask, detail = convolution(24, 16).double(), torch.randn(2, 16, 5, 7), torch.randn(2, 8, 5, 7)
    parts = [part.double().requires_grad_() for part in (mask, detail)]
    ours = merged(merge, *parts)
    expected = merge(torch.cat(parts, dim=1))
    learned = [*parts, *merge.parameters()]
    along = torch.randn_like(expected)

    gradients = [torch.autograd.grad(out, learned, along) for out in (ours, expected)]

    assert (ours - expected).abs().max() <= 1e-12
    assert all((a - b).abs().max() <= 1e-12 for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("classes", [1, 2, 9])
def test_every_class_has_its_logits(classes: int) -> None:
    model = make_model()
    head = MaskHead(model.backbone.spec, classes=classes, width=16, detail=8, levels=1)

    assert PromptedModel(model.backbone, Prompts(), head)(draw(model)).shape == (2, classes, 32, 32)


@pytest.mark.parametrize(
    ("depth", "levels", "read"),
    [(12, 4, (2, 5, 8, 11)), (8, 4, (1, 3, 5, 7)), (12, 1, (11,)), (24, 4, (5, 11, 17, 23)), (3, 3, (0, 1, 2))],
)
def test_levels_are_spread_evenly_up_to_the_last_block(depth: int, levels: int, read: tuple[int, ...]) -> None:
    assert MaskHead(spec_of_depth(depth), classes=2, levels=levels).levels == read


@pytest.mark.parametrize("depth", range(1, 13))
def test_levels_of_any_depth_are_different_blocks_that_exist(depth: int) -> None:
    for levels in range(1, depth + 1):
        read = MaskHead(spec_of_depth(depth), classes=2, width=8, detail=8, levels=levels).levels
        gaps = [after - before for before, after in pairwise((-1, *read))]

        assert len(read) == levels
        assert read[-1] == depth - 1
        assert min(gaps) >= 1
        assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("levels", [0, -1, 4, 12])
def test_levels_that_the_encoder_does_not_have_are_refused(levels: int) -> None:
    with pytest.raises(VptError, match=rf"head: levels is {levels}; .* has 3 blocks, choose 1 to 3"):
        MaskHead(spec_of_depth(3), classes=2, levels=levels)


def test_a_batch_equals_its_images_one_by_one_and_its_order_does_not_matter() -> None:
    model = make_model().eval()
    images = draw(model, batch=4)

    with torch.no_grad():
        together = model(images)
        alone = torch.cat([model(image[None]) for image in images])
        turned = model(images.flip(0)).flip(0)

    assert (together - alone).abs().max() <= 1e-5
    assert (together - turned).abs().max() <= 1e-5


def test_training_mode_changes_nothing_in_the_head() -> None:
    model = make_model()
    images = draw(model)

    assert torch.equal(model.train()(images), model.eval()(images))


def test_gradients_reach_every_parameter_of_the_head() -> None:
    model = make_model()
    model(draw(model)).square().mean().backward()

    without = [name for name, p in model.head.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_the_mask_depends_on_the_image_and_on_every_level() -> None:
    model = make_model()
    images = draw(model)
    captured: dict[str, Any] = {}
    model.head.register_forward_pre_hook(lambda _, inputs: captured.update(features=inputs[0]))
    logits = model.eval()(images)
    features = captured["features"]

    with torch.no_grad():
        assert not torch.allclose(model.head(features, images + torch.randn_like(images)), logits, atol=1e-3)
        for k, level in enumerate(features.levels):
            levels = tuple(torch.randn_like(level) if j == k else other for j, other in enumerate(features.levels))
            assert not torch.allclose(model.head(replace(features, levels=levels), images), logits, atol=1e-3)


def test_fine_detail_moves_the_mask_where_it_lies() -> None:
    model = make_model().eval()
    images = draw(model, batch=1)
    spotted = images.clone()
    spotted[..., 5, 9] += 20
    captured: dict[str, Any] = {}
    model.head.register_forward_pre_hook(lambda _, inputs: captured.update(features=inputs[0]))

    with torch.no_grad():
        before = model(images)
        difference = (model.head(captured["features"], spotted) - before).abs().sum(1)[0]

    row, column = divmod(difference.argmax().item(), difference.shape[1])
    assert max(abs(row - 5), abs(column - 9)) <= 2  # within a quarter of the 8-pixel patch


def test_it_reads_the_levels_of_a_windowed_encoder_whose_neck_has_another_width() -> None:
    backbone = make_sam()
    head = MaskHead(backbone.spec, classes=CLASSES, width=16, detail=8, levels=2)
    model = PromptedModel(backbone, DeepPrompts(backbone.spec, count=2), head)

    logits = model(draw(model))
    logits.square().mean().backward()

    assert logits.shape == (2, CLASSES, 64, 40)
    assert all(parameter.grad.abs().sum() > 0 for parameter in head.parameters())


@pytest.mark.parametrize("image_size", [64, (128, 96)])
@pytest.mark.parametrize("classes", [2, 10])
def test_everything_trained_with_the_micro_backbone_stays_under_half_a_million(image_size: Any, classes: int) -> None:
    backbone = load_backbone("vit_micro", weights="random", image_size=image_size)
    for prompts in (
        DeepPrompts(backbone.spec, **DeepConfig().model_dump(exclude={"method", "init"})),
        ShallowPrompts(backbone.spec, **ShallowConfig().model_dump(exclude={"method", "init"})),
    ):
        head = MaskHead(backbone.spec, classes=classes, **MaskHeadConfig().model_dump(exclude={"kind"}))

        assert PromptedModel(backbone, prompts, head).count_parameters()["trained"] < 500_000
