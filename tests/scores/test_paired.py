"""Two evaluations of the same cases: differences by hand, paired resamples, and what is not compared."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from label_scores import scores

from vpt.errors import VptError
from vpt.report.classification import ClassReport
from vpt.report.paired import PairedReport
from vpt.report.segmentation import Report
from vpt.scores.cases import LabelScores
from vpt.scores.paired import pair_classifications, pair_segmentations
from vpt.scores.settings import CaseResult

ABSENT, INVENTED = scores(0, 0, 0), scores(0, 5, 0)


def report(groups=None, **cases):
    """Case -> the Dice of label 1 in hundredths, or scores."""
    dice = {name: each for name, each in cases.items() if isinstance(each, int)}
    made = cases | {name: scores(each, 100 - each, 100 - each) for name, each in dice.items()}
    results = tuple(CaseResult(name, "", "", {1: each}) for name, each in made.items())
    return Report(results, {1: "liver"}, groups=groups)


def test_differences_wins_and_losses():
    first = report(a=90, b=80, c=70, d=60, only_a=10)
    second = report(d=70, c=70, b=60, a=50, only_b=99)
    found = pair_segmentations(first, second)
    foreground, liver = found.differences
    assert (foreground.first, foreground.second, foreground.size) == pytest.approx((0.75, 0.625, 0.125))
    assert (liver.score, liver.cases) == ("liver", 4)
    assert [(case.name, round(case.size, 3)) for case in found.cases] == [("a", 0.4), ("b", 0.2), ("d", -0.1), ("c", 0)]
    assert (found.wins, found.losses, found.ties) == (2, 1, 1)
    assert (found.only_first, found.only_second) == (("only_a",), ("only_b",))


def test_intervals_are_paired():
    """All cases differ by the same, which lies far within the spread of the cases."""
    rng = np.random.default_rng(0)
    dice = {f"c{k}": int(value) for k, value in enumerate(rng.integers(20, 90, 30))}
    found = pair_segmentations(report(**{name: value + 3 for name, value in dice.items()}), report(**dice))
    assert found.differences[0].interval == pytest.approx((0.03, 0.03))


def test_patients_are_drawn_with_all_their_cases():
    cases = {f"c{k}": 50 + 10 * (k // 5 % 2) for k in range(20)}
    flat = dict.fromkeys(cases, 50)
    patients = tuple(f"p{k // 5}" for k in range(20))
    widths = []
    for groups in (None, patients):
        low, high = pair_segmentations(report(groups, **cases), report(groups, **flat)).differences[0].interval
        widths.append(high - low)
    assert widths[1] > 1.5 * widths[0]


def test_resamples_that_lack_a_label_are_not_in_the_foregrounds_interval() -> None:
    def made(often: LabelScores, rare: LabelScores) -> Report:
        cases = [CaseResult(f"c{k}", "", "", {1: often, 2: rare if k < 2 else ABSENT}) for k in range(8)]
        return Report(tuple(cases), {1: "liver", 2: "tumour"})

    found = pair_segmentations(
        made(scores(90, 10, 10), scores(10, 90, 90)), made(scores(80, 20, 20), scores(30, 70, 70))
    )
    assert found.differences[0].interval == pytest.approx((-0.05, -0.05))


def of_labels(*columns: list[int | None]) -> Report:
    """Labels l1, l2, ... with each case's Dice in hundredths, None where it has none."""
    rows = zip(*columns, strict=True)
    made = [[ABSENT if dice is None else scores(dice, 100 - dice, 100 - dice) for dice in row] for row in rows]
    cases = [CaseResult(f"c{k}", "", "", dict(enumerate(row, 1))) for k, row in enumerate(made)]
    return Report(tuple(cases), {k: f"l{k}" for k in range(1, len(columns) + 1)})


def test_a_label_of_one_patient_decides_nothing() -> None:
    first, second = (of_labels([70 + k for k in range(12)], [rare, *[None] * 11]) for rare in (90, 20))
    found = PairedReport(pair_segmentations(first, second), "A", "B", "Dice", "how", labels=first.labels)
    whole, often, rare = found.found.differences
    assert np.isnan([*whole.interval, *rare.interval]).all()
    assert often.interval == (0, 0)
    assert [each.verdict for each in (whole, often, rare)] == ["l2 of one patient", "within noise", "of one patient"]
    assert "l2 of one patient" in found.text()


