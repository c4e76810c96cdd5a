"""A comparison: searched on validation, tested once, resumed, shared, and whatever fails in it."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Told
from filelock import FileLock
from label_scores import scores as label_scores
from safetensors.torch import load_file
from tiny_classes import HEAD_ONLY
from tiny_run import ONE_STEP

import vpt
from vpt.artifact import read_artifact
from vpt.backbones import describe_backbone
from vpt.config import load_config
from vpt.data.layouts import read_dataset
from vpt.engine import compare as module
from vpt.engine import methods as method_module
from vpt.engine.compare import Comparison, compare
from vpt.engine.folder import STATE
from vpt.engine.methods import Method, choose_methods, methods
from vpt.engine.outcome import per_case
from vpt.engine.run import train
from vpt.engine.setup import prepare_setup
from vpt.engine.signals import Interrupted
from vpt.engine.trial import Trial
from vpt.errors import VptError, VptWarning
from vpt.files import atomic
from vpt.readers.array import ArrayReader
from vpt.readers.base import Reader
from vpt.readers.nifti import NiftiReader
from vpt.report.segmentation import Report
from vpt.restoring import restore_model
from vpt.scores.segmentation import CaseResult, Settings
from vpt.sealed import write_sealed

FAST = {key: value for key, value in HEAD_ONLY.items() if key != "prompts"} | {
    "train.epochs": 1,
    "train.max_steps": 2,
    "plan.image_size": 32,
}
SEGMENT = {key: value for key, value in ONE_STEP.items() if key != "prompts"} | {"precision": "32-true"}
SEARCHES, SEEDS = 4, 2


@pytest.fixture(scope="session")
def finished(tiny_classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Two methods, two seeds, nothing left to do. Read only."""
    out = tmp_path_factory.mktemp("comparison") / "out"
    return compare(tiny_classes, out, methods=["linear", "shallow"], seeds=SEEDS, overrides=FAST)


@pytest.fixture
def short_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """One rate and no other decay: a search of one training."""
    monkeypatch.setattr(method_module, "STEPS", (1.0,))
    monkeypatch.setattr(method_module, "DECAYS", (1e-2,))
    monkeypatch.setattr(Comparison, "best", lambda self, trials: _best(self, trials))


def _best(self: Comparison, trials: Any) -> Trial | None:
    found = [trial for trial in trials if "score" in (self.result(trial) or {})]
    return found[0] if found else None


def add_methods(monkeypatch: pytest.MonkeyPatch, **more: Method) -> None:
    """Methods that can be compared too, or in the place of those of the same name."""
    known = method_module.methods() | more
    monkeypatch.setattr(method_module, "methods", lambda: known)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """METHOD/TRIAL of every training that starts."""
    started: list[str] = []
    real = Comparison._run

    def run(self: Comparison, trial: Trial, folder: Path) -> None:
        started.append(f"{trial.method}/{trial.name}")
        real(self, trial, folder)

    monkeypatch.setattr(Comparison, "_run", run)
    return started


def results(out: Path) -> dict[str, dict[str, Any]]:
    """METHOD/TRIAL -> its result, without what a clock or the system measured, and the checksum over all."""
    measured = ("seconds", "seconds_per_step", "peak_memory", "artifact_bytes", "sha256")
    found = {}
    for path in sorted(out.glob("*/*/result.json")):
        content = json.loads(path.read_text())
        found[f"{path.parent.parent.name}/{path.parent.name}"] = {
            key: value for key, value in content.items() if key not in measured
        }
    return found


def side(run: Path, name: str) -> list[str]:
    return json.loads((run / "splits.json").read_text())[name]


# --- the protocol -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_method_has_its_searches_and_its_seeds(finished: Comparison) -> None:
    done = results(finished.out)
    assert len(done) == 2 * (SEARCHES + SEEDS)
    assert finished.pending() == []
    assert finished.progress() == (12, 12)
    assert {key for key in done if key.startswith("linear/seed")} == {"linear/seed-0", "linear/seed-1"}
    for name, method in finished.methods.items():
        tried = [result["settings"] for key, result in done.items() if key.startswith(f"{name}/search")]
        assert len({json.dumps(settings) for settings in tried}) == SEARCHES
        assert all(rate in tried for rate in method.rates())


@pytest.mark.slow
def test_the_model_of_a_comparison_is_its_winner(finished: Comparison, tiny_classes: Path) -> None:
    """On what it was chosen with is said, since the test side did it."""
    finished.write()
    best = json.loads((finished.out / "compare.json").read_text())["methods"][0]["name"]
    picture = next((tiny_classes / "flat").glob("*.png"))

    with pytest.warns(VptWarning, match=f"takes {best}/seed-0, .* the test side chose it"):
        winner = vpt.load(finished.out, device="cpu")

    assert winner.classify(picture) == vpt.load(finished.out / best / "seed-0", device="cpu").classify(picture)


