"""What its control groups leave a process: those of a container, of a unit of systemd, of a job of SLURM (Linux).

A limit stands in the process's own group or in any above it, of version 2 or 1 (`man 7 cgroups`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

PROC = Path("/proc/self")
NONE = 1 << 60  # bytes; version 1 has a number of that size in the place of no limit
RECLAIMED = ("inactive_file", "active_file")  # of what is in use: files that were read, which give way


@dataclass(frozen=True)
class Group:
    """folder: where its files lie; version: 1 or 2, which name them otherwise."""

    folder: Path
    version: int

    def number(self, of_1: str, of_2: str) -> int | None:
        """What a file holds; None where it is not there, or says that there is no limit."""
        return _number(self._text(of_1, of_2))

    def memory_limit(self) -> int | None:
        """Bytes."""
        limit = self.number("memory.limit_in_bytes", "memory.max")
        return None if limit is None or limit >= NONE else limit

    def memory_left(self) -> int | None:
        """Bytes up to the limit."""
        limit, used = self.memory_limit(), self.number("memory.usage_in_bytes", "memory.current")
        if limit is None or used is None:
            return None
        prefix = "total_" if self.version == 1 else ""  # with the groups below it, as in version 2
        lines = (line.split() for line in self._text("memory.stat", "memory.stat").splitlines())
        facts = {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[1].isdecimal()}
        given_way = sum(facts.get(prefix + name, 0) for name in RECLAIMED)
        return max(0, limit - max(0, used - given_way))

    def processors(self) -> float | None:
        """How many it may keep busy."""
        if self.version == 1:
            quota, period = self.number("cpu.cfs_quota_us", ""), self.number("cpu.cfs_period_us", "")
        else:
            quota, period = (*map(_number, self._text("", "cpu.max").split()), None, None)[:2]
        return quota / period if quota is not None and period and quota > 0 else None

    def _text(self, of_1: str, of_2: str) -> str:
        with suppress(OSError, ValueError):
            return (self.folder / (of_1 if self.version == 1 else of_2)).read_text()
        return ""


def memory_limit() -> int | None:
    """Bytes that this process and its like may take at the most; None where nothing bounds them."""
    return min((each for group in groups("memory") if (each := group.memory_limit()) is not None), default=None)


def memory_left() -> int | None:
    """Bytes up to the nearest limit; None where there is none."""
    return min((each for group in groups("memory") if (each := group.memory_left()) is not None), default=None)


def processors() -> float | None:
    """How many processors a quota allows; None where there is none."""
    return min((each for group in groups("cpu") if (each := group.processors()) is not None), default=None)


def groups(controller: str, proc: Path = PROC) -> Iterator[Group]:
    """The process's own group and those above it, as far as they are to be seen."""
    with suppress(OSError, ValueError):  # no Linux, or no /proc
        own = [line.split(":", 2) for line in (proc / "cgroup").read_text().splitlines()]
        for line in (proc / "mountinfo").read_text().splitlines():
            place, _, kind = line.partition(" - ")
            root, point = place.split()[3:5]
            version = {"cgroup": 1, "cgroup2": 2}.get(kind.split()[0])
            if version is None or (version == 1 and controller not in kind.split()[-1].split(",")):
                continue
            for number, controllers, path in own:
                if controller in controllers.split(",") if version == 1 else number == "0":
                    yield from _upwards(Path(point), PurePosixPath(root), PurePosixPath(path), version)


def _upwards(point: Path, root: PurePosixPath, path: PurePosixPath, version: int) -> Iterator[Group]:
    """root: the group that is mounted at `point`; a container may see its own alone, and be told another path."""
    inside = path.relative_to(root) if path.is_relative_to(root) else PurePosixPath()
    if ".." in inside.parts:
        inside = PurePosixPath()
    for folder in (inside, *inside.parents):
        yield Group(point / folder, version)


def _number(text: str) -> int | None:
    return int(text) if text.strip().lstrip("-").isdecimal() else None
