"""Writes that are complete or absent: temporary file beside the target, fsync, rename."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vpt.errors import VptError

if TYPE_CHECKING:
    from torch import Tensor


def make_folder(path: Path, instead: str) -> None:
    """Make a folder and those above it; raises VptError where it cannot, `instead` says what else to do."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VptError(f"{path}: cannot be made a folder ({error.strerror}); {instead}") from error


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the target's folder; on success it becomes `path`, on failure nothing is left.

    The temporary name keeps the target's whole ending (`.nii.gz`), because writers choose the format by it.

    Raises VptError when the folder is missing or not writable, or the disk is full; the old file is then untouched.
    """
    path = Path(path)
    part = path.with_name(f".part-{os.getpid()}-{path.name}")
    try:
        part.touch()
        mode = part.stat().st_mode  # what the umask allows; some writers would leave a file that others cannot read
        part.unlink()
        yield part
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(part, mode)
        os.replace(part, path)
    except OSError as error:
        raise VptError(
            f"{path}: cannot be written ({error.strerror or error}); free space or choose another folder, "
            "nothing was left half-written"
        ) from error
    finally:
        with suppress(OSError):
            part.unlink()


def write_text(path: str | Path, text: str) -> None:
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


def write_tensors(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """A safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with atomic(path) as part:
        try:
            save_file(tensors, part, metadata=metadata)
        except SafetensorError as error:  # also for a full disk
            raise OSError(str(error)) from error


def write_json(path: str | Path, value: Any) -> None:
    write_text(path, as_json(value) + "\n")


def as_json(value: Any) -> str:
    """JSON with two spaces of indent; NaN becomes null, because strict JSON readers refuse NaN."""
    return json.dumps(_finite(value), indent=2, allow_nan=False)


def read_json(path: str | Path) -> Any:
    """What a JSON file holds; raises VptError when it is missing, or with the place of a mistake."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise VptError(
            f"{path}: not valid JSON at line {error.lineno}, column {error.colno} ({error.msg}); correct it there"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise VptError(f"{path}: cannot be read as UTF-8 text ({error}); save it again as JSON") from error


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
