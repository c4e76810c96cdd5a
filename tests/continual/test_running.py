"""A whole protocol on tiny images: every kind of learner, its matrix, and a folder that is gone on with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Told
from tasks_in_turn import STEP, write_classes

from vpt.config import load_config
from vpt.continual import Protocol, run_protocol
from vpt.continual import running as module
from vpt.continual.kinds import make_learner
from vpt.continual.learners import OnFeatures
from vpt.continual.marks import marks_of_tasks
from vpt.continual.sight import Sight
from vpt.continual.tasks import _task, make_tasks
from vpt.errors import VptError
from vpt.files import read_json, write_json
from vpt.tasks.images import Normalise
from vpt.use.classifier import Classifier
from vpt.use.load import load


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes. Read only."""
    return write_classes(tmp_path_factory.mktemp("turns") / "four", ("dark", "bright", "lying", "standing"))


def protocol(*data: Path, **more: object) -> Protocol:
    wanted = {"tasks": 2 if len(data) == 1 else None, "projection": 50, "settings": STEP}
    return Protocol(data=data, **(wanted | more))  # type: ignore[arg-type]


@pytest.mark.slow
def test_controls_leave_matrix_page_and_scores_and_are_not_run_twice(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run_protocol(protocol(data, methods=("ncm", "ranpac"), seeds=(0, 1)), tmp_path)
    written = read_json(tmp_path / "continual.json")["methods"]
    assert [each["method"] for each in written] == ["ncm", "ranpac"]
    for each in found:
        assert [len(order.matrix or ()) for order in each.orders] == [2, 2]
        for order in each.orders:
            assert order.matrix is not None
            assert sum(order.matrix[1]) / 2 == pytest.approx(order.final)
            assert len(order.right) == 8
            assert set(order.of_task.values()) == {0, 1}
            assert order.final_told >= order.final
    page = (tmp_path / "continual.html").read_text()
    assert "nearest class mean" in page
    assert "Means over 2 orders of the tasks" in page
    monkeypatch.delattr(module, "make_learner")
    again = run_protocol(protocol(data, methods=("ranpac",), seeds=(0, 1)), tmp_path)
    assert again[0].orders == found[1].orders
    with pytest.raises(VptError, match=r"holds another protocol \(see protocol.json\); choose another --out"):
        run_protocol(protocol(data, methods=("ncm",), seeds=(3,)), tmp_path)


@pytest.mark.slow
def test_results_of_other_data_and_a_folder_of_something_else_are_refused(tmp_path: Path) -> None:
    own = write_classes(tmp_path / "own", ("dark", "bright", "lying", "standing"))
    wanted, out = protocol(own, methods=("ncm",), seeds=(0, 1)), tmp_path / "out"
    run_protocol(wanted, out)
    run_protocol(wanted, out)
    picture = own / "dark" / "im0.png"
    kept = picture.read_bytes()
    shutil.copy(own / "bright" / "im0.png", picture)
    with pytest.raises(VptError, match="was begun with other data than these: dark/im0 changed since; choose another"):
        run_protocol(wanted, out)
    picture.write_bytes(kept)
    sides = read_json(own / "split.json")
    sides["train"], sides["test"] = [*sides["train"][1:], sides["test"][0]], [sides["train"][0], *sides["test"][1:]]
    write_json(own / "split.json", sides)
    with pytest.raises(VptError, match="other data than these: dark/im0, dark/im4 changed since"):
        run_protocol(wanted, out)
    with pytest.raises(VptError, match="the folder is not empty, and holds no protocol; choose another --out"):
        run_protocol(wanted, own)


@pytest.mark.parametrize("content", ["[]", "null", "3", '{"cases": {}, "sha256": "0"}', "{"])
def test_marks_of_the_data_that_are_damaged_are_told(content: str, data: Path, tmp_path: Path) -> None:
    wanted = protocol(data, methods=("ncm",), seeds=(0,))
    run_protocol(wanted, tmp_path)
    (tmp_path / "data.json").write_text(content)
    with pytest.raises(VptError, match=r"data\.json: damaged: not what was written; remove it"):
        run_protocol(wanted, tmp_path)


def test_pixels_that_changed_in_one_file_of_all_are_noticed(tiny_npz: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(tiny_npz, tmp_path / "stripesmnist.npz"))
    known = marks_of_tasks([_task("a", path, None)])
    with np.load(path) as held:
        arrays = dict(held)
    np.savez(path, **{**arrays, "train_images": arrays["train_images"] + 1})
    now = marks_of_tasks([_task("a", path, None)])
    assert {name for name in known if known[name] != now[name]} == {"stripesmnist.npz"}


@pytest.mark.slow
def test_a_method_that_fails_is_told_and_stops_no_other(data: Path, tmp_path: Path) -> None:
    wanted = protocol(data, methods=("ncm", "ranpac"))
    run_protocol(wanted, tmp_path)
    path = tmp_path / "ncm-0" / "result.json"
    path.write_bytes(path.read_bytes().replace(b"{", b"{\0", 1))
    failed: dict[str, VptError] = {}
    (found,) = run_protocol(wanted, tmp_path, failed=failed.__setitem__)
    assert found.method == "ranpac"
    assert (
        str(failed["ncm"]) == f"{path}: damaged: not what was written; remove it, and the same command makes it again"
    )
    with pytest.raises(VptError, match="damaged"):
        run_protocol(wanted, tmp_path)


@pytest.mark.parametrize(("setting", "cases"), [({}, 3), ({"data.use_val": True}, 4), ({"data.shots": 2}, 2)])
def test_controls_learn_from_the_cases_that_a_run_would_train_on(
    data: Path, tmp_path: Path, setting: dict[str, object], cases: int
) -> None:
    wanted = protocol(data, methods=("ncm",), settings=STEP | setting)
    control = make_learner("ncm", make_tasks(wanted, 0), wanted, 0, tmp_path, tmp_path / "cache")
    assert isinstance(control, OnFeatures)
    for task in make_tasks(wanted, 0):
        control.learn(task)
    assert control.control.counts == dict.fromkeys(control.control.classes, cases)


@pytest.mark.slow
def test_prompts_learn_task_after_task_and_each_run_is_an_artifact(data: Path, tmp_path: Path) -> None:
    (found,) = run_protocol(protocol(data, methods=("dualprompt",)), tmp_path)
    assert [len(row) for row in found.orders[0].matrix or ()] == [1, 2]
    last = load(tmp_path / "dualprompt-0" / "2", "cpu")
    assert list(last.tasks) == ["task 1", "task 2"]  # type: ignore[union-attr]
    assert not list(tmp_path.glob("dualprompt-0/*/validation"))
    kept = json.loads((tmp_path / "dualprompt-0" / "result.json").read_text())
    assert [len(classes) for classes in kept["classes"]] == [2, 2]


@pytest.mark.slow
def test_every_other_method_runs(data: Path, tmp_path: Path) -> None:
    methods = ("coda", "l2p", "smope", "sequential", "head", "joint")
    prompts = {"coda": {"components": 3}}
    found = run_protocol(protocol(data, methods=methods, prompts=prompts), tmp_path)
    assert [each.method for each in found] == list(methods)
    assert found[-1].orders[0].matrix is None
    assert found[-1].of_matrix(len) is None
    assert (tmp_path / "joint-0" / "all" / "best.safetensors").is_file()


@pytest.mark.slow
def test_sites_with_the_same_classes_are_tasks_in_turn(tmp_path: Path) -> None:
    sites = [write_classes(tmp_path / name, ("dark", "bright"), first) for name, first in (("north", 0), ("south", 30))]
    found = run_protocol(protocol(*sites, methods=("ncm", "coda"), shuffle=False), tmp_path / "out")
    for each in found:
        assert each.orders[0].tasks == ("north", "south")
        assert len(each.orders[0].right) == 8
    assert load(tmp_path / "out" / "coda-0" / "2", "cpu").classes == ("bright", "dark")  # type: ignore[union-attr]
    with pytest.raises(VptError, match="joint: learns the classes of one data set"):
        run_protocol(protocol(*sites, methods=("joint",), shuffle=False), tmp_path / "joint")


@pytest.mark.slow
def test_the_command_shows_a_table(vpt: Callable[..., Told], data: Path, tmp_path: Path) -> None:
    options = ["--tasks", "2", "--methods", "ncm", "--set", "plan.image_size=32", "--device", "cpu"]
    told = vpt("continual", data, "--out", tmp_path / "out", *options)
    assert told.code == 0
    assert "nearest class mean" in told.out
    assert f"page: {tmp_path / 'out' / 'continual.html'}" in told.out
    assert "dualprompt     DualPrompt" in vpt("continual", data, "--methods", "list").out
    last = Path(tmp_path / "out" / "ncm-0" / "result.json")
    last.write_text("{")
    told = vpt("continual", data, "--out", tmp_path / "out", *options[:2], "--methods", "ncm,ranpac", *options[4:])
    assert (told.code, f"error: ncm: {last}: damaged" in told.err, "RanPAC" in told.out) == (1, True, True)
    wrong = vpt("continual", data, "--out", tmp_path / "other", "--methods", "nmc")
    assert (wrong.code, "no method is called 'nmc'; did you mean ncm" in wrong.err) == (1, True)


@pytest.mark.slow
def test_ranpac_as_published_adapts_to_the_first_task_alone(data: Path, tmp_path: Path) -> None:
    wanted = protocol(data, methods=("ranpac", "ranpac_prompts"), shuffle=False)
    _, adapted = run_protocol(wanted, tmp_path)
    assert [len(row) for row in adapted.orders[0].matrix or ()] == [1, 2]
    runs = sorted(path.parent.name for path in tmp_path.glob("ranpac_prompts-0/*/best.safetensors"))
    assert runs == ["1"], "no gradient after the first task"
    first = load(tmp_path / "ranpac_prompts-0" / "1", "cpu", precision="32-true")
    assert isinstance(first, Classifier)
    before, task = make_tasks(wanted, 0)
    assert set(first.classes) == set(before.classes)
    seen = Sight.trained(first).features(task, task.tested, tmp_path / "cache")
    for number, example in enumerate(task.tested):
        image = torch.from_numpy(first.prepare(example.images[0])).float() / 255
        with torch.no_grad():
            found = first.model.features(Normalise.of(first.model)(image))
            assert np.allclose(seen[number], first.model.head.pool(found)[0], atol=1e-5)
    unprompted = Sight.frozen(load_config({"data": {"path": str(data)}}, STEP)).features(task, task.tested, tmp_path)
    assert not np.allclose(seen, unprompted, atol=1e-3)
