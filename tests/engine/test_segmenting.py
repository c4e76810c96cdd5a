"""Validation on whole volumes."""

from __future__ import annotations

import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from forwards import forward_of
from tiny_run import SETTINGS
from torch import nn

from vpt.config import load_config
from vpt.data.check import check_dataset
from vpt.data.label_values import IGNORED
from vpt.data.slices.cached_slices import prepare_cases
from vpt.engine.segmenting import Segmenting
from vpt.engine.setup import prepare_setup
from vpt.engine.validating import means, validate, worst_dice
from vpt.progress import silent
from vpt.tasks.segmentation import where_it_counts


class Always(nn.Module):
    """Finds the last of so many classes everywhere."""

    def __init__(self, classes: int):
        super().__init__()
        self.rule = forward_of(
            lambda images: torch.arange(classes)[None, :, None, None] * torch.ones_like(images[:, :1])
        )

    def forward(self, batch):
        return self.rule(batch)


def test_what_is_ignored_is_no_part_of_validation_and_of_the_loss(tiny_data: Path, tmp_path: Path) -> None:
    labels = {"blob": 1, "ignore": 2}
    setup = prepare_setup(load_config(tiny_data, SETTINGS | {"data.labels": labels}))
    cases = [setup.dataset.case(name) for name in setup.splits.val]
    prepared = prepare_cases(setup.dataset, cases, setup.plan, tmp_path / "cache", silent, native=True)
    truth = [np.load(case.native) for case in prepared if case.native]
    dice = [2 * np.sum(each == 1) / (np.sum(each == 1) + np.sum(each != IGNORED)) for each in truth]
    assert all(np.sum(each == IGNORED) > 100 for each in truth)
    assert validate(Always(2), prepared, setup, 8)["dice_blob"] == pytest.approx(np.mean(dice))
    assert setup.dataset.ignores
    job = Segmenting(tmp_path, setup, tmp_path / "cache")
    job.read()
    assert job.loss.__qualname__.startswith(where_it_counts.__qualname__)


def test_the_worst_group_is_the_one_with_the_least_dice() -> None:
    scores = [{1: 1.0, 2: 0.5}, {1: 0.5, 2: math.nan}, {1: math.nan}]
    names = ["background", "liver", "tumour"]
    assert means(scores, names) == {"dice_liver": 0.75, "dice_tumour": 0.5}
    assert worst_dice([[0], [1, 2], [2]], scores, names) == 0.5
    assert worst_dice([[2]], scores, names) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("every", "said"),
    [
        (True, "where the background is expected, and 0 inside; are the labels inverted? Then write the background as"),
        (False, "(case_0) have a label along their edges and 0 inside, the others 0 along theirs; are these inverted?"),
    ],
)
def test_inverted_masks_are_told_before_a_training_as_vpt_check_tells_them(
    copied_data: Path, tmp_path: Path, every: bool, said: str
) -> None:
    setup = prepare_setup(load_config(copied_data, SETTINGS))
    for name in [case.name for case in setup.dataset.cases] if every else setup.splits.train[:1]:
        path = copied_data / "labelsTr" / f"{name}.nii.gz"
        image = nib.load(path)
        nib.save(nib.Nifti1Image((np.asanyarray(image.dataobj) == 0).astype(np.uint8), image.affine), path)
    said = said.replace("case_0", setup.splits.train[0])
    job = Segmenting(tmp_path, setup, tmp_path / "cache")
    job.prepare()
    (doubt,) = (each for each in job.doubts() if "inverted" in each)
    assert doubt.startswith(f"{copied_data}: ")
    assert said in doubt
    assert any(said in each.text for each in check_dataset(copied_data).warnings)