@pytest.mark.slow
def test_evaluating_a_comparison_is_evaluating_its_winner_beside_it(finished: Comparison, vpt) -> None:
    """And leaves the winner's own files alone."""
    finished.write()
    best = json.loads((finished.out / "compare.json").read_text())["methods"][0]["name"]
    own = sorted((path, path.stat().st_mtime_ns) for path in (finished.out / best).rglob("*") if path.is_file())
    told = vpt("evaluate", finished.out, "--device", "cpu")
    assert told.code == 0, told.err
    assert f"takes {best}/seed-0" in told.err
    assert f"{best}/seed-0: test split" in told.out.replace("\n", "")
    assert (finished.out / "winner/summary.json").is_file()
    assert sorted((path, path.stat().st_mtime_ns) for path in (finished.out / best).rglob("*") if path.is_file()) == own


def test_a_comparison_without_a_tested_method_has_no_model(tmp_path: Path) -> None:
    (tmp_path / "compare.json").write_text(
        json.dumps({"methods": [{"name": "deep", "shown": "VPT", "measured": None}]})
    )

    with pytest.raises(VptError, match="without a trained and tested method yet"):
        vpt.load(tmp_path)


@pytest.mark.slow
def test_a_search_sees_validation_only_and_a_final_learns_from_it(finished: Comparison, tiny_classes: Path) -> None:
    sides = json.loads((tiny_classes / "split.json").read_text())
    for run in (path.parent for path in finished.out.glob("*/*/result.json")):
        result = json.loads((run / "result.json").read_text())
        if run.name.startswith("search"):
            assert 0 <= result["score"] <= 1
            assert "tested" not in result
            assert (sorted(side(run, "train")), sorted(side(run, "val"))) == (sorted(sides["train"]), sides["val"])
        else:
            assert "score" not in result
            assert sorted(side(run, "train")) == sorted(sides["train"] + sides["val"])
            assert side(run, "val") == []
            assert sorted(result["tested"]) == sorted(sides["test"])
            assert set(result["tested"].values()) <= {0.0, 1.0}
            assert result["patients"].keys() == result["tested"].keys()


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_no_pixel_of_the_test_side_is_read_before_the_finals(
    task: str, request: pytest.FixtureRequest, tmp_path: Path, short_search: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = request.getfixturevalue("tiny_classes" if task == "classification" else "tiny_data")
    test = json.loads((data / "split.json").read_text())["test"]
    names = [Path(name).name for name in test]
    reads: dict[str, set[str]] = {}
    now = ["the start"]
    real_run = Comparison._run

    def note(path: Any) -> None:
        reads.setdefault(now[0], set()).add("/".join(Path(path).parts[-2:]))

    def run(self: Comparison, trial: Trial, folder: Path) -> None:
        now[0] = trial.name
        real_run(self, trial, folder)

    def noting(read: Callable[..., Any]) -> Callable[..., Any]:
        def noted(self: Reader, *others: Any) -> Any:
            for source in self.sources:
                note(source)
            return read(self, *others)

        return noted

    monkeypatch.setattr(Comparison, "_run", run)
    for reader in (NiftiReader, ArrayReader):
        for what in ("voxels", "labels"):
            monkeypatch.setattr(reader, what, noting(getattr(reader, what)))
    settings, method = (FAST, "shallow") if task == "classification" else (SEGMENT, "head")
    done = compare(data, tmp_path / "out", methods=[method], seeds=1, overrides=settings)
    (search,) = [name for name in reads if name.startswith("search")]

    def tested(files: set[str]) -> set[str]:
        return {file for file in files if any(name in file for name in (test if "/" in test[0] else names))}

    assert reads[search]  # what is recorded is what is read
    assert tested(reads[search]) == tested(reads.get("the start", set())) == set()
    assert tested(reads["seed-0"])
    assert done.pending() == []


def test_the_finals_have_what_scored_best_on_validation(
    tiny_classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scores are made up, so that the second rate wins, and then the other weight decay."""

    def run(self: Comparison, trial: Trial, folder: Path) -> None:
        value = {0.0025: 0.5, 0.01: 0.7, 0.04: 0.6}[trial.settings["optim.lr"]]
        value += 0.1 * (trial.settings["optim.weight_decay"] == 1e-4)
        folder.mkdir(parents=True)
        result = {"tested": {"a": 1.0}, "patients": {"a": "a"}} if trial.final else {"score": value}
        (folder / "result.json").write_text(json.dumps({"settings": dict(trial.settings), "seed": trial.seed} | result))

    monkeypatch.setattr(Comparison, "_run", run)
    add_methods(monkeypatch, linear=replace(methods()["linear"], start=0.01))
    compare(tiny_classes, tmp_path / "out", methods=["linear"], seeds=1, overrides=FAST)
    done = results(tmp_path / "out")
    assert len(done) == SEARCHES + 1
    assert done["linear/seed-0"]["settings"] == {"optim.lr": 0.01, "optim.weight_decay": 1e-4}


@pytest.mark.slow
def test_only_what_is_compared_differs(finished: Comparison) -> None:
    first, second = (load_config(finished.out / name / "seed-0" / "config.yaml") for name in ("linear", "shallow"))
    changed = {"prompts", "optim"}
    ours, theirs = first.model_dump(), second.model_dump()
    assert {key for key in ours if ours[key] != theirs[key]} == changed
    assert load_config(finished.out / "linear" / "seed-1" / "config.yaml").seed == 1
    assert first.train.augment == "none"


@pytest.mark.parametrize("given", [{"tuning": "full"}, {"head": {"kind": "mlp", "pool": "mean", "hidden": 7}}])
def test_a_method_is_what_its_name_says_whatever_the_config(
    tiny_classes: Path, tmp_path: Path, given: dict[str, Any]
) -> None:
    config = load_config(tiny_classes, FAST | given)
    done = compare(config, tmp_path / "out", methods=["linear", "deep"], budget=0)
    linear, deep = (done.config_of(Trial(name, "search", {})) for name in ("linear", "deep"))
    assert {linear.tuning.method, deep.tuning.method} == {"prompts"}
    assert linear.head is None or linear.head.model_dump() == {
        "kind": "linear",
        "pool": linear.head.pool,
        "start": "normal",
    }
    if "head" in given:
        assert linear.head is not None
        assert linear.head.pool == "mean"
        assert deep.head is not None
        assert deep.head.model_dump() == given["head"] | {"start": "normal"}


@pytest.mark.parametrize(
    ("methods", "given", "sentence"),
    [
        (["linear"], {"optim.lr": 0.1}, r"^optim\.lr: linear has its own, or searches it, so it would change nothing"),
        (["deep"], {"prompts.count": 5}, r"^prompts\.count: deep has its own"),
        (["linear"], {"head": {"kind": "mlp"}}, "^head: linear has its own"),
        (["deep", "lora"], {"tuning": "full"}, "^tuning: deep, lora have their own"),
        (None, {"optim.weight_decay": 0.1}, r"^optim\.weight_decay: .* have their own"),
    ],
)
def test_a_setting_that_no_method_would_heed_is_refused(
    tiny_classes: Path, tmp_path: Path, methods: list[str] | None, given: dict[str, Any], sentence: str
) -> None:
    plan = {key: value for key, value in FAST.items() if not key.startswith(("head", "optim", "tuning", "seed"))}
    with pytest.raises(VptError, match=sentence):
        compare(tiny_classes, tmp_path / "out", methods=methods, budget=0, overrides=plan | given)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_counts_are_those_of_the_model(finished: Comparison) -> None:
    finished.write()
    rows = {row["name"]: row for row in json.loads((finished.out / "compare.json").read_text())["methods"]}
    for name in finished.methods:
        model = restore_model(read_artifact(finished.out / name / "seed-0" / "best.safetensors"))
        counts = model.count_parameters()
        assert (rows[name]["trained"], rows[name]["prompts"]) == (f"{counts['trained']:,}", f"{counts['prompts']:,}")
        assert counts["trained"] > 0


# --- segmentation, and labels -----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def uneven_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Volumes of which the validation case has a far larger field: with it the plan has larger pixels."""
    import nibabel as nib

    from vpt.data.synthetic import make_dataset

    root = make_dataset(tmp_path_factory.mktemp("uneven") / "blobs", cases=6)
    name = json.loads((root / "split.json").read_text())["val"][0]
    for path in root.glob(f"*/{name}*.nii.gz"):
        image = nib.load(path)
        array = np.asarray(image.dataobj)
        padded = np.pad(array, [(0, 60)] * 3)
        path.unlink()
        nib.save(nib.Nifti1Image(padded, image.affine), path)
    return root


@pytest.mark.slow
def test_segmentation_and_its_finals_are_what_train_alone_would_make(
    uneven_data: Path, tmp_path: Path, short_search: None
) -> None:
    """Prepared cases are those of the final's own plan, not of the search's."""
    done = compare(uneven_data, tmp_path / "out", methods=["head"], seeds=1, overrides=SEGMENT)
    run, search = done.out / "head" / "seed-0", next((done.out / "head").glob("search-*/"))
    plans = [json.loads((folder / "plan.json").read_text())["pixel_mm"] for folder in (search, run)]
    assert plans[0] != plans[1]
    alone = train(load_config(run / "config.yaml"), tmp_path / "alone", brief=True)
    ours, theirs = load_file(run / "last.safetensors"), load_file(alone / "last.safetensors")
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []
    result = results(done.out)["head/seed-0"]
    assert list(result["tested"]) == json.loads((uneven_data / "split.json").read_text())["test"]
    assert done.tested == "Dice"
    done.write()


def segmenting(data: Path, out: Path, methods: list[str]) -> Comparison:
    """Of these methods on a data set with `sam_micro`, nothing of it done yet."""
    base = load_config(data, SEGMENT | {"backbone.name": "sam_micro", "head.width": 16})
    return Comparison(out, base, "segmentation", read_dataset(data), choose_methods(methods, "segmentation"), 1)


@pytest.mark.slow
def test_a_network_of_its_own_sees_the_images_that_the_encoder_would(tiny_data: Path, tmp_path: Path) -> None:
    """Framed and normalised alike, by one plan; and its artifact needs no weights."""
    comparison = segmenting(tiny_data, tmp_path / "out", ["unet"])
    trial = comparison.run_one(comparison.pending())
    assert trial is not None
    assert "score" in (comparison.result(trial) or {})
    run, encoder = comparison.folder(trial), describe_backbone("sam_micro")
    assert json.loads((run / "plan.json").read_text()) == prepare_setup(comparison.base).plan.model_dump(mode="json")
    artifact = read_artifact(run)
    assert artifact.config.backbone.name == "none"
    assert artifact.preprocessing == {"mean": list(encoder.mean), "std": list(encoder.std), "padding": "corner"}
    assert (artifact.counts["trained"], artifact.counts["frozen"]) == (artifact.counts["head"], 0)
    assert restore_model(artifact).backbone.spec.image_size == (artifact.plan.image_size,) * 2


def test_heads_are_compared_that_the_config_has_not(tiny_data: Path, tmp_path: Path) -> None:
    comparison = segmenting(tiny_data, tmp_path, ["sam_decoder", "mask", "deep"])
    arms = {name: comparison.config_of(Trial(name, "search", {})) for name in comparison.methods}
    assert {name: (arm.head.kind, arm.prompts.method) for name, arm in arms.items()} == {
        "sam_decoder": ("sam_decoder", "none"),
        "mask": ("mask", "none"),
        "deep": ("mask", "deep"),
    }
    assert {arm.backbone.name for arm in arms.values()} == {"sam_micro"}
    assert arms["deep"].head.width == 16


@pytest.mark.slow
def test_few_shots_stay_few(tiny_classes: Path, tmp_path: Path, short_search: None) -> None:
    done = compare(tiny_classes, tmp_path / "out", methods=["linear"], seeds=2, overrides=FAST | {"data.shots": 1})
    chosen = [side(done.out / "linear" / f"seed-{seed}", "train") for seed in range(2)]
    assert [len(each) for each in chosen] == [3, 3]
    assert chosen[0] != chosen[1]
    done.write()
    assert "from its few training cases" in (done.out / "compare.html").read_text()


@pytest.mark.slow
def test_several_labels_and_grades_have_scores_per_case(tiny_labels: Path, tmp_path: Path, short_search: None) -> None:
    done = compare(tiny_labels, tmp_path / "out", methods=["linear"], seeds=1, overrides=FAST)
    assert done.tested == "share of right labels"
    assert set(results(done.out)["linear/seed-0"]["tested"].values()) <= {0.0, 0.5, 1.0}


def test_a_case_with_nothing_to_find_nor_found_has_no_score(recwarn: pytest.WarningsRecorder) -> None:
    rows = {"a": (10, 0, 0), "empty": (0, 0, 0), "b": (5, 5, 5)}
    cases = tuple(CaseResult(name, "", "", {1: label_scores(*row)}) for name, row in rows.items())
    assert per_case(Report(cases, {1: "liver"}, Settings())) == {"a": 1.0, "b": 0.5}
    assert not [warning for warning in recwarn if "empty slice" in str(warning.message)]


# --- going on ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_is_finished_is_not_done_again(
    finished: Comparison, tiny_classes: Path, tmp_path: Path, trained: list[str]
) -> None:
    out = shutil.copytree(finished.out, tmp_path / "out")
    before = results(out)
    compare(tiny_classes, out, methods=["linear", "shallow"], seeds=SEEDS, overrides=FAST)
    assert trained == []
    assert results(out) == before
    compare(tiny_classes, out, methods=["linear", "shallow"], seeds=SEEDS + 1, overrides=FAST)
    assert sorted(trained) == ["linear/seed-2", "shallow/seed-2"]  # it grows by seeds


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 10])
def test_an_interrupted_comparison_ends_as_an_uninterrupted_one(
    step: int,
    finished: Comparison,
    tiny_classes: Path,
    tmp_path: Path,
    trained: list[str],
    class_signal_at: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each training has two steps: the signal comes in the first one's first, or the fifth's last."""
    out = tmp_path / "out"
    class_signal_at(step)
    with pytest.raises(Interrupted):
        compare(tiny_classes, out, methods=["shallow"], seeds=SEEDS, overrides=FAST)
    interrupted = trained[-1]
    assert len(results(out)) == len(trained) - 1 == (step - 1) // 2
    monkeypatch.undo()
    again = compare(tiny_classes, out, methods=["shallow"], seeds=SEEDS, overrides=FAST)
    assert again.pending() == []
    assert results(out) == {key: result for key, result in results(finished.out).items() if "shallow" in key}
    log = (out / interrupted / "train.log").read_text()
    assert "interrupted in epoch 1" in log
    assert "resumed" in log


@pytest.mark.slow
def test_a_training_that_was_killed_before_its_first_state_starts_anew(
    finished: Comparison, tiny_classes: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(finished.out, tmp_path / "out")
    run = out / "linear" / "seed-1"
    for path in ("result.json", "last.safetensors", "best.safetensors"):
        (run / path).unlink()
    shutil.rmtree(run / "state")
    compare(tiny_classes, out, methods=["linear", "shallow"], seeds=SEEDS, overrides=FAST)
    assert results(out) == results(finished.out)


def test_processes_share_the_work(tiny_classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three at once, whose trainings only take time: each is done once, and all wait for the last."""
    done: list[str] = []

    def run(self: Comparison, trial: Trial, folder: Path) -> None:
        done.append(f"{trial.method}/{trial.name}")
        time.sleep(0.05)
        folder.mkdir(parents=True)
        result = {"tested": {"a": 1.0}, "patients": {"a": "a"}} if trial.final else {"score": 0.5}
        part = folder / ".part"
        part.write_text(json.dumps({"settings": dict(trial.settings), "seed": trial.seed} | result))
        part.rename(folder / "result.json")

    monkeypatch.setattr(Comparison, "_run", run)
    monkeypatch.setattr(module, "WAIT", 0.02)
    first = compare(tiny_classes, tmp_path / "out", methods=["linear", "deep", "ssf"], budget=0, overrides=FAST)
    ended: list[Comparison] = []

    def work() -> None:
        while todo := first.pending():
            if first.run_one(todo) is None:
                time.sleep(module.WAIT)
        ended.append(first)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ended) == 3
    assert len(done) == len(set(done)) == 3 * (SEARCHES + 3)


