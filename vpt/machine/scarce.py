"""Too little memory: which errors say so, and how much address space there has to be before work begins."""

from __future__ import annotations

import errno

from vpt.errors import VptError
from vpt.machine.available import address_space, available_memory

TO_ANSWER, TO_TRAIN = 224 * 2**20, 300 * 2**20  # bytes of address space; with less, no small task has come to its end
SCARCE = 2**30  # bytes; with less, what fails without a reason has failed for want of memory
WORDS = (  # of torch on every device, of C++, oneDNN, NumPy and the system
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "could not create a primitive",
    "bad_alloc",
    "Cannot allocate memory",
    "can't start new thread",
)
WITHOUT_REASON = ("without setting an exception", "failed to map segment")  # of NumPy; of a library that is loaded
KINDS = (MemoryError, RuntimeError, SystemError, ImportError)  # of errors that may say so


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was too little memory, of the machine or of a GPU."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    said = str(error)
    if isinstance(error, RuntimeError):  # torch's own class of it is one too, and says "out of memory"
        return any(words in said for words in WORDS)
    return isinstance(error, KINDS) and any(words in said for words in WITHOUT_REASON) and _is_scarce()


def _is_scarce() -> bool:
    free = available_memory()
    return address_space() is not None or (free is not None and free < SCARCE)


def require_room(least: int) -> None:
    """Raise VptError where a limit on the address space (`ulimit -v`) leaves too little for any work."""
    free = address_space()
    if free is not None and free < least:
        raise VptError(
            f"the limit on this process's address space (ulimit -v) leaves {free >> 20} MiB, expected {least >> 20} "
            "MiB at least, since libraries end without a word where it is too small; raise it, or take it away "
            "(ulimit -v unlimited)"
        )
