"""Samples by name become batches by name, whichever parts a data set has."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import TensorDataset, default_collate

from vpt.tasks.batch import Batch, NamedSamples, Output, to_device

IMAGES, TRUTH, WEIGHTS = torch.rand(4, 3, 2, 2), torch.arange(4), torch.rand(4)


def test_torchs_own_collate_makes_a_batch_of_samples() -> None:
    samples = NamedSamples(TensorDataset(IMAGES, TRUTH, WEIGHTS), ["images", "truth", "weights"])
    batch = default_collate([samples[k] for k in (2, 0)])
    assert batch.keys() == {"images", "truth", "weights"}
    assert torch.equal(batch["images"], IMAGES[[2, 0]])
    assert torch.equal(batch["truth"], TRUTH[[2, 0]])
    assert torch.equal(batch["weights"], WEIGHTS[[2, 0]])


@pytest.mark.parametrize("names", [["images"], ["images", "truth", "hints"]])
def test_every_part_has_a_name_and_every_name_a_part(names: list[str]) -> None:
    with pytest.raises(ValueError, match="zip"):
        NamedSamples(TensorDataset(IMAGES, TRUTH), names)[0]


def test_all_parts_go_to_the_device() -> None:
    moved = to_device(Batch(images=IMAGES, truth=TRUTH, place=WEIGHTS), torch.device("meta"))
    assert moved.keys() == {"images", "truth", "place"}
    assert {part.device.type for part in moved.values()} == {"meta"}


def test_an_output_has_no_penalty_unless_one_is_given() -> None:
    assert Output(IMAGES).penalty is None
    assert Output(IMAGES, torch.tensor(1.0)).penalty == 1
