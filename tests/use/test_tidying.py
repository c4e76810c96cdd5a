"""A step is chosen where it raises the Dice of validation cases by more than noise, and said where it is not."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from vpt.data.cases import Case
from vpt.use.tidying import choose_steps

LABELS = {0: "background", 1: "liver", 2: "tumour"}


@pytest.fixture
def masks(tmp_path):
    """masks(kinds): a case of each; its mask is `right`, has a `spot` or a `hole`, or rightly two parts (`split`)."""

    def save(path, array):
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)
        return path

    def make(kinds):
        cases, found = [], []
        for number, kind in enumerate(kinds):
            truth = np.zeros((10, 10, 10), np.uint8)
            truth[1:6, 1:6, 1:6], truth[8, 8, 8] = 1, 2
            mask = truth.copy()
            if kind == "spot":
                mask[8, 1:3, 1:3] = 1
            if kind == "hole":
                mask[2:5, 2:5, 2:5] = 0
            if kind == "split":
                truth[7:10, 1:5, 1:5] = mask[7:10, 1:5, 1:5] = 1
            path = save(tmp_path / f"c{number}_truth.nii.gz", truth)
            cases.append(Case(f"c{number}", (path,), path))
            found.append(save(tmp_path / f"c{number}.nii.gz", mask))
        return cases, found, [case.name for case in cases]

    return make


def test_what_helps_in_most_cases_is_kept(masks) -> None:
    found = choose_steps(*masks(["spot"] * 5 + ["right"] * 2), LABELS)
    assert found.steps == {1: ("largest",)}
    assert [(each.label, each.step, each.kept) for each in found.tried] == [
        ("liver", "largest", True),
        ("liver", "fill", False),
        ("tumour", "largest", False),
        ("tumour", "fill", False),
    ]
    assert "only the largest component of liver: Dice +0.0" in next(found.sentences())
    assert next(found.sentences()).endswith("kept")


def test_both_steps_are_kept_where_both_help(masks) -> None:
    assert choose_steps(*masks(["spot", "hole"] * 6), LABELS).steps == {1: ("largest", "fill")}


def test_what_helps_in_one_case_alone_is_noise(masks) -> None:
    found = choose_steps(*masks(["spot"] + ["right"] * 7), LABELS)
    assert found.steps == {}
    assert found.tried[0].gain > 0


def test_what_harms_is_left_out(masks) -> None:
    found = choose_steps(*masks(["split"] * 4 + ["spot"] * 4), LABELS)
    assert found.steps == {}
    assert found.tried[0].gain < 0
    assert "left out" in next(found.sentences())


def test_scans_of_a_few_patients_choose_nothing(masks) -> None:
    cases, found, _ = masks(["spot"] * 6)
    choice = choose_steps(cases, found, ["p1", "p2", "p3", "p4", "p1", "p2"], LABELS)
    assert choice.steps == {}
    assert [*choice.sentences()] == ["post-processing: validation has fewer than 5 patients, so nothing is chosen"]
