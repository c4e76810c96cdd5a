"""What a report says: means, intervals, counts, files, tables; from scores written down by hand."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from label_scores import scores
from rich.console import Console

from vpt.errors import VptError
from vpt.report.blocks import Block
from vpt.report.segmentation import Report
from vpt.scores.settings import CaseResult, Settings

NAN = math.nan


def report(*cases, labels=None, settings=None):
    labels = labels or {1: "liver", 2: "tumour"}
    results = tuple(
        CaseResult(f"case{i}", f"pred/case{i}.nii.gz", f"ref/case{i}.nii.gz", dict(zip(labels, case, strict=True)))
        for i, case in enumerate(cases)
    )
    return Report(results, labels, settings or Settings())


@pytest.fixture
def mixed():
    """Liver: Dice 1 and 0.5. Tumour: absent in both, false positive (Dice 0), missed (Dice 0)."""
    return report(
        (scores(10, 0, 0), scores(0, 0, 0)),
        (scores(5, 5, 5), scores(0, 3, 0)),
        (scores(5, 5, 5), scores(0, 0, 4)),
    )


def test_whose_the_encoders_weights_are_is_said_where_it_is_known(mixed, tmp_path):
    known = replace(mixed, weights="Ann's ViT; licence: MIT")
    assert json.loads(known.save(tmp_path).read_text())["weights"] == "Ann's ViT; licence: MIT"
    assert known.text().endswith("\nencoder: Ann's ViT; licence: MIT")
    assert "weights" not in mixed.summary()
    assert "encoder" not in mixed.text()


def test_means_leave_undefined_scores_out(mixed):
    assert mixed.mean("Dice", 1) == pytest.approx(2 / 3)
    assert mixed.mean("Dice", 2) == 0.0
    assert mixed.mean("Dice") == pytest.approx(1 / 3)
    assert math.isnan(mixed.mean("HD95", 2))
    assert mixed.mean("HD95") == 1.0
    assert mixed.mean("n_ref", 2) == pytest.approx(4 / 3)


def test_foreground_is_the_mean_of_the_labels_not_of_the_pairs():
    """Three scored livers and one tumour: each label weighs the same."""
    each = report(*[(scores(10, 0, 0), scores(0, 0, 0))] * 3, (scores(10, 0, 0), scores(0, 1, 0)))
    assert each.mean("Dice") == 0.5


def test_counts(mixed):
    nothing = {"cases": 3, "both_empty": 0, "false_positives": 0, "missed": 0, "hd95_undefined": 0}
    assert mixed.counts(1) == nothing
    assert (
        mixed.counts(2)
        == mixed.counts()
        == nothing
        | {
            "both_empty": 1,
            "false_positives": 1,
            "missed": 1,
            "hd95_undefined": 2,
        }
    )


def test_interval_is_that_of_scipy_and_repeats():
    from scipy.stats import bootstrap

    rng = np.random.default_rng(3)
    one = report(*[(scores(int(tp), 10, 10),) for tp in rng.integers(1, 80, 25)], labels={1: "a"})
    low, high = one.interval("Dice")
    expected = bootstrap(
        (one.values("Dice")[:, 0],), np.mean, method="percentile", n_resamples=9999, rng=np.random.default_rng(0)
    ).confidence_interval
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.01)
    assert low < one.mean("Dice") < high
    assert one.interval("Dice") == (low, high) == one.interval("Dice", 1)
    assert replace(one).interval("Dice") == (low, high)  # drawn anew


def test_interval_ignores_undefined_cases_and_needs_two():
    defined = [(scores(tp, 10, 10), scores(0, 0, 0)) for tp in (10, 40, 70, 20)]
    assert report(*defined).interval("Dice", 1) == report(*defined).interval("Dice")
    assert all(map(math.isnan, report(*defined).interval("Dice", 2)))
    assert all(map(math.isnan, report(defined[0]).interval("Dice")))
    once = report((scores(5, 1, 1), scores(0, 0, 0)), (scores(0, 0, 0), scores(0, 0, 0)))
    assert all(map(math.isnan, once.interval("Dice", 1)))


def test_interval_resamples_cases_with_all_their_labels():
    """Two labels that are good and bad in turn: the mean over labels is the same in each case, so it has no spread."""
    good, bad = scores(10, 0, 0), scores(10, 10, 10)
    low, high = report(*[(good, bad), (bad, good)] * 5).interval("Dice")
    assert low == pytest.approx(high) == pytest.approx(0.75)


def test_resamples_that_lack_a_label_are_not_in_the_foregrounds_interval():
    often, rare, absent = scores(90, 10, 10), scores(10, 90, 90), scores(0, 0, 0)
    found = report(*[[often, rare]] * 2, *[[often, absent]] * 8)
    low, high = found.interval()
    assert (low, high) == pytest.approx((0.5, 0.5))
    assert found.rarely_scored() == ""


def test_a_label_of_one_case_leaves_the_foreground_without_an_interval_and_it_is_said():
    often, rare, absent = scores(90, 10, 10), scores(10, 90, 90), scores(0, 0, 0)
    found = report([often, rare], *[[often, absent]] * 8)
    assert math.isnan(found.interval()[0])
    assert found.interval("Dice", 1) == pytest.approx((0.9, 0.9))
    said = "no interval of the foreground: tumour is scored in one case alone"
    assert said in found.text()
    assert said in found.summary()["notes"]
    assert report([often, absent], *[[often, absent]] * 8).interval() == pytest.approx((0.9, 0.9))


def test_the_scores_without_an_interval_of_the_foreground_are_named():
    """A tumour that is found in one of four cases has a Dice in all, and distances in one."""
    liver, found, missed = scores(90, 10, 10), scores(50, 10, 10), scores(0, 0, 60)
    told = report([liver, found], *[[liver, missed]] * 3)
    assert math.isfinite(told.interval()[0])
    assert math.isnan(told.interval("HD95")[0])
    assert told.rarely_scored() == (
        "no interval of the foreground in precision, HD95, ASSD: tumour is scored in one case alone"
    )


def test_an_interval_of_a_few_resamples_is_none_and_it_is_said():
    """Each of many labels is in two cases: hardly a resample holds all of them."""
    rare, absent = scores(60, 10, 10), scores(0, 0, 0)
    labels = {k: f"l{k}" for k in range(1, 21)}
    told = report(*[[rare if case // 2 == k else absent for k in range(20)] for case in range(40)], labels=labels)
    assert math.isfinite(told.mean())
    assert math.isnan(told.interval()[0])
    assert math.isfinite(told.interval("Dice", 1)[0])
    assert "no interval of the foreground: fewer than half of the resamples hold all labels" in told.text()


@pytest.mark.parametrize(("cases", "labels", "holding"), [(20, 13, 18), (30, 2, 10), (30, 1, 30)])
def test_of_ordinary_data_the_foreground_has_its_interval(cases, labels, holding):
    rng = np.random.default_rng(0)
    absent = scores(0, 0, 0)
    columns = [
        [scores(int(tp), 10, 10) if k < holding else absent for k, tp in enumerate(rng.integers(40, 90, cases))]
        for _ in range(labels)
    ]
    for column in columns[1:]:
        rng.shuffle(column)
    told = report(*map(list, zip(*columns, strict=True)), labels={k: f"l{k}" for k in range(labels)})
    low, high = told.interval()
    assert low < told.mean() < high
    assert told.rarely_scored() == ""


def test_interval_draws_a_patients_scans_together():
    """Twenty scans of two patients, one always found, one never: the interval is that of two, not of twenty."""
    twenty = report(*[(scores(10, 0, 0),)] * 10, *[(scores(0, 5, 5),)] * 10, labels={1: "a"})
    of_two = replace(twenty, groups=("p",) * 10 + ("q",) * 10)
    assert of_two.interval("Dice") == (0, 1)
    low, high = twenty.interval("Dice")
    assert 0.2 < low < high < 0.8
    assert "over patients" in of_two.summary()["confidence_intervals"]["method"]
    assert "over cases" in twenty.summary()["confidence_intervals"]["method"]
    assert all(map(math.isnan, replace(twenty, groups=("p",) * 20).interval("Dice")))


def test_one_scan_per_patient_is_drawn_as_a_case():
    """In whatever order the names of patients are."""
    some = report(*[(scores(tp, 10, 10),) for tp in (10, 40, 70, 20)], labels={1: "a"})
    assert replace(some, groups=("z", "b", "y", "a")).summary() == some.summary()


def test_groups_that_do_not_fit_are_said(mixed):
    with pytest.raises(VptError, match="2 groups for 3 cases; name the patient"):
        replace(mixed, groups=("p", "q"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("summary.json", '{"foreground_mean": {"Dice": 0.9}, "mean": {}, "metric_per_case": []}'),
        ("summary.json", "[]"),
        ("summary.json", "{"),
        ("cases.csv", "image,mask\na.png,b.png\n"),
        ("cases.csv", "case,age\np1,42\n"),
        ("evaluation.md", "# Notes\n\n## How\n\nBy hand, on Monday.\n"),
    ],
)
def test_files_of_others_are_not_replaced(tmp_path, mixed, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(VptError, match=rf"{name}: not of `vpt evaluate`, which would replace it; give another folder"):
        mixed.save(tmp_path)
    assert (tmp_path / name).read_text() == text
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_scores_replace_earlier_ones(tmp_path, mixed):
    mixed.save(tmp_path)
    (tmp_path / "summary.json").unlink()  # stopped before it was written
    mixed.save(tmp_path)
    assert mixed.save(tmp_path) == tmp_path / "summary.json"


def test_summary_has_nnunets_keys_and_ours(mixed):
    summary = json.loads(mixed.to_json())
    assert set(summary) == {
        "foreground_mean",
        "mean",
        "metric_per_case",
        "confidence_intervals",
        "counts",
        "missing_predictions",
        "left_out",
        "labels",
        "notes",
        "settings",
    }
    nnunet = {"Dice", "IoU", "FN", "FP", "TN", "TP", "n_pred", "n_ref"}
    keys = nnunet | {"precision", "recall", "HD95", "ASSD", "NSD"}
    keys |= {"volume_pred_ml", "volume_ref_ml", "volume_error_ml"}
    assert set(summary["foreground_mean"]) == set(summary["mean"]["1"]) == keys
    assert list(summary["mean"]) == ["1", "2"]
    case = summary["metric_per_case"][1]
    assert set(case) == {"case", "metrics", "prediction_file", "reference_file"}
    assert case["case"] == "case1"
    assert set(case["metrics"]["2"]) == keys
    assert case["prediction_file"] == "pred/case1.nii.gz"
    assert case["metrics"]["2"]["FP"] == 3
    assert case["metrics"]["2"]["HD95"] is None
    assert summary["metric_per_case"][0]["metrics"]["2"]["Dice"] is None
    assert summary["mean"]["1"]["Dice"] == pytest.approx(2 / 3)
    assert summary["labels"] == {"1": "liver", "2": "tumour"}
    assert summary["counts"]["2"]["missed"] == summary["counts"]["foreground"]["missed"] == 1
    assert summary["confidence_intervals"]["level"] == 0.95
    low, high = summary["confidence_intervals"]["1"]["Dice"]
    assert 0.5 <= low <= high <= 1
    assert summary["confidence_intervals"]["2"]["HD95"] == [None, None]


def test_markdown_has_no_empty_heading_and_keeps_stars_of_names():
    found = report((scores(5, 5, 5),), labels={1: "liver *"}).markdown()
    assert not re.search(r"^#+\s*$", found, re.MULTILINE)
    assert r"| liver \* | 0.500 |" in found
    assert Block("A: one\nB: two", notes=["* few"]).markdown(2) == "## A: one, B: two\n\n* \\* few"


def test_settings_name_the_implementation(mixed):
    settings = json.loads(mixed.to_json())["settings"]
    assert settings["HD95"].startswith("vpt ")
    assert settings["ASSD"].endswith("mean over the surface voxels of both, mm")
    assert "percentile 95" in settings["HD95"]
    assert "tolerance 1 mm" in settings["NSD"]
    assert (settings["empty"], settings["tolerance_mm"], settings["title"]) == ("nan", 1.0, "Evaluation")
    fast = report((scores(1, 1, 1),), labels={1: "a"}, settings=Settings(distances=False))
    assert fast.summary()["settings"]["HD95"] == "not computed"


def test_save_writes_strict_json_and_csv(mixed, tmp_path):
    path = mixed.save(tmp_path / "deep" / "scores")
    assert path == tmp_path / "deep" / "scores" / "summary.json"

    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads(path.read_text(), parse_constant=refuse) == mixed.summary()
    rows = list(csv.DictReader((path.parent / "cases.csv").open()))
    assert len(rows) == 6
    assert [row["case"] for row in rows[::2]] == ["case1", "case2", "case0"]  # the worst first
    assert rows[4] == rows[4] | {"case": "case0", "label": "1", "name": "liver", "Dice": "1.0", "TP": "10"}
    assert (rows[5]["Dice"], rows[5]["HD95"], rows[5]["n_ref"]) == ("", "", "0")
    assert (rows[1]["Dice"], rows[1]["HD95"], rows[1]["recall"]) == ("0.0", "", "")
    assert sorted(each.name for each in path.parent.iterdir()) == ["cases.csv", "evaluation.md", "summary.json"]


def test_save_says_when_it_cannot(mixed, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(VptError, match=r"file: cannot be made a folder .*; choose another place"):
        mixed.save(tmp_path / "file")


def test_text_and_table_say_the_same(mixed):
    lines = mixed.text().splitlines()
    assert lines[0] == "Evaluation"
    assert lines[1].split("  ")[0] == "label"
    liver, tumour, foreground = (line.split() for line in lines[2:5])
    assert liver[:2] == ["liver", "0.667"]
    assert liver[3] == "to"
    assert liver[5:] == ["0.556", "0.667", "0.667"]
    assert tumour == ["tumour", "0.000", "0.000", "to", "0.000", "0.000", "0.000", "0.000"]
    assert foreground[:2] == ["foreground", "0.333"]
    assert lines[5].split() == ["label", "NSD", "HD95", "mm", "ASSD", "mm", "volume", "ml", "error", "ml", "|error|"]
    assert lines[6].split() == ["liver", "0.500", "1.00", "0.25", "0.010", "+0.000", "0.000"]
    assert lines[7].split() == ["tumour", "0.500", "-", "-", "0.001", "+0.000", "0.002"]
    assert lines[9] == (
        "3 cases x 2 labels: 1 empty in both (left out of means), 1 missed, 1 predicted on an empty reference, "
        "2 without HD95"
    )
    assert lines[10] == "NSD within 1 mm, HD95 and ASSD by surface voxels; error: predicted - reference"
    assert lines[11] == "no interval of the foreground in precision, recall: tumour is scored in one case alone"
    assert len(lines) == 12
    out = io.StringIO()
    Console(file=out, width=160).print(mixed.table())
    shown = out.getvalue()
    for cell in ("Evaluation", "liver", "0.667", "0.556", "HD95 mm", "foreground", lines[9], lines[10]):
        assert cell in shown


def test_the_table_fits_a_terminal_of_80_columns(mixed):
    out = io.StringIO()
    Console(file=out, width=80).print(mixed.table())
    assert all(len(line) <= 80 for line in out.getvalue().splitlines())
    for cell in (
        "liver",
        "tumour",
        "foreground",
        "0.500 to 1.000",
        "0.667",
        "0.556",
        "95% interval",
        "precision",
        "volume ml",
    ):
        assert cell in out.getvalue()
    assert "…" not in out.getvalue()


def test_the_footer_says_how_empties_were_scored_and_when_there_are_none(mixed):
    for empty, words in (("one", "scored 1"), ("zero", "scored 0")):
        assert f"1 empty in both ({words})" in replace(mixed, settings=Settings(empty=empty)).text()
    assert "\n1 case x 1 label: each present in prediction and" in report((scores(1, 1, 1),), labels={1: "a"}).text()


def test_missing_predictions_are_in_every_output(mixed, tmp_path):
    assert "no prediction" not in mixed.text()
    assert mixed.summary()["counts"]["missing_predictions"] == 0
    assert mixed.summary()["missing_predictions"] == []
    part = replace(mixed, missing=tuple(f"m{number}" for number in range(15)))
    said = "15 of 18 references have no prediction and are not scored: m0, m1, m2 and 12 more (--strict makes this an"
    assert part.text().splitlines()[-1] == f"{said} error)"
    out = io.StringIO()
    Console(file=out, width=160).print(part.table())
    assert f"{said} error)" in out.getvalue()
    summary = json.loads(part.save(tmp_path).read_text())
    assert summary["counts"]["missing_predictions"] == 15
    assert summary["missing_predictions"] == list(part.missing)
    assert summary["mean"] == mixed.summary()["mean"]


def test_one_case_and_names_with_brackets():
    one = report((scores(1, 1, 1),), labels={4: "[red]lesion"}, settings=Settings(title="[b]fold 0", distances=False))
    out = io.StringIO()
    Console(file=out, width=160).print(one.table())
    assert "[red]lesion" in out.getvalue()
    assert "[b]fold 0" in out.getvalue()
    assert one.text().splitlines()[2].split()[2] == "-"
    assert "NSD, HD95 and ASSD not computed" in one.text()


def test_unknown_label_and_score_are_said(mixed):
    with pytest.raises(VptError, match=r"label 7 is not in \[1, 2\]"):
        mixed.mean("Dice", 7)
    with pytest.raises(VptError, match=r"score: 'dice' is not one of Dice, IoU, precision"):
        mixed.mean("dice")


@pytest.mark.slow
def test_many_labels_and_cases_stay_quick():
    """TotalSegmentator's 117 labels on 100 cases: a summary within 10 s of the processor's, whoever else is at it."""
    import time

    labels = {label: f"organ {label}" for label in range(1, 118)}
    large = report(*[tuple(scores(i, label, 3) for label in labels) for i in range(100)], labels=labels)
    start = time.process_time()
    large.summary()
    assert time.process_time() - start < 10


def test_a_report_of_images_speaks_of_pixels_only(tmp_path):
    flat = report(
        (scores(10, 5, 0),), (scores(10, 0, 2),), labels={255: "polyp"}, settings=Settings(unit="px", tolerance=2)
    )
    text = flat.text()
    assert text.splitlines()[4].split()[-5:] == ["area", "px", "error", "px", "|error|"]
    assert "HD95 px" in text
    assert "NSD within 2 px, HD95 and ASSD by surface voxels" in text
    assert text.splitlines()[5].split()[-2] == "+1.5"  # (5 - 2) / 2 pixels
    written = text + flat.to_json() + flat.to_csv()
    assert not any(word in written for word in ("mm", "_ml", " ml", "volume_", "volume error"))
    settings = flat.summary()["settings"]
    assert settings["tolerance_px"] == 2
    assert settings["HD95"].endswith("larger of both directions, px")
    assert {"Dice", "IoU", "TP", "FP", "FN", "TN", "n_pred", "n_ref"} <= set(flat.summary()["mean"]["255"])
    assert len(next(csv.reader(io.StringIO(flat.to_csv())))) == 3 + len(flat.scores) + 2
    with pytest.raises(VptError, match="score: 'volume_pred_ml' is not one of Dice"):
        flat.mean("volume_pred_ml")
