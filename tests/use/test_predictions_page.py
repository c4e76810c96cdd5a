"""The page of predictions shows what failed, then the most unusual, and every scan in a table."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

from vpt.data.scans import find_scans
from vpt.errors import VptError
from vpt.use.pages.predictions import write_predictions_page

LABELS = {0: "background", 1: "rim", 2: "core"}


def record(name: str, rim: float, core: float, **others) -> dict:
    return {
        "case": name,
        "status": "done",
        "files": [f"{name}.nii.gz"],
        "model_sha256": "abc",
        "seconds": 1.0,
        "output": f"{name}.nii.gz",
        "volumes_ml": {"rim": rim, "core": core},
        "versions": {"vpt": "0.3.0"},
        "settings": {"tta": True},
        **others,
    }


@pytest.fixture
def folder(tmp_path: Path, save) -> Path:
    mask = np.zeros((8, 8, 8), np.uint8)
    mask[2:6, 2:6, 2:6], mask[3, 3, 3] = 1, 2
    names = {"usual": mask, "also": mask, "empty": np.zeros_like(mask), "doubtful": mask, "large": mask}
    for name, array in names.items():
        save(tmp_path / f"out/{name}.nii.gz", array)
        save(tmp_path / f"scans/{name}.nii.gz", np.random.default_rng(0).normal(9, 1, mask.shape).astype(np.float32))
    records = [
        record("usual", 2.0, 1.0),
        record("also", 2.1, 1.1),
        record("large", 20.0, 1.0),
        record("empty", 0.0, 0.0),
        record("doubtful", 2.0, 1.0, warnings=["its unit is not said"]),
        {"case": "broken", "status": "failed", "reason": "broken.nii.gz: damaged <i>", "seconds": 0.1},
    ]
    (tmp_path / "out/predictions.json").write_text(json.dumps({"written": "2026-01-01", "cases": records}))
    return tmp_path / "out"


def order(page: str) -> list[str]:
    return re.findall(r"<header><h3>(.*?)</h3>", page)


def test_the_most_unusual_come_first_and_failures_before_all(folder, tmp_path) -> None:
    raw = write_predictions_page(folder, LABELS, find_scans(tmp_path / "scans", 1)).read_text()
    page = html.unescape(raw)
    assert order(page) == ["empty", "doubtful", "large", "also", "usual"]
    assert "5 of 6 scans segmented; in 1 scan nothing was predicted." in page
    assert page.index("broken.nii.gz: damaged") < page.index('<article class="case">')
    assert "its unit is not said" in page
    assert "<i>" not in raw
    assert re.findall(r'<tr><th scope="row">(\w+)', page)[0] == "broken"
    assert "axial, slice" in page
    assert "abc" in page


def test_without_the_scans_outlines_lie_on_grey_and_a_lost_mask_is_said(folder) -> None:
    (folder / "usual.nii.gz").unlink()
    page = write_predictions_page(folder, LABELS).read_text()
    assert page.count('<path class="edge found"') > 0
    assert "no picture" in page


def judged(distance: float, *beyond: str, **structures: list[str]) -> dict:
    own = {"voxels": 5, "agreement": None, "entropy": 0.125}
    return {
        "case": {**own, "beyond": list(beyond), "distance": distance},
        "structures": {name: {**own, "beyond": found} for name, found in structures.items()},
        "limits": "a mark",
    }


def test_flags_and_scores_of_trust_are_told(folder) -> None:
    content = json.loads((folder / "predictions.json").read_text())
    by_name = {each["case"]: each for each in content["cases"]}
    by_name["usual"]["quality"] = judged(3.5, "distance", rim=["entropy"], core=[])
    by_name["also"]["quality"] = judged(0.75, rim=[], core=[])
    (folder / "predictions.json").write_text(json.dumps(content))
    page = write_predictions_page(folder, LABELS).read_text()
    assert order(page) == ["empty", "doubtful", "usual", "large", "also"]
    assert page.count("flagged: ") == 1
    assert "flagged: distance, entropy of rim</span>" in page
    assert "1 scan flagged." in page
    by_name["also"]["quality"] = judged(0.75, rim=["entropy"], core=[])
    (folder / "predictions.json").write_text(json.dumps(content))
    assert "1 scan flagged, and of 1 more a label alone." in write_predictions_page(folder, LABELS).read_text()
    cells = {
        row[0]: re.findall(r"<td[^>]*>(.*?)</td>", row[1])
        for row in re.findall(r'row">(\w+)</th>(.*?)</tr>', page, re.S)
    }
    assert cells["usual"][0] == "flagged"
    assert cells["usual"][3:5] == ["0.125", "3.500"]
    assert cells["also"][0] == "done"
    assert cells["large"][3:5] == ["-", "-"]


def test_answers_of_a_classifier_are_a_table(tmp_path) -> None:
    cases = [{"case": "a", "status": "done", "probabilities": {"ill": 0.25, "well": 0.75}, "seconds": 0.5}]
    (tmp_path / "predictions.json").write_text(json.dumps({"cases": cases}))
    page = write_predictions_page(tmp_path, {0: "ill", 1: "well"}).read_text()
    assert "p(ill)" in page
    assert "<td>0.250</td><td>0.750</td>" in page
    assert "<article" not in page


def test_a_page_of_others_is_not_replaced_and_an_own_one_is(folder) -> None:
    page = write_predictions_page(folder, LABELS)
    assert write_predictions_page(folder, LABELS) == page
    page.write_text("<h1>Of the ward</h1>")
    with pytest.raises(VptError, match=r"report\.html: not of vpt, which would replace it"):
        write_predictions_page(folder, LABELS)
    assert page.read_text() == "<h1>Of the ward</h1>"


def test_a_folder_without_a_record_is_refused(tmp_path) -> None:
    with pytest.raises(VptError, match=r"holds no predictions\.json; make it with `vpt predict"):
        write_predictions_page(tmp_path, LABELS)
