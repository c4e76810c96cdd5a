"""Lists of scans in Python: a list of answers, each what the scan has alone; the channels of one scan stay one scan."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from masks import bright_disc, image_plan, scan, scan_plan, threshold, tiny, voxels
from PIL import Image

from vpt.data.plan import Percentiles, Plan
from vpt.errors import VptError
from vpt.use.classifier import Classifier
from vpt.use.several import scans_in

TWO = scan_plan(neighbours=False, channels=("T1", "T2"), intensity=(Percentiles(),) * 2)


def saved(folder: Path, seed: int) -> Path:
    nib.save(scan(seed=seed), folder / f"{seed}.nii.gz")
    return folder / f"{seed}.nii.gz"


def array_image(colour: bool) -> np.ndarray:
    return bright_disc(colour=colour)[0]


@pytest.mark.parametrize(
    ("plan", "make"),
    [
        (scan_plan(pixel_mm=1.0), lambda folder, seed: scan(seed=seed)),
        (scan_plan(pixel_mm=1.0), saved),
        (image_plan(), lambda folder, seed: np.roll(array_image(False), seed, 0)),
        (image_plan(True), lambda folder, seed: Image.fromarray(np.roll(array_image(True), seed, 1))),
        (TWO, lambda folder, seed: [scan(seed=seed), scan(seed=seed + 10)]),
        (TWO, lambda folder, seed: (saved(folder, seed), saved(folder, seed + 10))),
    ],
)
@pytest.mark.parametrize("kind", [list, tuple])
def test_several_scans_have_the_masks_that_they_have_alone(
    tmp_path: Path, plan: Plan, make: Callable[[Path, int], Any], kind: type
) -> None:
    segmenter = threshold(plan)
    scans = [make(tmp_path, seed) for seed in range(3)]
    alone = [segmenter.segment(one) for one in scans]
    together = segmenter.segment(kind(scans))
    assert isinstance(together, list)
    assert len({voxels_of(mask).tobytes() for mask in alone}) == 3
    for mask, same in zip(together, alone, strict=True):
        assert np.array_equal(voxels_of(mask), voxels_of(same))
    assert len(segmenter.segment(kind(scans[:1]))) == 1


def voxels_of(mask: Any) -> np.ndarray:
    return mask if isinstance(mask, np.ndarray) else voxels(mask)


def test_several_images_have_the_probabilities_that_they_have_alone() -> None:
    plan = image_plan()
    model = tiny(plan, classes=2)[0]
    images = [np.roll(array_image(False), shift, 0) for shift in range(5)]

    def forward(batch: Any) -> Any:
        from vpt.model import Output

        return Output(batch["images"].flatten(1)[:, ::9][:, :700:233][:, :2] * 5)

    classifier = Classifier(model, forward, plan, ("a", "b"), "classes", torch.device("cpu"), batch_size=2)
    together = classifier.classify(images)
    assert together == [classifier.classify(image) for image in images]
    assert classifier.classify(images[:1]) == [classifier.classify(images[0])]


def test_a_list_is_one_scan_only_where_its_files_may_be_channels() -> None:
    one, images = scan_plan(), image_plan(True)
    assert scans_in("a.nii", one) is None
    assert scans_in(np.zeros((3, 3)), images) is None
    assert scans_in(["a.nii", "b.nii"], TWO) is None
    assert scans_in([["a.nii", "b.nii"]], TWO) == [["a.nii", "b.nii"]]
    assert scans_in(["a.nii", "b.nii"], one) == ["a.nii", "b.nii"]
    assert scans_in(["a.png"], images) == ["a.png"]


@pytest.mark.parametrize(
    ("given", "plans", "said"),
    [
        ([], [scan_plan()], "an empty list: expected scans"),
        ((), [image_plan()], "an empty tuple: expected scans"),
        (["a.nii", ["b.nii"]], [TWO], "a list of 1 list and 1 scan: which of them are the channels of one"),
        (["a.nii", "b.nii"], [TWO, scan_plan()], "several scans to some of the models"),
    ],
)
def test_what_a_list_may_not_be(given: Any, plans: list[Plan], said: str) -> None:
    with pytest.raises(VptError, match=said):
        scans_in(given, *plans)


def test_a_box_is_refused_with_several_scans() -> None:
    with pytest.raises(VptError, match="a box or points lie in one scan, but a list of 2 scans is given"):
        threshold(image_plan()).segment([array_image(False)] * 2, box=(1, 1, 5, 5))
