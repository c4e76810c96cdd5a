"""The report of a classification: its table, files and pictures."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from vpt.errors import VptError
from vpt.report.classification import ClassReport, write_probabilities

NAMES = ("a", "b", "c", "d")
CLASSES = ("normal", "naevus", "melanoma")


def of_classes(**changes):
    probabilities = np.array([[0.8, 0.1, 0.1], [0.4, 0.5, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]])
    given = {
        "names": NAMES,
        "probabilities": probabilities,
        "targets": np.eye(3, dtype=bool)[[0, 0, 1, 0]],  # no melanoma
        "classes": CLASSES,
        "target": "classes",
        "title": "Skin",
    }
    return ClassReport(**(given | changes))


def of_labels():
    probabilities = np.array([[0.9, 0.2, 0.1], [0.6, 0.7, 0.2], [0.3, 0.6, 0.1], [0.1, 0.2, 0.3]])
    targets = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]], bool)
    return of_classes(probabilities=probabilities, targets=targets, target="labels")


def of_many(classes=100):
    """Of each class two cases; every tenth class is taken for its neighbour."""
    true = np.repeat(np.arange(classes), 2)
    found = np.where(true % 10 == 3, true + 1, true)
    return ClassReport(
        tuple(f"case{i}" for i in range(len(true))),
        np.where(np.eye(classes, dtype=bool)[found], 0.505, 0.495 / (classes - 1)),
        np.eye(classes, dtype=bool)[true],
        tuple(f"species {k}" for k in range(classes)),
        "classes",
    )


def printed(report, width=100):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(report.table())
    return console.export_text()


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_scores_per_class():
    found = of_classes().per_class()
    assert found["normal"] == pytest.approx(
        {"n": 3, "recall": 2 / 3, "specificity": 1, "precision": 1, "f1": 0.8, "auroc": 1}
    )
    assert found["naevus"]["precision"] == 0.5
    assert found["melanoma"]["n"] == 0
    assert math.isnan(found["melanoma"]["recall"])


def test_the_table_says_scores_intervals_and_classes():
    text = printed(of_classes())
    assert "Skin" in text
    assert "accuracy" in text
    assert "0.750" in text
    assert "95% interval" in text
    assert all(name in text for name in CLASSES)
    assert "sensitivity" in text
    assert "over cases" in text


def test_the_table_of_many_classes_shows_the_worst():
    text = printed(of_many())
    assert "shown: the 10 classes with the lowest F1; summary.json has all 100" in text
    assert all(f"species {k} " in text for k in range(3, 100, 10))
    assert "species 7 " not in text


@pytest.mark.slow
def test_patients_are_the_units_of_intervals(tmp_path):
    report = of_classes(groups=("p", "p", "q", "q"))
    assert "4 cases of 2 patients" in " ".join(printed(report).split())
    method = json.loads(report.save(tmp_path).read_text())["intervals"]["method"]
    assert method == "percentile bootstrap over patients, 2000 resamples, seed 0"


@pytest.mark.slow
@pytest.mark.parametrize("make", [of_classes, of_labels, of_many])
def test_save_writes_strict_json_a_csv_and_two_pictures(tmp_path: Path, make):
    report = make()
    path = report.save(tmp_path / "new" / "folder")

    assert path == tmp_path / "new/folder/summary.json"
    found = json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert set(found) >= {"title", "target", "n", "scores", "intervals", "per_class", "confusion", "settings"}
    assert found["n"] == len(report.names)
    assert set(found["scores"]) - {"ece"} | {"level", "method"} == set(found["intervals"])
    assert list(found["per_class"]) == list(report.classes)
    assert found["confusion"]["counts"] == report.confusion().tolist()
    assert {"vpt", "torchmetrics"} <= set(found["settings"])
    for name in ("confusion.png", "reliability.png"):
        with Image.open(path.with_name(name)) as image:
            assert min(image.size) > 300
            assert len(np.unique(np.asarray(image.convert("L")))) > 20
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "cases.csv",
        "confusion.png",
        "evaluation.md",
        "reliability.png",
        "summary.json",
    ]


@pytest.mark.slow
def test_undefined_scores_are_null(tmp_path):
    found = json.loads(of_classes().save(tmp_path).read_text())
    assert found["per_class"]["melanoma"]["auroc"] is None
    assert found["per_class"]["melanoma"]["n"] == 0


@pytest.mark.slow
def test_saving_twice_gives_the_same_files(tmp_path):
    for folder in ("one", "two"):
        of_labels().save(tmp_path / folder)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


@pytest.mark.slow
def test_scores_replace_earlier_ones_and_no_list_of_others(tmp_path):
    path = of_classes().save(tmp_path)
    assert of_labels().save(tmp_path) == path
    (tmp_path / "cases.csv").write_text("name,label\na,naevus\n")
    with pytest.raises(VptError, match=r"cases\.csv: not of `vpt evaluate`, which would replace it"):
        of_classes().save(tmp_path)


def test_pictures_of_others_are_not_replaced(tmp_path):
    (tmp_path / "confusion.png").write_bytes(b"drawn elsewhere")
    with pytest.raises(VptError, match=r"confusion\.png: not of `vpt evaluate`, which would replace it"):
        of_classes().save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["confusion.png"]


@pytest.mark.slow
def test_cases(tmp_path):
    of_classes().save(tmp_path)
    row = rows_of(tmp_path / "cases.csv")[1]
    probabilities = {"p_normal": "0.4", "p_naevus": "0.5", "p_melanoma": "0.1"}
    assert row == {"name": "b", "reference": "normal", "prediction": "naevus", "correct": "0"} | probabilities


@pytest.mark.slow
def test_cases_of_labels(tmp_path):
    of_labels().save(tmp_path)
    rows = rows_of(tmp_path / "cases.csv")
    assert [row["reference"] for row in rows] == ["normal", "naevus", "normal|naevus", ""]
    assert [row["prediction"] for row in rows] == ["normal", "normal|naevus", "naevus", ""]
    assert [row["correct"] for row in rows] == ["1", "0", "0", "1"]


def test_predictions_without_references(tmp_path):
    write_probabilities(tmp_path / "classes.csv", ["x,y"], np.array([[0.25, 0.75]]), ["cat", "dog"], "classes")
    assert rows_of(tmp_path / "classes.csv") == [{"name": "x,y", "prediction": "dog", "p_cat": "0.25", "p_dog": "0.75"}]
    write_probabilities(tmp_path / "labels.csv", ["x"], np.array([[0.75, 0.75]]), ["cat", "dog"], "labels")
    assert rows_of(tmp_path / "labels.csv")[0]["prediction"] == "cat|dog"


def test_names_that_do_not_fit():
    with pytest.raises(VptError, match="2 names and 3 classes do not fit probabilities of shape"):
        of_classes(names=("a", "b"))
    with pytest.raises(VptError, match="1 group for 4 cases"):
        of_classes(groups=("p",))
    with pytest.raises(VptError, match="case 'a' is there twice"):
        of_classes(names=("a", "a", "b", "c"))
    with pytest.raises(VptError, match="class 'x' is there twice"):
        of_classes(classes=("x", "x", "y"))
    with pytest.raises(VptError, match="2 names and 1 class "):
        write_probabilities("unused.csv", ["a", "b"], np.array([[0.5, 0.5]]), ["x"], "classes")


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(VptError, match="cannot be made a folder"):
        of_classes().save(tmp_path / "file")


def test_whose_the_encoders_weights_are_is_said_where_it_is_known():
    known, unknown = of_classes(weights="Ann's ViT; licence: MIT"), of_classes()
    assert known.summary()["weights"] == "Ann's ViT; licence: MIT"
    assert "weights" not in unknown.summary()
    console = Console(width=120)
    with console.capture() as said:
        console.print(known.table(), unknown.table())
    assert said.get().count("encoder: Ann's ViT; licence: MIT") == 1
