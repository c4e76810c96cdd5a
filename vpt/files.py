"""Writes that are complete or absent: temporary file beside the target, fsync, rename."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal
from unicodedata import normalize

from vpt.errors import VptError

LONGEST_JSON = 256 << 20  # bytes
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
ENCODING = sys.getfilesystemencoding()
NO_TEXT = (
    "its name is not UTF-8"
    if ENCODING == "utf-8"
    else f"its name is beyond the encoding of this system, {ENCODING} (PYTHONUTF8=1 mends it)"
)
SYSTEM = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "lost+found"}
PART = re.compile(r"\.part-(?:([0-9a-f]{6})-)?(\d{1,9})-")  # of a write that goes on, or was killed

NOT_FETCHED: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a pointer of Git LFS and not the file itself; get it with `git lfs pull`"),
    (b"<!doctype html", "a web page, as a failed download leaves it; download the file again"),
    (b"<html", "a web page, as a failed download leaves it; download the file again"),
)  # by how such a file starts, in small letters


def is_address(given: str) -> bool:
    """Whether opening what is called so may reach another machine: an URL, a name on a hub, a share (`//host/x`)."""
    return "://" in given or given.startswith(("\\\\", "//", "hf-hub:", "hf_hub:", "file:", "http:", "https:"))


def absolute(path: Path) -> Path:
    """With the home folder in place of `~`, and links followed; a share on another machine is left as it is written.

    Raises:
        ValueError: a user's folder that is not known, a name that no file can have, links that lead in circles.
    """
    if is_address(str(path)):
        return path
    if not is_text(str(path)):
        raise ValueError(f"no place of a file ({NO_TEXT})")
    try:
        return path.expanduser().resolve()
    except (RuntimeError, OSError) as error:
        raise ValueError(f"no place of a file ({error})") from error


def real(path: Path) -> Path:
    """With links followed; one that leads in a circle stays as it is (`Path.resolve` raises RuntimeError there)."""
    return Path(os.path.realpath(path))


def is_hidden(path: Path) -> bool:
    """Whether a file or folder is the system's own: hidden, or thumbnails and bins that one leaves in every folder."""
    return path.name.startswith(".") or path.name.lower() in SYSTEM


def may_enter(folder: Path) -> bool:
    """Whether the system lets this process see what a folder holds."""
    return os.access(folder, os.R_OK | os.X_OK)


def folders_below(folder: Path) -> Iterator[Path]:
    """Every folder in it, at any depth; none that is hidden, and what cannot be entered holds none."""
    for above, names, _ in os.walk(folder):
        names[:] = sorted(name for name in names if not is_hidden(Path(name)))
        yield from (Path(above) / name for name in names)


def spellings(path: str) -> list[str]:
    """A path as it is written, as Windows' is meant, and with its accents apart or not, as systems differ in it."""
    written = dict.fromkeys((path, path.replace("\\", "/")))
    forms: tuple[Literal["NFC", "NFD"], ...] = () if path.isascii() else ("NFC", "NFD")
    return [*dict.fromkeys((*written, *(normalize(form, each) for form in forms for each in written)))]


def can_be_path(text: str) -> bool:
    """Whether a system takes a text as a file's path: not with a null byte, or a name beyond 255 bytes."""
    try:
        names = os.fsencode(text).split(b"/")
    except UnicodeEncodeError:
        return False
    return "\0" not in text and len(text) < 4000 and max(map(len, names)) <= 255


def is_text(name: object) -> bool:
    """Whether a name can be written in UTF-8, as records and artifacts are; a file's need not be such."""
    try:
        str(name).encode()
    except UnicodeEncodeError:
        return False
    return True


def spelled(name: object) -> str:
    """A name as Python writes it, in characters that can be shown: `\\xff` of a byte that is no UTF-8, `\\n`."""
    return repr(os.fsencode(str(name)).decode("utf-8", "backslashreplace"))[1:-1].replace("\\\\", "\\")


def make_folder(path: Path, instead: str) -> None:
    """Make a folder and those above it; raises VptError where it cannot, `instead` says what else to do."""
    if not is_text(path):
        raise VptError(f"{spelled(path)}: {NO_TEXT}; {instead}")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VptError(f"{path}: cannot be made a folder ({error.strerror}); {instead}") from error


