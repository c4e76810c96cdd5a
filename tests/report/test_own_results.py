"""What an evaluation replaces, and what lies in its folder where it is broken off."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from label_scores import scores

from vpt.errors import VptError
from vpt.report.classification import ClassReport
from vpt.report.own_results import BEGUN, holds_own, marked
from vpt.report.segmentation import Report
from vpt.scores.settings import CaseResult, Settings

PAGE = '<p class="kind">{}</p>\n<p>Made by vpt 0.6.0.'


def of_masks() -> Report:
    case = CaseResult("a", "pred/a.nii.gz", "ref/a.nii.gz", {1: scores(5, 5, 5)})
    return Report((case,), {1: "liver"}, Settings())


def of_classes() -> ClassReport:
    truth = np.eye(2, dtype=bool)
    return ClassReport(("a", "b"), np.where(truth, 0.9, 0.1), truth, ("benign", "malignant"), "classes")


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


class Killed(BaseException):
    """In the place of SIGKILL, after which nothing is tidied."""


@pytest.mark.parametrize("report", [of_masks, of_classes], ids=["masks", "classes"])
@pytest.mark.parametrize("written", [0, 1, 2])
def test_an_evaluation_that_is_broken_off_leaves_no_file_of_an_earlier_one(
    report, written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report().save(tmp_path)
    (tmp_path / "report.html").write_text(PAGE.format("Evaluation"))
    before = {name: (tmp_path / name).stat().st_ino for name in names_in(tmp_path)}
    moves: list[str] = []
    replace = os.replace

    def until_killed(part: Path, path: Path) -> None:
        if len(moves) > written:  # the mark is the first
            raise Killed
        moves.append(Path(path).name)
        replace(part, path)

    monkeypatch.setattr(os, "replace", until_killed)
    with pytest.raises(Killed):
        report().save(tmp_path)

    assert names_in(tmp_path) == {BEGUN, *moves}
    assert len(moves) == written + 1
    assert not any((tmp_path / name).stat().st_ino == before.get(name) for name in moves if name != BEGUN)
    assert holds_own(tmp_path)
    monkeypatch.undo()
    report().save(tmp_path)
    assert names_in(tmp_path) == before.keys() - {"report.html"}


def test_masks_that_are_written_anew_lie_beside_no_scores_of_earlier_ones(tmp_path: Path) -> None:
    of_classes().save(tmp_path)
    (tmp_path / "report.html").write_text(PAGE.format("Evaluation"))
    (tmp_path / "quality.csv").write_text("scan,sharpness\n")  # of somebody else
    with marked(tmp_path, to_save=True) as writing:
        writing()
        assert names_in(tmp_path) == {BEGUN, "quality.csv"}
        (tmp_path / "a.nii.gz").touch()
    assert holds_own(tmp_path)  # until the scores are there
    of_masks().save(tmp_path)
    assert names_in(tmp_path) == {"quality.csv", "a.nii.gz", "summary.json", "cases.csv", "evaluation.md"}


@pytest.mark.parametrize("begun", [False, True])
def test_an_evaluation_that_fails_before_its_first_mask_leaves_all_as_it_is(begun: bool, tmp_path: Path) -> None:
    of_masks().save(tmp_path)
    if begun:
        (tmp_path / BEGUN).touch()
    before = names_in(tmp_path)
    with pytest.raises(VptError), marked(tmp_path, to_save=True):
        raise VptError("a scan is damaged; copy it again")
    assert names_in(tmp_path) == before


def test_masks_of_which_no_scores_will_be_saved_leave_those_that_are_there(tmp_path: Path) -> None:
    of_masks().save(tmp_path)
    before = names_in(tmp_path)
    with marked(tmp_path):
        pass
    assert names_in(tmp_path) == before


@pytest.mark.parametrize("kind", ["Predictions", "Training run", "Comparison of methods"])
def test_a_page_of_something_else_stays(kind: str, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(PAGE.format(kind))
    of_masks().save(tmp_path)
    assert (tmp_path / "report.html").is_file()


def test_pictures_of_an_evaluation_of_classes_go_with_it(tmp_path: Path) -> None:
    of_classes().save(tmp_path)
    of_masks().save(tmp_path)
    assert names_in(tmp_path) == {"summary.json", "cases.csv", "evaluation.md"}
