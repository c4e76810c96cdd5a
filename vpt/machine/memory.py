"""Memory: how much there is, the most that was held since the last look, how many images fit at once."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from vpt.machine import cgroups

MOST = 32  # images at once; more are no faster on a CPU, and little on a GPU
UNKNOWN = 8 * 2**30  # bytes of a machine that does not say
TRIM, PAD, MAPPED_FROM, MAPPINGS = -1, -2, -3, -4  # of `mallopt`, from glibc's malloc.h
KEPT = {MAPPINGS: 0, TRIM: 2**31 - 1, PAD: 64 * 2**20}
GIVEN_BACK = {MAPPINGS: 65_536, MAPPED_FROM: 32 * 2**20, TRIM: 64 * 2**20, PAD: 0}  # what glibc comes to by itself


def inference_batch(numbers: int, device: torch.device) -> int:
    """How many images go through an encoder together without a backward pass: 1 to 32.

    numbers: that one image holds at once, in float32 (`vpt.model.numbers_per_image`). So many images as are reckoned to
    take a sixteenth of the machine's memory, or a fourth of a GPU's. Not of what is free just now: another batch size
    rounds otherwise, and the same scan gives the same mask.
    """
    share = total_memory(device) // (4 if device.type == "cuda" else 16)
    return max(1, min(MOST, share // (4 * numbers)))


def total_memory(device: torch.device) -> int:
    """Bytes of a GPU, or of the machine, or of the container, unit or job that the process runs in."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    total = UNKNOWN
    with suppress(OSError, ValueError, AttributeError):  # Windows has no sysconf
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = cgroups.memory_limit()
    return total if limit is None else min(total, limit)


def in_gb(size: int) -> str:
    """Bytes in words: "12.3 GB"."""
    return f"{size / 1e9:.1f} GB" if size < 1e14 else f"{size / 1e9:.0e} GB"


@contextmanager
def keeping_buffers(device: torch.device) -> Iterator[None]:
    """Inside, memory that is freed stays with the process, on a CPU with glibc (Linux).

    glibc gives buffers over 32 MB back to the system after every use, and the system clears each new one page by page.
    A training step frees and takes gigabytes. Who has set glibc's own variables (MALLOC_...) has chosen already.
    """
    libc = None if device.type != "cpu" or any(name.startswith("MALLOC_") for name in os.environ) else _glibc()
    if libc is None:
        yield
        return
    _set(libc, KEPT)
    try:
        yield
    finally:
        _set(libc, GIVEN_BACK)
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    with suppress(OSError, AttributeError):  # no such library; another one of this name
        libc = ctypes.CDLL("libc.so.6")
        if libc.mallopt and libc.malloc_trim:
            return libc
    return None


def _set(libc: ctypes.CDLL, options: dict[int, int]) -> None:
    for option, value in options.items():
        libc.mallopt(option, value)


def reset_peak(device: torch.device) -> None:
    """Forget what was, and give back to the system what is no longer used."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return
    if libc := _glibc():
        libc.malloc_trim(0)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew (Linux)


def peak_memory(device: torch.device) -> int | None:
    """Bytes since `reset_peak`: of the GPU what tensors took, else of the whole process; None where no one can say."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
    return None
