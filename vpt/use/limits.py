"""Limits of quality lie beside the artifact that they are of: `vpt evaluate` chooses them, `vpt predict` finds them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from vpt.artifact import read_artifact
from vpt.artifact_tasks import tasks_of
from vpt.config.start import StartConfig
from vpt.data.cases import Case
from vpt.errors import VptError
from vpt.files import file_sha256, read_json, write_json
from vpt.progress import Tick, silent
from vpt.scores.plain import plain
from vpt.scores.trust import Limits, Quality, choose_limits
from vpt.use.segmenter import Segmenter

MOVED = "moved"  # in the place of a hash: a task whose prompts a later one has trained on


def require_different(artifacts: Sequence[Path]) -> None:
    """Raise VptError where a model is among them twice: it agrees with itself whatever it says."""
    seen: dict[str, Path] = {}
    for path in artifacts:
        first = seen.setdefault(file_sha256(path), path)
        if first is not path:
            raise VptError(f"{path}: the same model as {first}, which agrees with itself; give each once for --quality")


def judge(segmenter: Segmenter, cases: Sequence[Case], progress: Tick = silent) -> list[Quality]:
    """The quality of each case; nothing is written, and no truth is looked at."""
    found = []
    for done, case in enumerate(cases, start=1):
        found.append(segmenter.judged(segmenter.prepare(case.scan, force=True))[1])
        progress(done, len(cases), f"{case.name}, for the limits")
    return found


def keep_limits(artifacts: Sequence[Path], tta: bool, qualities: Sequence[Quality]) -> Limits | None:
    """Choose limits by validation cases, and write them beside the first of the artifacts; None without any case."""
    if not qualities:
        return None
    limits = choose_limits(qualities)
    write_json(artifacts[0].parent / _name([file_sha256(path) for path in artifacts], tta), plain(limits))
    return limits


def find_limits(artifacts: Sequence[Path], tta: bool, task: str | None = None) -> Limits | None:
    """The limits of these artifacts together, in any order, beside one of them; None where none were chosen.

    task: of the one artifact that has learned several, the one that all scans are of, whose limits are those of the run
    that learned it; they lie beside that one, or beside the artifact.

    Raises:
        VptError: a file that holds none.
    """
    learned = [_learned(path, task) for path in artifacts]
    name = _name([digest for digest, _ in learned], tta)
    places = [*(path.parent for _, path in learned), *(path.parent for path in artifacts)]
    path = next((path for place in places if (path := place / name).is_file()), None)
    if path is None:
        return None
    try:
        return TypeAdapter(Limits).validate_python(read_json(path))
    except ValidationError as error:
        raise VptError(f"{path}: holds no limits; choose them again with `vpt evaluate --quality`") from error


def places_of_limits(artifacts: Sequence[Path], task: str | None) -> list[Path]:
    """The folders of the runs whose limits `find_limits` looks for, those that have some."""
    return [path.parent for digest, path in (_learned(each, task) for each in artifacts) if digest != MOVED]


def _learned(path: Path, task: str | None) -> tuple[str, Path]:
    """The SHA-256 and the place of the artifact that answers for a task, or for that of `path` itself.

    A task that a later one was added to is answered as its own artifact does, of which the later one knows the SHA-256;
    not where the later one trained its prompts on.
    """
    later: list[StartConfig] = []
    if task is not None:
        learned = tasks_of(read_artifact(path))
        later = [each.config.start for each in list(learned.values())[list(learned).index(task) + 1 :]]
    if not later or later[0].path is None:
        return file_sha256(path), path
    return MOVED if any(start.shared for start in later) else str(later[0].sha256), later[0].path


def _name(hashes: Sequence[str], tta: bool) -> str:
    """The file's name, by the content of the artifacts in any order; mirror images have limits of their own."""
    return f"quality-{hashlib.sha256(' '.join(sorted(hashes)).encode()).hexdigest()[:12]}{'-tta' if tta else ''}.json"
