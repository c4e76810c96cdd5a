"""Training where each case has one of two organs annotated: both are learned, and scored where they were."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from tiny_run import SETTINGS

from vpt.artifact import read_artifact
from vpt.config import load_config
from vpt.data.annotated import annotation_doubts, keep_labels
from vpt.data.cases import SegmentationSet
from vpt.data.slices.cached_slices import prepare_cases
from vpt.engine.run import train
from vpt.engine.segmenting import Segmenting
from vpt.engine.setup import prepare_setup
from vpt.engine.validating import validate
from vpt.model import Output
from vpt.progress import silent
from vpt.use.runs import evaluate_run

NAMES = tuple(f"case_{k}" for k in range(10))
TRAIN, VAL, TEST = NAMES[:6], NAMES[6:8], NAMES[8:]
QUICK = SETTINGS | {"prompts": "none", "optim.lr": 1e-2, "train.augment": "none", "precision": "32-true"}


@pytest.fixture(scope="module")
def organs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bright and a dark organ in every scan; of training and validation each case has one of them annotated."""
    root = tmp_path_factory.mktemp("organs") / "data"
    rng = np.random.default_rng(0)
    said: dict[str, Sequence[str]] = {}
    for number, name in enumerate(NAMES):
        image, label = rng.normal(100, 5, (32, 32, 4)), np.zeros((32, 32, 4), np.uint8)
        for organ, value in ((1, 180), (2, 20)):
            row, column = rng.integers(1, 7) + 16 * (organ == 2), rng.integers(1, 21)
            image[row : row + 9, column : column + 9] = value
            label[row : row + 9, column : column + 9] = organ
        if name not in TEST:
            label[label != number % 2 + 1] = 0
            said[name] = [("light", "dark")[number % 2]]
        for folder, array in ((f"imagesTr/{name}_0000", image.astype(np.int16)), (f"labelsTr/{name}", label)):
            (root / folder).parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.diag([1.0, 1, 3, 1])), root / f"{folder}.nii.gz")
    content = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "light": 1, "dark": 2}, "annotated": said}
    (root / "dataset.json").write_text(json.dumps(content))
    (root / "split.json").write_text(json.dumps({"train": TRAIN, "val": VAL, "test": TEST}))
    return root


def prepared(data: Path, folder: Path, **changes: Any) -> Segmenting:
    job = Segmenting(folder / "run", prepare_setup(load_config(data, QUICK | changes)), folder / "cache")
    job.prepare()
    return job


@pytest.mark.parametrize("stored", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_batches_say_what_was_annotated_and_the_loss_reads_it(organs: Path, tmp_path: Path, stored: bool) -> None:
    job = prepared(organs, tmp_path, **({} if stored else {"train.cache_gb": 0.0}))
    assert job.prefix_plan.stored is stored
    samples = job.draw(0)[0]
    batch = torch.utils.data.default_collate([job.dataset[draw] for draw in samples])
    cases = [TRAIN.index(job.training[draw.case].name) for draw in samples]
    assert batch["annotated"].tolist() == [[True, case % 2 == 0, case % 2 == 1] for case in cases]
    logits = torch.randn(len(samples), 3, 32, 32)
    every = batch | {"annotated": torch.ones_like(batch["annotated"])}
    assert job.loss(Output(logits), batch) != job.loss(Output(logits), every)
    assert "annotated for training: light in 3, dark in 3 of 6 cases" in job.doubts()


def test_validation_scores_a_label_where_it_was_annotated(organs: Path, tmp_path: Path) -> None:
    setup = prepare_setup(load_config(organs, QUICK))
    cases = [setup.dataset.case(name) for name in VAL]
    held = prepare_cases(setup.dataset, cases, setup.plan, tmp_path / "cache", silent, native=True)

    class Light(torch.nn.Module):
        def forward(self, batch: Any) -> Output:
            images = batch["images"][:, :1]
            return Output(torch.cat([images.new_full(images.shape, 0.6), images, 0 * images], 1))

    seen: list[dict[str, float]] = []
    found = validate(Light(), held, setup, 8, lambda name, mine, truth, dice: seen.append({**dice}))
    assert [sorted(dice) for dice in seen] == [["light"], ["dark"]]
    assert found == {"dice": found["dice"], "dice_light": seen[0]["light"], "dice_dark": seen[1]["dark"]}


def test_a_label_that_no_case_was_annotated_for_is_told(organs: Path) -> None:
    setup = prepare_setup(load_config(organs, QUICK))
    assert isinstance(setup.dataset, SegmentationSet)
    more = replace(setup, dataset=keep_labels(setup.dataset, ["vessel"]))
    told = [*annotation_doubts(more.dataset, {"training": TRAIN, "validation": VAL})]
    assert "vessel: no validation case is annotated for it, so no epoch is chosen by it" in told
    assert "vessel: no training case is annotated for it, so nothing teaches what it looks like" in told


@pytest.mark.slow
def test_both_organs_are_learned_of_cases_with_one_each(organs: Path, tmp_path: Path) -> None:
    settings = QUICK | {"train.epochs": 1, "train.max_steps": 60, "train.batch_size": 8}
    run = train(organs, tmp_path / "run", overrides=settings)
    report, _ = evaluate_run(run, device="cpu")
    assert [report.mean("Dice", label) > 0.85 for label in (1, 2)] == [True, True]
    held, _ = evaluate_run(run, split="val", device="cpu")
    assert [held.counts(label)["cases"] for label in (1, 2)] == [1, 1]
    assert "annotated: light in 1, dark in 1 of 2 cases, in which alone each is scored" in held.text()
    assert held.summary()["metric_per_case"][0]["metrics"]["2"]["Dice"] is None
    assert read_artifact(run).labels == {0: "background", 1: "light", 2: "dark"}