def test_an_interval_of_few_resamples_decides_nothing() -> None:
    columns = [[None if not 2 * k <= case < 2 * k + 2 else 50 + k for case in range(40)] for k in range(20)]
    first, second = (of_labels(*[[dice and dice + more for dice in each] for each in columns]) for more in (0, 5))
    whole, *labels = pair_segmentations(first, second).differences
    assert np.isnan(whole.interval).all()
    assert whole.verdict == "labels too rare"
    assert all(np.isfinite(each.interval).all() for each in labels)


def test_of_fewer_than_five_patients_an_interval_tells_nothing():
    better, worse = ({f"c{k}": dice + k for k in range(5)} for dice in (80, 60))
    assert [each.verdict for each in pair_segmentations(report(**better), report(**worse)).differences] == [
        "more than noise",
        "more than noise",
    ]
    two_of_one = ("a", "a", "b", "c", "d")
    found = pair_segmentations(report(two_of_one, **better), report(two_of_one, **worse))
    assert [(each.cases, each.patients, each.verdict) for each in found.differences] == [(5, 4, "too few patients")] * 2


def test_a_label_that_one_alone_has_predicted_where_there_is_none_is_listed():
    """The one that rightly predicts nothing has no score, so the pair says nothing; that is not kept silent."""
    found = pair_segmentations(report(a=90, b=ABSENT, c=ABSENT), report(a=80, b=INVENTED, c=ABSENT))
    assert found.one_sided == (("b", "liver"),)
    assert (found.differences[0].cases, found.wins) == (1, 1)
    said = PairedReport(found, "A", "B", "Dice", "how").text()
    assert "1 not compared, since one of the two rightly predicted nothing and so has no score: b (liver)" in said


def two_labels(**cases):
    """Case -> the Dice of liver and of tumour in hundredths, or scores."""
    made = {
        name: [each if isinstance(each, LabelScores) else scores(each, 100 - each, 100 - each) for each in pair]
        for name, pair in cases.items()
    }
    results = tuple(CaseResult(name, "", "", {1: liver, 2: tumour}) for name, (liver, tumour) in made.items())
    return Report(results, {1: "liver", 2: "tumour"})


@pytest.fixture
def opposed():
    """A is ahead in the liver of all six cases, B in the tumour of five; means of a case hide it."""
    first = two_labels(a=(80, 40), b=(70, 50), c=(90, 30), d=(60, 60), e=(75, 45), f=(85, 55))
    second = two_labels(a=(70, 50), b=(62, 58), c=(84, 36), d=(50, 70), e=(70, 45), f=(81, 64))
    return PairedReport(pair_segmentations(first, second), "A", "B", "Dice", "how", labels=first.labels)


def test_every_label_has_its_own_difference_interval_wins_and_losses(opposed):
    whole, liver, tumour = opposed.found.differences
    assert (liver.size, tumour.size) == pytest.approx((43 / 600, -43 / 600))
    assert (liver.wins, liver.losses, tumour.wins, tumour.losses) == (6, 0, 0, 5)
    assert (liver.verdict, tumour.verdict, whole.verdict) == ("more than noise", "more than noise", "within noise")
    assert liver.interval[0] > 0.04
    assert tumour.interval[1] < -0.03
    assert (whole.wins, whole.losses) == (opposed.found.wins, opposed.found.losses) == (1, 1)


