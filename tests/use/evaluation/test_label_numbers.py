"""Scores where references are a file for each label (TotalSegmentator), and whether both sides number labels alike."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from vpt.errors import VptError
from vpt.use.evaluation.scoring import evaluate
from vpt.use.pages.evaluation import write_evaluation_page

TABLE = "case,status,{},seconds\np1,done,1,2,0.1\n"


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array.astype(np.uint8), np.eye(4)), path)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Label maps, folders of organs, and their truth: the liver is found, and half of the spleen."""
    for case in ("p1", "p2"):
        liver, spleen = (np.zeros((12, 12, 4)) for _ in range(2))
        liver[1:5, 2:6], spleen[7:11, 2:6] = 1, 1
        half = spleen * (np.arange(12) < 4)[None, :, None]
        for root, second in ((tmp_path / "truth", spleen), (tmp_path / "organs", half)):
            save(root / case / "segmentations/liver.nii.gz", liver)
            save(root / case / "segmentations/spleen.nii.gz", second)
        save(tmp_path / "truth" / case / "ct.nii.gz", liver * 40)
        save(tmp_path / "maps" / f"{case}.nii.gz", liver + 2 * half)
    return tmp_path / "maps", tmp_path / "organs", tmp_path / "truth"


@pytest.mark.parametrize("shape", [0, 1])
def test_label_maps_and_organs_have_the_scores_of_each_organ(folders, shape, tmp_path):
    report = evaluate(folders[shape], folders[2], lesions=["spleen"])

    assert report.labels == {1: "liver", 2: "spleen"}
    dice = [[case.scores[label].dice for label in (1, 2)] for case in report.cases]
    assert dice == [[1, pytest.approx(2 / 3)]] * 2
    report.save(tmp_path / "scores")
    page = write_evaluation_page(tmp_path / "scores").read_text()
    assert "no picture" not in page
    assert "Confus" in page or "confus" in page


def test_labels_may_be_given_by_name_or_number(folders):
    for given in (["spleen"], [2]):
        assert evaluate(folders[0], folders[2], given).labels == {2: "spleen"}


@pytest.mark.parametrize(
    ("columns", "refused"),
    [("liver (ml),spleen (ml)", False), ("spleen (ml),liver (ml)", True), ("spleen (ml),volume", True)],
)
def test_labels_that_the_predictions_table_numbers_otherwise_are_refused(folders, columns, refused):
    maps, organs, truth = folders
    for predictions in (maps, organs):
        (predictions / "predictions.csv").write_text(TABLE.format(columns))
    evaluate(organs, truth)  # whose numbers are those of the names
    if not refused:
        evaluate(maps, truth)
        return
    with pytest.raises(VptError, match=r"holds files of liver, spleen, so numbers may differ; say those of the masks"):
        evaluate(maps, truth)

    (truth / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "spleen": 1, "liver": 2}}))

    assert evaluate(maps, truth).labels == {1: "spleen", 2: "liver"}


def test_labels_that_are_given_other_numbers_than_their_files_have_are_refused(folders):
    """Else the spleen of the predictions would be compared with the liver."""
    maps, _, truth = folders
    said = "spleen is given as 1, and the references' files of it count as 2; say in a dataset.json beside them"
    with pytest.raises(VptError, match=said):
        evaluate(maps, truth, labels={1: "spleen", 2: "liver"})

    assert evaluate(maps, truth, labels={2: "spleen"}).labels == {2: "spleen"}
    assert evaluate(maps, truth, labels={1: "organ"}).labels == {1: "organ"}
