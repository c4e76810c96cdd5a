"""An archive on the machines of a Ray cluster: workers that hold the model are given one scan after the other.

Every worker writes masks and a journal of its own into the one output folder, which all machines must reach. A worker
that dies is replaced, and its scan given to another, unless the journal shows that it was done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vpt.data.cases import Case
from vpt.errors import VptError
from vpt.progress import Tick
from vpt.use.archives.attempts import Failure
from vpt.use.archives.batches import Batch
from vpt.use.archives.fingerprints import ModelMark
from vpt.use.archives.records import Record, read_records

DEATHS = 2  # of workers, that one scan is tried again after


class Worker:
    """Holds the model; lives in a process of its own, on any machine."""

    def __init__(self, make: Callable[[], Batch]):
        self.batch = make()

    def answer(self, case: Case) -> list[Failure]:
        return self.batch.run([case])


@dataclass(frozen=True)
class Cluster:
    """make: a batch with its model, called in every worker; workers: how many, None for what the cluster has room for;
    gpu: whether each takes a GPU.
    """

    make: Callable[[], Batch]
    out: Path
    mark: ModelMark
    workers: int | None = None
    gpu: bool = False

    def __call__(self, cases: Sequence[Case], progress: Tick) -> list[Failure]:
        """Answer every case once -> those that failed. A cluster is the one of RAY_ADDRESS, else made on this machine.

        Raises:
            VptError: Ray is not installed, a worker cannot load the model.
        """
        ray = require_ray()
        begun = not ray.is_initialized()
        if begun:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
        try:
            return _Dispatch(ray, self, cases, progress).run()
        finally:
            if begun:
                ray.shutdown()

    def actor(self, ray: Any) -> Any:
        """How to make a worker."""
        resources = ray.cluster_resources()
        cores = max(1, int(resources.get("CPU", 1)) // self.count(ray))
        return ray.remote(Worker).options(num_cpus=cores, num_gpus=int(self.gpu), max_restarts=0)

    def count(self, ray: Any) -> int:
        if self.workers is not None:
            return self.workers
        return max(1, int(ray.cluster_resources().get("GPU" if self.gpu else "CPU", 1)))


class _Dispatch:
    """Which worker has which scan."""

    def __init__(self, ray: Any, cluster: Cluster, cases: Sequence[Case], progress: Tick):
        self.ray, self.cluster, self.progress = ray, cluster, progress
        self.waiting = [_everywhere(case) for case in reversed(cases)]
        self.total = len(cases)
        self.given: dict[Any, tuple[Any, Case]] = {}
        self.deaths: dict[str, int] = {}
        self.failures: list[Failure] = []

    def run(self) -> list[Failure]:
        make = self.cluster.actor(self.ray)
        for _ in range(min(self.cluster.count(self.ray), self.total)):
            self._give(make.remote(self.cluster.make))
        while self.given:
            (ready,), _ = self.ray.wait(list(self.given), num_returns=1)
            worker, case = self.given.pop(ready)
            if not self._take(ready, case):
                worker = make.remote(self.cluster.make)
            done = self.total - len(self.waiting) - len(self.given)
            self.progress(done, self.total, case.name)
            self._give(worker)
        return self.failures

    def _give(self, worker: Any) -> None:
        if self.waiting:
            case = self.waiting.pop()
            self.given[worker.answer.remote(case)] = worker, case

    def _take(self, ready: Any, case: Case) -> bool:
        """Whether the worker lives."""
        from ray.exceptions import RayActorError, RayTaskError

        try:
            self.failures += self.ray.get(ready)
        except RayActorError:
            self._died(case)
            return False
        except RayTaskError as error:
            raise VptError(f"a worker of Ray ended with: {error.cause}") from error
        return True

    def _died(self, case: Case) -> None:
        """Its worker was killed: the scan is tried again, or was done, or kills every worker."""
        record = read_records(self.cluster.out).get(case.name)
        if record is not None and record.status == "done" and self._holds(record):
            return
        self.deaths[case.name] = self.deaths.get(case.name, 0) + 1
        if self.deaths[case.name] <= DEATHS:
            self.waiting.append(case)
            return
        reason = f"{case.images[0]}: {self.deaths[case.name]} workers died while they had it"
        self.failures.append(Failure(case.name, f"{reason}; look for too little memory, and try it alone"))

    def _holds(self, record: Record) -> bool:
        return (record.model_sha256, record.settings) == (self.cluster.mark.sha256, self.cluster.mark.settings)


def _everywhere(case: Case) -> Case:
    """With paths that do not depend on the folder that a process was started in."""
    return replace(case, images=tuple(path.absolute() for path in case.images))


def require_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise VptError("--engine ray: Ray is not installed; pip install 'vpt[ray]'") from error
    return ray
