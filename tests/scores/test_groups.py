"""Scores by group against numbers by hand and resamples that are drawn plainly."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from label_scores import scores

from vpt.report.classification import ClassReport
from vpt.report.segmentation import Report
from vpt.scores.bootstrap import RESAMPLES
from vpt.scores.groups import Grouping
from vpt.scores.settings import CaseResult


def report(dice, groups, patients=None):
    """One label; a case's Dice in hundredths."""
    cases = [CaseResult(f"c{k}", "", "", {1: scores(d, 100 - d, 100 - d)}) for k, d in enumerate(dice)]
    of = {f"c{k}": group for k, group in enumerate(groups) if group}
    without = tuple(f"c{k}" for k, group in enumerate(groups) if not group)
    return Report(tuple(cases), {1: "liver"}, groupings=(Grouping("site", of, without),), groups=patients)


def test_groups_and_their_gap():
    dice = [90, 80, 85, 95, 90, 60, 70, 50, 65, 55, 10, 20, 99]
    found = report(dice, ["a"] * 5 + ["b"] * 5 + ["tiny"] * 2 + [""]).by_group[0]
    assert [(row.group, row.cases, row.patients, row.is_small) for row in found.rows] == [
        ("a", 5, 5, False),
        ("b", 5, 5, False),
        ("tiny", 2, 2, True),
    ]
    assert [row.scores["liver"] for row in found.rows] == pytest.approx([0.88, 0.6, 0.15])
    gap = found.gaps["foreground"]
    assert (gap.best, gap.worst, gap.size) == ("a", "b", pytest.approx(0.28))
    assert 0.15 < gap.interval[0] < 0.28 < gap.interval[1] < 0.4
    low, high = found.rows[0].intervals["foreground"]
    drawn = np.random.default_rng(1).choice(np.array(dice[:5]) / 100, (RESAMPLES, 5)).mean(1)
    assert (low, high) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.02)


def test_a_patients_scans_are_drawn_together():
    dice = [90, 90, 50, 50] * 5
    groups = ["a"] * 20
    alone = report(dice, groups).by_group[0].rows[0]
    patients = tuple(f"p{k // 2}" for k in range(20))
    together = report(dice, groups, patients).by_group[0].rows[0]
    widths = [row.intervals["liver"][1] - row.intervals["liver"][0] for row in (alone, together)]
    assert widths[1] > 1.2 * widths[0]
    assert (together.cases, together.patients) == (20, 10)


def test_one_patient_has_no_interval_and_few_groups_no_gap():
    found = report([90, 80, 70], ["a", "b", "b"]).by_group[0]
    assert all(map(math.isnan, found.rows[0].intervals["liver"]))
    assert found.gaps == {}
    text = report([90, 80, 70], ["a", "b", ""]).text()
    assert "no gap: fewer than two groups of 5 patients or more" in text
    assert "* fewer than 5 patients: too few to compare" in text
    assert "1 case without site, in no group: c2" in text
    assert ["a", "*", "1", "1", "0.900", "-"] in [line.split() for line in text.splitlines()]


