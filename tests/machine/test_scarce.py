"""What says that memory was too small, and the refusal before the work."""

from __future__ import annotations

import errno
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vpt.errors import VptError
from vpt.machine.available import address_space
from vpt.machine.scarce import TO_ANSWER, TO_TRAIN, is_out_of_memory, require_room
from vpt.use.archives.attempts import attempt

OF_NUMPY = SystemError("<built-in function array> returned NULL without setting an exception")
OF_A_LIBRARY = ImportError("_backend_agg.so: failed to map segment from shared object")

needs_limits = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="not Linux")


@pytest.fixture
def little_left() -> Iterator[None]:
    """64 MiB of address space above what the process has."""
    lines = Path("/proc/self/status").read_text().splitlines()
    used = int(next(line for line in lines if line.startswith("VmSize")).split()[1]) * 1024
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("std::bad_alloc"),
        RuntimeError("could not create a primitive"),
        RuntimeError("can't start new thread"),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_words_of_libraries_for_too_little_memory_are_known(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), ImportError("No module named x"), OSError(errno.ENOSPC, "full"), OF_NUMPY]
)
def test_other_errors_are_left_as_they_are(error: Exception) -> None:
    assert not is_out_of_memory(error)


@needs_limits
@pytest.mark.usefixtures("little_left")
@pytest.mark.parametrize("error", [OF_NUMPY, OF_A_LIBRARY])
def test_what_fails_without_a_reason_where_memory_is_scarce_has_failed_for_want_of_it(error: Exception) -> None:
    def fail() -> None:
        raise error

    assert is_out_of_memory(error)
    failure = attempt("a", "a.nii", fail)
    assert failure is not None
    assert failure.reason.startswith("a.nii: could not be processed (too little memory: ")
    assert not failure.error


@needs_limits
def test_work_is_refused_before_it_begins_where_a_limit_leaves_too_little(little_left: None) -> None:
    free = address_space()
    assert free is not None
    assert free < TO_ANSWER
    with pytest.raises(VptError, match=r"address space \(ulimit -v\) leaves \d+ MiB, expected 300 MiB at least"):
        require_room(TO_TRAIN)


def test_without_a_limit_nothing_is_refused() -> None:
    require_room(TO_TRAIN)


@needs_limits
@pytest.mark.slow
def test_a_limit_that_torch_does_not_fit_in_is_told_in_a_sentence(tmp_path: Path) -> None:
    """A limit of 1 GB, as clusters set it that count address space."""
    command = [sys.executable, "-m", "vpt", "predict", "-i", tmp_path, "-o", tmp_path / "out", "-m", tmp_path]
    limited = ["bash", "-c", 'ulimit -v 1000000; exec "$@"', "bash", *map(str, command)]
    done = subprocess.run(limited, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "error: too little memory (" in done.stderr
    assert "ulimit -v unlimited" in done.stderr
