"""A batch: what is asked of it, what of an archive is done already, and the record of what becomes of every scan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vpt.data.cases import Case
from vpt.errors import VptError
from vpt.files import is_no_space
from vpt.progress import Tick
from vpt.readers import Form, reader_of
from vpt.scores.trust import described
from vpt.use.archives.attempts import Failure, FolderGone
from vpt.use.archives.beside import EVERYTHING, NOTHING, Beside
from vpt.use.archives.fingerprints import ModelMark, scan_sha256
from vpt.use.archives.masks import Answer
from vpt.use.archives.parts import ALONE, Part
from vpt.use.archives.records import (
    Journal,
    Log,
    Record,
    Status,
    begin,
    is_recorded,
    now,
    place_of,
    read_records,
    shown,
    versions,
)
from vpt.words import counted

Existing = Literal["refuse", "overwrite", "skip", "continue"]
"""What to do with answers that are there already; `continue`: those of the same scan and model stand."""


@dataclass(frozen=True)
class Asked:
    """What a batch is asked for; series, recursive: see `find_archive`; force: see `Segmenter.segment`.

    skip_failed: of what failed before and is unchanged, only say so.
    """

    series: str | None = None
    recursive: bool = False
    form: Form = "own"
    force: bool = False
    existing: Existing = "refuse"
    skip_failed: bool = False
    beside: Beside = NOTHING
    part: Part = ALONE


@dataclass(frozen=True)
class Outcome:
    """What became of `total` scans. before: done in an earlier batch and unchanged; doubts: of headers."""

    verb: str
    total: int
    out: Path
    failures: list[Failure]
    before: int = 0
    doubts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def answered(self) -> int:
        return self.total - len(self.failures)


@dataclass(frozen=True)
class Sorted:
    """Cases by what an earlier batch made of them: nothing that still holds, an answer, a failure."""

    todo: list[Case]
    done: list[Case]
    failed: list[Failure]


class Recorder:
    """Writes what becomes of every scan into the record of a folder."""

    def __init__(self, folder: Path, mark: ModelMark, part: Part = ALONE, beside: Beside = NOTHING):
        self.folder, self.mark, self.part, self.beside = folder, mark, part, beside
        self.journal, self.log = Journal(folder), Log(folder)
        self.known = read_records(folder) if is_recorded(folder) else {}
        self.hashes: dict[str, str] = {}
        self.place = place_of(folder)

    def begin(self, scans: int) -> None:
        begin(self.folder)
        self.place = place_of(self.folder)
        made = ", ".join(f"{name} {number}" for name, number in versions().items())
        part = f", {self.part} ({self.part.by})" if self.part.by else ""
        self.log.add(f"begin: {counted(scans, 'scan')}{part}; {self.mark.name} {self.mark.sha256[:16]}; {made}")

    def end(self, outcome: str) -> None:
        self.log.add(f"end: {outcome}")

    def note_input(self, case: Case) -> None:
        """Before a scan is read: what its files hold.

        Raises:
            VptError: a file that cannot be read, a folder that is gone.
        """
        self._require_place()
        self.hashes[case.name] = scan_sha256(case)

    def sort(self, cases: Iterable[Case], files: Callable[[Case], list[Path]], skip_failed: bool) -> Sorted:
        """files: what an answer consists of, all of which must be there."""
        found = Sorted([], [], [])
        for case in cases:
            record = self.known.get(case.name)
            if record is None or not self._holds(record, case):
                found.todo.append(case)
            elif record.status == "done" and _stands(record, files(case)):
                found.done.append(case)
            elif record.status == "failed" and skip_failed:
                found.failed.append(Failure(case.name, f"{record.reason} (on {record.when[:10]}, unchanged)"))
            else:
                found.todo.append(case)
        return found

    def _holds(self, record: Record, case: Case) -> bool:
        if (record.model_sha256, record.settings) != (self.mark.sha256, self.mark.settings):
            return False
        if record.status == "done" and not self.beside.holds(record.quality):
            return False
        return record.input_sha256 == _hash_of(case)

    def failed(self, case: Case, failure: Failure) -> None:
        reason = shown(failure.reason, case.images)
        self._add(self._record(case, "failed", reason=reason, error=failure.error))
        self.log.add(f"failed {case.name}: {reason}", *(f"    {frame}" for frame in failure.trace))

    def unreadable(self, failure: Failure) -> None:
        """Files that cannot be put together to a scan."""
        self.failed(Case(failure.name, (Path(failure.reason.partition(": ")[0]),), None), failure)

    def answered(self, case: Case, answer: Answer) -> None:
        sizes = answer.voxels if answer.voxel_ml is None else {}
        volumes = (
            {}
            if answer.voxel_ml is None
            else {name: round(count * answer.voxel_ml, 4) for name, count in answer.voxels.items()}
        )
        record = self._record(
            case,
            "done",
            seconds=round(answer.seconds, 3),
            output=answer.path.relative_to(self.folder).as_posix(),
            size=answer.path.stat().st_size,
            beside=tuple(path.relative_to(self.folder).as_posix() for path in self.beside.files(answer.path)),
            volumes_ml=volumes,
            pixels=sizes,
            warnings=tuple(shown(text, case.images) for text in answer.warnings),
            quality=described(answer.quality, self.beside.limits) if answer.quality else {},
            task=answer.task,
        )
        self._add(record)
        self._remove_earlier(record)
        self.log.add(f"done {case.name} in {answer.seconds:.2f} s", *(f"    {text}" for text in record.warnings))

    def _remove_earlier(self, record: Record) -> None:
        """What an earlier answer had beside its mask, which is replaced, and this one has not."""
        earlier = self.known.get(record.case)
        for path in EVERYTHING.files(self.folder / record.output) if earlier else ():
            name = path.relative_to(self.folder).as_posix()
            if earlier and name in earlier.beside and name not in record.beside:
                path.unlink(missing_ok=True)

    def classified(self, found: Sequence[tuple[Case, dict[str, float], tuple[str, ...]]], seconds: float) -> None:
        """Cases, the probabilities of their classes, and what is doubted of them; seconds: of each."""
        records = [
            self._record(
                case,
                "done",
                seconds=round(seconds, 4),
                probabilities=probabilities,
                warnings=tuple(shown(text, case.images) for text in doubts),
            )
            for case, probabilities, doubts in found
        ]
        self._add(*records)
        self.log.add(*(f"done {record.case}" for record in records))

    def _record(self, case: Case, status: Status, **values: object) -> Record:
        return Record(
            case=case.name,
            status=status,
            files=tuple(path.name for path in case.images),
            input_sha256=self.hashes.pop(case.name, ""),
            model_sha256=self.mark.sha256,
            settings=self.mark.settings,
            when=now(),
            part=str(self.part) if self.part.by else "",
            versions=versions(),
            **values,  # type: ignore[arg-type]
        )

    def _add(self, *records: Record) -> None:
        self._require_place()
        self.journal.add(records)

    def _require_place(self) -> None:
        if self.place is not None and place_of(self.folder) != self.place:
            raise FolderGone(
                f"{self.folder}: is not any more the folder that this batch began in (was it moved, or is its share "
                "gone?), so it ends; put it back and go on with --continue"
            )


Spread = Callable[[Sequence[Case], Tick, Recorder], list[Failure]]
"""Answers and records cases elsewhere, as `vpt.use.archives.with_ray.Cluster` does -> those that failed."""


@contextmanager
def summed_up(sum_up: Callable[[], None]) -> Iterator[None]:
    """`sum_up` follows, also where a batch breaks off, unless the disk is full or the folder gone: then the next batch
    does it.
    """
    try:
        yield
    except BaseException as error:
        if not is_no_space(error) and not isinstance(error, FolderGone):
            sum_up()
        raise
    sum_up()


def _stands(record: Record, files: Sequence[Path]) -> bool:
    """Whether an answer lies there, the mask first: one of another size than was written must be whole, since it may
    have been corrected by hand since, or cut off by a copy.
    """
    if not all(file.exists() for file in files):
        return False
    if not (files and record.size) or files[0].stat().st_size == record.size:
        return True
    reader = reader_of(files[0])
    for read in (reader.labels, lambda: reader.voxels(1)):  # the second: where values between ids were drawn
        with suppress(VptError):
            read()
            return True
    return False


def _hash_of(case: Case) -> str | None:
    try:
        return scan_sha256(case)
    except VptError:  # reading it will say why
        return None
