"""A drop folder: scans are answered once their files have come to rest, and recorded, so that a restart goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from vpt.data.cases import Case
from vpt.errors import VptError
from vpt.files import clear_parts_beside, make_folder, real
from vpt.progress import Tick, silent
from vpt.use.archives.batches import Batch
from vpt.use.archives.finding import find_archive
from vpt.use.archives.fingerprints import snapshot
from vpt.use.archives.outputs import require_own_places
from vpt.use.archives.records import begin, is_recorded
from vpt.use.classifier import Classifier
from vpt.use.segmenter import Segmenter

Snapshot = tuple[tuple[str, int, int], ...]


class Resting:
    """Which scans have come to rest: the names, sizes and times of all their files are the same for some seconds."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic):
        self.seconds, self.clock = seconds, clock
        self.seen: dict[str, tuple[Snapshot, float]] = {}

    def snapshot_of(self, case: Case) -> Snapshot:
        """The snapshot of a scan whose files are at rest, else ()."""
        now, found = self.clock(), snapshot(case)
        before, since = self.seen.get(case.name, ((), now))
        if found != before:
            since = now
        self.seen[case.name] = (found, since)
        return found if now - since >= self.seconds else ()


class Watch:
    """Looks at a folder again and again; what is new or changed and has come to rest is answered."""

    def __init__(
        self,
        folder: Path,
        out: Path,
        model: Segmenter | Classifier,
        batch: Batch,
        resting: Resting,
        say: Callable[[str], None] = print,
    ):
        self.folder, self.out, self.model, self.batch, self.resting, self.say = folder, out, model, batch, resting, say
        self.handled: dict[str, Snapshot] = {}
        self.told: set[str] = set()
        self.gone = False

    def run(self, stop: Callable[[], bool], wait: Callable[[], object]) -> None:
        """Until `stop` says so, which is asked before every scan; `wait` lies between two looks.

        Raises:
            VptError: another process watches for the same output, or that is the folder itself, or holds other files; a
                full disk.
        """
        _require_own(self.out)
        if real(self.out) == real(self.folder):
            raise VptError(f"{self.out}: masks would lie among the scans that they are of; choose another output")
        begin(self.out)
        try:
            with FileLock(self.out / ".journal" / "watch.lock", timeout=0):
                self.batch.recorder.begin(0)
                while not stop():
                    self.look(stop)
                    if not stop():
                        wait()
                self.batch.recorder.end("no longer watching")
        except Timeout as error:
            raise VptError(f"{self.out}: another `vpt watch` writes here; stop it, or choose another output") from error

    def look(self, stop: Callable[[], bool], progress: Tick = silent) -> int:
        """Answer what has come to rest since the last look -> how many scans that were."""
        new = [(case, found) for case in self._cases() if (found := self._at_rest(case))]
        todo = self.batch.recorder.sort([case for case, _ in new], self.batch.files, skip_failed=True).todo
        clear_parts_beside(file for case in todo for file in self.batch.files(case))
        failures = self.batch.run(todo, progress, stop) if todo else []
        self.handled.update({case.name: found for case, found in new})
        if todo:
            self.batch.sum_up()
            self.say(f"{len(todo) - len(failures)} of {len(todo)} new scans answered: {self.out}")
        for failure in failures:
            self.say(f"failed: {failure.reason}")
        return len(todo)

    def _at_rest(self, case: Case) -> Snapshot:
        """The snapshot of a scan that is to be looked at, else ()."""
        found = self.resting.snapshot_of(case)
        return () if found == self.handled.get(case.name) else found

    def _cases(self) -> tuple[Case, ...]:
        plan, asked = self.model.plan, self.batch.asked
        try:
            found = find_archive([self.folder], plan.kind, plan.channels, self.out, asked.series, asked.recursive)
            require_own_places({case.name: self.batch.files(case) for case in found.cases}, found.files, self.out)
        except (VptError, OSError) as error:  # nothing there yet, or the folder's share is gone for a while
            self._tell(str(error))
            self.gone = not self.folder.is_dir()
            return ()
        if self.gone:
            self.gone = False
            self.told.clear()
            self.say(f"{self.folder}: is there again")
        for text in (*found.notes, *(f"waits: {failure.reason}" for failure in found.failures)):
            self._tell(text)
        return found.cases

    def _tell(self, text: str) -> None:
        """Once."""
        if text not in self.told:
            self.told.add(text)
            self.say(text)


def _require_own(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()) and not is_recorded(out):
        raise VptError(f"{out}: holds files, but no record of vpt; choose an empty folder as the output")
    make_folder(out, "choose another output")
