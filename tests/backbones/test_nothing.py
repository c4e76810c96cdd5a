"""The backbone that is none: a head is given the images, planned as for the encoder in whose place it stands."""

from __future__ import annotations

import pytest
import torch
from encoders import draw

from vpt.backbones import describe_backbone, load_backbone
from vpt.backbones.nothing import in_place_of
from vpt.errors import VptError
from vpt.model import encode
from vpt.prompts import Prompts


def test_a_head_is_given_the_images_as_they_are() -> None:
    backbone, images = load_backbone("none", image_size=(24, 40)), draw(2, (24, 40))
    features = encode(backbone, Prompts(), images)
    assert torch.equal(features.grid, images)
    assert (features.prefix.shape, features.levels) == ((2, 0, 3), ())
    assert (backbone.spec.image_size, backbone.spec.finished.grid) == ((24, 40), (24, 40))
    assert (backbone.spec.depth, list(backbone.state_dict())) == (0, [])


@pytest.mark.parametrize("name", ["vit_micro", "sam_micro", "lite_medsam", "vit_tiny_patch16_224"])
def test_images_are_given_as_to_the_encoder_in_whose_place_it_stands(name: str) -> None:
    other = describe_backbone(name)
    own = describe_backbone("none", **in_place_of(other))
    for asked in ("image_size", "patch", "mean", "std", "padding", "interpolation"):
        assert getattr(own, asked) == getattr(other, asked)


def test_what_is_asked_of_blocks_is_refused() -> None:
    backbone = load_backbone("none")
    with pytest.raises(VptError, match="backbone none: it has no blocks, so none is number 2"):
        backbone.attention_of(2)
    with pytest.raises(VptError, match="it has no blocks"):
        backbone.block(0, backbone.embed(draw(1)), None)


def test_weights_are_refused() -> None:
    with pytest.raises(VptError, match=r"no encoder and has no weights, found x\.pth; leave them out"):
        load_backbone("none", weights="x.pth")
    assert load_backbone("none", weights="random").sha256 == load_backbone("none").sha256
