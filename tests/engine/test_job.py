"""A job's life: described without any work, then prepared in an order in which nothing is done twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_classes import CLASS_SETTINGS
from tiny_run import SETTINGS

import vpt.engine.job as engine
import vpt.engine.segmenting as segmenting
from vpt.config import load_config
from vpt.engine.classifying import Classifying
from vpt.engine.job import Job
from vpt.engine.run import JOBS
from vpt.engine.segmenting import Segmenting
from vpt.engine.setup import prepare_setup
from vpt.errors import VptError

LATE = {"prompts": {"method": "deep", "count": 2, "blocks": "last:2", "init": "kmeans"}, "train.views": 2}


def described(task: str, data: Path, out: Path, **changes: Any) -> Job:
    settings = SETTINGS if task == "segmentation" else CLASS_SETTINGS
    return JOBS[task](out / "run", prepare_setup(load_config(data, settings | changes)), out / "cache")  # type: ignore[index]


@pytest.fixture(params=["segmentation", "classification"])
def task_and_data(request: pytest.FixtureRequest, tiny_data: Path, tiny_classes: Path) -> tuple[str, Path]:
    return request.param, tiny_data if request.param == "segmentation" else tiny_classes


def test_describing_a_job_reads_builds_and_writes_nothing(
    task_and_data: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "build_model", lambda *args: pytest.fail("a constructor built a model"))
    before = torch.get_rng_state()
    job = described(*task_and_data, tmp_path)
    assert not hasattr(job, "model")
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(torch.get_rng_state(), before)
    assert job.score in ("dice", "balanced_accuracy")
    assert job.shown


@pytest.mark.slow
def test_prepared_it_has_all_that_training_takes(task_and_data: tuple[str, Path], tmp_path: Path) -> None:
    job = described(*task_and_data, tmp_path, **LATE)
    job.prepare()
    assert job.prefix_plan.stored
    assert job.prefix_plan.first == 6
    samples = job.draw(0)[0]
    assert len(samples) == job.batch_size
    batch = torch.utils.data.default_collate([job.dataset[draw] for draw in samples])
    assert "rows" in batch
    assert ("images" in batch) == isinstance(job, Segmenting)  # a mask head looks at them, a classifier's does not
    assert torch.isfinite(job.loss(job.forward(batch), batch))
    assert all(0 <= score <= 1 for score in job.validate(job.forward).values())
    assert isinstance(job, Segmenting) or job.validated.dtype == "float16"


@pytest.mark.slow
def test_prompts_start_on_the_runs_device_before_anything_is_stored(
    task_and_data: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is moved once, and to where it trains."""
    done: list[Any] = []
    start, store, move = engine.initialise, engine.make_store, engine.PromptedModel.to

    def moved(model: Any, device: Any) -> Any:
        done.append(("to", device))
        return move(model, device)

    monkeypatch.setattr(engine.PromptedModel, "to", moved)
    monkeypatch.setattr(engine, "initialise", lambda *args: done.append("start") or start(*args))
    monkeypatch.setattr(engine, "make_store", lambda *args, **named: done.append("store") or store(*args, **named))
    job = described(*task_and_data, tmp_path, **LATE)
    job.prepare()
    stores = 1 if isinstance(job, Segmenting) else 2
    assert done == [("to", job.setup.device), "start", *["store"] * stores]


@pytest.mark.slow
def test_what_is_resumed_does_not_start_again(
    task_and_data: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = []
    initialise = engine.initialise
    monkeypatch.setattr(engine, "initialise", lambda *args: starts.append(1) or initialise(*args))
    kept = []
    for start in (False, True):
        job = described(*task_and_data, tmp_path, **LATE)
        job.prepare(start=start)
        kept.append({name: tensor.clone() for name, tensor in job.model.trained_state().items()})
    assert len(starts) == 1
    random, started = kept
    assert [name for name in random if not torch.equal(random[name], started[name])] == ["prompts.table.tokens"]


@pytest.mark.slow
def test_the_same_seed_prepares_the_same_model_whatever_was_drawn_before(
    task_and_data: tuple[str, Path], tmp_path: Path
) -> None:
    kept = []
    for number in range(2):
        torch.manual_seed(number)
        job = described(*task_and_data, tmp_path / str(number), **LATE)
        job.prepare()
        kept.append((job.model.trained_state(), torch.get_rng_state()))
    assert all(torch.equal(kept[0][0][name], kept[1][0][name]) for name in kept[0][0])
    assert torch.equal(kept[0][1], kept[1][1])


def test_weights_that_do_not_fit_are_refused_before_a_file_is_read(
    task_and_data: tuple[str, Path], tmp_path: Path
) -> None:
    job = described(*task_and_data, tmp_path, **{"loss.class_weights": [1, 2]})
    with pytest.raises(VptError, match=r"loss\.class_weights: 2 weights for 3 (labels \(background|classes \(flat), "):
        job.prepare()
    assert list(tmp_path.iterdir()) == []


def test_each_task_has_its_job() -> None:
    assert {"segmentation": Segmenting, "classification": Classifying} == JOBS


@pytest.mark.parametrize(
    ("task", "changes", "installed", "said"),
    [
        ("segmentation", {}, True, True),
        ("segmentation", {}, False, False),
        ("segmentation", {"backbone.name": "vit_micro"}, True, False),  # whoever names one has chosen
        ("classification", {}, True, False),
    ],
)
def test_an_encoder_of_medical_images_is_proposed_where_it_is_installed_and_none_was_chosen(
    task: str,
    changes: dict[str, Any],
    installed: bool,
    said: bool,
    tiny_data: Path,
    tiny_classes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(segmenting, "is_packaged", lambda name: installed)
    job = described(task, tiny_data if task == "segmentation" else tiny_classes, tmp_path, **changes)
    sentence = (
        "lite_medsam is installed, an encoder that was trained on medical images; "
        "--backbone lite_medsam --head sam_decoder takes it, with its decoder, in the place of vit_micro"
    )
    assert job.proposals() == ([sentence] if said else [])


@pytest.mark.slow
def test_a_setting_that_changes_nothing_is_among_what_is_doubted(tiny_data: Path, tmp_path: Path) -> None:
    settings = {"optim.momentum": 0.5, "optim.prompt_lr": 0.1, "train.views": 3, "train.augment": "none"}
    job = described("segmentation", tiny_data, tmp_path, **settings)
    job.prepare()
    told = [text for text in job.doubts() if "changes nothing" in text]
    assert told[0] == "optim.momentum=0.5 changes nothing: adamw has none, optim.method=sgd has"
    assert not any("prompt_lr" in text for text in told)


@pytest.mark.slow
def test_a_precision_that_the_processor_only_imitates_is_among_what_is_doubted(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    told = {
        precision: [text for text in _doubts(tiny_data, tmp_path / precision, precision) if "imitates" in text]
        for precision in ("auto", "bf16-mixed")
    }
    assert told["auto"] == []
    assert len(told["bf16-mixed"]) == 1


def _doubts(data: Path, out: Path, precision: str) -> list[str]:
    job = described("segmentation", data, out, precision=precision)
    job.prepare()
    return job.doubts()
