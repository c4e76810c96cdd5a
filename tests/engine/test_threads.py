"""How far the number of threads of the processor may move what a training leaves: sums are taken in another order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_run import SETTINGS

import vpt
from vpt.engine.run import train

FAR = {"32-true": 1e-5, "bf16-mixed": 1e-3}  # of the length of a tensor


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("precision", FAR)
def test_one_thread_or_two_differ_by_rounding(precision: str, tiny_data: Path, tmp_path: Path) -> None:
    scans, masks = sorted((tiny_data / "imagesTr").glob("*.nii.gz"))[:2], {}
    for count in (1, 2):
        torch.set_num_threads(count)
        train(tiny_data, tmp_path / str(count), overrides=SETTINGS | {"precision": precision}, brief=True)
        model = vpt.load(tmp_path / "1", "cpu")
        masks[count] = np.concatenate([np.asarray(model.segment(scan).dataobj).ravel() for scan in scans])

    one, two = (load_file(tmp_path / str(count) / "last.safetensors") for count in (1, 2))

    for name in one:
        assert (one[name] - two[name]).norm() <= FAR[precision] * one[name].norm(), name
    assert (masks[1] != masks[2]).mean() <= 1e-3
