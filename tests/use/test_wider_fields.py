"""More around the body than in training: slices that are cut into tiles, or a crop that leaves nearly all, are told."""

from __future__ import annotations

import warnings
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from masks import same_place, scan_plan, threshold, voxels

from vpt.data.plan import Plan, Window
from vpt.data.sizes import TrainingForeground, TrainingSizes
from vpt.errors import HeaderWarning, VptWarning
from vpt.use.by_task import SegmenterByTask
from vpt.use.segmenter import Segmenter

CT = Window(low=-200, high=400)
TILED = "slices of 150x130 mm, nearly all of the training 64 mm at most: each is cut into tiles that show a part of it"


def sizes(side: float = 64.0) -> TrainingSizes:
    return TrainingSizes(pixel=(1.0, 1.0), side=(50.0, side))


def plan_of(**changes: Any) -> Plan:
    return scan_plan(**{"pixel_mm": 1.0, "sizes": sizes(), "channels": ("CT",), "intensity": (CT,)} | changes)


def image_of(rows: int, columns: int, around: float = -1000.0, body: float = 30.0, offset: int = 0) -> nib.Nifti1Image:
    """Axial slices of 1 mm with an ellipse of 40x30 mm off the middle, something bright in it and beside it."""
    x, y, _ = np.mgrid[:columns, :rows, :4]
    parts = ((x - columns // 2 - 3) / 20) ** 2 + ((y - rows // 2 + 2) / 15) ** 2
    array = np.where(parts <= 1, body, around)
    array[parts <= 0.1] = 350
    array[2:4, 2:4] = 350
    return nib.Nifti1Image((array + offset).astype(np.int16), np.diag([-1.0, -1.0, 3.0, 1.0]))


def said(segmenter: Segmenter, image: nib.Nifti1Image) -> list[str]:
    """What is warned of, where all that is bright is found all the same, wherever it lies."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        mask = segmenter.segment(image)
    same_place(mask, image)
    assert np.array_equal(voxels(mask) == 117, voxels(image) >= 350)
    return [str(each.message) for each in found if issubclass(each.category, VptWarning)]


def test_slices_that_are_cut_into_tiles_as_none_of_the_training_were_are_told() -> None:
    image = image_of(150, 130)
    (told,) = said(threshold(plan_of()), image)
    assert TILED in told
    with pytest.warns(HeaderWarning, match="each is cut into tiles"):
        threshold(plan_of()).segment(image)


@pytest.mark.parametrize(
    ("plan", "shape"),
    [
        (plan_of(), (64, 60)),  # fits
        (plan_of(), (68, 70)),  # a tile shows nearly all of it
        (plan_of(sizes=sizes(90.0)), (150, 130)),  # those of the training were tiled as well
        (plan_of(image_size=128, sizes=sizes(64.0)), (110, 120)),  # larger, and fits
        (plan_of(sizes=None), (150, 130)),  # of a plan that says nothing of it
    ],
)
def test_slices_that_are_seen_as_those_of_the_training_are_not_told(plan: Plan, shape: tuple[int, int]) -> None:
    assert said(threshold(plan), image_of(*shape)) == []


@pytest.mark.parametrize(("side", "shape", "told"), [(70.0, (70, 72), False), (70.0, (150, 130), True)])
def test_a_training_whose_largest_slices_hardly_fitted_counts_as_whole(
    side: float, shape: tuple[int, int], told: bool
) -> None:
    assert bool(said(threshold(plan_of(sizes=sizes(side))), image_of(*shape))) == told


def test_a_foreground_that_holds_far_more_than_in_training_is_told() -> None:
    usual = {"channels": ("T1",), "intensity": (Window(low=0, high=500),), "crop": "foreground", "sizes": None}
    plan = plan_of(**usual, foreground=TrainingForeground(share=0.3, side=60.0))
    assert said(threshold(plan), bare(150, 130)) == []
    (told,) = said(threshold(plan), bare(150, 130, offset=10))
    assert "the box around what is no background holds 100% of the voxels, in the training 30% at most" in told
    assert told.endswith("set what lies around the body to what is background, 0")
    assert said(threshold(plan), bare(50, 60, offset=10)) == []  # nothing but the body
    assert said(threshold(plan.model_copy(update={"foreground": None})), bare(150, 130, offset=10)) == []
    small = plan_of(**usual, foreground=TrainingForeground(share=0.9, side=30.0), image_size=32)
    (told,) = said(threshold(small), bare(150, 130))
    assert "nearly all of the training 30 mm at most: each is cut into tiles" in told


@pytest.mark.parametrize(("chosen", "expected"), [("narrow", 1), ("wide", 0)])
def test_of_tasks_the_one_that_answers_warns_alone(monkeypatch: pytest.MonkeyPatch, chosen: str, expected: int) -> None:
    usual = {"channels": ("T1",), "intensity": (Window(low=0, high=500),), "crop": "foreground", "sizes": None}
    shown = {"narrow": TrainingForeground(share=0.3, side=60.0), "wide": TrainingForeground(share=1.0, side=160.0)}
    members = {task: threshold(plan_of(**usual, foreground=each)) for task, each in shown.items()}
    for task, member in members.items():
        monkeypatch.setattr(member, "known", object())
        monkeypatch.setattr(member, "distance_of", lambda scan, near=task == chosen: 0.5 if near else 2.0)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        prepared = SegmenterByTask(members).prepare(bare(150, 130, offset=10))
    told = [str(each.message) for each in found if issubclass(each.category, VptWarning)]
    assert (prepared.task, len(told), prepared.warned) == (chosen, expected, tuple(told))


def bare(rows: int, columns: int, offset: int = 0) -> nib.Nifti1Image:
    """MR of the body alone, around which all is 0."""
    image = image_of(rows, columns, around=0, body=60, offset=offset)
    array = np.array(image.dataobj)
    array[2:4, 2:4] = offset
    return nib.Nifti1Image(array, image.affine)
