"""One scan at a time, whatever goes wrong in it: reading ahead in a thread, and failures that stop no other scan."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from vpt.errors import VptError
from vpt.files import DiskFull, is_no_space
from vpt.machine.interruption import raise_again
from vpt.machine.scarce import is_out_of_memory
from vpt.parallel import settled

Given = TypeVar("Given")
Made = TypeVar("Made")

USUAL = (MemoryError, RuntimeError, OSError)  # a machine's reasons; others are faults of ours, or of a library
PACKAGE = Path(__file__).parents[2]


@dataclass(frozen=True)
class Failure:
    """A scan that could not be used, and why; the others are done.

    error: the class of what nobody expected, and trace where it arose; both empty where a sentence says it all.
    """

    name: str
    reason: str
    error: str = ""
    trace: tuple[str, ...] = field(default=(), compare=False)


class FolderGone(VptError):
    """The folder of the answers is not there any more, or another is in its place, so the batch ends."""


def attempt(name: str, file: object, work: Callable[[], Made]) -> Made | Failure:
    """What `work` makes of the scan `name`, or why it could not; only an interrupt, a full disk and a
    folder that is gone come through.

    An interrupt that a library passed over, or made an error of its own of, is one.

    Raises:
        DiskFull: nothing more can be written.
        FolderGone: as `work` raises it.
    """
    try:
        made = work()
    except Exception as error:
        raise_again(error)
        if is_no_space(error):
            raise DiskFull(f"{error}; free space and go on with --continue") from error
        if isinstance(error, FolderGone):
            raise
        return _failure(name, file, error)
    raise_again()
    return made


def _failure(name: str, file: object, error: Exception) -> Failure:
    if isinstance(error, VptError):
        return Failure(name, str(error))
    said, kind = str(error).partition("\n")[0], type(error).__name__
    if isinstance(error, USUAL):
        return Failure(name, f"{file}: could not be processed ({said or kind}); the others were")
    if is_out_of_memory(error):
        return Failure(name, f"{file}: could not be processed (too little memory: {said or kind}); the others were")
    reason = f"{file}: could not be processed ({kind}{': ' if said else ''}{said}), which nobody expected"
    return Failure(name, f"{reason}; please report it with log.txt (or run it with --debug)", kind, frames(error))


def frames(error: BaseException) -> tuple[str, ...]:
    """Where an error arose, outermost first, "data/plan.py:12 in scale": no values, which may be a patient's."""
    found = traceback.extract_tb(error.__traceback__)
    return tuple(f"{_place(Path(frame.filename))}:{frame.lineno} in {frame.name}" for frame in found)


def _place(file: Path) -> str:
    return file.relative_to(PACKAGE.parent).as_posix() if file.is_relative_to(PACKAGE) else "/".join(file.parts[-3:])


def one_ahead(make: Callable[[Given], Made], items: Sequence[Given]) -> Generator[Callable[[], Made]]:
    """For every item in order a function, to be called once, that gives or raises what `make` makes of it.

    The item behind it is made meanwhile, in a thread. One that finds no memory beside the one before is tried again,
    alone.

    Raises:
        VptError: see `vpt.parallel.settled`.
    """
    with ThreadPoolExecutor(1, "vpt-read") as reader:
        coming = [reader.submit(make, item) for item in items[:1]]
        for k, item in enumerate(items):
            ready = coming
            settled(ready[0], reader)
            if isinstance(ready[0].exception(), MemoryError):
                ready = [reader.submit(make, item)]
                settled(ready[0], reader)
            coming = [reader.submit(make, item) for item in items[k + 1 : k + 2]]
            yield partial(_taken, ready)


def _taken(ready: list[Future[Made]]) -> Made:
    """The result, of which nothing is kept."""
    return ready.pop().result()
