"""Workers of a Ray cluster that die: nothing is lost, nothing done twice."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import nibabel as nib
import numpy as np
import pytest

from vpt.data.cases import Case
from vpt.errors import VptError
from vpt.files import DiskFull
from vpt.use.archives.attempts import Failure
from vpt.use.archives.batch import Recorder
from vpt.use.archives.fingerprints import ModelMark
from vpt.use.archives.ray_cluster import joined, require_ray, room_for
from vpt.use.archives.records import Journal, Record, begin, now, read_records
from vpt.use.archives.with_ray import Cluster, _Dispatch

MARK = ModelMark("run", "ab" * 32, "{}")
LONGEST = 400  # seconds, on a machine that has much else to do; 30 on one that has not


class Died(Exception):
    """What Ray raises where a worker, or its machine, is gone."""


class Raised(Died):
    """What Ray raises where a worker's work raised."""

    def __init__(self, cause: Exception):
        super().__init__(str(cause))
        self.cause = cause


class Killed(BaseException):
    """SIGKILL."""


@dataclass
class PretendedRay:
    """As much of Ray as `Cluster` asks for, in this process: work is done when it is waited for.

    starts: how many workers find a place; the others wait for one for ever.
    """

    starts: int = 100
    workers: int = 0
    pending: dict[int, Callable[[], Any]] = field(default_factory=dict)
    exceptions: ClassVar = SimpleNamespace(RayError=Died, RayTaskError=Raised)

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 2.0}}]

    def remote(self, kind: type) -> Any:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=partial(self.begin, kind)))

    def begin(self, kind: type) -> Any:
        self.workers += 1
        placed, worker = self.workers <= self.starts, kind()
        calls = {name: partial(self.call, placed, getattr(worker, name)) for name in ("load", "answer")}
        return SimpleNamespace(**{name: SimpleNamespace(remote=call) for name, call in calls.items()})

    def call(self, placed: bool, method: Callable[[Any], Any], argument: Any) -> int:
        number = len(self.pending)
        self.pending[number] = partial(method, argument) if placed else None
        return number

    def wait(self, numbers: list[int], num_returns: int, timeout: float) -> tuple[list[int], list[int]]:
        return [number for number in numbers if self.pending[number] is not None][:1], []

    def get(self, number: int) -> Any:
        try:
            return self.pending[number]()
        except Killed:
            raise Died from None
        except Exception as error:
            raise Raised(error) from error


@dataclass
class Answering:
    """A batch that records every case, and is killed before or after where its name says so."""

    out: Path
    answered: list[str]
    killed: set[str] = field(default_factory=set)

    def run(self, cases: Sequence[Case]) -> list[Failure]:
        (case,) = cases
        first = case.name not in self.killed
        if "full" in case.name:
            raise DiskFull("full.nii.gz: cannot be written")
        if "always" in case.name or (first and "before" in case.name):
            self.killed.add(case.name)
            raise Killed
        if "bad" in case.name:
            return [Failure(case.name, "bad.nii: an empty file")]
        self.answered.append(case.name)
        Journal(self.out).add([Record(case.name, "done", (), "", MARK.sha256, MARK.settings, now())])
        if first and "after" in case.name:
            self.killed.add(case.name)
            raise Killed
        return []


@pytest.fixture
def dispatch(tmp_path: Path) -> Callable[..., _Dispatch]:
    """dispatch(ray, make, names, ticks): of cases with these names."""
    begin(tmp_path)

    def arrange(ray: PretendedRay, make: Any, names: str, ticks: list[int] | None = None) -> _Dispatch:
        cases = [Case(name, (tmp_path / f"{name}.nii",), None) for name in names.split()]
        for case in cases:
            case.images[0].touch()
        told = [] if ticks is None else ticks
        cluster = Cluster(make, tmp_path, workers=2, patience=0.0)
        return _Dispatch(ray, cluster, cases, lambda done, total, name: told.append(done), Recorder(tmp_path, MARK))

    return arrange


def test_a_worker_that_dies_loses_nothing_and_does_nothing_twice(dispatch, tmp_path: Path) -> None:
    ticks: list[int] = []
    batch, ray = Answering(tmp_path, []), PretendedRay()
    Journal(tmp_path).add([Record("b_before", "done", (), "", MARK.sha256, MARK.settings, now())])  # of an older batch

    failures = dispatch(ray, lambda: batch, "a b_before c d_after e_always f_bad g", ticks).run()

    assert sorted(batch.answered) == ["a", "b_before", "c", "d_after", "g"]
    assert sorted(failure.name for failure in failures) == ["e_always", "f_bad"]
    assert read_records(tmp_path)["e_always"].reason == (
        "e_always.nii: 3 workers died while they had it; look for too little memory, and try it alone"
    )
    assert sorted(ticks) == list(range(1, 8))
    assert ray.workers <= 2 + 5


def test_a_worker_without_a_place_keeps_no_scan(dispatch, tmp_path: Path) -> None:
    batch = Answering(tmp_path, [])
    assert dispatch(PretendedRay(starts=1), lambda: batch, "a b c").run() == []
    assert sorted(batch.answered) == ["a", "b", "c"]

    with pytest.raises(VptError, match=r"no worker held the model after 0 s; `ray status` says"):
        dispatch(PretendedRay(starts=0), lambda: batch, "a").run()


