"""Workers of a Ray cluster: one is killed on the way, and nothing is lost or done twice."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vpt.data.cases import Case
from vpt.errors import VptError
from vpt.use.archives.attempts import Failure
from vpt.use.archives.fingerprints import ModelMark
from vpt.use.archives.records import Journal, Record, begin, now, read_records
from vpt.use.archives.with_ray import Cluster, require_ray

MARK = ModelMark("run", "ab" * 32, "{}")


@dataclass
class Writing:
    """A batch that writes a line for every case that it answers, and is killed where a case's name says so."""

    out: Path

    def run(self, cases: Sequence[Case]) -> list[Failure]:
        (case,) = cases
        first = not (self.out / f"{case.name}.killed").exists()
        if "always" in case.name or (first and "before" in case.name):
            self.kill(case)
        if "bad" in case.name:
            return [Failure(case.name, "bad.nii: an empty file")]
        with open(self.out / "answers.txt", "a") as file:
            file.write(f"{case.name}\n")
        Journal(self.out).add([Record(case.name, "done", (), "", MARK.sha256, MARK.settings, now())])
        if first and "after" in case.name:
            self.kill(case)
        return []

    def kill(self, case: Case) -> None:
        (self.out / f"{case.name}.killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_nothing_and_does_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="Ray is an extra (vpt[ray]) that is not installed")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    begin(tmp_path)
    names = ["a", "b_before", "c", "d_after", "e_always", "f_bad", "g"]
    cases = [Case(name, (Path(f"{name}.nii"),), None) for name in names]
    ticks: list[int] = []
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")

    try:
        cluster = Cluster(lambda: Writing(tmp_path), tmp_path, MARK, workers=2)
        failures = cluster(cases, lambda done, total, name: ticks.append(done))
    finally:
        ray.shutdown()

    answered = (tmp_path / "answers.txt").read_text().split()
    assert sorted(answered) == ["a", "b_before", "c", "d_after", "g"]
    assert list(read_records(tmp_path)) == sorted(answered)
    assert sorted(failure.name for failure in failures) == ["e_always", "f_bad"]
    assert any("3 workers died while they had it" in failure.reason for failure in failures)
    assert max(ticks) == len(names)


def test_without_ray_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    modules: dict[str, Any] = sys.modules
    monkeypatch.setitem(modules, "ray", None)

    with pytest.raises(VptError, match=r"Ray is not installed; pip install 'vpt\[ray\]'"):
        require_ray()
