"""A run that classifies, from data of every layout to its folder: what it holds, resumes, keeps frozen and refuses."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_classes import CLASS_SETTINGS, CLASSES, HEAD_ONLY, ONE_CLASS_STEP
from tiny_run import as_trained, assert_same_run, rows

import vpt.engine.classifying as engine
import vpt.engine.job as job
from vpt.artifact import read_artifact
from vpt.backbones import load_backbone
from vpt.backbones.weights import sha256_of
from vpt.config import load_config
from vpt.engine.run import train
from vpt.engine.signals import Interrupted
from vpt.errors import VptError
from vpt.use.load import load
from vpt.use.runs import evaluate_run

SGD = {"optim.ema": 0.9, "optim.method": "sgd", "optim.lr": 0.05, "optim.prompt_lr": 0.5}
REPORT = {
    f"validation/{name}" for name in ("summary.json", "cases.csv", "evaluation.md", "confusion.png", "reliability.png")
}


# --- the folder -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_folder_holds_what_is_promised_and_nothing_else(class_run: Path) -> None:
    found = {path.relative_to(class_run).as_posix() for path in class_run.rglob("*") if path.is_file()}
    events = {name for name in found if name.startswith("tensorboard/events.out.tfevents.")}
    assert len(events) == 1
    assert found - events == REPORT | {
        "config.yaml",
        "plan.json",
        "splits.json",
        "environment.json",
        "train.log",
        "metrics.csv",
        "progress.png",
        "report.html",
        "best.safetensors",
        "last.safetensors",
        "state/last.safetensors",
        "state/previous.safetensors",
        "state/.lock",
        "state/data.json",
        "model_card.md",
    }


def test_config_yaml_says_what_the_data_decided(class_run: Path, tiny_classes: Path) -> None:
    config = load_config(class_run / "config.yaml")
    assert (config.task, config.data.target, config.data.classes) == ("classification", "classes", CLASSES)
    assert config.head is not None
    assert (config.head.kind, config.optim.lr) == ("linear", 1e-2)
    assert config.resolved("classification") == read_artifact(class_run).config
    assert read_artifact(class_run).labels == dict(enumerate(CLASSES))
    assert json.loads((class_run / "splits.json").read_text()) == json.loads((tiny_classes / "split.json").read_text())


def test_metrics_have_a_row_per_epoch_and_choose_the_best(class_run: Path) -> None:
    with open(class_run / "metrics.csv", newline="") as file:
        found = list(csv.DictReader(file))
    shown = ["accuracy", "balanced_accuracy", "auroc"]
    assert list(found[0]) == ["epoch", "loss", "lr", "seconds", "steps", *shown]
    assert [row["epoch"] for row in found] == ["1", "2"]
    best = read_artifact(class_run).scores["validation"]
    assert best["balanced_accuracy"] == pytest.approx(max(float(row["balanced_accuracy"]) for row in found), rel=1e-4)
    assert "done: best validation balanced accuracy" in (class_run / "train.log").read_text()


def test_validation_is_of_the_best_artifact(class_run: Path) -> None:
    summary = json.loads((class_run / "validation" / "summary.json").read_text())
    assert summary["n"] == 6
    report, folder = evaluate_run(class_run, split="val", out=class_run / "elsewhere", device="cpu")
    assert folder == class_run / "elsewhere"
    assert not folder.exists()  # scoring writes nothing: that is for `report.save`
    assert report.scores()["nll"] == pytest.approx(summary["scores"]["nll"], rel=0.02)  # training in bfloat16


def test_several_labels(label_run: Path) -> None:
    artifact = read_artifact(label_run)
    assert (artifact.config.data.target, tuple(artifact.labels.values())) == ("labels", ("lying", "standing"))
    assert list(rows(label_run)[0])[-2:] == ["auroc", "macro_f1"]
    report, _ = evaluate_run(label_run, device="cpu")
    assert report.targets.tolist() == [[False, False], [True, False], [False, True], [True, True]]
    assert not np.allclose(report.probabilities.sum(1), 1)


def test_grades(grade_run: Path) -> None:
    artifact = read_artifact(grade_run)
    assert (artifact.config.data.target, list(artifact.labels.values())) == ("grades", ["0", "1", "2"])
    assert artifact.tensors["head.output.bias"].shape == (2,)  # of three grades two questions
    assert set(rows(grade_run)[0]) >= {"quadratic_kappa", "accuracy", "auroc"}
    report, _ = evaluate_run(grade_run, split="val", device="cpu")
    assert report.probabilities.sum(1) == pytest.approx(1)


def test_volumes_are_read_in_slices_with_attention_over_them(scan_run: Path) -> None:
    plan = json.loads((scan_run / "plan.json").read_text())
    assert (plan["kind"], plan["slices"], plan["pixel_mm"], plan["plane"]) == ("volumes", 3, None, "axial")
    artifact = read_artifact(scan_run)
    assert artifact.tensors["head.over_slices.weight.weight"].abs().sum() > 0  # it has moved from the plain mean
    assert list(artifact.labels.values()) == ["ill", "well"]


@pytest.mark.slow
def test_an_npz_is_trained_on_as_the_folders_are(tiny_npz: Path, tiny_classes: Path, tmp_path: Path) -> None:
    """The same images in the same order: the same artifact, whatever the layout and the names of the classes."""
    runs = [
        train(data, tmp_path / data.stem, overrides=ONE_CLASS_STEP, brief=True) for data in (tiny_npz, tiny_classes)
    ]
    ours, theirs = (load_file(run / "best.safetensors") for run in runs)
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []
    assert list(read_artifact(runs[0]).labels.values()) == ["class 0", "class 1", "class 2"]
    assert evaluate_run(runs[0], device="cpu")[0].targets.sum(0).tolist() == [2, 2, 2]


# --- learning, and what it leaves alone -------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_learns(tiny_classes: Path, tmp_path: Path) -> None:
    more = {"train.epochs": 6, "train.max_steps": 10, "train.batch_size": 12, "prompts": {"method": "deep", "count": 4}}
    found = rows(train(tiny_classes, tmp_path / "run", overrides=CLASS_SETTINGS | more, brief=True))
    assert float(found[-1]["loss"]) < 0.5 * float(found[0]["loss"])
    assert float(found[-1]["balanced_accuracy"]) > 0.8


def test_the_backbone_is_bit_identical_after_training_and_the_rest_is_not(
    tiny_classes: Path, tmp_path: Path, keep_models: Callable[..., Any]
) -> None:
    kept = keep_models(job)
    more = {"head": {"kind": "mlp", "hidden": 8}, "train.max_steps": 2}
    train(tiny_classes, tmp_path / "run", overrides=ONE_CLASS_STEP | more, brief=True)
    ((model, start),) = kept
    assert sha256_of(model.backbone) == sha256_of(as_trained(load_backbone("vit_micro", image_size=32)))
    assert not model.backbone.training
    changed = {name for name, tensor in model.trained_state().items() if not torch.equal(tensor, start[name])}
    assert changed == start.keys()
    assert {name.split(".")[0] for name in changed} == {"prompts", "head"}


def test_the_test_side_is_never_read(copied_classes: Path, class_run: Path, tmp_path: Path) -> None:
    for name in json.loads((copied_classes / "split.json").read_text())["test"]:
        (copied_classes / f"{name}.png").write_bytes(b"not to be read")
    colour = json.dumps({"channel_names": {"0": "grey"}})  # else every image's header is looked at for colour
    (copied_classes / "dataset.json").write_text(colour)
    assert_same_run(train(copied_classes, tmp_path / "run", overrides=CLASS_SETTINGS), class_run)


# --- features of a frozen encoder -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_head_alone_learns_from_kept_features_what_it_would_from_the_images(
    tiny_classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = {"encoder": 0}
    pool = engine.StackModel.pool

    def counted(self: Any, slices: Any) -> Any:
        calls["encoder"] += 1
        return pool(self, slices)

    monkeypatch.setattr(engine.StackModel, "pool", counted)
    cached = train(tiny_classes, tmp_path / "cached", overrides=HEAD_ONLY)
    assert calls["encoder"] == 3  # one batch of training examples, one to validate, one for the scores at the end

    encoded = train(tiny_classes, tmp_path / "encoded", overrides=HEAD_ONLY | {"train.cache_gb": 0}, brief=True)
    assert calls["encoder"] > 3 + 6
    ours, theirs = load_file(cached / "last.safetensors"), load_file(encoded / "last.safetensors")
    assert ours.keys() == theirs.keys()
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key], atol=2e-5, rtol=1e-4)
    for mine, other in zip(rows(cached), rows(encoded), strict=True):
        for key in ("loss", "accuracy", "balanced_accuracy", "auroc"):
            assert float(mine[key]) == pytest.approx(float(other[key]), rel=1e-3)


@pytest.mark.slow
def test_kept_features_of_a_run_are_found_by_the_next_and_serve_the_same_encoder_only(
    tiny_classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, calls = tmp_path / "cache", []
    pool = engine.StackModel.pool
    monkeypatch.setattr(engine.StackModel, "pool", lambda self, slices: calls.append(1) or pool(self, slices))
    first = train(tiny_classes, tmp_path / "first", overrides=HEAD_ONLY, cache=cache, brief=True)
    made = len(calls)
    assert len(list(cache.rglob("*.npy"))) == 4  # stacks and features of both sides
    again = train(tiny_classes, tmp_path / "again", overrides=HEAD_ONLY, cache=cache, brief=True)
    assert len(calls) == made
    assert_same_run(again, first)
    other = HEAD_ONLY | {"backbone.weights": "random"}
    train(tiny_classes, tmp_path / "random", overrides=other, cache=cache, brief=True)
    mean = HEAD_ONLY | {"head": {"kind": "linear", "pool": "mean"}}
    train(tiny_classes, tmp_path / "mean", overrides=mean, cache=cache, brief=True)
    assert len(calls) == 3 * made
    assert len(list(cache.rglob("*.npy"))) == 2 + 6


LATE = {
    "prompts": {"method": "deep", "count": 4, "blocks": "last:2"},
    "train.augment": "none",
    "precision": "32-true",
}


@pytest.mark.slow
def test_prompts_in_the_last_blocks_learn_the_same_from_stored_tokens(tiny_classes: Path, tmp_path: Path) -> None:
    cache, settings = tmp_path / "cache", CLASS_SETTINGS | LATE
    stored = train(tiny_classes, tmp_path / "stored", overrides=settings, cache=cache)
    whole = train(tiny_classes, tmp_path / "whole", overrides=settings | {"train.cache_gb": 0}, cache=cache, brief=True)
    assert len(list(cache.rglob("*.block6.npy"))) == 2  # of both sides, by the first of them
    assert "the first 6 of 8 blocks run once per example" in (stored / "train.log").read_text()
    assert "the first 6 of 8 blocks run in every step: storing" in (whole / "train.log").read_text()
    ours, theirs = load_file(stored / "last.safetensors"), load_file(whole / "last.safetensors")
    for key in ours:  # half precision has 11 bits; AdamW moves by the sign where a gradient is near zero
        assert torch.nn.functional.cosine_similarity(ours[key].flatten(), theirs[key].flatten(), dim=0) > 0.999
    for mine, other in zip(rows(stored), rows(whole), strict=True):
        assert float(mine["loss"]) == pytest.approx(float(other["loss"]), rel=2e-3)
    report, _ = evaluate_run(stored, split="val", device="cpu")
    told = json.loads((stored / "validation" / "summary.json").read_text())["scores"]
    assert report.scores()["nll"] == pytest.approx(told["nll"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"train.augment": "light"}, {"tuning": "bias"}, {"prompts": {"method": "shallow"}}])
def test_features_are_not_kept_where_they_would_not_stay_the_same(
    tiny_classes: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    cache = tmp_path / "cache"
    train(
        tiny_classes,
        tmp_path / "run",
        overrides=HEAD_ONLY | {"train.epochs": 1, "train.max_steps": 1} | change,
        cache=cache,
        brief=True,
    )
    assert {path.name for path in cache.rglob("*.npy")} == {"stacks.npy"}


# --- interrupted and resumed ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "change"),
    [(2, {}), (5, SGD), (3, {"optim.ema": 0.5}), (4, HEAD_ONLY)],
    ids=["in the first epoch", "SGD and a mean, in the second", "a mean, at the end of an epoch", "head alone"],
)
def test_an_interrupted_run_resumed_equals_one_that_was_not(
    tiny_classes: Path,
    class_run: Path,
    tmp_path: Path,
    class_signal_at: Callable[..., None],
    step: int,
    change: dict[str, Any],
) -> None:
    wanted = CLASS_SETTINGS | change
    whole = train(tiny_classes, tmp_path / "whole", overrides=wanted, brief=True) if change else class_run
    class_signal_at(step, signal.SIGINT)
    with pytest.raises(Interrupted):
        train(tiny_classes, tmp_path / "run", overrides=wanted)
    assert "continue with: vpt train --resume" in (tmp_path / "run/train.log").read_text()
    torch.manual_seed(12345)  # as a new process would start, elsewhere
    train(None, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", whole)
    assert not (tmp_path / "run" / "cache").exists()
    assert {path.relative_to(tmp_path / "run").as_posix() for path in (tmp_path / "run").rglob("*")} >= REPORT


@pytest.mark.slow
def test_a_mean_is_what_validates_and_is_saved(tiny_classes: Path, tmp_path: Path) -> None:
    """The state holds both: what trains, and the mean, which is the artifact."""
    run = train(tiny_classes, tmp_path / "run", overrides=CLASS_SETTINGS | {"optim.ema": 0.9}, brief=True)
    state, artifact = load_file(run / "state/last.safetensors"), load_file(run / "last.safetensors")
    for name, saved in artifact.items():
        assert torch.equal(saved, state[f"average.{name}"])
        assert not torch.equal(saved, state[f"model.{name}"])


# --- calibration ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_temperature_is_fitted_kept_and_used(tiny_classes: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(engine, "fit_temperature", lambda logits, truth, target, looked: 2.5)
    wanted = CLASS_SETTINGS | {"train.calibrate": True, "precision": "32-true"}
    run = train(tiny_classes, tmp_path / "run", overrides=wanted)
    artifact = read_artifact(run)
    assert artifact.temperature == 2.5
    assert "temperature 2.5, fitted to the validation split" in (run / "train.log").read_text()
    classifier = load(run, "cpu")
    image = tiny_classes / "lying" / "im6.png"
    warm = classifier.classify(image)
    classifier.temperature = 1.0
    plain = np.log(list(classifier.classify(image).values()))
    expected = np.exp(plain / 2.5) / np.exp(plain / 2.5).sum()
    assert list(warm.values()) == pytest.approx(expected, rel=1e-6)
    report, _ = evaluate_run(run, split="val", device="cpu")
    told = json.loads((run / "validation" / "summary.json").read_text())["scores"]
    assert report.scores()["nll"] == pytest.approx(told["nll"], rel=1e-4)


@pytest.mark.slow
def test_where_every_validation_case_is_right_the_logits_stay_as_they_are_and_that_is_said(
    tiny_classes: Path, class_run: Path, tmp_path: Path
) -> None:
    run = train(tiny_classes, tmp_path / "run", overrides=CLASS_SETTINGS | {"train.calibrate": True})
    ours, theirs = load_file(run / "best.safetensors"), load_file(class_run / "best.safetensors")
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)  # it is trained alike
    found, plain = (json.loads((each / "validation/summary.json").read_text())["scores"] for each in (run, class_run))
    assert found["accuracy"] == 1
    assert read_artifact(run).temperature == 1
    assert "train.calibrate: no temperature is the best of those from 0.05 to 20" in (run / "train.log").read_text()
    assert found == plain


@pytest.mark.slow
def test_a_calibrated_run_that_is_finished_once_more_stays_the_same(tiny_classes: Path, tmp_path: Path) -> None:
    run = train(tiny_classes, tmp_path / "run", overrides=ONE_CLASS_STEP | {"train.calibrate": True})
    before = read_artifact(run).temperature
    train(None, run, resume=True)
    assert read_artifact(run).temperature == before


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_both_sides_are_trained_on_where_asked_and_the_last_epoch_counts(
    tiny_classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.Classifying, "validate", lambda *args: pytest.fail("nothing is there to validate"))
    run = train(tiny_classes, tmp_path / "run", overrides=CLASS_SETTINGS | {"data.use_val": True})
    splits, given = (json.loads((path).read_text()) for path in (run / "splits.json", tiny_classes / "split.json"))
    assert splits == {"train": given["train"] + given["val"], "val": [], "test": given["test"]}
    best, last = (load_file(run / f"{name}.safetensors") for name in ("best", "last"))
    assert [key for key in last if not torch.equal(best[key], last[key])] == []
    assert read_artifact(run).scores["validation"]["epoch"] == 2
    assert "accuracy" not in rows(run)[-1]
    assert not (run / "validation").exists()
    assert "nothing validates, so the last epoch counts (2)" in (run / "train.log").read_text()
    assert evaluate_run(run, device="cpu")[0].targets.shape == (6, 3)
    with pytest.raises(VptError, match="its split has no val cases"):
        evaluate_run(run, split="val")


def test_a_temperature_without_cases_to_fit_it_to_is_said(tiny_classes: Path, tmp_path: Path) -> None:
    run = train(
        tiny_classes, tmp_path / "run", overrides=ONE_CLASS_STEP | {"data.use_val": True, "train.calibrate": True}
    )
    assert "train.calibrate: no validation case to fit a temperature to" in (run / "train.log").read_text()
    assert read_artifact(run).temperature == 1


@pytest.mark.slow
def test_shots_are_trained_on_and_written_down(tiny_classes: Path, tmp_path: Path) -> None:
    run = train(tiny_classes, tmp_path / "run", overrides=ONE_CLASS_STEP | {"data.shots": 2})
    splits = json.loads((run / "splits.json").read_text())
    assert sorted(name.split("/")[0] for name in splits["train"]) == sorted(CLASSES * 2)
    assert len(splits["val"]) == 6


@pytest.mark.slow
def test_classes_can_be_weighted_by_hand_or_by_how_rare_they_are(
    tiny_classes: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    seen: list[Any] = []
    build = engine.class_loss
    monkeypatch.setattr(engine, "class_loss", lambda *args: seen.append(args) or build(*args))
    settings = ({"loss.class_weights": [1, 2, 3], "loss.smoothing": 0.1}, {"loss.class_weights": "balanced"}, {})
    for number, change in enumerate(settings):
        train(tiny_classes, tmp_path / str(number), overrides=ONE_CLASS_STEP | change, brief=True)
    assert seen == [("classes", [1, 2, 3], 0.1), ("classes", [1.0, 1.0, 1.0], 0.0), ("classes", None, 0.0)]


REFUSED = {
    "class_weights": (
        {"loss.class_weights": [1, 2]},
        r"loss\.class_weights: 2 weights for 3 classes \(flat, lying, standing\)",
    ),
    "mask": ({"head": {"kind": "mask"}}, r"head\.kind=mask is not for classification; choose linear or mlp, or "),
    "decoder": ({"head.kind": "sam_decoder"}, r"head\.kind=sam_decoder is not for classification; choose linear or"),
    "shots": ({"data.shots": 5}, "4 training examples of flat, fewer than 5 shots; lower data.shots"),
    "pixel": ({"plan.pixel_mm": 2}, r"plan\.pixel_mm: what is classified is resized whole to the square"),
    "classes": ({"data.classes": ["flat", "lying"]}, "'standing' is not in `classes` \\(flat, lying\\)"),
    "grades": ({"data.target": "grades"}, "the grades flat, lying, standing are no numbers; give their order"),
    "no CLS": (
        {"backbone.name": "sam_micro", "head": {"kind": "linear", "pool": "cls"}},
        "pool is cls, but sam_micro has no CLS token; choose mean",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_one_sentence_and_leaves_no_folder(tiny_classes: Path, tmp_path: Path, what: str) -> None:
    change, sentence = REFUSED[what]
    with pytest.raises(VptError, match=sentence) as caught:
        train(tiny_classes, tmp_path / "runs" / "first", overrides=ONE_CLASS_STEP | change)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"head": {"kind": "linear"}}, r"head\.kind=linear is not for segmentation; choose mask, readout, sam_decoder"),
        ({"head.kind": "mlp"}, r"head\.kind=mlp is not for segmentation; choose mask, readout, sam_decoder or unet"),
        ({"loss.class_weights": "balanced"}, r"loss\.class_weights=balanced is for classification; of segmentation"),
        (
            {"data.target": "grades"},
            r"data\.target=grades is a setting of classification, which segmentation does not use",
        ),
        ({"task": "classification"}, r"blobs: neither labels\.csv nor two folders of images"),
    ],
)
def test_what_is_for_classes_does_not_fit_masks(
    tiny_data: Path, tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(VptError, match=sentence):
        train(tiny_data, tmp_path / "run", overrides={"device": "cpu"} | change)
    assert not (tmp_path / "run").exists()


def test_an_image_that_is_damaged_is_named_and_leaves_no_folder(copied_classes: Path, tmp_path: Path) -> None:
    broken = copied_classes / "lying" / "im1.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(VptError, match=r"lying/im1\.png: "):
        train(copied_classes, tmp_path / "run", overrides=ONE_CLASS_STEP)
    assert not (tmp_path / "run").exists()


# --- a finished run on its test side ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_is_evaluated_on_its_test_side(class_run: Path, tiny_classes: Path) -> None:
    report, folder = evaluate_run(class_run, device="cpu")
    assert folder == class_run / "test"
    assert report.names == tuple(json.loads((tiny_classes / "split.json").read_text())["test"])
    assert (report.classes, report.target, report.title) == (CLASSES, "classes", f"{class_run}: test split")
    assert report.targets.argmax(1).tolist() == [CLASSES.index(name.split("/")[0]) for name in report.names]
    for name, probabilities in zip(report.names, report.probabilities, strict=True):
        found = load(class_run, "cpu").classify(tiny_classes / f"{name}.png")
        assert list(found.values()) == pytest.approx(probabilities.tolist(), abs=1e-5)


@pytest.mark.slow
def test_a_cache_changes_nothing_but_the_cost(class_run: Path, tmp_path: Path) -> None:
    plain, cached, again = (
        evaluate_run(class_run, device="cpu", cache=cache)[0].probabilities
        for cache in (None, tmp_path / "cache", tmp_path / "cache")
    )
    np.testing.assert_allclose(cached, plain, atol=1e-6)
    assert np.array_equal(cached, again)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"oracle_box": True}, "so it takes no boxes; leave --oracle-box out"),
        ({"lesions": "all"}, "so there are no lesions to find; leave --lesions out"),
        ({"tolerance": 2.0}, "so there are no surfaces to compare; leave --tolerance out"),
        ({"tolerances": {"liver": 2.0}}, "so there are no surfaces to compare; leave --tolerance out"),
        ({"empty": "one"}, "so no label is absent in a mask; leave --empty out"),
        ({"postprocess": False}, "so there are no masks to tidy; leave --postprocess out"),
    ],
)
def test_what_only_masks_have_is_refused_of_a_run_that_classifies(
    class_run: Path, asked: dict[str, Any], said: str
) -> None:
    with pytest.raises(VptError, match=f"classifies, {said}"):
        evaluate_run(class_run, device="cpu", **asked)


@pytest.mark.slow
def test_data_that_were_moved(class_run: Path, copied_classes: Path, tmp_path: Path) -> None:
    run = shutil.copytree(class_run, tmp_path / "run")
    text = (run / "config.yaml").read_text()
    known = next(line for line in text.splitlines() if line.startswith("  path: "))
    (run / "config.yaml").write_text(text.replace(known, f"  path: {tmp_path / 'gone'}"))
    with pytest.raises(VptError, match=r"gone: the run's data set is not there; say where it lies now with --data"):
        evaluate_run(run, device="cpu")
    moved, stayed = evaluate_run(run, data=copied_classes, device="cpu"), evaluate_run(class_run, device="cpu")
    assert np.array_equal(moved[0].probabilities, stayed[0].probabilities)


def test_a_test_image_that_is_damaged_is_named(class_run: Path, copied_classes: Path) -> None:
    broken = copied_classes / "standing" / "im7.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(VptError, match=r"standing/im7\.png: "):
        evaluate_run(class_run, data=copied_classes, device="cpu")


def test_a_training_that_diverged_says_so_and_not_that_its_file_is_damaged(tiny_classes: Path, tmp_path: Path) -> None:
    settings = ONE_CLASS_STEP | {"optim.lr": 1e10, "optim.prompt_lr": 1e10, "optim.warmup": 0}

    with pytest.raises(VptError, match=r"^epoch 1: the trained tensors .*, so the training diverged; lower optim\.lr"):
        train(tiny_classes, tmp_path / "run", overrides=settings)

    assert not (tmp_path / "run" / "best.safetensors").exists()
