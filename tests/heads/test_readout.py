"""The read-out of frozen features: each place by itself, of several depths and widths, with the parameters it says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_sam import draw, make_tiny_sam

from vpt.backbones.tokens import Features
from vpt.errors import VptError
from vpt.heads.base import Answer
from vpt.heads.readout import ReadoutConfig, ReadoutHead
from vpt.model import PromptedModel
from vpt.prompts import Prompts


def test_it_reads_the_last_blocks_of_stages_of_several_widths_and_is_as_large_as_it_says() -> None:
    backbone = make_tiny_sam()  # widths 24, 24, 24 and 32 after the last four blocks but one
    model = PromptedModel(backbone, Prompts(), ReadoutConfig(levels=4, hidden=5).build(backbone, Answer(3)))
    images = draw(2)

    logits = model(images)
    logits.square().mean().backward()

    widths = [backbone.spec.left(i).width for i in range(backbone.spec.depth - 4, backbone.spec.depth)]
    assert len(set(widths)) > 1
    count = 2 * sum(widths) + 5 * (sum(widths) + 1) + 3 * (5 + 1)
    assert model.count_parameters()["trained"] == model.count_parameters()["head"] == count
    assert logits.shape == (2, 3, *images.shape[-2:])
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.trained().values())
    assert model.first_trained_block() == backbone.spec.depth  # so all of the encoder runs once for each view


def test_a_place_knows_nothing_of_its_neighbours_nor_of_the_image() -> None:
    spec = make_tiny_sam().spec
    head, size = ReadoutHead(spec, classes=2, levels=2, hidden=4).eval(), spec.finished.grid
    levels = tuple(torch.randn(1, spec.left(i).width, *size) for i in head.levels)
    features = Features(torch.zeros(1, 1, *size), torch.zeros(1, 0, 1), levels)
    moved = replace(features, levels=tuple(level.roll(1, -1) for level in levels))

    found, shifted = (head(each, torch.randn(1, 3, *size)) for each in (features, moved))

    torch.testing.assert_close(found.roll(1, -1), shifted)


def test_more_levels_than_blocks_are_refused() -> None:
    spec = make_tiny_sam().spec
    with pytest.raises(VptError, match=rf"levels is 20; tiny has {spec.depth} blocks, choose 1 to {spec.depth}"):
        ReadoutHead(spec, classes=2, levels=20)
