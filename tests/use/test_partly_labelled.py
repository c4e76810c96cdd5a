"""Lists that were annotated for different labels train one model: what nobody has looked for counts nowhere."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_classes import CLASSES, HEAD_ONLY, stripes

from vpt.config import load_config
from vpt.engine.classifying import Classifying
from vpt.engine.outcome import per_case
from vpt.engine.run import train
from vpt.engine.setup import prepare_setup
from vpt.model import Output
from vpt.report.class_summary import read_class_summary, reliability_charts
from vpt.report.classification import ClassReport
from vpt.scores.paired import pair_classifications
from vpt.tasks.batch import Batch
from vpt.use.runs import evaluate_run

WANTED = HEAD_ONLY | {"train.epochs": 1, "train.max_steps": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sites in one list: one has looked for lying stripes, one for standing ones; the test side has both."""
    root = tmp_path_factory.mktemp("partly")
    rows = [["path", "label", "annotated", "split"]]
    for number in range(20):
        there = ["", "lying", "standing", "lying|standing"][number % 4].split("|")
        side = "train" if number < 12 else "val" if number < 16 else "test"
        looked = CLASSES[1:] if side == "test" else (("lying", "standing")[number // 2 % 2],)
        parts = [stripes(CLASSES.index(label), number) for label in there if label]
        Image.fromarray(np.maximum.reduce([stripes(0, number), *parts])).save(root / f"im{number:02d}.png")
        found = "|".join(label for label in there if label in looked)
        rows.append([f"im{number:02d}.png", found, "|".join(looked), side])
    with open(root / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


@pytest.mark.parametrize("stored", [0.0, 1.0])
def test_a_batch_says_what_was_looked_for_and_the_loss_is_of_that_alone(
    data: Path, tmp_path: Path, stored: float
) -> None:
    config = load_config(data, WANTED | {"train.cache_gb": stored})
    job = Classifying(tmp_path / "run", prepare_setup(config), tmp_path / "cache")
    job.prepare()
    draws = job.draw(0)[0]
    batch = torch.utils.data.default_collate([job.dataset[draw] for draw in draws])
    expected = {example.name: example.annotated for example in job.examples}
    looked = torch.tensor([[place in expected[name] for place in range(2)] for name in job.names(draws)])
    assert torch.equal(batch["annotated"], looked)
    assert looked.sum(1).tolist() == [1] * len(draws)
    logits = torch.randn(len(draws), 2)
    own = torch.nn.functional.binary_cross_entropy_with_logits(logits[looked], batch["truth"][looked])
    assert float(job.loss(Output(logits), Batch(**batch))) == pytest.approx(float(own), rel=1e-6)


@pytest.mark.slow
def test_a_run_learns_of_both_and_each_image_scores_for_what_was_looked_for(data: Path, tmp_path: Path) -> None:
    run = train(data, tmp_path / "run", overrides=WANTED)
    log = (run / "train.log").read_text()
    assert "annotated for training: lying in 6, standing in 6 of 12 images" in log
    validated = json.loads((run / "validation" / "summary.json").read_text())
    assert [validated["per_class"][name]["annotated"] for name in CLASSES[1:]] == [2, 2]
    assert "annotated: lying in 2, standing in 2 of 4 cases, in which alone each is scored" in validated["notes"]
    with open(run / "validation" / "cases.csv") as file:
        rows = list(csv.DictReader(file))
    assert {row["annotated"] for row in rows} == {"lying", "standing"}
    for row in rows:
        name = row["annotated"]
        assert row["correct"] == str(int((float(row[f"p_{name}"]) > 0.5) == (name in row["reference"].split("|"))))
    summary = read_class_summary(validated, rows)
    assert summary.looked.sum() == 4
    assert len(reliability_charts(summary)) == 2
    assert [case.looked_for for case in summary.cases] == [row["annotated"] for row in rows]
    assert (run / "report.html").read_text().count("<p>looked for: lying</p>") == 2
    assert "in which alone each is scored" in (run / "validation" / "evaluation.md").read_text()
    whole, _ = evaluate_run(run, device="cpu")
    assert isinstance(whole, ClassReport)
    assert whole.annotated is None
    assert "annotated" not in whole.to_csv().splitlines()[0]


def test_comparisons_leave_out_what_nobody_has_looked_for() -> None:
    p = np.array([[0.9, 0.2], [0.3, 0.6], [0.8, 0.8]])
    t, looked = np.array([[1, 0], [0, 0], [1, 0]], bool), np.array([[1, 0], [1, 1], [1, 0]], bool)

    def report(p: np.ndarray) -> ClassReport:
        return ClassReport(("a", "b", "c"), p, t, ("lying", "standing"), "labels", annotated=looked)

    one, other = report(p), report(np.where(looked, p, 1 - p))
    assert one.scores() == other.scores()
    assert per_case(one) == per_case(other) == {"a": 1.0, "b": 0.5, "c": 1.0}
    paired = pair_classifications(one, other)
    assert all(each.first == each.second for each in paired.differences)
    assert [case.size for case in paired.cases] == [0.0, 0.0, 0.0]
    assert one.restricted([1, 2]).looked.tolist() == [[True, True], [True, False]]