def test_a_group_without_a_label_is_not_compared_as_if_it_had_it():
    cases = [
        CaseResult(f"c{k}", "", "", {1: scores(90, 10, 10), 2: scores(0, 0, 100 if k < 5 else 0)}) for k in range(10)
    ]
    of = {f"c{k}": "ab"[k // 5] for k in range(10)}
    whole = Report(tuple(cases), {1: "liver", 2: "tumour"}, groupings=(Grouping("site", of),))
    assert whole.by_group[0].lacking == {"b": ("tumour",)}
    assert "b has no tumour, so its foreground is of other things than the others'" in whole.text()
    assert whole.summary()["by_group"][0]["lacking"] == {"b": ["tumour"]}
    same = report([90] * 10, ["a"] * 5 + ["b"] * 5)
    assert same.by_group[0].lacking == {}
    assert "other things" not in same.text()


def test_resamples_of_a_group_that_lack_a_label_are_not_in_the_interval_of_its_foreground():
    often, rare, absent = scores(90, 10, 10), scores(10, 90, 90), scores(0, 0, 0)
    cases = [CaseResult(f"c{k}", "", "", {1: often, 2: rare if k < 2 else absent}) for k in range(8)]
    grouping = Grouping("site", {case.name: "a" for case in cases})
    found = Report(tuple(cases), {1: "liver", 2: "tumour"}, groupings=(grouping,)).by_group[0]
    assert found.rows[0].intervals["foreground"] == pytest.approx((0.5, 0.5))


def test_a_label_of_one_patient_of_a_group_leaves_its_foreground_and_the_gap_without_an_interval():
    cases = [
        CaseResult(f"c{k}", "", "", {1: scores(60 + k, 9, 9), 2: scores(40 if k < 7 else 0, 0, 0)}) for k in range(12)
    ]
    grouping = Grouping("site", {case.name: "ab"[k >= 6] for k, case in enumerate(cases)})
    report = Report(tuple(cases), {1: "liver", 2: "tumour"}, groupings=(grouping,))
    found = report.by_group[0]
    a, b = (row.intervals for row in found.rows)
    assert np.isfinite([*a["foreground"], *a["tumour"], *b["liver"]]).all()
    assert np.isnan([*b["foreground"], *b["tumour"]]).all()
    assert np.isnan([*found.gaps["foreground"].interval, *found.equity["foreground"].interval]).all()
    assert np.isfinite([found.rows[1].scores["foreground"], found.gaps["foreground"].size]).all()
    assert np.isfinite(found.gaps["liver"].interval).all()
    assert (
        "no interval of the foreground of b, nor of what is made of it: tumour is scored in one patient"
        in report.text()
    )
    assert "no interval of the foreground of a" not in report.text()


def test_classes_that_a_group_has_no_case_of_are_named_beside_its_gap():
    p = np.tile(np.eye(3)[[0, 1, 2, 2]], (5, 1))
    truth = np.array([0, 1, 2, 1] * 5)
    truth[10:] = np.where(truth[10:] == 2, 0, truth[10:])
    names = [f"c{k}" for k in range(20)]
    grouping = Grouping("site", {name: "ab"[k >= 10] for k, name in enumerate(names)})
    classes = ("well", "ill", "dead")
    found = ClassReport(tuple(names), p, np.eye(3, dtype=bool)[truth], classes, "classes", groupings=(grouping,))
    assert found.by_group[0].lacking == {"b": ("dead",)}
    assert "b has no dead, so its macro_f1 is of other things than the others' (F1 counts as 0 what" in found.markdown()


def test_groups_are_in_every_output(tmp_path):
    whole = report([90, 80, 85, 95, 90, 60, 70, 50, 65, 55], ["a"] * 5 + ["b"] * 5)
    whole.save(tmp_path)
    assert "gap (foreground): a - b = +0.280 (+0.2" in whole.text()
    assert "## Dice by site" in (tmp_path / "evaluation.md").read_text()
    rows = whole.summary()["by_group"][0]["rows"]
    assert [row["scores"]["foreground"] for row in rows] == pytest.approx([0.88, 0.6])
    assert "by_group" not in replace(whole, groupings=()).summary()


def test_equity_lowers_a_score_by_the_distances_of_the_groups_that_are_compared():
    dice = [90, 80, 85, 95, 90, 60, 70, 50, 65, 55, 10, 20]
    found = report(dice, ["a"] * 5 + ["b"] * 5 + ["tiny"] * 2).by_group[0]
    whole = np.mean(dice[:10]) / 100
    fair = found.equity["foreground"]
    assert fair.value == pytest.approx(whole / (1 + abs(whole - 0.88) + abs(whole - 0.6)))
    assert fair.interval[0] < fair.value < fair.interval[1]
    assert report([90, 80, 70], ["a", "b", "b"]).by_group[0].equity == {}
    assert "equity-scaled foreground: 0.578" in report(dice, ["a"] * 5 + ["b"] * 5 + [""] * 2).text()


def test_several_columns_are_several_tables():
    one = report([90, 80, 85, 95, 90, 60, 70, 50, 65, 55], ["a"] * 5 + ["b"] * 5)
    both = replace(one, groupings=(*one.groupings, Grouping("sex", {f"c{k}": "fm"[k % 2] for k in range(10)})))
    assert [found.grouping.column for found in both.by_group] == ["site", "sex"]
    assert both.by_group[0] == one.by_group[0]
    text = both.text()
    assert "Dice by site" in text
    assert "Dice by sex" in text


def test_classifications_have_groups_too():
    """Group a is always right; of b half is wrong, and errors count the other way round."""
    rng = np.random.default_rng(0)
    truth = np.eye(2, dtype=bool)[np.arange(40) % 2]
    sure = np.where(np.arange(40) < 20, 0.9, rng.choice([0.2, 0.8], 40))
    probabilities = np.where(truth, sure[:, None], 1 - sure[:, None])
    names = tuple(f"c{k}" for k in range(40))
    of = {name: "ab"[k // 20] for k, name in enumerate(names)}
    whole = ClassReport(names, probabilities, truth, ("no", "yes"), "classes", groupings=(Grouping("sex", of),))
    found = whole.by_group[0]
    right = (sure[20:] > 0.5).mean()
    assert [row.scores["accuracy"] for row in found.rows] == pytest.approx([1, right])
    assert [row.scores["auroc"] for row in found.rows] == pytest.approx(
        [1, whole.restricted(range(20, 40)).scores()["auroc"]]
    )
    assert (found.gaps["accuracy"].best, found.gaps["nll"].best) == ("a", "a")
    assert found.gaps["accuracy"].size == pytest.approx(1 - right)
    assert "ece" not in found.rows[0].scores
    assert "rows" in whole.summary()["by_group"][0]
    assert "nll" not in found.equity
    assert found.equity["accuracy"].value < whole.scores()["accuracy"]
    assert set(found.odds) == {"no", "yes"}
