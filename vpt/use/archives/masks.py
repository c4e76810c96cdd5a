"""Many scans to masks: reading ahead and writing behind, in constant memory; a scan that fails stops no other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vpt.data.cases import Case
from vpt.data.framing import SLAB
from vpt.files import atomic, make_folder
from vpt.parallel import settled
from vpt.progress import Tick, silent
from vpt.readers import Form, Grid, Mask, reader_of
from vpt.scores.trust import Quality
from vpt.use.archives.attempts import Failure, attempt, one_ahead
from vpt.use.archives.beside import NOTHING, Beside, Pending
from vpt.use.prepared_scan import PreparedScan
from vpt.use.segmenter import Segmenter
from vpt.use.told_places import ToldPlaces


@dataclass(frozen=True)
class Answer:
    """A mask that is written. seconds: of reading, computing and writing it; voxels: of each label, by its name;
    quality: where it was asked for; task: of a model of several, whose labels it has.
    """

    path: Path
    seconds: float
    voxels: dict[str, int]
    voxel_ml: float | None
    warnings: tuple[str, ...]
    quality: Quality | None = None
    task: str = ""


Tell = Callable[[Case, Answer | Failure], None]


def never() -> bool:
    return False


@dataclass(frozen=True, eq=False)
class Masking:
    """How each scan becomes a mask in the file `target(case)`.

    box: where to look in a case, see `Segmenter.segment`; by default nothing is said. form: what masks are written as.
    force: see `Segmenter.segment`. beside: what is written beside each mask. say: is told the file and what reading it
    took: what was left out of a folder, resampled, doubted. unlike: given the file and the grid of a scan, says in what
    it is not like those of the training. writing: is called before anything of a case is written, in the thread that
    writes.
    """

    segmenter: Segmenter
    target: Callable[[Case], Path]
    box: Callable[[Case], Any] | None = None
    form: Form = "own"
    force: bool = False
    beside: Beside = NOTHING
    say: Callable[[str, str], None] | None = None
    unlike: Callable[[str, Grid], list[str]] | None = None
    writing: Callable[[], None] | None = None

    def prepare(self, case: Case) -> tuple[PreparedScan, float]:
        """The scan, and the seconds that it took."""
        started = time.perf_counter()
        return self.segmenter.prepare(case.scan, force=self.force), time.perf_counter() - started

    def segment(self, case: Case, scan: Callable[[], tuple[PreparedScan, float]], progress: Tick) -> Written:
        path, told, (prepared, seconds) = self.target(case), ToldPlaces(self.box and self.box(case)), scan()
        started = time.perf_counter()
        doubts = self.doubts(prepared)
        pending = self.beside.of(self.segmenter, prepared)
        labels = self.segmenter.labels_of(prepared, told, progress=progress, keep=pending.keep)
        pending.see(self.segmenter, prepared, labels)
        mask = self.segmenter.mask_of(prepared, labels, self.form)
        volume = prepared.grid.voxel_ml if prepared.reader.unit == "mm" else None
        counts = count_labels(labels, self.segmenter.labels)
        seconds += time.perf_counter() - started
        answer = Answer(path, seconds, counts, volume, (*doubts, *prepared.warned), pending.quality, prepared.task)
        return Written(answer, mask, pending, self.writing)

    def doubts(self, prepared: PreparedScan) -> list[str]:
        found, name = [*prepared.reader.doubts(), *prepared.reader.alone()], prepared.reader.name
        if self.say:
            for text in found:
                self.say(name, text)
        return [*found, *(self.unlike(name, prepared.grid) if self.unlike else ())]


@dataclass(frozen=True, eq=False)
class Written:
    """A mask that is to be written, and what lies beside it."""

    answer: Answer
    mask: Mask
    pending: Pending
    writing: Callable[[], None] | None = None

    def write(self) -> Answer:
        started, answer = time.perf_counter(), self.answer
        if self.writing:
            self.writing()
        self.pending.write(answer.path)
        save_labels(answer.path, self.mask)
        return replace(answer, seconds=answer.seconds + time.perf_counter() - started)


def segment_cases(
    masking: Masking,
    cases: Sequence[Case],
    progress: Tick = silent,
    *,
    before: Callable[[Case], None] | None = None,
    tell: Tell | None = None,
    stop: Callable[[], bool] = never,
) -> list[Failure]:
    """Segment every case into its file, each complete or absent; a scan that fails stops no other.

    While the encoder runs, a thread prepares the next scan and another writes the mask before, so that memory holds
    two scans at most. Failures and progress come in the order of the cases, a case's once its mask is written; of deep
    scans how far they are comes as well.

    Args:
        before: called with a case right before it is read, in the thread that reads.
        tell: called with every case and what became of it, in order.
        stop: asked before each scan; once it says so, the scans under way are finished and no other is begun.

    Raises:
        DiskFull: nothing more can be written; earlier masks are whole.
        VptError: see `vpt.parallel.settled`.
    """
    failures: list[Failure] = []

    def settle(done: int, written: Future[Answer] | Failure, writer: ThreadPoolExecutor) -> None:
        case = cases[done]
        found: Answer | Future[Answer] | Failure = written
        if isinstance(found, Future):
            found = attempt(case.name, case.images[0], settled(found, writer).result)
        if isinstance(found, Failure):
            failures.append(found)
        if tell:
            tell(case, found)
        progress(done + 1, len(cases), case.name)

    def prepare(case: Case) -> tuple[PreparedScan, float]:
        if before:
            before(case)
        return masking.prepare(case)

    with ThreadPoolExecutor(1, "vpt-write") as writer, closing(one_ahead(prepare, cases)) as scans:
        last: Future[Answer] | Failure | None = None
        done = 0
        for case, scan in zip(cases, scans, strict=True):
            if stop():
                break
            within = partial(_within, progress, done - 1 if last else 0, len(cases), case.name)
            found = attempt(case.name, case.images[0], partial(masking.segment, case, scan, within))
            if last:
                settle(done - 1, last, writer)
            last = found if isinstance(found, Failure) else writer.submit(found.write)
            done += 1
        if last:
            settle(done - 1, last, writer)
    return failures


def count_labels(labels: np.ndarray, names: dict[int, str]) -> dict[str, int]:
    """Voxels (X, Y, Z) of each label but the background, by its name, in memory that depends on no id."""
    parts = np.moveaxis(labels, -1, 0) if labels.ndim == 3 else [labels]
    found = {id: sum(int(np.count_nonzero(part == id)) for part in parts) for id in sorted(names) if id > 0}
    return {names[id]: count for id, count in found.items()}


def _within(progress: Tick, done: int, total: int, name: str, slices: int, depth: int, note: str) -> None:
    """Of a deep scan its slices as well: `done` of `total` scans, and how far the one called `name` is."""
    if slices % SLAB == 0 and slices < depth:
        progress(done, total, f"{name}, slice {slices} of {depth}")


def mask_file(folder: Path, case: Case, form: Form = "own") -> Path:
    """Where the mask of a case lies among others: a NIfTI, or a PNG if the case is an image."""
    return folder / f"{case.name}{reader_of(case.images).endings_as(form)[0]}"


def save_labels(path: Path, labels: Mask) -> None:
    make_folder(path.parent, "choose another output")
    with atomic(path) as part:
        reader_of(labels).write_mask(part, labels)
