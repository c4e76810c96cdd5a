"""Arrays that were prepared once and lie in a cache: memory-mapped, and refused where they are damaged."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from vpt.errors import VptError
from vpt.files import atomic

NOT_THE_FILES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}  # faults: what the system lacks
SUM = 4  # bytes behind the array: its CRC-32


def save_array(path: Path, array: np.ndarray) -> None:
    """A `.npy`, complete or not at all, with a checksum behind the array."""
    save_rows(path, [array], array.shape, array.dtype)


def save_rows(path: Path, parts: Iterable[np.ndarray], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """The same of an array whose parts come one after another, all of that type; there may be none.

    Written as a stream: a full disk is an error that says so then, and not the end of the process as with a memory map,
    or a count of what was written as with `np.save`.
    """
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    total = crc32(b"")
    with atomic(path) as part, open(part, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for own in parts:
            content = np.ascontiguousarray(own).data
            file.write(content)
            total = crc32(content, total)
        file.write(total.to_bytes(SUM, "little"))


def require_unchanged(path: Path, kinds: str = "fiu", axes: int | None = None) -> None:
    """Raise VptError where the array, see `mapped`, is not what was saved; earlier versions saved no checksum."""
    found = mapped(path, kinds, axes)
    assert isinstance(found, np.memmap)
    with open(path, "rb") as file:
        file.seek(found.offset + found.nbytes)
        said = file.read()
    if said and said != crc32(found.data).to_bytes(SUM, "little"):
        raise damaged(path, "its content is not what was saved")


def mapped(path: Path, kinds: str = "fiu", axes: int | None = None) -> np.ndarray:
    """The array of a `.npy`; kinds: NumPy's letters of what it may hold (`f`, `iu`); axes: how many it has, if known.

    Raises:
        VptError: it is not whole, or another one. Values are not looked at.
    """
    try:
        found: np.ndarray = np.load(path, mmap_mode="r")
    except MemoryError:
        raise
    except OSError as error:
        if error.errno not in NOT_THE_FILES:
            raise damaged(path, f"{type(error).__name__}: {error}") from error
        raise VptError(
            f"{path}: cannot be opened ({error.strerror}); allow more open files (ulimit -n), or free memory"
        ) from error
    except Exception as error:  # a header is read as Python, which fails in many ways
        raise damaged(path, f"{type(error).__name__}: {error}") from error
    if not isinstance(found, np.ndarray) or found.dtype.kind not in kinds or axes not in (None, found.ndim):
        raise damaged(path, "it holds something else")
    return found


def damaged(path: Path, why: str) -> VptError:
    return VptError(f"{path}: damaged ({why}); remove {path.parent}, and it is prepared anew")
