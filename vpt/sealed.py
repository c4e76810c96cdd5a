"""Results as JSON with a checksum of themselves: what took a night is read again whole, or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from vpt.errors import VptError
from vpt.files import as_json, read_json, write_json

SEAL = "sha256"


def write_sealed(path: str | Path, values: Mapping[str, Any]) -> None:
    """An object of JSON, with the SHA-256 of the rest in its last key."""
    kept = json.loads(as_json(values))
    write_json(path, kept | {SEAL: _seal(kept)})


def read_sealed(path: str | Path) -> dict[str, Any]:
    """The object, without its checksum; one that has none is of a version before 0.6.

    Raises:
        VptError: no such file, or what is in it is not what was written.
    """
    damaged = VptError(f"{path}: damaged: not what was written; remove it, and the same command makes it again")
    try:
        values = read_json(path)
    except VptError as error:
        raise (damaged if Path(path).is_file() else error) from error
    whole = isinstance(values, dict)
    if whole and SEAL in values:
        whole = values.pop(SEAL) == _seal(values)
    if not whole:
        raise damaged
    found: dict[str, Any] = values
    return found


def _seal(values: Mapping[str, Any]) -> str:
    return sha256(as_json(values).encode()).hexdigest()
