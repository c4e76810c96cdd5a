"""A bound on memory and time for what must refuse before it takes either."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def within(megabytes: int = 512, seconds: float = 5) -> Iterator[None]:
    """Inside, so much more address space can be had; afterwards no more than so many seconds may have passed."""
    lines = Path("/proc/self/status").read_text().splitlines()
    used = int(next(line for line in lines if line.startswith("VmSize")).split()[1]) * 1024
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (megabytes << 20), before[1]))
    started = time.monotonic()
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert time.monotonic() - started < seconds
