"""Mutants of real files through the entry points that read them: `python tests/reliability/fuzz.py --mutants 10000`.

Each is read in a worker with 2 GB of address space above what it starts with and 5 seconds. Counted are tracebacks
(all but a `VptError`, or a `MemoryError` that says how much is missing), what hangs, what takes more memory, files that
were changed or made, and damage that a checksum should have shown. Exit code 1 where any of them is not 0.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from forms import formed
from mutants import mutant
from samples import Answer, Sample, make_samples

SECONDS = 5  # of the processor, for one file
STUCK = 6 * SECONDS  # of the processor, with the making of the file, where a library does not look at signals
WAITED = 300.0  # by the clock, where other work takes the processor, or a reader waits for what never comes
MEMORY = 2 * 2**30  # bytes above the worker's own
Maker = Callable[[Path, int], tuple[bytes, bool]]
FAULTS = ("traceback", "hang", "memory", "changed", "believed")


@dataclass(frozen=True)
class Outcome:
    """read, refused, or one of the faults; where it arose, in words."""

    what: str
    said: str = ""


@dataclass
class Tally:
    """Outcomes by kind of file, and the first of each different fault with the seed that makes it again."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: dict[str, tuple[str, int]] = field(default_factory=dict)

    def add(self, sample: Sample, seed: int, outcome: Outcome) -> None:
        self.counts[sample.kind, outcome.what] += 1
        if outcome.what in FAULTS:
            self.faults.setdefault(f"{outcome.what}: {sample.kind}: {outcome.said}", (sample.file.name, seed))

    @property
    def tried(self) -> int:
        return sum(self.counts.values())

    def fault_count(self) -> int:
        return sum(count for (_, what), count in self.counts.items() if what in FAULTS)

    def __str__(self) -> str:
        kinds = sorted({kind for kind, _ in self.counts})
        columns = ("read", "refused", *FAULTS)
        lines = [f"| {' | '.join(('kind', 'mutants', *columns))} |", "|---" * (len(columns) + 2) + "|"]
        for kind in kinds:
            numbers = [self.counts[kind, what] for what in columns]
            lines.append(f"| {kind} | {sum(numbers)} | {' | '.join(map(str, numbers))} |")
        total = [sum(self.counts[kind, what] for kind in kinds) for what in columns]
        lines.append(f"| all | {sum(total)} | {' | '.join(map(str, total))} |")
        return "\n".join(lines)


def fuzz(
    mutants: int, seconds: float, seed: int = 0, workers: int = 2, kinds: Sequence[str] = (), make: Maker = mutant
) -> Tally:
    """So many mutants, or as many as the time allows, spread evenly over the samples; make: one by its seed."""
    tally, end = Tally(), time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        samples = [each for each in make_samples(Path(folder)) if not kinds or each.kind in kinds]
        seeds = iter(range(seed, seed + mutants))
        pool = [Worker(samples, Path(folder) / f"worker-{k}", make) for k in range(workers)]
        running = {worker: worker.start(number) for worker in pool if (number := next(seeds, None)) is not None}
        while running:
            for worker in list(running):
                outcome = worker.outcome()
                if outcome is None:
                    continue
                done = running.pop(worker)
                tally.add(samples[done % len(samples)], done, outcome)
                number = next(seeds, None)
                if number is not None and time.monotonic() < end:
                    running[worker] = worker.start(number)
            wait([worker.ours for worker in running], timeout=1)
        for worker in pool:
            worker.stop()
    return tally


