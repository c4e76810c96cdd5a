"""What became of every scan: a journal that grows line by line, and the summaries that are made of it.

Each process appends to a journal of its own in `.journal/`, a line for each scan, on the disk before the next scan is
done. `predictions.json`, `predictions.csv` and `failures.json` are made of all journals there, whole or not at all; so
a kill loses no more than the scans that were under way. No name or text of a header stands in any of them.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from zlib import crc32

from pydantic import TypeAdapter

from vpt.errors import VptError
from vpt.files import holds_file, make_folder, require_own, write_json, write_text
from vpt.scores.trust import quality_csv
from vpt.versions import version_of

JOURNALS = ".journal"
SUMMARIES = ("predictions.json", "predictions.csv", "failures.json", "quality.csv")  # made of journals
CHECK = b',"crc32":'
MOMENT = 0.001  # seconds between two records
LONGEST_LINE = 1 << 24  # bytes; a record of 20,000 classes has 1 MB
QUOTED = re.compile(r"""(?<!\w)(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")(?!\w)""")
Status = Literal["done", "failed"]


@dataclass(frozen=True)
class Record:
    """One scan: what its answer is, or why there is none, and what decided it.

    case: its name in the output folder; files: names of its files, without their folders; output, beside: the mask and
    what was written beside it, by their paths in the output folder; size: of the mask's file, in bytes (0 before 0.6);
    seconds: of reading, computing and writing;
    volumes_ml, pixels: of each label, of a volume or of an image; probabilities: of each class; quality: see
    `vpt.scores.trust.described`; task: of a model that segments several, the one that was told or chosen; when: its
    end, UTC; order: seconds, greater than that of every record before it, also where the clock was set back meanwhile
    (0 before 0.6).
    """

    case: str
    status: Status
    files: tuple[str, ...]
    input_sha256: str
    model_sha256: str
    settings: str
    when: str
    seconds: float = 0.0
    output: str = ""
    volumes_ml: dict[str, float] = field(default_factory=dict)
    pixels: dict[str, int] = field(default_factory=dict)
    probabilities: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    reason: str = ""
    error: str = ""
    part: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    quality: dict[str, Any] = field(default_factory=dict)
    task: str = ""
    order: float = field(default=0.0, compare=False)
    beside: tuple[str, ...] = ()
    size: int = 0

    def as_line(self) -> bytes:
        """JSON with a CRC-32 of itself in its last key."""
        text = json.dumps(asdict(self), separators=(",", ":")).encode()
        return text[:-1] + CHECK + str(crc32(text)).encode() + b"}\n"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def versions() -> dict[str, str]:
    return {name: version_of(name) or "unknown" for name in ("vpt", "torch")}


def shown(text: str, files: Iterable[Path]) -> str:
    """A sentence for the record: files by their names alone, and nothing that is quoted from a header."""
    for path in sorted(files, key=lambda each: -len(str(each))):
        text = text.replace(str(path), path.name)
    return QUOTED.sub("'...'", text)


class Journal:
    """The lines of one process, in a file of its own, so that several can write into one folder."""

    def __init__(self, folder: Path):
        """folder: where the answers lie. Nothing is made yet."""
        self.folder = folder / JOURNALS
        self.path = self.folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}.jsonl"
        self._last: float | None = None  # the order of the last record; None before the first

    def add(self, records: Sequence[Record]) -> None:
        """Append, and wait until it is on the disk.

        Raises:
            VptError: the disk is full, or the folder gone.
        """
        make_folder(self.folder, "choose another output")
        try:
            lines = b"".join(replace(record, order=self._next()).as_line() for record in records)
            with open(self.path, "ab", buffering=0) as file:
                file.write(lines)
                os.fsync(file.fileno())
        except OSError as error:
            raise VptError(f"{self.path}: cannot be written ({error.strerror}); the mask itself is whole") from error

    def _next(self) -> float:
        """The time, or a moment after the last record here, and after the last write of those that others have left."""
        if self._last is None:
            self._last = max((path.stat().st_mtime for path in journals(self.folder.parent)), default=0.0)
        self._last = max(time.time(), self._last + MOMENT)
        return self._last


def is_recorded(folder: Path) -> bool:
    """Whether a batch has been begun in this folder."""
    return (folder / JOURNALS).is_dir()


def require_own_summaries(folder: Path) -> None:
    """Raises VptError where a batch would replace what is called as its summaries, though none was begun there."""
    if is_recorded(folder):
        return
    for file in (folder / name for name in SUMMARIES):
        if holds_file(file):
            raise VptError(
                f"{file}: not of a batch of `vpt predict`, which would replace it; move it, add --overwrite, or choose "
                "another output"
            )


def answers_in(folder: Path) -> list[Path]:
    """The masks that batches have written into this folder, as their records say, whether or not they lie there."""
    found: dict[str, Record] = {}
    with suppress(OSError):  # somebody else's, who shows them to nobody
        found = read_records(folder) if is_recorded(folder) else {}
    return [folder / record.output for record in found.values() if record.output]