def test_labels_are_in_text_markdown_json_and_csv(opposed, tmp_path):
    text = opposed.text().splitlines()
    won = [line.split() for line in text if line.startswith(("liver", "tumour", "foreground"))]
    assert [(words[0], *words[-2:]) for words in won] == [
        ("liver", "6", "0"), ("tumour", "0", "5"), ("foreground", "1", "1"),
    ]  # fmt: skip
    assert "by more than noise A is ahead in liver, B is ahead in tumour" in text
    written = json.loads(opposed.save(tmp_path).read_text())
    assert [(each["score"], each["wins"], each["losses"]) for each in written["differences"]][1:] == [
        ("liver", 6, 0), ("tumour", 0, 5),
    ]  # fmt: skip
    assert next(case for case in written["per_case"] if case["name"] == "a")["labels"]["tumour"] == [0.4, 0.5]
    rows = {row["case"]: row for row in csv.DictReader((tmp_path / "comparison.csv").open())}
    assert (rows["a"]["A tumour"], rows["a"]["B tumour"]) == ("0.4", "0.5")
    assert float(rows["a"]["A - B tumour"]) == pytest.approx(-0.1)
    assert "| tumour | 6 |" in (tmp_path / "comparison.md").read_text()


def test_of_two_labels_that_cancel_the_case_names_the_one_that_differs_most(opposed):
    by_name = {case.name: case.furthest for case in opposed.found.cases}
    assert by_name["f"] == ("tumour", pytest.approx(-0.09))
    assert by_name["e"] == ("liver", pytest.approx(0.05))


def test_of_distances_the_shorter_wins_and_what_one_alone_has_is_counted():
    near, far = scores(50, 50, 50, hd95=1.0), scores(50, 50, 50, hd95=4.0)
    first = two_labels(a=(near, near), b=(near, far), c=(scores(0, 0, 100), near))
    second = two_labels(a=(far, near), b=(near, near), c=(near, far))
    found = pair_segmentations(first, second)
    _, liver, tumour = found.others["HD95"]
    assert (liver.cases, liver.wins, liver.losses, liver.size) == (2, 1, 0, -1.5)
    assert (tumour.cases, tumour.wins, tumour.losses, tumour.size) == (3, 1, 1, 0)
    assert found.halves == {"IoU": 0, "precision": 1, "recall": 0, "NSD": 0, "HD95": 1, "ASSD": 1}
    said = PairedReport(found, "A", "B", "Dice", "how", labels=first.labels).text()
    assert "left out, since one of the two has no such score there: precision in 1, HD95 in 1, ASSD in 1" in said
    assert "HD95 (mm), ASSD (mm): less is better" in said


def test_a_label_that_one_alone_has_is_in_no_win_of_it():
    first = two_labels(a=(90, ABSENT), b=(90, 50))
    second = two_labels(a=(80, INVENTED), b=(80, 40))
    found = pair_segmentations(first, second)
    tumour = found.differences[2]
    assert (tumour.cases, tumour.wins, tumour.losses) == (1, 1, 0)
    report = PairedReport(found, "A", "B", "Dice", "how", labels=first.labels)
    assert next(row for row in csv.DictReader(report.to_csv().splitlines()) if row["case"] == "a")["A tumour"] == ""


def test_many_labels_are_said_to_differ_by_chance():
    names = {k: f"organ {k}" for k in range(1, 8)}

    def seven(more):
        return Report(
            tuple(CaseResult(f"c{n}", "", "", {k: scores(50 + n + more * k, 50, 50) for k in names}) for n in range(6)),
            names,
        )

    said = PairedReport(pair_segmentations(seven(1), seven(0)), "A", "B", "Dice", "how", labels=names).by_label()
    assert said.startswith("by more than noise A is ahead in organ 1, organ 2")
    assert "of 7 labels that are alike, one in twenty does so by chance" in said


def test_what_cannot_be_compared_is_said():
    with pytest.raises(VptError, match="no case is in both"):
        pair_segmentations(report(a=1), report(b=1))
    other = Report(report(a=1).cases, {1: "spleen"})
    with pytest.raises(VptError, match="compare evaluations of the same labels"):
        pair_segmentations(report(a=1), other)


