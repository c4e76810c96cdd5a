"""How much memory a process may still take, by what the system says; without torch, for the readers of files."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Bytes: of the machine, the container and the process's own limit the least; None where no one can say."""
    found = [_of_machine(), _of_container(), _of_process()]
    return min((each for each in found if each is not None), default=None)


def _of_machine() -> int | None:
    return _kilobytes(Path("/proc/meminfo"), "MemAvailable:")


def _of_container() -> int | None:
    with suppress(OSError, ValueError):  # no container, or no limit: "max"
        most, used = (int((CGROUP / f"memory.{what}").read_text()) for what in ("max", "current"))
        return max(0, most - used)
    return None


def _of_process() -> int | None:
    """What a limit of its address space leaves (ulimit -v)."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        most, _ = resource.getrlimit(resource.RLIMIT_AS)
        if most != resource.RLIM_INFINITY and (used := _kilobytes(Path("/proc/self/status"), "VmSize:")) is not None:
            return max(0, most - used)
    return None


def _kilobytes(path: Path, key: str) -> int | None:
    with suppress(OSError, StopIteration, ValueError):
        line = next(line for line in path.read_text().splitlines() if line.startswith(key))
        return int(line.split()[1]) * 1024
    return None
