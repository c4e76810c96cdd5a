"""Whether the files of a data set are still those that they were, at a cost that does not grow with their size."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

from vpt.parallel import in_order

END = 2**20  # bytes that are read at each end of a file; a packed one has a checksum of the whole in its last eight
WORKERS = 8  # threads; files on a network's disk answer slowly, but several at a time
MANY = 64  # files for which threads are begun, each of which takes up to 130 MB of address space


def marks_of(files: Sequence[Path]) -> list[str]:
    """Of each file a mark that changes with its size and with what its first and last MiB hold.

    Times of change are not looked at: a copy of the data is the data. Of a folder (a DICOM series) the mark is of the
    names and sizes in it, and of its first and its last file; of what is gone it is "".
    """
    return [_mark_of(file) for file in files] if len(files) < MANY else list(in_order(_mark_of, files, WORKERS))


def _mark_of(path: Path) -> str:
    try:
        return _of_folder(path) if path.is_dir() else _of_file(path).hex()
    except OSError:
        return ""  # who reads it says why


def _of_folder(path: Path) -> str:
    files = sorted(each for each in path.rglob("*") if each.is_file())
    digest = blake2b(digest_size=16)
    for file in files:
        digest.update(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\n".encode(errors="surrogateescape"))
    for file in files[:1] + files[1:][-1:]:
        digest.update(_of_file(file))
    return digest.hexdigest()


def _of_file(path: Path) -> bytes:
    digest = blake2b(digest_size=16)
    with open(path, "rb") as file:
        size = path.stat().st_size
        digest.update(f"{size}\n".encode() + file.read(END))
        file.seek(max(END, size - END))
        digest.update(file.read(END))
    return digest.digest()
