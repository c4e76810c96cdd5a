"""What decides an answer, as hashes: the scan's files, the model, and the settings that change masks."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from vpt.data.cases import Case
from vpt.errors import VptError
from vpt.files import file_sha256
from vpt.readers import reader_of

Made = TypeVar("Made")

TRIES = 3


@dataclass(frozen=True)
class ModelMark:
    """The models of a batch by the SHA-256 of their files, and what they are asked for; the same mark, the same masks.

    name: how to call them; settings: those that change an answer; artifacts: the files.
    """

    name: str
    sha256: str
    settings: str
    artifacts: tuple[Path, ...] = ()

    @classmethod
    def of(cls, artifacts: Sequence[Path], settings: Mapping[str, Any], each: Sequence[str] = ()) -> ModelMark:
        """each: the SHA-256 of every artifact, where they are known."""
        each = each or [file_sha256(path) for path in artifacts]
        whole = each[0] if len(each) == 1 else hashlib.sha256("\n".join(each).encode()).hexdigest()
        name = ", ".join("/".join(path.resolve().parts[-2:]) for path in artifacts)
        return cls(name, whole, json.dumps(dict(sorted(settings.items()))), tuple(artifacts))


def loaded_whole(artifacts: Sequence[Path], load: Callable[[], Made]) -> tuple[Made, list[str]]:
    """What `load` makes of artifacts, and the SHA-256 of each that it has read: where a training replaces one
    meanwhile, as it does at the end of an epoch, it is loaded once more.

    Raises:
        VptError: what `load` raises; a file that was replaced every time.
    """
    for _ in range(TRIES):
        before = [file_sha256(path) for path in artifacts]
        made = load()
        after = [file_sha256(path) for path in artifacts]
        if before == after:
            return made, before
    changed = next(path for path, a, b in zip(artifacts, before, after, strict=True) if a != b)
    raise VptError(
        f"{changed}: was replaced {TRIES} times while it was loaded; wait until what writes it is at its end, or "
        "give a copy"
    )


def scan_sha256(case: Case) -> str:
    """SHA-256 over the bytes of all files of a scan; of several, or of a folder, over their names in it as well.

    Raises:
        VptError: a file cannot be read.
    """
    files = list(_files_of(case))
    try:
        if len(files) == 1:
            return file_sha256(files[0][1])
        lines = (f"{name}\0{file_sha256(path)}" for name, path in files)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
    except OSError as error:
        raise VptError(f"{error.filename}: cannot be read ({error.strerror}); copy it again") from error


def snapshot(case: Case) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of change of every file of a scan; () where one is gone."""
    try:
        found = [(name, path.stat()) for name, path in _files_of(case)]
    except OSError:
        return ()
    return tuple((name, state.st_size, state.st_mtime_ns) for name, state in found)


def _files_of(case: Case) -> Iterator[tuple[str, Path]]:
    """Every file that a scan is read from, by its name without the folder that the scan lies in, sorted."""
    for path in reader_of(case.scan).files() or case.images:
        if path.is_dir():
            below = sorted(Path(above) / name for above, _, names in os.walk(path) for name in names)
            yield from ((file.relative_to(path).as_posix(), file) for file in below)
        elif path.is_file():
            yield path.name, path