def require_writable(folder: Path, instead: str) -> None:
    """Raises VptError where a folder can be neither written nor made: to be asked before long work; nothing is made."""
    there = next((each for each in (folder, *folder.parents) if each.exists()), Path())
    if there.is_dir() and not os.access(there, os.W_OK):
        raise VptError(f"{folder}: cannot be written ({there} is read-only here); {instead}")


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the target's folder; on success it becomes `path`, on failure nothing is left.

    The temporary name keeps the target's whole ending (`.nii.gz`), because writers choose the format by it.

    Raises VptError when the folder is missing or not writable, or the disk is full; the old file is then untouched.
    """
    path = Path(path)
    part = path.with_name(f".part-{_machine()}-{os.getpid()}-{path.name}")
    try:
        part.touch()
        mode = part.stat().st_mode  # what the umask allows; some writers would leave a file that others cannot read
        part.unlink()
        yield part
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        if part.stat().st_mode != mode:  # disks without permissions refuse to be asked, even for what they have
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


class DiskFull(VptError):
    """Nothing more can be written, so the work ends; what was written is whole."""


def is_no_space(error: BaseException | None) -> bool:
    """Whether an error is, or follows from, a disk that is full."""
    while error is not None:
        if isinstance(error, DiskFull) or (isinstance(error, OSError) and error.errno in NO_SPACE):
            return True
        error = error.__cause__
    return False


def clear_parts(folder: Path, *, own: bool = False) -> None:
    """Remove what killed writers of this machine left in a folder; own: of others as well, since none writes there.

    A folder that cannot be read or written is left as it is.
    """
    with suppress(OSError):
        for item in folder.iterdir():
            written = PART.match(item.name)
            here = written is not None and written[1] == _machine()
            if written and (not is_running(int(written[2])) if here else own):
                with suppress(OSError):
                    item.unlink()


def clear_parts_beside(files: Iterable[Path]) -> None:
    """The same in the folders of these files, which need not be there."""
    for folder in {file.parent for file in files}:
        clear_parts(folder)


def is_running(process: int) -> bool:
    """Whether a process of this machine is there; on Windows, which cannot be asked so, it may be."""
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        pass
    return True


def _machine() -> str:
    """A short name of this machine (or container), since many may write into one folder."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:6]


def write_text(path: str | Path, text: str) -> None:
    """In UTF-8; raises VptError where it names a file that is called by other bytes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        before, after = text[: error.start].rpartition("\n")[2], text[error.start :].partition("\n")[0]
        where = spelled((before[-80:] + after)[:200])
        raise VptError(f"{path}: cannot be written, a file's name in it is not UTF-8 ({where}); rename it") from error
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    write_text(path, as_json(value) + "\n")


def as_json(value: Any) -> str:
    """JSON with two spaces of indent; NaN becomes null, because strict JSON readers refuse NaN."""
    return json.dumps(_finite(value), indent=2, allow_nan=False)


def holds_file(path: Path) -> bool:
    """Whether a file is there that need not be.

    Raises:
        VptError: a folder, a pipe, or a link to what is gone stands in its place; without it another answer is given.
    """
    if path.is_file():
        return True
    if os.path.lexists(path):
        found = "a link to what is not there" if path.is_symlink() and not path.exists() else "a folder, pipe or device"
        raise VptError(f"{path}: {found}, expected a file; put the file there, or remove this")
    return False


def require_own(path: Path) -> None:
    """Raises VptError where a link, folder, pipe or device stands in the place of a file that is to be written on."""
    if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
        raise VptError(f"{path}: a link, folder, pipe or device, which is not written into; remove it")


def require_file(path: str | Path, most: int, what: str) -> None:
    """Raise VptError where there is no ordinary file of `most` bytes at the most: a pipe waits for ever, and a device
    has no end. An OSError of looking at it is left as it is.
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise VptError(f"{path}: a folder, pipe or device, expected a file of {what}; give a file")
    if found.st_size > most:
        raise VptError(
            f"{path}: {found.st_size >> 20} MiB of {what}, expected {most >> 20} MiB at most; make it smaller"
        )


def left_in_place(path: str | Path) -> str:
    """What lies in the place of a file that was not fetched, and how to get that; "" where that is not so."""
    try:
        with open(path, "rb") as file:
            head = file.read(64).lower()
    except OSError:
        return ""
    return next((what for start, what in NOT_FETCHED if head.startswith(start)), "")


def read_json(path: str | Path) -> Any:
    """What a JSON file holds; raises VptError when it is missing, or with the place of a mistake."""
    try:
        require_file(path, LONGEST_JSON, "JSON")
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # a path with a null byte is a ValueError, as text of another coding is
        raise VptError(f"{path}: cannot be read as UTF-8 text ({error}); save it again as JSON") from error
    return parse_json(text, path)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file that others wrote, for what it may say; {} where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def parse_json(text: str, name: object) -> Any:
    """JSON as the standard has it: no NaN, no key twice in an object, no nesting without end.

    Raises:
        VptError: with the name and, where it is known, the place of the mistake.
    """
    try:
        value = json.loads(text, object_pairs_hook=unrepeated, parse_constant=_no_number)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()  # half a character could not be shown or written
        return value
    except json.JSONDecodeError as error:
        raise VptError(
            f"{name}: not valid JSON at line {error.lineno}, column {error.colno} ({error.msg}); correct it there"
        ) from error
    except RecursionError as error:
        raise VptError(f"{name}: not usable JSON (nested without end); correct it") from error
    except ValueError as error:  # from the two below, half a character, a number with thousands of digits
        raise VptError(f"{name}: not usable JSON ({error}); correct it") from error


class Repeated(ValueError):
    """A key that stands in one object twice, of which nobody can say which is meant."""


def unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The `object_pairs_hook` of JSON in which no key may stand twice. Raises `Repeated`."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise Repeated(f"the key {next(name for name in names if names.count(name) > 1)!r} twice in one object")
    return found


def _no_number(word: str) -> Any:
    raise ValueError(f"{word}, which is no number")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
