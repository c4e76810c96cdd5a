"""A run's folder: how far the run came, who is at work in it, and what is never touched."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
from pathlib import Path

import pytest

from vpt.engine import folder as module
from vpt.engine.folder import LOCK, RUNNING, STATE, at_work, require_same, same_folder, standing_of
from vpt.errors import VptError


def fill(run: Path, *names: str) -> Path:
    for name in names:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("{}")
    return run


@pytest.mark.parametrize(
    ("names", "standing"),
    [
        ((), "new"),
        ((".part-12-config.yaml", "cache/.part-abcdef-12-a.npy"), "new"),
        (("state/.lock",), "new"),
        (("state/running.json", "config.yaml"), "begun"),
        (("config.yaml", "plan.json", "cache/a.npy", "train.log"), "begun"),
        (("config.yaml", "state/running.json", "state/last.safetensors"), "stopped"),
        (("config.yaml", "state/running.json", "state/previous.safetensors"), "stopped"),
        (("config.yaml", "state/last.safetensors", "best.safetensors"), "done"),
    ],
)
def test_how_far_a_run_came(tmp_path: Path, names: tuple[str, ...], standing: str) -> None:
    assert standing_of(fill(tmp_path / "run", *names)) == standing


@pytest.mark.parametrize(
    "names",
    [
        ("thesis.txt",),
        ("config.yaml",),  # a person's own
        ("cache/thesis.txt",),
        ("config.yaml", "plan.json", "best.safetensors"),  # a run whose state was thrown away
        ("config.yaml", "plan.json", "state/running.json", "thesis.txt"),
    ],
)
def test_what_is_anything_else_is_refused_and_left_alone(tmp_path: Path, names: tuple[str, ...]) -> None:
    run = fill(tmp_path / "run", *names)
    with pytest.raises(VptError, match="the folder is not empty; choose another --out"):
        standing_of(run)
    assert all((run / name).is_file() for name in names)


def test_a_failure_leaves_nothing_that_was_not_there(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for run in (tmp_path / "runs" / "first", tmp_path / "mine"):
        with pytest.raises(VptError, match="no data"), at_work(run, "new"):
            raise VptError("no data")
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


def test_who_is_at_work_is_said(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with at_work(run, "new"):
        fill(run, "config.yaml")
        owner = json.loads((run / RUNNING).read_text())
        assert (owner["process"], owner["host"]) == (os.getpid(), platform.node())
        said = rf"at work in it \(process {os.getpid()} on .*, since 20.*; wait for its end, or choose another --out"
        with pytest.raises(VptError, match=said), at_work(run, "begun"):
            pytest.fail("two at once")
        assert (run / RUNNING).is_file()
    assert sorted(path.name for path in run.rglob("*")) == [LOCK.name, "config.yaml", "state"]


def test_one_that_came_and_went_meanwhile_is_noticed(tmp_path: Path) -> None:
    run = fill(tmp_path / "run", "config.yaml", STATE.as_posix())
    with pytest.raises(VptError, match="another training has just been at work"), at_work(run, "new"):
        pytest.fail("went on")
    assert (run / STATE).is_file()


def _hold(run: Path, ready: multiprocessing.synchronize.Event) -> None:
    with at_work(run, "new"):
        (run / "config.yaml").write_text("{}")
        ready.set()
        multiprocessing.Event().wait()


def test_a_killed_training_holds_nothing(tmp_path: Path) -> None:
    run, ready = tmp_path / "run", multiprocessing.Event()
    other = multiprocessing.Process(target=_hold, args=(run, ready))
    other.start()
    assert ready.wait(30)
    with pytest.raises(VptError, match=rf"process {other.pid} on"), at_work(run, "begun"):
        pytest.fail("two at once")
    other.kill()
    other.join()
    fill(run, "state/last.safetensors", "validation/.part-abcdef-7-a.nii.gz")
    fill(run, *(f"{folder}/.part-abcdef-7-a.png" for folder in ("state", "previews/case", "validation/previews")))
    with at_work(run, standing_of(run)):
        assert json.loads((run / RUNNING).read_text())["process"] == os.getpid()
        assert not list(run.rglob(".part-*"))


def test_workers_of_a_killed_training_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They hold its lock, where a fork keeps files open, until they notice."""
    run, waited = fill(tmp_path / "run", "config.yaml"), []
    fill(run, "state/.lock").joinpath(RUNNING).write_text(
        json.dumps({"process": 2**22 + 1, "host": platform.node(), "since": "2026-01-01 00:00:00"})
    )
    acquire = module.FileLock.acquire
    monkeypatch.setattr(
        module.FileLock, "acquire", lambda lock, timeout: [waited.append(timeout), acquire(lock, timeout=timeout)]
    )
    with at_work(run, "begun"):
        pass
    assert waited == [module.WORKERS_END]


def test_a_folder_that_is_another_one_is_noticed_and_one_that_only_moved_is_not(tmp_path: Path) -> None:
    run = fill(tmp_path / "run", "config.yaml")
    stays = same_folder(run)
    fill(run, "thesis.txt")
    assert stays()
    run.rename(tmp_path / "aside")
    assert not stays()
    fill(run, "state/last.safetensors", "best.safetensors")
    assert not stays()
    with pytest.raises(VptError, match=r"another folder was put in the place of the run's.*nothing in it was touched"):
        require_same(run, stays())


def test_another_run_that_lies_in_the_place_of_this_one_keeps_its_files(tmp_path: Path) -> None:
    run, aside = tmp_path / "run", tmp_path / "aside"
    with pytest.raises(VptError, match="a failure"), at_work(run, "new"):  # noqa: PT012 (what happens meanwhile)
        run.rename(aside)
        fill(run, "state/running.json", "state/.lock")
        raise VptError("a failure")
    assert (run / "state" / "running.json").is_file()
    assert (run / "state" / ".lock").is_file()


@pytest.mark.parametrize("said", ["7", "[]", '{"process": "x"}', '{"process": 1e99, "host": "a", "since": "b"}', "{"])
def test_who_was_at_work_may_be_damaged(tmp_path: Path, said: str) -> None:
    run = fill(tmp_path / "run", "config.yaml", "state/last.safetensors")
    (run / RUNNING).write_text(said)
    with at_work(run, "stopped"):
        assert json.loads((run / RUNNING).read_text())["process"] == os.getpid()
