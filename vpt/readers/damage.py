"""What is said of a file that cannot be read: that it is damaged, or that memory is too small for it."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from math import prod
from pathlib import Path

from vpt.errors import VptError
from vpt.machine.available import available_memory
from vpt.machine.scarce import is_out_of_memory
from vpt.readers.grid import by

SMALL = 2**20  # bytes of an array for which no one is asked whether they are free
AGAIN = "copy or download the file again"
WITHHELD = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)  # what is said of the disk, not of what a file holds
NO_MEMORY = ("Cannot allocate memory", "Error -4 ", "Unable to allocate", "out of memory")  # in words of libraries


def spoiled(name: object, error: BaseException) -> Exception:
    """The error to raise for what a library raised: a `VptError` of a file that is damaged, or that the system does not
    give, or a `MemoryError`.
    """
    if is_withheld(error):
        return withheld(name, error)
    reason = " ".join(str(error).split())
    if is_out_of_memory(error) or any(word in reason for word in NO_MEMORY):
        return MemoryError(f"{name}: too little memory is free to read it; close other programs")
    return VptError(f"{name}: truncated or damaged ({reason}); {AGAIN}")


def is_withheld(error: BaseException) -> bool:
    """Whether it is the system that does not give a file, be it whole: without permission, or from a failing disk."""
    return isinstance(error, OSError) and error.errno in WITHHELD


def withheld(name: object, error: BaseException) -> VptError:
    """What to say then."""
    reason = error.strerror if isinstance(error, OSError) else error
    return VptError(f"{name}: cannot be read ({reason}); have the permission given, or look after its disk")


def require_there(name: object, file: Path, sizes: Sequence[int], itemsize: int, there: int) -> int:
    """The bytes of an array by its header. Raises VptError where its file can hold at most `there` of them."""
    claimed = itemsize * prod(map(int, sizes))
    if claimed > there:
        whole = file.stat().st_size
        held = f"{whole:,} bytes of {file.name}{' with its header' if claimed <= whole else ''}"
        raise VptError(
            f"{name}: truncated or damaged (its header claims {by([int(size) for size in sizes])} voxels, "
            f"{claimed:,} bytes, which the {held} cannot hold); {AGAIN}"
        )
    return claimed


def require_memory(name: object, sizes: Sequence[int], needed: int) -> None:
    """Raise MemoryError, before any is taken, where an array of `sizes` and so many bytes does not fit."""
    free = available_memory() if needed > SMALL else None
    if free is not None and needed > free:
        raise MemoryError(
            f"{name}: {by([int(size) for size in sizes])} voxels take {_gib(needed)}, {_gib(free)} of memory are free; "
            "use a larger machine, or cut the scan"
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"
