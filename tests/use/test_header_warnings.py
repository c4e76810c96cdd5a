"""What a scan's header leaves open is said in Python as `vpt predict` says it: a warning of its own kind, once."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from masks import image_plan, scan, scan_plan, threshold
from tiny_classes import CLASSES

from vpt.data.doubts.headers import scan_doubts
from vpt.data.scans import find_scans
from vpt.errors import HeaderWarning, VptError, VptWarning
from vpt.use.classifier import Classifier
from vpt.vocabulary import Plane

PLAN = scan_plan(pixel_mm=1.0)
SHEARED = np.array([[1, 0.05, 0, 0], [0, 1, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1.0]])


def saved(folder: Path, name: str = "a", affine: np.ndarray | None = None, unit: str = "mm") -> Path:
    image = scan(affine=affine)
    image.header.set_xyzt_units(unit)
    nib.save(image, folder / f"{name}.nii.gz")
    return folder / f"{name}.nii.gz"


def told(work: Any) -> list[str]:
    """The warnings of ours, each as often as it is given."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        work()
    assert {each.filename for each in found if each.category is HeaderWarning} <= {__file__}
    return [str(each.message) for each in found if issubclass(each.category, VptWarning)]


def leaning(degrees: float) -> np.ndarray:
    """ITK takes a NIfTI whose axes lean by 0.0055 degrees, and refuses it from 0.006 on (SimpleITK 2.5.7)."""
    return np.array([[1, np.tan(np.radians(degrees)), 0, 0], [0, 1, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1.0]])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"affine": SHEARED}, ["sheared by"]),
        ({"affine": leaning(0.006)}, ["sheared by 0.006 degrees, which ITK-based programs refuse"]),
        ({"affine": leaning(0.005)}, []),
        ({"unit": "micron", "affine": np.diag([1000.0, 1000.0, 3000.0, 1])}, ["multiplied by 0.001"]),
        ({"affine": np.diag([31.0, 31.0, 31.0, 1])}, ["which no scanner has"]),
        ({"affine": np.diag([25.0, 25.0, 25.0, 1])}, ["the model was trained at 1 mm"]),
        ({"affine": np.diag([31.0, 31.0, 31.0, 1]) @ SHEARED}, ["sheared by", "which no scanner has"]),
        ({"affine": np.diag([0.1, 0.1, 0.1, 1])}, ["would shrink to nearly nothing at the 1 mm of the training"]),
    ],
)
def test_segment_says_what_predict_says(tmp_path: Path, change: dict[str, Any], said: list[str]) -> None:
    path = saved(tmp_path, **change)
    found = told(lambda: threshold(PLAN).segment(path))
    assert sorted(found) == sorted(scan_doubts(find_scans(path, 1), PLAN))
    assert all(text.startswith(f"{path}: ") for text in found)
    assert all(any(part in text for text in found) for part in said)
    assert bool(found) == bool(said)


@pytest.mark.parametrize(
    ("plane", "shape", "said"),
    [
        (
            "axial",
            (1, 48, 16),
            "one voxel thick from left to right, and the model sees axial slices, each of 48x1 pixels",
        ),
        (
            "axial",
            (48, 1, 16),
            "one voxel thick from front to back, and the model sees axial slices, each of 1x48 pixels",
        ),
        ("coronal", (48, 40, 1), "one voxel thick from top to bottom, and the model sees coronal slices"),
        ("axial", (48, 40, 1), ""),
        ("sagittal", (1, 48, 16), ""),
        ("axial", (2, 48, 16), ""),
    ],
)
def test_a_slice_of_another_plane_is_told(plane: Plane, shape: tuple[int, int, int], said: str) -> None:
    found = told(lambda: threshold(scan_plan(plane=plane)).segment(scan(shape, np.diag([1.0, 1.0, 3.0, 1.0]))))
    assert len(found) == bool(said)
    assert all(said in text for text in found)
    assert not told(lambda: threshold(scan_plan(plane=plane, planes="all")).prepare(scan(shape)))


@pytest.mark.parametrize(
    "change", [{"unit": "micron"}, {"affine": np.diag([40.0, 40.0, 40.0, 1])}, {"affine": np.diag([0.001] * 3 + [1])}]
)
def test_a_size_that_no_scan_of_the_kind_has_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = saved(tmp_path, **change)

    with pytest.raises(VptError, match=rf"{path}: .*; the model was trained at 1 mm; correct the spacing, or its unit"):
        told(lambda: threshold(PLAN).segment(path))


def test_an_image_in_memory_is_doubted_and_a_picture_never(tmp_path: Path) -> None:
    (found,) = told(lambda: threshold(PLAN).segment(scan(affine=SHEARED)))
    assert found.startswith("the image given: sheared by")
    assert told(lambda: threshold(image_plan()).segment(np.zeros((20, 30), np.uint8))) == []


def test_a_loop_over_scans_says_it_once_for_each(tmp_path: Path) -> None:
    paths, segmenter = [saved(tmp_path, name, SHEARED) for name in "ab"], threshold(PLAN)
    with warnings.catch_warnings(record=True) as found:
        warnings.resetwarnings()  # to Python's own way
        for path in paths * 2:
            segmenter.segment(path)
    assert [str(each.message).split(": ")[0] for each in found] == [str(path) for path in paths]


def test_it_can_be_silenced_or_made_an_error(tmp_path: Path) -> None:
    path, segmenter = saved(tmp_path, affine=SHEARED), threshold(PLAN)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", HeaderWarning)
        segmenter.segment(path)
        warnings.simplefilter("error", HeaderWarning)
        with pytest.raises(HeaderWarning, match="sheared by"):
            segmenter.segment(path)


def test_classify_says_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = PLAN.model_copy(update={"pixel_mm": None, "slices": 1, "neighbours": False})
    classifier = Classifier(None, None, plan, CLASSES, "classes", torch.device("cpu"), 4)  # type: ignore[arg-type]
    monkeypatch.setattr(Classifier, "probabilities", lambda self, stacks, task=None: np.full((1, 3), 1 / 3))
    path = saved(tmp_path, affine=SHEARED)
    assert told(lambda: classifier.classify(path)) == scan_doubts(find_scans(path, 1), plan) != []
