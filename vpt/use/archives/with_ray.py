"""An archive on the machines of a Ray cluster: workers that hold the model are given one scan after the other.

Every worker writes masks and a journal of its own into the one output folder, which all machines must reach. A worker
that dies is replaced, and its scan given to another, unless a journal shows that it was done. Ray's own retries are not
used: they would do such a scan twice, and could not tell a scan that every worker dies of.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vpt.data.cases import Case
from vpt.errors import VptError
from vpt.files import clear_parts
from vpt.progress import Tick
from vpt.use.archives.attempts import Failure
from vpt.use.archives.batch import Recorder
from vpt.use.archives.batches import Batch
from vpt.use.archives.ray_cluster import joined, require_ray, room_for
from vpt.use.archives.records import journals, read_records

DEATHS = 2  # of workers, that one scan is tried again after
LOOK = 1.0  # seconds between looks at the clock, and at signals
STARTS = 3  # workers on end that die before one holds the model


class Worker:
    """Holds the model; lives in a process of its own, on any machine."""

    def load(self, make: Callable[[], Batch]) -> None:
        self.batch = make()

    def answer(self, case: Case) -> list[Failure]:
        return self.batch.run([case])


@dataclass(frozen=True)
class Cluster:
    """make: a batch with its model, called in every worker; workers: how many, None for one a GPU, or for 4 cores.

    gpu: whether each takes a GPU; patience: seconds that may pass until some worker holds the model.
    """

    make: Callable[[], Batch]
    out: Path
    workers: int | None = None
    gpu: bool = False
    patience: float = 600.0

    def __call__(self, cases: Sequence[Case], progress: Tick, recorder: Recorder) -> list[Failure]:
        """Answer every case once -> those that failed. A cluster is the one of RAY_ADDRESS, else made on this machine.

        recorder: writes down what no worker could.

        Raises:
            VptError: Ray is not installed or its cluster not there, no worker can load the model, a full disk.
        """
        with joined(require_ray()) as ray, _without_parts(self.out):
            return _Dispatch(ray, self, cases, progress, recorder).run() if cases else []


class _Dispatch:
    """Which worker has which scan."""

    def __init__(self, ray: Any, cluster: Cluster, cases: Sequence[Case], progress: Tick, recorder: Recorder):
        self.ray, self.cluster, self.progress, self.recorder = ray, cluster, progress, recorder
        self.waiting = [_everywhere(case) for case in reversed(cases)]
        self.total, self.done = len(cases), 0
        self.starting: dict[Any, Any] = {}
        self.given: dict[Any, tuple[Any, Case]] = {}
        self.deaths: dict[str, int] = {}
        self.failed_starts = 0
        self.failures: list[Failure] = []
        self.before = journals(cluster.out)
        self.heard = time.monotonic()
        count, cores = room_for(ray, cluster.workers, cluster.gpu)
        options = {"num_cpus": cores, "num_gpus": int(cluster.gpu), "max_restarts": 0, "max_task_retries": 0}
        self.new_worker: Callable[[], Any] = ray.remote(Worker).options(**options).remote
        self.count = min(count, self.total)

    def run(self) -> list[Failure]:
        for _ in range(self.count):
            self._start()
        while self.waiting or self.given:
            ready, _ = self.ray.wait([*self.given, *self.starting], num_returns=1, timeout=LOOK)
            for reference in ready:
                self.heard = time.monotonic()
                self._started(reference) if reference in self.starting else self._answered(reference)
            if not ready and not self.given:
                self._require_patience()
        return self.failures

    def _require_patience(self) -> None:
        patience = self.cluster.patience
        if time.monotonic() - self.heard > patience:
            raise VptError(
                f"--engine ray: no worker held the model after {patience:.0f} s; `ray status` says what the cluster "
                "has room for, and --device cpu needs no GPU of it"
            )

    def _start(self) -> None:
        worker = self.new_worker()
        self.starting[worker.load.remote(self.cluster.make)] = worker

    def _started(self, reference: Any) -> None:
        worker = self.starting.pop(reference)
        lives, _ = self._result(reference)
        if lives:
            self.failed_starts = 0
            self._give(worker)
            return
        self.failed_starts += 1
        if self.failed_starts >= STARTS:
            raise VptError(
                f"--engine ray: {self.failed_starts} workers on end died before they held the model; look for too "
                "little memory, or try fewer with --workers"
            )
        self._start()

    def _give(self, worker: Any) -> None:
        if self.waiting:
            case = self.waiting.pop()
            self.given[worker.answer.remote(case)] = worker, case

    def _answered(self, reference: Any) -> None:
        worker, case = self.given.pop(reference)
        lives, failures = self._result(reference)
        settled = lives or self._settled(case)
        self.failures += failures or []
        if settled:
            self.done += 1
            self.progress(self.done, self.total, case.name)
        if lives:
            self._give(worker)
        elif len(self.waiting) > len(self.starting):
            self._start()

    def _result(self, reference: Any) -> tuple[bool, Any]:
        """Whether the worker lives, and what it returned."""
        errors = self.ray.exceptions
        try:
            return True, self.ray.get(reference)
        except errors.RayTaskError as error:
            if isinstance(error.cause, VptError):
                raise error.cause from None
            raise VptError(f"--engine ray: a worker ended with {type(error.cause).__name__}: {error.cause}") from error
        except errors.RayError:  # the worker, or its machine
            return False, None

    def _settled(self, case: Case) -> bool:
        """Of a scan whose worker died: whether it is done, or failed for good; else it waits for another worker."""
        record = read_records(self.cluster.out, without=self.before).get(case.name)
        if record is not None and record.status == "done":
            return True
        deaths = self.deaths[case.name] = self.deaths.get(case.name, 0) + 1
        if deaths <= DEATHS:
            self.waiting.append(case)
            return False
        reason = f"{case.images[0]}: {deaths} workers died while they had it"
        failure = Failure(case.name, f"{reason}; look for too little memory, and try it alone")
        self.recorder.note_input(case)
        self.recorder.failed(case, failure)
        self.failures.append(failure)
        return True


@contextmanager
def _without_parts(out: Path) -> Iterator[None]:
    """In the end nothing is left of what workers were writing when they died."""
    try:
        yield
    finally:
        for folder, _, _ in os.walk(out):
            clear_parts(Path(folder))


def _everywhere(case: Case) -> Case:
    """The case with paths that do not depend on the folder that a process was started in."""
    return replace(case, images=tuple(path.absolute() for path in case.images))
