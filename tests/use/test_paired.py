"""Two folders of masks against one of references, two runs on their test cases."""

from __future__ import annotations

import shutil
from typing import Any, cast

import nibabel
import numpy as np
import pytest

from vpt.errors import VptError
from vpt.report.classification import ClassReport
from vpt.use.paired import _paired, compare_masks, compare_runs


def save(path, start):
    path.parent.mkdir(exist_ok=True)
    data = np.zeros((10, 10, 10), np.uint8)
    data[start : start + 4, 2:6, 2:6] = 1
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), path)


def test_two_folders_of_masks(tmp_path):
    for name, first, second in (("p1_s1", 2, 3), ("p1_s2", 2, 4), ("p2_s1", 3, 2)):
        save(tmp_path / "A" / f"{name}.nii.gz", first)
        save(tmp_path / "B" / f"{name}.nii.gz", second)
        save(tmp_path / "truth" / f"{name}.nii.gz", 2)
    save(tmp_path / "B" / "p3_s1.nii.gz", 2)
    save(tmp_path / "truth" / "p3_s1.nii.gz", 2)
    found = compare_masks(*(tmp_path / name for name in ("A", "B", "truth")))
    assert found.found.differences[0].size == pytest.approx((0.25 + 0.5 - 0.25) / 3)
    assert [case.name for case in found.found.cases] == ["p1_s2", "p1_s1", "p2_s1"]
    assert found.found.only_second == ("p3_s1",)
    text = found.text()
    assert "of 3 cases A is better in 2, B in 1; 0 within 0.001" in text
    assert "1 case only in B, not compared: p3_s1" in text
    assert "over patients" in text
    guessed = [note for note in found.notes if "guessed" in note]
    assert [note.partition(" patients")[0] for note in guessed] == ["A: 2", "B: 3"]  # of other cases, so not the same


def test_references_that_neither_has_a_prediction_for_are_told(tmp_path):
    for name in ("p-1", "p-2", "p-3", "p-4"):
        save(tmp_path / "truth" / f"{name}_seg.nii.gz", 2)
    for name in ("p-1", "p-2"):
        save(tmp_path / "A" / f"{name}_pred.nii.gz", 2)
    for name in ("p-1", "p-2", "p-3"):
        save(tmp_path / "B" / f"{name}_seg.nii.gz", 3)
    found = compare_masks(*(tmp_path / name for name in ("A", "B", "truth")))
    assert [case.name for case in found.found.cases] == ["p-1", "p-2"]
    assert found.summary()["in_neither"] == ["p-4"]
    assert "1 of 4 references has no prediction in either and is not compared: p-4 (--strict" in found.text()


def test_a_reference_that_one_of_both_has_a_prediction_for_is_in_neither_by_no_other_name(tmp_path):
    for place, names in (("truth", ("x_T1", "x_T2", "y", "z")), ("A", ("x_T1", "y")), ("B", ("x_T2", "y"))):
        for name in names:
            save(tmp_path / place / f"{name}.nii.gz", 2)
    found = compare_masks(*(tmp_path / name for name in ("A", "B", "truth")))
    assert found.missing == ("z",)
    assert "1 of 4 references has no prediction in either and is not compared: z (--strict" in found.text()


@pytest.mark.slow
def test_a_run_and_itself(tiny_run, tmp_path):
    runs = [shutil.copytree(tiny_run, tmp_path / name) for name in "AB"]
    found = compare_runs(*runs, split="val", device="cpu")
    assert all(each.size == 0 for each in found.found.differences)
    assert (found.found.wins, found.found.losses) == (0, 0)
    assert "scored on the val split" in found.said()


@pytest.mark.slow
def test_runs_of_two_tasks_are_refused(tiny_run, class_run, tmp_path):
    runs = [
        shutil.copytree(run, tmp_path / run.parent.name / name) for run, name in ((tiny_run, "A"), (class_run, "B"))
    ]
    with pytest.raises(VptError, match="one segments and the other classifies"):
        compare_runs(*runs, device="cpu")


def classified(names: tuple[str, ...], first: list[float], target: str = "classes") -> ClassReport:
    probabilities = np.array([[p, 1 - p] for p in first])
    truth = np.array([[True, False]] * len(names))
    return ClassReport(names, probabilities, truth, ("cat", "dog"), cast(Any, target))


def test_of_classes_only_the_cases_of_both_are_counted_and_answers_stay_with_their_case() -> None:
    one = classified(("a", "b", "only"), [0.9, 0.2, 0.9])
    other = classified(("b", "a"), [0.8, 0.4])

    found = _paired(one, other, "A", "B")

    assert found.classes is not None
    assert found.classes.answers == {"a": ("cat", "cat", "dog"), "b": ("cat", "dog", "cat")}
    assert [counts.tolist() for counts in found.classes.counts] == [[[1, 1], [0, 0]]] * 2
    assert [case.name for case in found.found.cases] == ["b", "a"]


def test_of_labels_there_is_no_matrix() -> None:
    one = classified(("a", "b"), [0.9, 0.2], "labels")
    found = _paired(one, one, "A", "B").classes
    assert found is not None
    assert found.counts == ()
    assert found.answers["b"] == ("cat", "dog", "dog")
