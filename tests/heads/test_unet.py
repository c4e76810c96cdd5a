"""The U-Net from scratch: images of any size, everything trains, nothing is frozen."""

from __future__ import annotations

import pytest
import torch
from encoders import draw

from vpt.backbones import load_backbone
from vpt.errors import VptError
from vpt.heads.base import Answer
from vpt.heads.unet import UnetConfig, UnetHead
from vpt.model import PromptedModel
from vpt.prompts import Prompts


def make_model(width: int = 4, size: tuple[int, int] = (40, 52)) -> PromptedModel:
    backbone = load_backbone("none", image_size=size)
    torch.manual_seed(0)
    return PromptedModel(backbone, Prompts(), UnetConfig(width=width).build(backbone, Answer(3)))


def test_logits_have_the_images_size_and_batched_equals_one_by_one() -> None:
    model, images = make_model().eval().double(), draw(2, (40, 52)).double()
    logits = model(images)
    assert logits.shape == (2, 3, 40, 52)
    assert torch.allclose(logits, torch.cat([model(image[None]) for image in images]))


def test_what_fills_an_image_up_to_whole_stages_is_its_mean() -> None:
    model, image = make_model().eval(), draw(1, (40, 52))
    filled = torch.zeros(1, 3, 48, 64)  # of normalised images the mean is 0
    filled[..., :40, :52] = image
    assert torch.equal(model(image), model(filled)[..., :40, :52])


@pytest.mark.slow
def test_every_parameter_trains_and_none_is_frozen() -> None:
    model = make_model()
    model(draw(2, (40, 52))).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.head.parameters() if p.ndim > 1)
    counts = model.count_parameters()
    assert counts["trained"] == counts["head"] == sum(p.numel() for p in model.parameters())
    assert counts["frozen"] == counts["prompts"] == counts["backbone"] == 0


def test_at_its_own_width_it_has_two_to_five_million_parameters() -> None:
    with torch.device("meta"):
        head = UnetHead(load_backbone("none").spec, classes=2)
    assert 2e6 < sum(p.numel() for p in head.parameters()) < 5e6


def test_images_too_small_for_its_stages_are_refused() -> None:
    with pytest.raises(VptError, match=r"images of 16x40 px are too small for 5 stages; choose plan\.image_size 32"):
        make_model(size=(16, 40))
    assert make_model(size=(17, 17))(draw(2, (17, 17))).shape == (2, 3, 17, 17)
