"""Whether a folder of many trainings goes on with the data that its first results are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from itertools import islice
from pathlib import Path

from filelock import FileLock, Timeout

from vpt.data.cases import Case, SegmentationSet
from vpt.data.file_marks import marks_of
from vpt.data.labelled import Example, LabelledSet
from vpt.data.splits import Splits
from vpt.errors import VptError
from vpt.sealed import read_sealed, write_sealed
from vpt.words import listed

DATA = "data.json"  # in the folder: of the cases that its results are of
LABELS = "the set of labels"


def marks_of_data(dataset: SegmentationSet | LabelledSet, splits: Sequence[Splits]) -> dict[str, str]:
    """Case -> what changes with its side in each of the splits, with what it shows, and with its files.

    Cases on no side have none. The set of labels has a mark of its own.
    """
    sides: dict[str, list[str]] = {}
    for number, split in enumerate(splits):
        for side, names in split.to_dict().items():
            for name in names:
                sides.setdefault(name, []).append(f"{number} {side}")
    said = {LABELS: str(sorted(dataset.labels.items()))}
    files: dict[str, list[Path]] = {LABELS: []}
    for name, stands in sides.items():
        case = dataset.case(name)
        files[name] = files_of(case)
        said[name] = f"{stands} {_shown(dataset, case)}"
        if not files[name]:  # its pixels are in the one file of all
            files[dataset.source.name], said[dataset.source.name] = [dataset.source], ""
    return marks_of_cases(said, files)


def files_of(case: Case | Example) -> list[Path]:
    """All that it is read from; an array in memory has none."""
    return [file for file in (case.files if isinstance(case, Case) else case.images) if isinstance(file, Path)]


def _shown(dataset: SegmentationSet | LabelledSet, case: Case | Example) -> str:
    """The classes of an example, and the labels that somebody has looked for."""
    looked = None if case.annotated is None else sorted(case.annotated)
    return f"{[dataset.labels[k] for k in case.target] if isinstance(case, Example) else ''} {looked}"


def marks_of_cases(said: Mapping[str, str], files: Mapping[str, Sequence[Path]]) -> dict[str, str]:
    """Name -> what changes with what is said of it, and with its files (`vpt.data.file_marks.marks_of`)."""
    marks = iter(marks_of([path for paths in files.values() for path in paths]))
    return {name: _digest([said[name], *islice(marks, len(paths))]) for name, paths in files.items()}


def _digest(parts: Sequence[str]) -> str:
    return sha256("\n".join(parts).encode()).hexdigest()[:16]


def require_same_data(out: Path, marks: Mapping[str, str]) -> None:
    """Raise VptError where the folder's results are of other data, with the names of what changed."""
    known = _known(out)
    changed = [name for name in {**known, **marks} if known.get(name) != marks.get(name)]
    if known and changed:
        changed.sort(key=lambda name: (name in known and name in marks, name))  # what came or went moves the others
        raise VptError(
            f"{out}: was begun with other data than these: {listed(changed, 3)} changed since; choose another --out, "
            "or put the data back"
        )


def is_same_data(out: Path, marks: Mapping[str, str]) -> bool:
    """Whether the folder's results are of these data, or of what nobody knows."""
    return (_known(out) or marks) == marks


def _known(out: Path) -> dict[str, str]:
    """The marks that were kept; of results that have none, as versions before 0.6 left them, {}."""
    return dict(read_sealed(out / DATA).get("cases", {})) if (out / DATA).is_file() else {}


def is_at_work(out: Path) -> bool:
    """Whether a process trains in a folder whose trainings have a lock each beside them."""
    for path in (*out.glob("[!.]*.lock"), *out.glob("*/[!.]*.lock")):
        try:
            with FileLock(path, timeout=0):
                pass
        except Timeout:
            return True
    return False


def keep_marks(out: Path, marks: Mapping[str, str]) -> None:
    write_sealed(out / DATA, {"cases": marks})