class Worker:
    """A process that reads one mutant after the other; one that hangs or dies is replaced."""

    def __init__(self, samples: Sequence[Sample], folder: Path, make: Maker):
        self.samples = samples
        self.folder = folder
        self.make = make
        self._begin()

    def _begin(self) -> None:
        context = multiprocessing.get_context("fork")
        self.ours, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(self.samples, self.folder, self.make, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def start(self, seed: int) -> int:
        self.ours.send(seed)
        self.since, self.spent = time.monotonic(), _processor_seconds(self.process.pid)
        return seed

    def outcome(self) -> Outcome | None:
        """None while it still reads."""
        if self.ours.poll():
            try:
                return Outcome(*self.ours.recv())
            except (EOFError, ConnectionResetError):
                self._replace()
                return Outcome("traceback", "the process ended")
        busy = _processor_seconds(self.process.pid) - self.spent > STUCK
        if busy or time.monotonic() - self.since > WAITED:
            self._replace()
            return Outcome("hang", "not to be interrupted" if busy else "waits")
        return None

    def _replace(self) -> None:
        self.stop()
        self._begin()

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.ours.close()


def _processor_seconds(process: int | None) -> float:
    """Of the user and of the system; 0 of a process that has ended."""
    try:
        words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def serve(samples: Sequence[Sample], folder: Path, make: Maker, connection: Connection) -> None:
    """Seed after seed -> what became of its mutant."""
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    sys.stdout = sys.stderr = open("/dev/null", "w")  # noqa: SIM115 (for as long as the process runs)
    folder.mkdir(exist_ok=True)
    copies = [_copied(sample, folder / str(k)) for k, sample in enumerate(samples)]
    expected = [sample.use(sample.file) if sample.sealed else None for sample in samples]
    lines = Path("/proc/self/status").read_text().splitlines()
    used = int(next(line for line in lines if line.startswith("VmSize")).split()[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    signal.signal(signal.SIGPROF, _too_long)
    while True:
        seed = connection.recv()
        k = seed % len(samples)
        outcome = tried(samples[k], copies[k], seed, expected[k], make)
        connection.send((outcome.what, outcome.said))


def _copied(sample: Sample, to: Path) -> Path:
    if to.exists():
        shutil.rmtree(to)
    shutil.copytree(sample.file.parent, to)
    return to / sample.file.name


class TooLong(BaseException):
    """Passes every `except Exception`."""


def _too_long(number: int, frame: Any) -> None:
    raise TooLong


def tried(sample: Sample, file: Path, seed: int, expected: Answer = None, make: Maker = mutant) -> Outcome:
    """What the entry point makes of the mutant of that seed; `file`: the copy that is overwritten."""
    content, only_damaged = make(sample.file, seed)
    file.write_bytes(content)
    before = _listed(file.parent)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        answer = sample.use(file)
    except TooLong:
        return Outcome("hang", "")
    except Exception as error:
        outcome = _of(error)
    else:
        wrong = only_damaged and sample.sealed and not same(answer, expected)
        outcome = Outcome("believed", "another answer") if wrong else Outcome("read")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if _listed(file.parent) != before:
        return Outcome("changed", str(set(_listed(file.parent)) ^ set(before)))
    return outcome


def _of(error: Exception) -> Outcome:
    from vpt.errors import VptError

    if isinstance(error, VptError) or (isinstance(error, MemoryError) and "memory" in str(error)):
        return Outcome("refused", str(error))
    last = [frame for frame in traceback.extract_tb(error.__traceback__) if "/vpt/" in frame.filename][-1:]
    where = f"{last[0].filename.partition('/vpt/')[2]}:{last[0].lineno}" if last else "?"
    kind = "memory" if isinstance(error, MemoryError) else "traceback"
    return Outcome(kind, f"{where} {type(error).__name__}: {str(error)[:120]}")


def _listed(folder: Path) -> list[tuple[str, int, int]]:
    found = ((path, path.stat()) for path in sorted(folder.rglob("*")))
    return [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in found if path.is_file()]


def same(one: Answer, other: Answer) -> bool:
    import torch

    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return bool(np.array_equal(one, other))


def _lines(tally: Tally) -> Iterator[str]:
    yield str(tally)
    yield ""
    for said, (name, seed) in sorted(tally.faults.items()):
        yield f"seed {seed} ({name}): {said}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=3600, help="stop earlier")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--forms", action="store_true", help="odd forms of files (forms.py), not damage (mutants.py)")
    parser.add_argument("--kind", action="append", default=[], help="of files; all of them by default")
    given = parser.parse_args()
    started = time.monotonic()
    tally = fuzz(given.mutants, given.seconds, given.seed, given.workers, given.kind, formed if given.forms else mutant)
    print("\n".join(_lines(tally)))
    print(f"{tally.tried} mutants, {tally.fault_count()} faults, {time.monotonic() - started:.0f} s")
    sys.exit(1 if tally.fault_count() else 0)


if __name__ == "__main__":
    main()
