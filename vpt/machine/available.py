"""How much memory and how many cores a process may take, by what the system says; without torch, for the readers."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

from vpt.machine import cgroups


def cores(most: int | None = None) -> int:
    """Those that this process may use, `most` of them at the most: fewer than the machine has where a launcher or a
    container binds it to some, or gives it a quota of their time.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroups.processors()
    there = bound if quota is None else max(1, min(bound, math.ceil(quota)))
    return there if most is None else min(there, most)


def available_memory() -> int | None:
    """Bytes: of the machine, the process's control groups and its own limit the least; None where no one can say."""
    found = [_of_machine(), cgroups.memory_left(), address_space()]
    return min((each for each in found if each is not None), default=None)


def _of_machine() -> int | None:
    return _kilobytes(Path("/proc/meminfo"), "MemAvailable:")


def address_space() -> int | None:
    """Bytes that a limit on the process's address space leaves (ulimit -v); None without one."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        most, _ = resource.getrlimit(resource.RLIMIT_AS)
        if most != resource.RLIM_INFINITY and (used := _kilobytes(Path("/proc/self/status"), "VmSize:")) is not None:
            return max(0, most - used)
    return None


def open_files() -> int | None:
    """How many files the process may have open at a time (ulimit -n); None without a limit."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return None if most == resource.RLIM_INFINITY else most
    return None


def _kilobytes(path: Path, key: str) -> int | None:
    with suppress(OSError, StopIteration, ValueError):
        line = next(line for line in path.read_text().splitlines() if line.startswith(key))
        return int(line.split()[1]) * 1024
    return None