def test_classifications():
    truth = np.eye(2, dtype=bool)[[0, 1, 0, 1]]
    names = ("a", "b", "c", "d")

    def classified(sure, order=(0, 1, 2, 3)):
        sure = np.array(sure)[list(order)]
        true = truth[list(order)]
        probabilities = np.where(true, sure[:, None], 1 - sure[:, None])
        return ClassReport(tuple(names[k] for k in order), probabilities, true, ("no", "yes"), "classes")

    found = pair_classifications(classified([0.9, 0.9, 0.6, 0.4]), classified([0.9, 0.2, 0.7, 0.4], (3, 2, 1, 0)))
    by_score = {each.score: each for each in found.differences}
    assert (by_score["accuracy"].first, by_score["accuracy"].second) == (0.75, 0.5)
    assert [(case.name, round(case.size, 3)) for case in found.cases][:2] == [("b", 0.7), ("c", -0.1)]
    assert (found.wins, found.losses, found.ties) == (1, 1, 2)
    assert "ece" not in by_score


def test_every_class_of_two_that_classify():
    """Both are right about every "no"; the first answers all thirty "yes", the second ten of them."""
    names = tuple(f"c{k}" for k in range(60))
    truth = np.eye(2, dtype=bool)[[0] * 30 + [1] * 30]

    def answering(right, owners=None):
        sure = np.where(np.arange(60) < 30 + right, 0.9, 0.2)
        return ClassReport(
            names, np.where(truth, sure[:, None], 1 - sure[:, None]), truth, ("no", "yes"), "classes", groups=owners
        )

    found = pair_classifications(answering(30), answering(10))
    no, yes = found.by_class["recall"]
    assert (no.cases, no.size, no.wins, no.losses, no.verdict) == (30, 0, 0, 0, "within noise")
    assert (yes.cases, yes.first, yes.wins, yes.losses) == (30, 1.0, 20, 0)
    assert yes.second == pytest.approx(1 / 3)
    # the share of thirty cases: 1.96 standard errors of a binomial
    assert np.diff(yes.interval).item() == pytest.approx(2 * 1.96 * np.sqrt(1 / 3 * 2 / 3 / 30), rel=0.1)
    assert all(each.wins is None for each in found.by_class["auroc"])

    report = PairedReport(found, "runs/A", "runs/B", "probability of the truth", "how")
    assert report.by_label() == "by more than noise in sensitivity to a class A is ahead in yes"
    assert "Sensitivity of every class" in report.text()
    assert "AUROC of every class" in report.markdown()
    assert [each["score"] for each in report.summary()["by_class"]["recall"]] == ["no", "yes"]
    two_patients = tuple("ab"[k % 2] for k in range(60))
    found = pair_classifications(answering(30, two_patients), answering(10, two_patients))
    assert found.by_class["recall"][1].verdict == "too few patients"


def test_of_many_classes_those_that_differ_most_are_shown():
    names = tuple(f"c{k}" for k in range(150))
    truth = np.eye(30, dtype=bool)[np.arange(150) % 30]
    wrong = np.roll(truth, 1, axis=1)

    def answering(right):
        return ClassReport(names, np.where(right[:, None], truth, wrong).astype(float), truth, names[:30], "classes")

    first = answering(np.ones(150, bool))
    second = answering(np.arange(150) % 30 != 7)
    text = PairedReport(pair_classifications(first, second), "A", "B", "probability of the truth", "how").text()
    assert text.count("shown: the 10 of 30 that differ most; comparison.json has all") == 2
    assert next(line for line in text.splitlines() if line.startswith("c7 ")).split()[1:5] == [
        "5",
        "1.000",
        "0.000",
        "+1.000",
    ]


def test_the_files(tmp_path):
    found = PairedReport(pair_segmentations(report(a=90, b=80), report(a=50, b=85)), "runs/A", "runs/B", "Dice", "how")
    written = json.loads(found.save(tmp_path).read_text())
    assert (written["A"], written["cases"]["wins"], written["cases"]["losses"]) == ("runs/A", 1, 1)
    assert written["differences"][0]["size"] == pytest.approx(0.175)
    assert (tmp_path / "comparison.csv").read_text().splitlines()[1].startswith("a,0.9,0.5,0.4")
    markdown = (tmp_path / "comparison.md").read_text()
    assert markdown.startswith("# A: runs/A")
    assert "| a | 0.900 | 0.500 | +0.400 |" in markdown
