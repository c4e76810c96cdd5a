"""Limits of quality lie beside the artifact that they are of: `vpt evaluate` chooses them, `vpt predict` finds them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from vpt.data.cases import Case
from vpt.errors import VptError
from vpt.files import file_sha256, read_json, write_json
from vpt.progress import Tick, silent
from vpt.scores.plain import plain
from vpt.scores.trust import Limits, Quality, choose_limits
from vpt.use.segmenter import Segmenter


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
    write_json(artifacts[0].parent / _name(artifacts, tta), plain(limits))
    return limits


def find_limits(artifacts: Sequence[Path], tta: bool) -> Limits | None:
    """Those of these artifacts together, in any order, beside one of them; None where none were chosen.

    Raises:
        VptError: a file that holds none.
    """
    name = _name(artifacts, tta)
    path = next((path for artifact in artifacts if (path := artifact.parent / name).is_file()), None)
    if path is None:
        return None
    try:
        return TypeAdapter(Limits).validate_python(read_json(path))
    except ValidationError as error:
        raise VptError(f"{path}: holds no limits; choose them again with `vpt evaluate --quality`") from error


def _name(artifacts: Sequence[Path], tta: bool) -> str:
    """Of the content of the files, whatever their places and order; mirror images have limits of their own."""
    hashes = sorted(file_sha256(path) for path in artifacts)
    return f"quality-{hashlib.sha256(' '.join(hashes).encode()).hexdigest()[:12]}{'-tta' if tta else ''}.json"
