"""Scores of references that were annotated for some of the labels only."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vpt.errors import VptError
from vpt.report.mask_summary import read_mask_summary
from vpt.use.evaluation.scoring import evaluate

LABELS = {1: "liver", 2: "spleen"}


@pytest.fixture
def masks(tmp_path: Path, save: Callable[..., Path]) -> Path:
    """Two cases whose predictions have both organs; the reference of a has the liver, that of b the spleen."""
    found = np.zeros((8, 8, 4), np.uint8)
    found[1:4, 1:4, 1:3], found[5:7, 5:7, 1:3] = 1, 2
    for name, label in (("a", 1), ("b", 2)):
        save(tmp_path / f"found/{name}.nii.gz", found)
        save(tmp_path / f"labelsTr/{name}.nii.gz", np.where(found == label, found, 0).astype(np.uint8))
    described = {"labels": {"background": 0, "liver": 1, "spleen": 2}}
    (tmp_path / "dataset.json").write_text(json.dumps(described | {"annotated": {"a": ["liver"], "b": ["spleen"]}}))
    return tmp_path


def test_a_label_counts_in_cases_that_were_annotated_for_it(masks: Path) -> None:
    report = evaluate(masks / "found", masks / "labelsTr", lesions="all")
    assert [report.mean("Dice", label) for label in LABELS] == [1.0, 1.0]
    assert math.isnan(report.values("Dice", 2)[0, 0])
    assert math.isnan(report.mean("FP", 2)) is False
    assert report.counts(2) == {
        "cases": 1,
        "both_empty": 0,
        "false_positives": 0,
        "missed": 0,
        "hd95_undefined": 0,
    }
    assert report.left_out() == []
    said = "annotated: liver in 1, spleen in 1 of 2 cases, in which alone each is scored"
    assert said in report.text()
    assert said in report.summary()["notes"]
    assert "nan" not in report.text().lower()
    assert [(found.found, found.missed, found.false) for found in report.lesions.values()] == [(1, 0, 0)] * 2
    # without that word the organ that nobody looked for would be a mistake
    (masks / "dataset.json").unlink()
    assert evaluate(masks / "found", masks / "labelsTr", LABELS).mean("Dice") == pytest.approx(0.5)


def test_of_sequences_it_is_given(masks: Path) -> None:
    pairs = [[masks / folder / f"{name}.nii.gz" for name in "ab"] for folder in ("found", "labelsTr")]
    assert evaluate(*pairs, LABELS, annotated=[{1}, {2}]).mean("Dice") == 1.0
    assert evaluate(*pairs, LABELS, annotated=[None, {2}]).counts(2)["cases"] == 2
    with pytest.raises(VptError, match="1 list for 2 pairs; give one for each, or None"):
        evaluate(*pairs, LABELS, annotated=[{1}])
    with pytest.raises(VptError, match=r"holds liver, which its case is not annotated for; add it to `annotated`"):
        evaluate(*pairs, LABELS, annotated=[{2}, {2}])


def test_the_page_reads_what_is_not_known(masks: Path) -> None:
    report = evaluate(masks / "found", masks / "labelsTr")
    found = json.loads(report.save(masks / "scores").read_text())
    case = read_mask_summary(found, ["a", "b"]).cases[0]
    assert math.isnan(case.scores[2]["Dice"])
    assert not case.nothing_predicted
    assert not case.nothing_there