def begin(folder: Path) -> None:
    make_folder(folder / JOURNALS, "choose another output")


def place_of(folder: Path) -> tuple[int, int] | None:
    """Device and number of a folder's journals: of a folder that was put in its place they are others; None of none."""
    try:
        found = (folder / JOURNALS).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def journals(folder: Path) -> frozenset[Path]:
    """The journals that have been begun in this folder."""
    return frozenset((folder / JOURNALS).glob("*.jsonl"))


def read_records(folder: Path, without: frozenset[Path] = frozenset()) -> dict[str, Record]:
    """The last record of every case, of all journals of a folder but these, by name.

    A line that is cut off, as a kill leaves it, or damaged is none: its scan counts as not done.
    """
    found: dict[str, Record] = {}
    for path in sorted(journals(folder) - without):
        with open(path, "rb") as file:
            for record in filter(None, map(_record, iter(lambda: file.readline(LONGEST_LINE), b""))):
                before = found.get(record.case)
                if before is None or (before.order, before.when) <= (record.order, record.when):
                    found[record.case] = record
    return dict(sorted(found.items()))


RECORD: TypeAdapter[Record] = TypeAdapter(Record)


def _record(line: bytes) -> Record | None:
    """Lines of versions before 0.6 have no CRC-32."""
    text, check, crc = line.rstrip().rpartition(CHECK)
    if check and crc != b"%d}" % crc32(text + b"}"):
        return None
    try:
        record = RECORD.validate_python(json.loads(line))
        json.loads(record.settings)
    except (ValueError, RecursionError):  # of pydantic, too
        return None
    return record


# --- summaries --------------------------------------------------------------------------------------------------------


def summarise(folder: Path, table: Callable[[Mapping[str, Record]], None] | None = None) -> None:
    """Write what all journals of a folder say, one process at a time.

    table: writes predictions.csv, by default a row a case.
    """
    from filelock import FileLock

    with FileLock(folder / JOURNALS / "summary.lock"):
        records = read_records(folder)
        ordered = sorted(records.values(), key=lambda record: (record.status != "failed", record.case))
        failed = [record for record in ordered if record.status == "failed"]
        write_json(folder / "predictions.json", _summary(ordered))
        write_json(folder / "failures.json", {record.case: _failure(record) for record in failed})
        if table:
            table(records)
        else:
            write_text(folder / "predictions.csv", _csv(ordered))
        if judged := {record.case: record.quality for record in ordered if record.quality}:
            write_text(folder / "quality.csv", quality_csv(judged))
        else:
            (folder / "quality.csv").unlink(missing_ok=True)  # of answers that were replaced


def _summary(records: Sequence[Record]) -> dict[str, Any]:
    return {
        "written": now(),
        "counts": dict(sorted(Counter(record.status for record in records).items())),
        "seconds": round(sum(record.seconds for record in records), 3),
        "cases": [_filled(record) for record in records],
    }


def _filled(record: Record) -> dict[str, Any]:
    """A record's fields without empty ones, and without what the next batch alone asks for."""
    said = asdict(record)
    del said["order"], said["size"]
    values = {name: value for name, value in said.items() if value not in ("", (), {}, [])}
    return values | {"settings": json.loads(record.settings)}


def _failure(record: Record) -> dict[str, Any]:
    return {"reason": record.reason, "error": record.error, "files": list(record.files), "when": record.when}


def _csv(records: Sequence[Record]) -> str:
    """A row a case, what failed first: its labels' volumes (ml, or pixels), and why."""
    labels = list(dict.fromkeys(name for record in records for name in _sizes(record)))
    tasks = ["task"] if any(record.task for record in records) else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    ends = ("seconds", "output", "warnings", "reason", "when", "input_sha256", "model_sha256")
    writer.writerow(["case", "status", *tasks, *labels, *ends])
    for record in records:
        sizes = _sizes(record)
        row = [f"{record.seconds:.3f}", record.output, " | ".join(record.warnings), record.reason, record.when]
        marks = [record.input_sha256[:16], record.model_sha256[:16]]
        whose = [record.task] if tasks else []
        writer.writerow([record.case, record.status, *whose, *(sizes.get(name, "") for name in labels), *row, *marks])
    return text.getvalue()


def _sizes(record: Record) -> Mapping[str, float]:
    ml = {f"{name} (ml)": value for name, value in record.volumes_ml.items()}
    return ml | {f"{name} (pixels)": value for name, value in record.pixels.items()}


class Log:
    """`log.txt`: what a person reads of a batch, line by line with times."""

    def __init__(self, folder: Path):
        self.path = folder / "log.txt"

    def add(self, *lines: str) -> None:
        """Raises VptError where it cannot be written, or a link or a pipe stands in its place."""
        stamp = datetime.now().astimezone().isoformat(timespec="seconds")
        require_own(self.path)
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write("".join(f"{stamp} [{os.getpid()}] {line}\n" for line in lines))
        except OSError as error:
            raise VptError(f"{self.path}: cannot be written ({error.strerror}); what was answered is whole") from error