@pytest.mark.slow
def test_two_commands_share_a_folder(tiny_classes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [word for key, value in FAST.items() for word in ("--set", f"{key}={value}")]
    command = [sys.executable, "-c", "from vpt.cli import main; main()", "compare", str(tiny_classes), "--out"]
    told = [
        subprocess.Popen([*command, str(out), "--methods", "linear", "--seeds", "2", *words], stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for each in told:
        err = each.communicate()[1].decode()
        assert each.returncode == 0, err
    done = results(out)
    assert len(done) == SEARCHES + 2
    for run in done:
        assert (out / run / "train.log").read_text().count("started") == 1
    assert (out / "compare.html").is_file()


@pytest.mark.slow
def test_each_process_has_its_own_device(
    finished: Comparison, tiny_classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(finished.out, tmp_path / "out")
    other = FAST | {"device": "auto"}
    monkeypatch.setattr(module, "choose_device", lambda name: torch.device("cpu"))
    assert compare(tiny_classes, out, methods=["linear"], seeds=SEEDS, overrides=other).pending() == []


# --- what fails -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_methods_that_fail_do_not_end_the_others(
    tiny_classes: Path, tmp_path: Path, short_search: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss that becomes NaN; a config that is refused; prompts that cannot be built; an error no one foresaw."""
    shallow = methods()["shallow"]
    settings = {"method": "shallow", "count": 0}
    add_methods(monkeypatch, nan=replace(shallow, shown="NaN", start=1e30))
    add_methods(monkeypatch, refused=replace(shallow, shown="refused", settings={"prompts": settings}))
    blocks = {"method": "deep", "blocks": "90-99"}
    add_methods(monkeypatch, unbuilt=replace(shallow, shown="unbuilt", settings={"prompts": blocks}))
    add_methods(monkeypatch, odd=replace(shallow, shown="odd"))
    real = module.train

    def strange(config: Any, out: Path, **others: Any) -> Path:
        if "odd" in out.parts:
            raise ValueError("no such thing\nand more")
        return real(config, out, **others)

    monkeypatch.setattr(module, "train", strange)
    names = ["nan", "refused", "unbuilt", "odd", "linear"]
    done = compare(tiny_classes, tmp_path / "out", methods=names, seeds=1, overrides=FAST)
    assert done.pending() == []
    done.write()
    rows = {row["name"]: row for row in json.loads((done.out / "compare.json").read_text())["methods"]}
    assert next(iter(rows)) == "linear"
    assert rows["linear"]["note"] == ""
    assert done.without_result == ["nan", "refused", "unbuilt", "odd"]
    failed = r"0 of 1 seeds; 1 of 1 trainings failed \(--retry-failed tries again\): "
    for name, why in {
        "nan": "the model's answers in the validation are not finite",
        "refused": "config: prompts.count: Input should be greater than or equal to 1, found 0",
        "unbuilt": ".*blocks",
        "odd": "ValueError: no such thing$",
    }.items():
        assert rows[name]["score"] == ""
        assert re.match(failed + why, rows[name]["note"]), rows[name]["note"]


@pytest.mark.slow
def test_one_failed_rate_does_not_end_a_method(
    tiny_classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(method_module, "STEPS", (1.0, 1e40))
    done = compare(tiny_classes, tmp_path / "out", methods=["shallow"], seeds=1, overrides=FAST)
    done.write()
    (row,) = json.loads((done.out / "compare.json").read_text())["methods"]
    assert row["score"] != ""
    assert row["note"].startswith("1 of 4 trainings failed (")


@pytest.mark.slow
def test_what_failed_is_tried_again_when_asked_for(
    tiny_classes: Path, tmp_path: Path, trained: list[str], short_search: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search that failed may change what is chosen, so its method's seeds are done again; other methods' are not."""
    counting, unplugged = module.train, True

    def without_a_device(config: Any, out: Path, **others: Any) -> Path:
        if unplugged and "shallow" in out.parts:
            raise OSError("No such device")
        return counting(config, out, **others)

    monkeypatch.setattr(module, "train", without_a_device)
    settings: dict[str, Any] = {"methods": ["linear", "shallow"], "seeds": 1, "overrides": FAST}
    first = compare(tiny_classes, tmp_path / "out", **settings)
    assert first.pending() == []
    done = len(trained)
    unplugged = False

    compare(tiny_classes, tmp_path / "out", **settings)
    assert len(trained) == done
    again = compare(tiny_classes, tmp_path / "out", **settings, retry_failed=True)
    assert len(trained) > done
    assert all("shallow" in name for name in trained[done:])
    again.write()
    rows = json.loads((again.out / "compare.json").read_text())["methods"]
    assert [row["note"] for row in rows] == ["", ""]


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_ends_the_comparison_and_is_no_failure_of_a_method(
    vpt: Callable[..., Told], tiny_classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real = module.train

    def full(config: Any, out: Path, **others: Any) -> Path:
        with atomic(out.parent / "next.safetensors"):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, "train", full)
    given = ("compare", tiny_classes, "-o", tmp_path / "out", "--methods", "linear", "--seeds", 1, *words(FAST))
    code, _, err = vpt(*given)
    assert (code, err.count("\n")) == (1, 1)
    assert f"next.safetensors: cannot be written ({os.strerror(number)}); free space" in err
    assert err.endswith("once there is room the same command goes on\n")
    assert list(tmp_path.rglob("result.json")) == []

    monkeypatch.setattr(module, "train", real)
    code, said, err = vpt(*given)
    printed = [line for line in err.splitlines() if not line.startswith("comparing: ")]  # of a slow machine
    assert (code, printed, "failed" in said) == (0, [], False)


def test_a_budget_ends_and_the_table_says_what_is_missing(
    tiny_classes: Path, tmp_path: Path, trained: list[str]
) -> None:
    done = compare(tiny_classes, tmp_path / "out", methods=["linear", "deep"], seeds=3, budget=0, overrides=FAST)
    assert trained == []
    assert done.progress() == (0, 14)
    done.write()
    rows = json.loads((done.out / "compare.json").read_text())["methods"]
    assert [row["note"] for row in rows] == ["0 of 3 seeds"] * 2
    assert not (done.out / "compare.png").exists()
    assert "Nothing is finished yet" in (done.out / "compare.html").read_text()


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_folders_that_are_another_comparisons(finished: Comparison, tiny_classes: Path, tmp_path: Path) -> None:
    with pytest.raises(VptError, match=r"holds a comparison with other settings \(config.yaml\); choose another --out"):
        compare(tiny_classes, finished.out, methods=["linear"], overrides=FAST | {"train.epochs": 2})
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").write_text("mine")
    with pytest.raises(VptError, match="used: the folder is not empty; choose another --out"):
        compare(tiny_classes, tmp_path / "used", methods=["linear"], overrides=FAST)
    with pytest.raises(VptError, match=r"notes\.txt: .*choose another --out"):
        compare(tiny_classes, tmp_path / "used" / "notes.txt", methods=["linear"], overrides=FAST)
    assert (tmp_path / "used" / "notes.txt").read_text() == "mine"


@pytest.mark.slow
def test_results_of_other_data_are_refused_by_name(copied_classes: Path, tmp_path: Path) -> None:
    """A case on no side is none of the comparison's; what an earlier version began has no marks, and goes on."""
    out = tmp_path / "out"
    learned = out / "linear" / "search-lr=1" / "result.json"

    def go_on() -> None:
        compare(copied_classes, out, methods=["linear"], budget=0, overrides=FAST)

    go_on()
    learned.parent.mkdir(parents=True)
    write_sealed(learned, {"score": 0.5})
    shutil.copy(copied_classes / "flat" / "im0.png", copied_classes / "flat" / "im8.png")
    go_on()
    picture, split = copied_classes / "flat" / "im1.png", copied_classes / "split.json"
    kept, sides = picture.read_bytes(), split.read_text()
    shutil.copy(copied_classes / "lying" / "im1.png", picture)
    with pytest.raises(
        VptError, match="out: was begun with other data than these: flat/im1 changed since; choose another --out, or"
    ):
        go_on()
    picture.write_bytes(kept)
    split.write_text(sides.replace("flat/im6", "flat/im8"))
    with pytest.raises(VptError, match="than these: flat/im6, flat/im8 changed since"):
        go_on()
    split.write_text(sides)
    go_on()
    (copied_classes / "wavy").mkdir()
    shutil.copy(picture, copied_classes / "wavy" / "im0.png")
    with pytest.raises(VptError, match="than these: the set of labels changed since"):
        go_on()
    (out / "data.json").unlink()
    go_on()
    shutil.rmtree(copied_classes / "wavy")
    with pytest.raises(VptError, match="than these: the set of labels changed since"):
        go_on()


@pytest.mark.slow
def test_a_comparison_of_a_damaged_file_begins_anew_once_it_is_mended(
    copied_classes: Path, tmp_path: Path, trained: list[str]
) -> None:
    """Where nothing was learned of it; a training with a state, or one that goes on, is of the other data."""
    out, picture = tmp_path / "out", copied_classes / "flat" / "im1.png"

    def go_on(**how: Any) -> Comparison:
        return compare(copied_classes, out, methods=["linear"], seeds=1, overrides=FAST, **how)

    sound = picture.read_bytes()
    picture.write_bytes(sound[: len(sound) // 2])
    assert go_on().without_result == ["linear"]
    picture.write_bytes(sound)
    failed, refused = [*trained], "flat/im1 changed since; choose another --out"
    with FileLock(next(out.glob("linear/*.lock"))), pytest.raises(VptError, match=refused):
        go_on(budget=0)
    stopped = out / "linear" / "search-lr=1" / STATE
    stopped.parent.mkdir(parents=True)
    stopped.touch()
    with pytest.raises(VptError, match=refused):
        go_on(budget=0)
    shutil.rmtree(stopped.parents[1])

    assert go_on().without_result == []
    assert [name for name in failed if trained.count(name) == 2] == failed


@pytest.mark.slow
def test_only_one_process_at_a_time_begins_a_comparison_anew(copied_classes: Path, tmp_path: Path) -> None:
    """What one has just begun on the mended data is not taken back by another one that came as early."""
    out, picture = tmp_path / "out", copied_classes / "flat" / "im1.png"

    def begin() -> None:
        compare(copied_classes, out, methods=["linear"], budget=0, overrides=FAST)

    begin()
    shutil.copy(copied_classes / "flat" / "im2.png", picture)
    with FileLock(out / ".claim.lock"):
        other = threading.Thread(target=begin)
        other.start()
        other.join(5)
        assert other.is_alive()
    other.join()


def test_a_folder_that_another_process_is_just_making_is_taken(tiny_classes: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".part-17-config.yaml").write_text("")
    compare(tiny_classes, tmp_path / "out", methods=["linear"], budget=0, overrides=FAST)


def test_data_without_a_test_side(copied_classes: Path, tmp_path: Path) -> None:
    sentence = "stripes: needs cases in val, to choose with, and in test; name them in split.json"
    sides = json.loads((copied_classes / "split.json").read_text())
    for content in (sides | {"test": []}, {side: names for side, names in sides.items() if side != "test"}):
        (copied_classes / "split.json").write_text(json.dumps(content))
        with pytest.raises(VptError, match=sentence):
            compare(copied_classes, tmp_path / "out", overrides=FAST)
    (copied_classes / "split.json").unlink()  # the drawn folds have none either
    with pytest.raises(VptError, match=sentence):
        compare(copied_classes, tmp_path / "out", overrides=FAST)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "methods", "sentence"),
    [
        ({}, ["linaer"], "no method for classification is called 'linaer'; did you mean linear"),
        ({"backbone.name": "vit_mikro"}, ["linear"], "backbone vit_mikro"),
        ({"backbone.weights": "gone.safetensors"}, ["linear"], "gone.safetensors"),
        ({"device": "cuda:77"}, ["linear"], "cuda:77"),
    ],
)
def test_what_would_fail_for_all_is_told_at_once(
    tiny_classes: Path, tmp_path: Path, change: dict[str, Any], methods: list[str], sentence: str
) -> None:
    with pytest.raises(VptError, match=sentence):
        compare(tiny_classes, tmp_path / "out", methods=methods, overrides=FAST | change)
    assert not (tmp_path / "out").exists()


# --- the command line -------------------------------------------------------------------------------------------------


def words(settings: dict[str, Any]) -> list[str]:
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


@pytest.mark.slow
def test_the_command_goes_on_with_a_folder_and_shows_the_table(
    vpt: Callable[..., Told], finished: Comparison, tiny_classes: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(finished.out, tmp_path / "[out]")  # brackets are no markup
    code, said, err = vpt(
        "compare", tiny_classes, "-o", out, "--methods", "linear, shallow", "--seeds", SEEDS, *words(FAST)
    )
    assert (code, err) == (0, "")
    assert "stripes: 2 methods: test accuracy" in said
    assert "VPT-shallow, 50" in said
    assert "the best" in said
    for name in ("compare.html", "compare.png", "compare.csv"):
        assert str(out / name) in said
        assert (out / name).stat().st_size > 0


@pytest.mark.slow
def test_the_command_fails_where_every_training_did(
    monkeypatch: pytest.MonkeyPatch, vpt: Callable[..., Told], tiny_classes: Path, tmp_path: Path
) -> None:
    def full(*_: Any, **__: Any) -> Path:
        raise VptError("no room on the disk")

    monkeypatch.setattr(module, "train", full)
    code, said, _ = vpt("compare", tiny_classes, "-o", tmp_path / "out", "--methods", "linear", "--seeds", 1)

    assert code == 1
    assert "trainings failed" in said
    assert "no room on the disk" in " ".join(said.split())


def test_the_command_lists_its_methods(vpt: Callable[..., Told]) -> None:
    code, said, _ = vpt("compare", "anything", "--methods", "list")
    assert code == 0
    assert [line.split()[0] for line in said.splitlines()] == list(methods())


def test_a_command_whose_budget_is_over_says_how_far_it_came(
    vpt: Callable[..., Told], tiny_classes: Path, tmp_path: Path
) -> None:
    code, out, _ = vpt(
        "compare", tiny_classes, "-o", tmp_path / "out", "--methods", "linear", "--budget", "0s", *words(FAST)
    )
    assert code == 0
    assert re.search(r"the budget is over: 0 of \d+ trainings are done; the same command goes on \(--out ", out)


@pytest.mark.parametrize("budget", ["", "m", "3", "3d", "-3m", "1.2.3h", ".m", "nanm"])
def test_a_budget_that_is_none(budget: str, vpt: Callable[..., Told], tiny_classes: Path, tmp_path: Path) -> None:
    code, _, err = vpt("compare", tiny_classes, "-o", tmp_path / "out", "--budget", budget, *words(FAST))
    assert code == 2
    assert err == f"usage: --budget {budget}: expected a number and s, m or h, for example 30m\n"
    assert not (tmp_path / "out").exists()


def test_a_budget_is_read(vpt: Callable[..., Told], tiny_classes: Path, tmp_path: Path) -> None:
    given = ("--methods", "linear", "--budget", "0.0h", *words(FAST))
    code, said, _ = vpt("compare", tiny_classes, "-o", tmp_path / "out", *given)
    assert code == 0
    assert "head only, linear: 0 of 3 seeds" in said


def test_mistakes_are_a_sentence(vpt: Callable[..., Told], tiny_classes: Path, tmp_path: Path) -> None:
    code, _, err = vpt("compare", tiny_classes, "-o", tmp_path / "out", "--methods", "linaer", *words(FAST))
    assert (code, err.count("\n")) == (1, 1)
    assert "did you mean linear" in err
    set_ = [*words(FAST), "--set", "optim.lr=0.1"]
    code, _, err = vpt("compare", tiny_classes, "-o", tmp_path / "out", "--methods", "linear", *set_)
    assert (code, "error: optim.lr: linear has its own, or searches it" in err) == (1, True)
    assert not (tmp_path / "out").exists()
