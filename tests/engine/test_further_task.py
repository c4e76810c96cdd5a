"""A further task of segmentation: prompts and a head of its own beside those of an artifact, which answer as before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Told
from organs_in_turn import STEP, write_organ
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vpt.artifact import FORMAT, read_artifact
from vpt.artifact_tasks import answering, common_ids, tasks_of
from vpt.config import load_config
from vpt.describe import describe
from vpt.engine.further_task import shared_labels
from vpt.engine.run import train
from vpt.engine.setup import prepare_setup, reopen_run
from vpt.errors import VptError
from vpt.use.bank import Bank
from vpt.use.by_task import SegmenterByTask
from vpt.use.load import load
from vpt.use.runs import evaluate_run


@pytest.fixture(scope="module")
def organs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """discs and squares, whose masks have the same value. Read only."""
    root = tmp_path_factory.mktemp("organs")
    write_organ(root / "discs", "disc")
    write_organ(root / "squares", "square")
    return root


@pytest.fixture(scope="module")
def first(organs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(organs / "discs", tmp_path_factory.mktemp("beside") / "first", overrides=STEP, brief=True)


def further(run: Path, **more: Any) -> dict[str, Any]:
    own = {key: value for key, value in STEP.items() if key not in ("prompts", "head", "plan.image_size")}
    return own | {"start.path": str(run), "start.adds": True} | more


@pytest.fixture(scope="module")
def second(organs: Path, first: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """squares after discs, of a start that is gone since."""
    folder = tmp_path_factory.mktemp("beside")
    start = Path(shutil.copy(first / "best.safetensors", folder / "start.safetensors"))
    run = train(organs / "squares", folder / "second", overrides=further(start), brief=True)
    start.unlink()
    return run


def by_task(run: Path) -> SegmenterByTask:
    found = load(run, "cpu")
    assert isinstance(found, SegmenterByTask)
    return found


def test_one_file_holds_both_tasks(first: Path, second: Path) -> None:
    before, after = read_artifact(first), read_artifact(second)
    assert list(tasks_of(after)) == ["discs", "squares"]
    old = after.earlier["discs"]
    assert old.tensors.keys() == before.tensors.keys()
    assert all(torch.equal(old.tensors[name], before.tensors[name]) for name in before.tensors)
    assert (old.plan, old.labels, old.config) == (before.plan, before.labels, before.config)
    assert (after.plan.image_size, after.config.prompts, after.config.head) == (
        before.plan.image_size,
        before.config.prompts,
        before.config.head,
    )
    facts = describe(str(second))
    assert ("tasks", "discs: disc; squares: square") in facts
    assert ("labels", "0 background, 1 disc, 2 square") in facts
    assert "Segmenting disc, square in images" in (second / "model_card.md").read_text()


@pytest.mark.slow
def test_predict_is_told_the_task_of_all_scans(
    vpt: Callable[..., Told], organs: Path, first: Path, second: Path, tmp_path: Path
) -> None:
    image = organs / "squares" / "images" / "im4.png"
    words = ("predict", "-i", image, "--device", "cpu", "--task")
    assert vpt(*words, "discs", "-m", second, "-o", tmp_path / "disc.png")[0] == 0
    expected = by_task(second).segment(image, task="discs")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "disc.png")), expected)
    assert not np.array_equal(expected, by_task(second).segment(image))
    code, _, err = vpt(*words, "disks", "-m", second, "-o", tmp_path / "other.png")
    assert code == 1
    assert err.startswith("error: task 'disks': the model has learned the tasks discs, squares; did you mean discs?")
    code, _, err = vpt(*words, "discs", "-m", first, "-o", tmp_path / "other.png")
    assert (code, err) == (1, "error: task 'discs': the model has learned one task alone; leave it out\n")
    assert not (tmp_path / "other.png").exists()


@pytest.mark.slow
def test_each_scan_is_answered_by_its_task_and_the_old_one_bit_for_bit(organs: Path, first: Path, second: Path) -> None:
    before, after = load(first, "cpu"), by_task(second)
    assert after.tasks == {"discs": ("disc",), "squares": ("square",)}
    assert after.labels == {0: "background", 1: "disc", 2: "square"}
    for task, label in (("discs", 1), ("squares", 2)):
        for number in (4, 5):
            path = organs / task / "images" / f"im{number}.png"
            chosen, distances = after.task_of(path)
            assert (chosen, min(distances, key=distances.__getitem__)) == (task, task)
            found = np.asarray(after.segment(path))
            assert set(np.unique(found)) <= {0, label}
            assert np.array_equal(found, after.segment(path, task=task))
            if task == "discs":
                assert np.array_equal(found, before.segment(path))  # type: ignore[union-attr]
    other = organs / "squares" / "images" / "im4.png"
    assert np.array_equal(after.segment(other, task="discs"), before.segment(other))  # type: ignore[union-attr]
    assert set(np.unique(after.of_task("discs").segment(other))) <= {0, 1}
    with pytest.raises(VptError, match="task 'disc': the model has learned the tasks discs, squares; did you mean"):
        after.segment(other, task="disc")


@pytest.mark.slow
def test_a_third_task_changes_nothing_of_the_two(organs: Path, second: Path, tmp_path: Path) -> None:
    site = write_organ(tmp_path / "other discs", "disc", value=3, first=50)
    run = train(site, tmp_path / "third", overrides=further(second, **{"start.task": "site b"}), brief=True)
    two, three = by_task(second), by_task(run)
    assert three.tasks == {"discs": ("disc",), "squares": ("square",), "site b": ("disc",)}
    assert three.labels == {0: "background", 1: "disc", 2: "square"}
    for task in ("discs", "squares"):
        path = organs / task / "images" / "im4.png"
        assert np.array_equal(three.segment(path, task=task), two.segment(path, task=task))
    again = site / "images" / "im4.png"
    assert set(np.unique(three.segment(again, task="site b"))) <= {0, 1}


def test_the_run_is_evaluated_as_its_own_task(second: Path, tmp_path: Path) -> None:
    report, _ = evaluate_run(second, device="cpu", out=tmp_path / "test")
    assert list(report.labels.values()) == ["square"]  # type: ignore[union-attr]
    assert "told its task squares" in report.settings.title  # type: ignore[union-attr]


def test_a_run_that_is_there_needs_nothing_else(second: Path) -> None:
    setup = reopen_run(second, load_config(second / "config.yaml").resolved("segmentation"))
    assert list(setup.earlier) == ["discs"]


@pytest.mark.slow
def test_one_set_of_prompts_that_is_trained_on_answers_all_tasks(organs: Path, first: Path, tmp_path: Path) -> None:
    run = train(organs / "squares", tmp_path / "run", overrides=further(first, **{"start.shared": True}), brief=True)
    artifact, before = read_artifact(run), read_artifact(first)
    old = answering(artifact)["discs"]
    assert torch.equal(old.tensors["prompts.table.tokens"], artifact.tensors["prompts.table.tokens"])
    assert not torch.equal(old.tensors["prompts.table.tokens"], before.tensors["prompts.table.tokens"])
    heads = [name for name in before.tensors if name.startswith("head")]
    assert all(torch.equal(old.tensors[name], before.tensors[name]) for name in heads)
    assert (tmp_path / "run" / "earlier.safetensors").is_file()


def test_a_new_task_may_have_prompts_and_a_head_of_another_kind(organs: Path, first: Path) -> None:
    wanted = further(first, prompts={"method": "none"}, head={"kind": "mask", "width": 8})
    setup = prepare_setup(load_config(organs / "squares", wanted))
    assert (setup.config.prompts.method, setup.config.head.width) == ("none", 8)
    assert list(setup.earlier) == ["discs"]
    assert setup.start is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"start.task": "discs"}, "has learned a task called 'discs'; give the new one another name"),
        ({"plan.image_size": 64}, "plan.image_size is 32 there, and all tasks of one model have the same"),
        ({"tuning.method": "bias"}, "tuning.method=bias with --continue"),
        ({"train.keep_cases": False}, "train.keep_cases=false with --continue"),
        ({"start.kept": ["disc"]}, "start.kept with --continue"),
        ({"backbone.name": "sam_micro"}, r"backbone.name=sam_micro \(there vit_micro\) contradicts"),
    ],
)
def test_what_would_change_old_answers_is_refused(
    organs: Path, first: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(VptError, match=said):
        prepare_setup(load_config(organs / "squares", further(first, **changes)))


def test_tasks_of_other_files_and_artifacts_that_know_no_cases_are_refused(
    tiny_data: Path, organs: Path, first: Path, tmp_path: Path
) -> None:
    with pytest.raises(VptError, match="volumes of 1 channel, but the artifact's tasks are of images of 1"):
        prepare_setup(load_config(tiny_data, further(first)))
    with pytest.raises(VptError, match="discs kept no training cases, by which a scan's task is chosen"):
        prepare_setup(load_config(organs / "squares", further(first / "last.safetensors")))


@pytest.mark.slow
def test_a_model_of_several_tasks_is_no_start_no_member_and_has_no_common_probabilities(
    organs: Path, first: Path, second: Path
) -> None:
    own = {key: value for key, value in STEP.items() if key not in ("prompts", "head", "plan.image_size")}
    with pytest.raises(VptError, match="has learned 2 tasks, each with prompts of its own"):
        prepare_setup(load_config(organs / "squares", own | {"start": str(second)}))
    wanted = own | {"start": {"path": str(first), "shared": True}}
    with pytest.raises(VptError, match=r"start.shared: is of a further task of segmentation \(--continue\)"):
        prepare_setup(load_config(organs / "discs", wanted))
    with pytest.raises(VptError, match="has learned discs, squares, and gives each scan to one of them"):
        Bank("vit_micro", device="cpu").add("all", second)
    with pytest.raises(VptError, match="gives each scan to one of them, so it cannot be averaged"):
        load([second, first], "cpu")
    found = by_task(second)
    scan = found.prepare(organs / "discs" / "images" / "im4.png")
    with pytest.raises(VptError, match="have no probabilities or classes in common"):
        found.classes_of(scan, None, lambda *_: None)
    unfinished = by_task(second / "last.safetensors")
    with pytest.raises(VptError, match="squares: kept no training cases, so no scan's task can be chosen"):
        unfinished.segment(organs / "discs" / "images" / "im4.png")


@pytest.mark.parametrize("option", ["--quality", "--probabilities"])
def test_what_is_of_one_task_is_refused_before_any_scan_is_asked_for(
    vpt: Callable[..., Told], organs: Path, second: Path, tmp_path: Path, option: str
) -> None:
    words = ("predict", "-i", organs / "discs" / "images", "-o", tmp_path / "out", "-m", second, "--device", "cpu")
    code, _, err = vpt(*words, option)
    assert (code, err.count("\n")) == (1, 1), err
    assert err == (
        f"error: {option}: the model has learned discs, squares, which have no probabilities in common; say which task "
        "all scans are of (--task)\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_quality_and_probabilities_of_a_task_that_is_told_are_those_of_its_own_run(
    vpt: Callable[..., Told], organs: Path, first: Path, second: Path, tmp_path: Path
) -> None:
    """With the limits that were chosen for that run, which are found by its content."""
    own = Path(shutil.copytree(first, tmp_path / "own"))
    assert vpt("evaluate", own, "--quality", "--device", "cpu", "-o", tmp_path / "test").code == 0
    run = Path(shutil.copytree(second, tmp_path / "run"))
    scan = ("predict", "-i", organs / "discs" / "images" / "im5.png", "--device", "cpu", "--quality", "--probabilities")
    told = vpt(*scan, "-m", run, "--task", "discs", "-o", tmp_path / "early")
    assert "no limits yet, so nothing is flagged" in told.err
    shutil.copy(next(own.glob("quality-*.json")), run)
    told = vpt(*scan, "-m", run, "--task", "discs", "-o", tmp_path / "told")
    assert (told.code, told.err) == (0, "")
    assert vpt(*scan, "-m", own, "-o", tmp_path / "alone").code == 0
    for name in ("quality.csv", "probabilities/im5.nii.gz"):
        assert (tmp_path / "told" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    assert (
        ",no," in (tmp_path / "told" / "quality.csv").read_text()
        or ",yes," in (tmp_path / "told" / "quality.csv").read_text()
    )
    assert vpt(*scan, "-m", run, "--task", "squares", "-o", tmp_path / "other").err.count("no limits yet") == 1


@pytest.mark.slow
def test_what_a_prompt_does_is_of_the_task_that_is_told_or_chosen(
    vpt: Callable[..., Told], organs: Path, first: Path, second: Path, tmp_path: Path
) -> None:
    scan = organs / "discs" / "images" / "im5.png"
    for number, (run, more) in enumerate(((first, ()), (second, ()), (second, ("--task", "discs")))):
        told = vpt("explain", run, scan, *more, "-o", tmp_path / str(number), "--device", "cpu", "--images", "0")
        assert told.code == 0, told.err
    with np.load(tmp_path / "0" / "attention.npz") as alone:
        for number in (1, 2):
            with np.load(tmp_path / str(number) / "attention.npz") as found:
                assert all(np.array_equal(found[name], alone[name]) for name in alone)
            assert json.loads((tmp_path / str(number) / "explain.json").read_text())["watched"].endswith("(task discs)")
    told = vpt("explain", second, scan, "--task", "squares", "-o", tmp_path / "3", "--device", "cpu", "--images", "1")
    assert (told.code, "(task squares)" in told.out) == (0, True)
    told = vpt("explain", second, scan, "-o", tmp_path / "4", "--device", "cpu", "--images", "1")
    assert (told.code, "has the training images of its last task, not those of discs; explain" in told.err) == (1, True)
    told = vpt("explain", first, scan, "--task", "discs", "-o", tmp_path / "5", "--device", "cpu")
    assert told.err == "error: task 'discs': the model has learned one task alone; leave it out\n"


@pytest.mark.slow
def test_a_folder_of_both_is_predicted_with_the_mask_of_each(
    vpt: Callable[..., Told], organs: Path, second: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for task in ("discs", "squares"):
        shutil.copy(organs / task / "images" / "im5.png", tmp_path / "in" / f"{task}.png")
    told = vpt("predict", "-i", tmp_path / "in", "-o", tmp_path / "out", "-m", second, "--device", "cpu", "--preview")
    assert told.code == 0, told.err
    for task, label in (("discs", 1), ("squares", 2)):
        found = np.asarray(Image.open(tmp_path / "out" / f"{task}.png"))
        assert set(np.unique(found)) <= {0, label}
        assert (tmp_path / "out" / "previews" / f"{task}.png").is_file()
    record = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert {case["case"]: case["task"] for case in record["cases"]} == {"discs": "discs", "squares": "squares"}
    assert (tmp_path / "out" / "predictions.csv").read_text().startswith("case,status,task,")


@pytest.mark.slow
def test_predict_tells_scans_whose_task_is_known(
    vpt: Callable[..., Told], organs: Path, first: Path, second: Path, tmp_path: Path
) -> None:
    scans = ("predict", "-i", organs / "discs" / "images" / "im5.png", "--device", "cpu")
    assert vpt(*scans, "-m", second, "--task", "squares", "-o", tmp_path / "out").code == 0
    told = by_task(second).segment(organs / "discs" / "images" / "im5.png", task="squares")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "im5.png")), np.asarray(told))
    code, _, err = vpt(*scans, "-m", second, "--task", "cubes", "-o", tmp_path / "more")
    assert (code, err) == (1, "error: task 'cubes': the model has learned the tasks discs, squares\n")
    code, _, err = vpt(*scans, "-m", first, "--task", "discs", "-o", tmp_path / "more")
    assert (code, err) == (1, "error: task 'discs': the model has learned one task alone; leave it out\n")


def test_a_header_that_names_a_task_twice_is_damaged(second: Path, tmp_path: Path) -> None:
    with safe_open(second / "best.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()["vpt"])
    header["earlier"] *= 2
    path, metadata = tmp_path / "a.safetensors", {"format": FORMAT, "vpt": json.dumps(header)}
    save_file(load_file(second / "best.safetensors"), path, metadata=metadata)
    with pytest.raises(VptError, match="its header is damaged: it names a task twice"):
        read_artifact(path)


def test_a_label_that_is_one_with_an_earlier_one_is_said(first: Path) -> None:
    tasks = tasks_of(read_artifact(first))
    (name,) = (name for label, name in tasks["discs"].labels.items() if label)
    (said,) = shared_labels({0: "background", 1: name, 2: "cube"}, tasks)
    assert said.startswith(f"{name} is one label with that of discs; if it is not, name it in dataset.json")
    assert shared_labels({0: "background", 1: "cube"}, tasks) == []


def test_labels_keep_their_ids_and_a_name_is_one_label() -> None:
    tasks = {"a": {0: "background", 1: "liver", 5: "cyst"}, "b": {0: "background", 1: "lung", 2: "liver"}}
    assert common_ids(tasks) == {"a": {1: 1, 5: 5}, "b": {1: 3, 2: 1}}
    third = {"c": {0: "background", 3: "lung", 5: "tumour", 7: "cyst"}}
    assert common_ids(tasks | third) == {"a": {1: 1, 5: 5}, "b": {1: 3, 2: 1}, "c": {3: 3, 5: 2, 7: 5}}
    of_pictures = {"a": {0: "background", 255: "liver"}, "b": {0: "background", 255: "lung"}}
    assert common_ids(of_pictures) == {"a": {255: 255}, "b": {255: 1}}, "masks stay in 8 bits"
