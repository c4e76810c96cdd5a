"""A second process that need not import torch and its like again: a copy of this one, for a program of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Child:
    """A program that runs beside the test. folder: the current one there, and first among those to import from."""

    pid: int
    told: Path

    def finish(self, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        """What it left. It is killed when it takes longer than `seconds`."""
        end = time.monotonic() + seconds
        while not (ended := os.waitpid(self.pid, os.WNOHANG))[0]:
            if time.monotonic() > end:
                os.kill(self.pid, 9)
            time.sleep(0.01)
        out, err = (self.told.with_suffix(suffix).read_text() for suffix in (".out", ".err"))
        return subprocess.CompletedProcess([], os.waitstatus_to_exitcode(ended[1]), out, err)


def start(program: str, folder: Path, told: Path) -> Child:
    """Run a program as `python -c` does in `folder`, with every library loaded and no module of vpt.

    told: where its output goes, with suffixes. With a GPU, whose threads no copy has, it is a new process.
    """
    with open(told.with_suffix(".out"), "w") as out, open(told.with_suffix(".err"), "w") as err:
        if torch.cuda.is_available():
            command = [sys.executable, "-c", program]
            return Child(subprocess.Popen(command, stdout=out, stderr=err, cwd=folder).pid, told)
        pid = os.fork()
        if pid == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            os._exit(_run(program, folder))
    return Child(pid, told)


def _run(program: str, folder: Path) -> int:
    """Its exit code. Nothing may be raised: what called the test would go on in the copy."""
    code: object = 0
    try:
        sys.settrace(None)  # coverage is that of the test's own process
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        for name in [name for name in sys.modules if name.partition(".")[0] == "vpt"]:
            del sys.modules[name]
        os.chdir(folder)
        sys.path.insert(0, "")
        exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
    except SystemExit as left:
        code = left.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else int(code is not None)
