"""The probe chooses its strength on validation images and scores the test images once."""

from __future__ import annotations

import torch
from probe_micro import STRENGTHS, probe
from torch import Tensor


def blobs(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features of three classes, of which each has a direction of its own."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    return torch.randn(count, 6, generator=generator) + 8 * torch.eye(6)[labels], labels


def test_classes_that_lie_apart_are_told_apart() -> None:
    found = probe(blobs(60, 0), blobs(30, 1), blobs(30, 2))
    assert (found.score, found.chosen) == (100, 100)
    assert found.strength == min(STRENGTHS)  # all do as well


def test_the_strength_is_chosen_without_the_test_images() -> None:
    features, labels = blobs(30, 2)
    found = probe(blobs(60, 0), blobs(30, 1), (features, (labels + 1) % 3))
    assert (found.score, found.chosen) == (0, 100)
