"""The page of two that were compared says who is ahead, by how much, and where."""

from __future__ import annotations

import html
import math
import re
from pathlib import Path

import numpy as np
import pytest

from vpt.errors import VptError
from vpt.report.paired import PairedClasses, PairedReport
from vpt.report.paired_charts import cases_chart, difference_chart
from vpt.report.paired_page import PairedCard, PairedThumb, paired_page
from vpt.scores.paired import CasePair, Difference, Paired

CASES = (CasePair("<b>far</b>", 0.9, 0.5), CasePair("near", 0.6, 0.7), CasePair("alike", 0.8, 0.8))


def report(interval: tuple[float, float] = (0.02, 0.3)) -> PairedReport:
    differences = (Difference("foreground", 3, 0.75, 0.65, interval), Difference("tumour", 3, 0.7, 0.7, interval))
    return PairedReport(Paired(differences, CASES, ("lonely",), ()), "runs/A", "runs/B", "Dice", "bootstrap")


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        ((0.02, 0.3), "A - B is +0.100 (95 % interval +0.020 to +0.300), more than noise."),
        ((-0.02, 0.3), "A - B is +0.100 (95 % interval -0.020 to +0.300), within noise."),
        ((math.nan, math.nan), "A - B is +0.100; too few patients for an interval."),
    ],
)
def test_the_headline_is_the_difference_and_what_it_is_worth(interval, said) -> None:
    page = paired_page(report(interval), [])
    assert f"Mean Dice 0.750 in A and 0.650 in B over 3 cases: {said}" in page


@pytest.mark.parametrize(
    ("name", "text"), [("comparison.json", "{}"), ("comparison.csv", "case,dose\n"), ("comparison.md", "# A day\n")]
)
def test_files_of_others_are_not_replaced_and_own_ones_are(tmp_path: Path, name: str, text: str) -> None:
    report().save(tmp_path / "own")
    report().save(tmp_path / "own")
    (tmp_path / name).write_text(text)
    with pytest.raises(VptError, match=rf"{name}: not of `vpt evaluate`, which would replace it"):
        report().save(tmp_path)
    assert (tmp_path / name).read_text() == text


def test_too_few_patients_are_said_in_the_headline() -> None:
    few = Paired((Difference("foreground", 3, 0.75, 0.65, (0.02, 0.3), 3),), CASES, (), ())
    page = paired_page(PairedReport(few, "runs/A", "runs/B", "Dice", "bootstrap"), [])
    assert "(95 % interval +0.020 to +0.300); 3 patients are too few to tell that from noise." in page


def test_wins_losses_ties_and_what_is_not_compared_are_said() -> None:
    page = html.unescape(paired_page(report(), []))
    assert "Of 3 cases A is better in 1, B in 1; 1 within 0.001." in page
    assert "1 case only in A, not compared: lonely" in page
    assert "<dt>A is better in</dt><dd>1<small>" in page


def test_names_are_escaped_and_a_missing_picture_is_said() -> None:
    page = paired_page(report(), [PairedCard(CASES[0], note="no picture: the mask is gone")])
    assert "<b>" not in page
    assert "no picture: the mask is gone" in page
    assert "A is better by 0.400" in page


def by_label(names: tuple[str, ...]) -> PairedReport:
    """One case: the first label is better in A, the last far better in B."""
    sizes = [0.1] + [0.0] * (len(names) - 2) + [-0.3]
    pairs = {name: (0.6 + size, 0.6) for name, size in zip(names, sizes, strict=True)}
    whole = Difference("foreground", 6, 0.6, 0.6, (-0.1, 0.1), 6, 1, 0)
    each = tuple(
        Difference(name, 6, a, b, (a - b - 0.01, a - b + 0.01), 6, int(a > b), int(a < b))
        for name, (a, b) in pairs.items()
    )
    found = Paired((whole, *each), (CasePair("case", 0.6, 0.6, pairs),), (), ())
    return PairedReport(found, "A", "B", "Dice", "bootstrap", labels=dict(enumerate(names, 1)))


def test_a_page_tells_labels_apart() -> None:
    report = by_label(("liver", "tumour"))
    page = html.unescape(paired_page(report, [PairedCard(report.found.cases[0])]))
    assert "within noise. By more than noise A is ahead in liver, B is ahead in tumour." in page
    assert re.findall(r'<th scope="row">tumour</th>(?:<td>[^<]*</td>){6}<td>(\d)</td><td>(\d)</td>', page) == [
        ("0", "1")
    ]
    assert "</span> tumour: 0.300 and 0.600 (-0.300)</li>" in page
    assert '<th scope="col">A - B: tumour</th>' in page
    assert page.index('<th scope="row">tumour') < page.index("<tfoot>") < page.index('<th scope="row">foreground')


def test_of_many_labels_a_case_shows_those_that_differ_most() -> None:
    names = tuple(f"organ {k}" for k in range(1, 13))
    report = by_label(names)
    page = html.unescape(paired_page(report, [PairedCard(report.found.cases[0])]))
    assert '<th scope="col" class="words">most in</th>' in page
    assert '<td class="words">organ 12 -0.300</td>' in page
    shown = re.findall(r"</span> (organ \d+): ", page)
    assert shown[:2] == ["organ 12", "organ 1"]
    assert len(shown) == 4


def test_charts_have_every_score_and_every_case() -> None:
    drawn = difference_chart(report((0.02, 0.3)).found.differences)
    assert drawn is not None
    assert [dot.y for dot in drawn.dots] == pytest.approx([0.1, 0.0])
    assert [line.points[0][1] for line in drawn.lines] == [0.02, 0.02]
    assert drawn.y.low <= 0
    both = cases_chart(CASES, "Dice")
    assert both is not None
    assert [(dot.x, dot.y) for dot in both.dots] == [(0.9, 0.5), (0.6, 0.7), (0.8, 0.8)]
    assert "A is better in 1, below the diagonal, B in 1, above it" in both.alt


def test_without_scores_nothing_is_drawn() -> None:
    assert difference_chart([Difference("auroc", 0, math.nan, math.nan, (math.nan, math.nan))]) is None
    assert cases_chart(CASES[:1], "Dice") is None


def test_of_classes_both_matrices_and_the_answers_to_the_cases_that_differ_most_are_shown() -> None:
    cases = (CasePair("far", 0.9, 0.2), CasePair("near", 0.6, 0.7))
    counts = (np.array([[1, 0], [0, 1]]), np.array([[0, 1], [0, 1]]))
    answers = {"far": ("cat", "cat", "dog"), "near": ("dog", "dog", "dog")}
    differences = tuple(Difference(score, 2, 1.0, 0.5, (0.0, 1.0)) for score in ("accuracy", "balanced_accuracy"))
    found = PairedReport(
        Paired(differences, cases, (), ()), "A", "B", "probability of the truth", "bootstrap",
        classes=PairedClasses(("cat", "dog"), "balanced_accuracy", counts, answers),
    )  # fmt: skip
    page = paired_page(found, [], [PairedThumb(case, "", *answers[case.name]) for case in cases])

    assert "Balanced accuracy 1.000 in A and 0.500 in B over 2 cases" in page
    assert [page.count(f'aria-label="Confusion matrix of {name}"') for name in "AB"] == [1, 1]
    assert re.findall(r'<td style="--share: [^"]*"[^>]*>(\d+)<', page) == ["1", "0", "0", "1", "0", "1", "0", "1"]
    assert '<p class="good">A: cat, right; truth given 0.900</p>' in page
    assert '<p class="error">B: dog; truth given 0.200</p>' in page
