"""The table of a comparison: paired bootstrap by hand, what is missing, and the files; from results written down."""

from __future__ import annotations

import csv
import html
import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compared import put, scores
from PIL import Image
from rich.console import Console

from vpt.report.comparison import COLUMNS, table_rows, write_comparison
from vpt.scores.comparison import _resampled_sums, measure, read_results, resampled


def search(out: Path, method: str, number: int, **content: Any) -> None:
    folder = out / method / f"search-{number}"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({"settings": {}, "seed": 0, "seconds": 5.0, **content}))


def rows_of(out: Path, *methods: str, seeds: int = 1) -> dict[str, dict[str, str]]:
    results = read_results(out, {name: name for name in methods}, seeds)
    rows = table_rows(results, measure(results))
    return {result.name: row for result, row in zip(results, rows, strict=True)}


# --- the bootstrap ----------------------------------------------------------------------------------------------------


def test_by_hand(tmp_path: Path) -> None:
    """Two patients of one case each, scores 0 and 1: both drawn twice in a quarter of the draws each."""
    put(tmp_path, "a", 0, scores(0, 1))
    put(tmp_path, "b", 0, scores(0, 0.5))
    draws = resampled(read_results(tmp_path, {"a": "a", "b": "b"}, 1))
    assert set(draws["a"]) == {0.0, 0.5, 1.0}
    shares = [np.mean(draws["a"] == value) for value in (0, 0.5, 1)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
    assert np.array_equal(draws["b"], draws["a"] / 2)  # the same patients in both
    row = rows_of(tmp_path, "b", "a")["b"]
    assert list(rows_of(tmp_path, "b", "a")) == ["a", "b"]
    assert (row["score"], row["interval"]) == ("0.250", "0.000 to 0.500")
    assert (row["behind"], row["margin"], row["verdict"]) == ("-0.250", "-0.500 to +0.000", "within noise")


def test_pairing_tells_small_steady_differences(tmp_path: Path) -> None:
    """Cases differ far more from each other than the methods do, and yet the difference is more than noise."""
    rng = np.random.default_rng(0)
    hard = rng.uniform(0.2, 0.9, 40)
    put(tmp_path, "good", 0, scores(*hard))
    put(tmp_path, "worse", 0, scores(*(hard - 0.01 + rng.normal(0, 0.002, 40))))
    put(tmp_path, "bad", 0, scores(*(hard - 0.2)))
    rows = rows_of(tmp_path, "good", "worse", "bad")
    low, high = (float(end) for end in rows["good"]["interval"].split(" to "))
    assert low < float(rows["worse"]["score"]) < high
    assert [rows[name]["verdict"] for name in rows] == ["the best", "more than noise", "more than noise"]
    assert rows["bad"]["margin"] == "-0.200 to -0.200"


def test_differences_to_the_head_alone_are_paired_and_starred(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    hard = rng.uniform(0.2, 0.8, 40)
    put(tmp_path, "head", 0, scores(*hard))
    put(tmp_path, "deep", 0, scores(*(hard + 0.01 + rng.normal(0, 0.002, 40))))
    put(tmp_path, "same", 0, scores(*(hard + rng.normal(0, 0.02, 40))))
    put(tmp_path, "worse", 0, scores(*(hard - 0.1)))
    names = {name: name for name in ("head", "deep", "same", "worse", "not begun")}
    results = read_results(tmp_path, names, 1)
    found = {row["shown"]: row for row in table_rows(results, measure(results, "head"), "head")}
    assert (found["head"]["gain"], found["not begun"]["gain"]) == ("", "")
    assert (found["deep"]["gain"][0], found["deep"]["gain"][-1]) == ("+", "*")
    assert (found["worse"]["gain"], found["worse"]["gain_margin"]) == ("-0.100 *", "-0.100 to -0.100")
    assert not found["same"]["gain"].endswith("*")
    assert all(row["gain"] == "" for row in table_rows(results, measure(results)))

    console = Console(width=100, file=io.StringIO())
    console.print(write_comparison(tmp_path, names, 1, "T", "Dice", control="head"))
    assert "minus head only" in console.file.getvalue()
    assert "* more than noise" in console.file.getvalue()
    measured = {m["name"]: m["measured"] for m in json.loads((tmp_path / "compare.json").read_text())["methods"]}
    assert measured["worse"]["minus_head_only"] == pytest.approx(-0.1)
    assert measured["worse"]["interval_of_minus_head_only"] == pytest.approx([-0.1, -0.1])


def test_a_method_compared_with_itself_is_within_noise(tmp_path: Path) -> None:
    same = np.random.default_rng(1).uniform(0, 1, (3, 30))
    for name in ("one", "two"):
        for seed, values in enumerate(same):
            put(tmp_path, name, seed, scores(*values))
    row = rows_of(tmp_path, "one", "two", seeds=3)["two"]
    assert (row["behind"], row["verdict"]) == ("+0.000", "within noise")


def test_seeds_are_noise_too(tmp_path: Path) -> None:
    """The same in every case, but one seed fell over: with one seed that is a difference, with three it is not."""
    for seed in range(3):
        put(tmp_path, "steady", seed, scores(*[0.8] * 30))
        put(tmp_path, "shaky", seed, scores(*[[0.4, 0.85, 0.9][seed]] * 30))
    assert rows_of(tmp_path, "steady", "shaky", seeds=1)["shaky"]["verdict"] == "more than noise"
    row = rows_of(tmp_path, "steady", "shaky", seeds=3)["shaky"]
    assert (row["seeds"], row["verdict"]) == ("0.400, 0.850, 0.900", "within noise")


def test_patients_are_drawn_with_all_their_cases(tmp_path: Path) -> None:
    """Forty cases are of two patients, one always right, the other always wrong: the interval is that of two."""
    values, owners = scores(*[1.0] * 20, *[0.0] * 20), scores(*[0.0] * 20, *[1.0] * 20)
    put(tmp_path, "a", 0, values, {case: f"patient {owner}" for case, owner in owners.items()})
    put(tmp_path, "b", 0, values)
    assert rows_of(tmp_path, "a")["a"]["interval"] == "0.000 to 1.000"
    low, high = (float(end) for end in rows_of(tmp_path, "b")["b"]["interval"].split(" to "))
    assert 0.3 < low < high < 0.7


def test_patients_weigh_by_their_cases(tmp_path: Path) -> None:
    owner = {"a1": "a", "a2": "a", "a3": "a", "b1": "b"}
    put(tmp_path, "m", 0, {"a1": 1, "a2": 1, "a3": 1, "b1": 0}, owner)
    assert set(resampled(read_results(tmp_path, {"m": "m"}, 1))["m"]) == {0.0, 0.75, 1.0}


def test_draws_do_not_depend_on_the_portion() -> None:
    sums = np.random.default_rng(0).uniform(0, 1, (7, 3))
    assert np.array_equal(_resampled_sums(sums, 250), _resampled_sums(sums, 250, at_once=250))
    assert np.array_equal(_resampled_sums(np.ones((7, 1)), 250), np.full((250, 1), 7))


def test_one_patient_has_no_interval(tmp_path: Path) -> None:
    for name, value in (("a", 0.9), ("b", 0.2)):
        put(tmp_path, name, 0, scores(value, value), dict.fromkeys(scores(0, 0), "only"))
    row = rows_of(tmp_path, "a", "b")["b"]
    assert (row["interval"], row["behind"], row["margin"], row["verdict"]) == ("-", "-0.700", "-", "unknown")
    write_comparison(tmp_path, {"a": "a", "b": "b"}, 1, "T", "Dice")
    assert "one patient's, so there are no intervals" in html.unescape((tmp_path / "compare.html").read_text())


# --- what is missing --------------------------------------------------------------------------------------------------


def test_cases_without_a_score_somewhere_are_left_out_everywhere(tmp_path: Path) -> None:
    """case02 has no score in one seed of `b`: all means are over the same cases, and the page says so."""
    put(tmp_path, "a", 0, scores(1, 1, 0))
    put(tmp_path, "a", 1, scores(1, 1, 0))
    put(tmp_path, "b", 0, scores(1, 0))
    put(tmp_path, "b", 1, scores(1, 0, 1))
    rows = rows_of(tmp_path, "a", "b", seeds=2)
    assert (rows["a"]["score"], rows["b"]["score"], rows["b"]["behind"]) == ("1.000", "0.500", "-0.500")
    write_comparison(tmp_path, {"a": "a", "b": "b"}, 2, "T", "Dice")
    page = (tmp_path / "compare.html").read_text()
    assert "means over 2 test cases" in page
    assert "Left out: 1, for which" in page


def test_no_case_has_a_score_in_all(tmp_path: Path) -> None:
    put(tmp_path, "a", 0, {"one": 1.0})
    put(tmp_path, "b", 0, {"two": 1.0})
    rows = rows_of(tmp_path, "a", "b")
    assert {row["note"] for row in rows.values()} == {"0 of 1 seeds; no test case has a score"}
    write_comparison(tmp_path, {"a": "a", "b": "b"}, 1, "T", "Dice")


def test_what_failed_and_what_is_missing_is_said(tmp_path: Path) -> None:
    put(tmp_path, "partly", 0, scores(1, 0))
    put(tmp_path, "whole", 0, scores(0, 0))
    put(tmp_path, "whole", 1, scores(0, 0))
    search(tmp_path, "whole", 0, failed="the loss became nan")
    search(tmp_path, "broken", 0, failed="no such block")
    search(tmp_path, "broken", 1, failed="no such block")
    search(tmp_path, "begun", 0, score=0.5)
    rows = rows_of(tmp_path, "broken", "never", "begun", "whole", "partly", seeds=2)
    assert list(rows) == ["partly", "whole", "broken", "never", "begun"]
    again = "trainings failed (--retry-failed tries again)"
    assert [row["note"] for row in rows.values()] == [
        "1 of 2 seeds",
        f"1 of 3 {again}: the loss became nan",
        f"0 of 2 seeds; 2 of 2 {again}: no such block",
        "0 of 2 seeds",
        "0 of 2 seeds",
    ]
    assert all(row["score"] == row["trained"] == "" for name, row in rows.items() if name not in ("partly", "whole"))


def test_costs(tmp_path: Path) -> None:
    put(tmp_path, "m", 0, scores(1, 0))
    put(tmp_path, "m", 1, scores(1, 0))
    search(tmp_path, "m", 0, score=0.5)
    row = rows_of(tmp_path, "m", seeds=2)["m"]
    assert {key: row[key] for key in ("trained", "prompts", "artifact", "memory", "step", "seconds", "total")} == {
        "trained": "12,345",
        "prompts": "640",
        "artifact": "51",
        "memory": "2,000",
        "step": "250.0",
        "seconds": "10.0",
        "total": "26",
    }
    assert row["chosen"] == "prompt_lr 0.005, weight_decay 0.0001"


def test_seeds_beyond_those_asked_for_are_left_out(tmp_path: Path) -> None:
    for seed in range(3):
        put(tmp_path, "m", seed, scores(seed / 2, seed / 2))
    assert rows_of(tmp_path, "m", seeds=2)["m"]["seeds"] == "0.000, 0.500"


# --- files ------------------------------------------------------------------------------------------------------------


class Rows(HTMLParser):
    """The names of all rows, and the tags."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.tags: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if inside := tag == "th" and ("scope", "row") in attrs:
            self.names.append("")
        self.inside = inside

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.names[-1] += data


NAMES = {"a": '<b>bold</b> & $x_1$, "quoted"', "b": "plain", "c": "not begun"}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for seed in range(2):
        put(tmp_path, "a", seed, scores(*rng.uniform(0.6, 1, 20)))
        put(tmp_path, "b", seed, scores(*rng.uniform(0, 0.4, 20)))
    write_comparison(tmp_path, NAMES, 2, "Cells <i>of</i> $mice$", "Dice")
    return tmp_path


def test_the_csv_parses(written: Path) -> None:
    with open(written / "compare.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS.values())
    assert [row["method"] for row in rows] == list(NAMES.values())
    assert all(None not in row for row in rows)
    assert rows[2]["note"] == "0 of 2 seeds"


def test_the_json_is_valid(written: Path) -> None:
    content = json.loads((written / "compare.json").read_text(), parse_constant=pytest.fail)
    assert (content["title"], content["score"], content["seeds"]) == ("Cells <i>of</i> $mice$", "Dice", 2)
    assert [method["name"] for method in content["methods"]] == ["a", "b", "c"]
    assert content["methods"][1]["verdict"] == "more than noise"


def test_the_json_has_the_numbers_behind_the_words(written: Path) -> None:
    first, second, third = json.loads((written / "compare.json").read_text())["methods"]
    for row in (first, second):
        numbers = row["measured"]
        assert f"{numbers['score']:.3f}" == row["score"]
        assert "{:.3f} to {:.3f}".format(*numbers["interval"]) == row["interval"]
        assert [f"{seed:.3f}" for seed in numbers["seeds"]] == row["seeds"].split(", ")
        assert numbers["parameters"]["trained"] == int(row["trained"].replace(",", ""))
    assert (first["measured"]["minus_the_best"], first["measured"]["interval_of_that"]) == (0, [0, 0])
    assert "{:+.3f} to {:+.3f}".format(*second["measured"]["interval_of_that"]) == second["margin"]
    assert third["measured"] is None


def test_the_page_escapes_names_and_loads_nothing(written: Path) -> None:
    page = Rows()
    page.feed((written / "compare.html").read_text(encoding="utf-8"))
    assert not {"b", "i"} & set(page.tags)
    assert page.tags.count("script") == 1  # the page's own
    assert page.names == 2 * list(NAMES.values())  # scores and costs
    assert "http" not in (written / "compare.html").read_text().replace("http-equiv", "")  # nothing from elsewhere


@pytest.mark.slow
def test_the_picture_shows_something(written: Path) -> None:
    picture = np.asarray(Image.open(written / "compare.png").convert("RGB"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10
    edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    assert (edge == 255).all()  # nothing is cut off


def test_a_picture_of_before_does_not_stay(written: Path) -> None:
    write_comparison(written, {"c": "not begun"}, 2, "T", "Dice")
    assert not (written / "compare.png").exists()
    assert 'class="strips"' not in (written / "compare.html").read_text()
    assert "Nothing is finished yet" in (written / "compare.html").read_text()


def test_what_the_finals_learned_from_is_said(written: Path) -> None:
    assert "from training and validation cases together" in (written / "compare.html").read_text()
    write_comparison(written, NAMES, 2, "T", "Dice", together=False)
    assert "from its few training cases" in (written / "compare.html").read_text()


@pytest.mark.parametrize("width", [80, 110])
def test_the_terminals_table_keeps_numbers_whole(written: Path, width: int) -> None:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(write_comparison(written, NAMES, 2, "Cells [bold]", "Dice"))
    text = console.export_text()
    with open(written / "compare.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows[:2]:
        assert all(row[key] in text for key in ("score", "95 % interval", "trained parameters"))
    assert "Cells [bold]: test Dice" in text
    assert "not begun: 0 of 2 seeds" in text


def test_whose_the_encoders_weights_are_is_said_once(tmp_path: Path) -> None:
    for method, weights in (("a", "Ann's ViT; licence: MIT"), ("b", "Ann's ViT; licence: MIT"), ("unet", None)):
        put(tmp_path, method, 0, scores(0.5, 0.75))
        file = tmp_path / method / "seed-0" / "result.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"weights": weights}))
    put(tmp_path, "before", 0, scores(0.5, 0.75))  # of a version that did not record it
    write_comparison(tmp_path, {name: name for name in ("a", "b", "unet", "before")}, 1, "title", "Dice")
    page = html.unescape((tmp_path / "compare.html").read_text())
    assert page.count("Weights of the encoder: Ann's ViT; licence: MIT.") == 1
    assert "None" not in page
