"""Archives of data sets, unpacked without trust: plain files below one folder, no more than the archive announces."""

from __future__ import annotations

import gzip
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from vpt.errors import VptError
from vpt.progress import bar

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz")
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, RuntimeError)
CHUNK = 1 << 20  # bytes
CLUTTER = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")


class Opens(Protocol):
    def __call__(self) -> IO[bytes]: ...


@dataclass(frozen=True)
class _Member:
    """A file of an archive: its path, the bytes that it is said to have, and how to read it."""

    path: PurePosixPath
    size: int
    open: Opens


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith(ENDINGS)


def extract(archive: Path, to: Path) -> None:
    """Unpack plain files into the folder `to`, which is there; what file managers leave behind is not unpacked.

    Everything is looked at before the first file is written. Permissions and owners are not taken over.

    Raises:
        VptError: a path that leads elsewhere, a link or device, a name twice, more than the disk holds, damage.
    """
    try:
        with _members(archive) as members:
            _refuse_too_much(archive, members, to)
            total = sum(member.size for member in members)
            done = 0
            with bar(f"unpacking {archive.name}") as tick:
                for member in members:
                    _write(member, to)
                    done += member.size
                    tick(done >> 20, total >> 20, "MB")
    except DAMAGED as error:
        reason = str(error).partition("\n")[0].rstrip(":")
        raise VptError(f"{archive}: cannot be unpacked ({reason}); copy or download it again") from error


def below(source: Path, path: str) -> PurePosixPath:
    """A path that stays below the folder it is relative to."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or any(":" in part for part in pure.parts[:1]):
        raise VptError(f"{source}: the path {path!r} leads out of its folder; get the data from a source you trust")
    return pure


@contextmanager
def _members(archive: Path) -> Iterator[list[_Member]]:
    """The files of an archive, each at a path of its own below one folder."""
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as zipped:
            yield _distinct(archive, _zip_members(archive, zipped))
    else:
        with tarfile.open(archive) as tarred:
            yield _distinct(archive, _tar_members(archive, tarred))


def _zip_members(archive: Path, content: zipfile.ZipFile) -> Iterator[_Member]:
    for info in content.infolist():
        path = below(archive, info.filename.replace("\\", "/"))
        if info.is_dir():
            continue
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
            raise _no_file(archive, info.filename)
        yield _Member(path, info.file_size, partial(content.open, info))


def _tar_members(archive: Path, content: tarfile.TarFile) -> Iterator[_Member]:
    for info in content:
        path = below(archive, info.name)
        if info.isdir():
            continue
        if not info.isfile():
            raise _no_file(archive, info.name)
        yield _Member(path, info.size, partial(_tar_file, content, info))
    if _block_at(content, content.offset) != bytes(tarfile.BLOCKSIZE):  # else files at its end would be missing unseen
        raise tarfile.ReadError("it breaks off")


def _block_at(content: tarfile.TarFile, offset: int) -> bytes:
    assert content.fileobj is not None  # so until it is closed
    content.fileobj.seek(offset)
    return content.fileobj.read(tarfile.BLOCKSIZE)


def _tar_file(content: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    stream = content.extractfile(info)
    assert stream is not None  # so for plain files
    return stream


def _no_file(archive: Path, name: str) -> VptError:
    return VptError(f"{archive}: {name} is a link or a device; unpack it by hand, and look")


def _distinct(archive: Path, members: Iterator[_Member]) -> list[_Member]:
    wanted = [member for member in members if not _is_clutter(member.path)]
    seen: set[PurePosixPath] = set()
    for member in wanted:
        if member.path in seen:
            raise VptError(f"{archive}: {member.path} is in it twice; unpack it by hand, and look which one is right")
        seen.add(member.path)
    return wanted


def _is_clutter(path: PurePosixPath) -> bool:
    return path.name.startswith("._") or any(part in CLUTTER for part in path.parts)


def _refuse_too_much(archive: Path, members: Sequence[_Member], to: Path) -> None:
    needed, free = sum(member.size for member in members), shutil.disk_usage(to).free
    if needed > free:
        raise VptError(
            f"{archive}: unpacked it takes {needed >> 20} MB, {free >> 20} MB are free in {to.parent}; "
            "free space or choose another folder"
        )


def _write(member: _Member, to: Path) -> None:
    """One file; both kinds of archive give no more of it than they announced."""
    target = to / member.path
    target.parent.mkdir(parents=True, exist_ok=True)
    with member.open() as stream, open(target, "xb") as file:
        shutil.copyfileobj(stream, file, CHUNK)