def test_what_ends_a_batch_is_told_as_without_ray(dispatch, tmp_path: Path) -> None:
    def damaged() -> Any:
        raise VptError("best.safetensors: damaged")

    def killed() -> Any:
        raise Killed

    with pytest.raises(VptError, match=r"best\.safetensors: damaged"):
        dispatch(PretendedRay(), damaged, "a").run()
    with pytest.raises(VptError, match="3 workers on end died before they held the model; look for too little memory"):
        dispatch(PretendedRay(), killed, "a").run()
    with pytest.raises(DiskFull, match=r"full\.nii\.gz: cannot be written"):
        dispatch(PretendedRay(), lambda: Answering(tmp_path, []), "a full b").run()
    with pytest.raises(VptError, match=r"a worker ended with ZeroDivisionError: .* by zero"):
        dispatch(PretendedRay(), lambda: 1 // 0, "a").run()


@pytest.mark.parametrize(
    ("cores", "workers", "expected"),
    [((8, 4), 1, (1, 8)), ((8, 4), 2, (2, 6)), ((2,), 5, (5, 1)), ((8, 4), None, (3, 4))],
)
def test_a_worker_asks_for_no_more_cores_than_a_machine_has(cores, workers, expected) -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": float(count)}} for count in cores]
    gone = {"Alive": False, "Resources": {"CPU": 64.0}}
    assert room_for(SimpleNamespace(nodes=lambda: [*nodes, gone]), workers, gpu=False) == expected


def test_without_ray_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "given")
    modules: dict[str, Any] = sys.modules
    monkeypatch.setitem(modules, "ray", None)

    with pytest.raises(VptError, match=r"Ray is not installed; pip install 'vpt\[ray\]'"):
        require_ray()


def test_a_cluster_that_does_not_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and listens not
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{taken.getsockname()[1]}")
        with (
            pytest.raises(VptError, match=r"RAY_ADDRESS=127\.0\.0\.1:\d+: no cluster answers \(.*refused.*\)"),
            joined(SimpleNamespace(is_initialized=lambda: False)),
        ):
            pass


@pytest.mark.slow
def test_both_workers_of_a_cluster_are_killed(tiny_data: Path, tiny_run: Path, vpt: Callable[..., Any], tmp_path: Path):
    """The same masks and records as of one process; SIGKILL comes from outside, once each has answered a scan."""
    pytest.importorskip("ray", reason="Ray is an extra (vpt[ray]) that is not installed")
    scans = tmp_path / "scans"
    scans.mkdir()
    for number in range(12):
        (scans / f"scan_{number:02d}.nii.gz").symlink_to(tiny_data / f"imagesTr/blobs_{number % 6:03d}_0000.nii.gz")
    words = ["predict", "-i", str(scans), "-m", str(tiny_run), "--device", "cpu"]
    assert vpt(*words, "-o", tmp_path / "alone").code == 0
    out, told = tmp_path / "out", tmp_path / "told.txt"
    more = ["-o", str(out), "--engine", "ray", "--workers", "2"]
    with open(told, "wb") as file:
        command = [sys.executable, "-c", "from vpt.cli import main; main()", *words, *more]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        batch = subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)

    try:
        killed = _kill_first(2, out / "log.txt", batch)
        code = batch.wait(LONGEST)
    finally:
        batch.terminate()

    assert code == 0, told.read_text()
    assert len(killed) == 2, (out / "log.txt").read_text()
    assert _by_case(out) == _by_case(tmp_path / "alone")
    assert Counter(_answers(out)) == Counter(_answers(tmp_path / "alone")), "each scan is done once"
    for mask in (tmp_path / "alone").glob("*.nii.gz"):
        assert np.array_equal(nib.load(out / mask.name).get_fdata(), nib.load(mask).get_fdata())
    assert not list(out.rglob(".part-*"))


def _kill_first(number: int, log: Path, batch: subprocess.Popen[bytes]) -> set[int]:
    """SIGKILL to so many workers, each as soon as it has answered."""
    killed: set[int] = set()
    end = time.monotonic() + LONGEST
    while len(killed) < number and batch.poll() is None and time.monotonic() < end:
        found = re.findall(r"\[(\d+)\] done", log.read_text()) if log.exists() else []
        for worker in {int(each) for each in found} - killed:
            os.kill(worker, signal.SIGKILL)
            killed.add(worker)
        time.sleep(0.01)
    return killed


def _by_case(out: Path) -> list[dict[str, Any]]:
    """Records without what is never the same."""
    cases = json.loads((out / "predictions.json").read_text())["cases"]
    return [{key: value for key, value in case.items() if key not in ("seconds", "when")} for case in cases]


def _answers(out: Path) -> list[str]:
    """Names of the cases, once for every line of a journal."""
    lines = [line for path in (out / ".journal").glob("*.jsonl") for line in path.read_text().splitlines()]
    return [json.loads(line)["case"] for line in lines if line.endswith("}")]
