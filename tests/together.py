"""Commands in several processes, as torchrun starts them, but forked from the tests, which have torch in memory."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from tiny_run import rows

LONGEST = 90.0  # seconds
TOLERANCE = 1e-5  # of weights, in float32, after six updates
SETTINGS: dict[str, Any] = {
    "train.epochs": 2,
    "train.max_steps": 3,
    "train.batch_size": 5,
    "train.workers": 0,
    "train.save_every": "100",
    "plan.image_size": 32,
    "device": "cpu",
    "precision": "32-true",
}


@dataclass(frozen=True)
class Ended:
    """How a process ended: exit code (negative after a signal that it did not heed), what it said, what it made."""

    code: int
    out: str
    err: str
    made: Any
    seconds: float


def in_processes(work: Callable[[int], Any], folder: Path, of: int = 2) -> list[Ended]:
    """`work(number)` in so many processes at once; what has not ended by itself in time is killed."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    started = time.monotonic()
    running = {_fork(work, folder, number, of, port): number for number in range(of)}
    ended: dict[int, Ended] = {}
    while running:
        for process in list(running):
            found, status = os.waitpid(process, os.WNOHANG)
            seconds = time.monotonic() - started
            if found:
                number = running.pop(process)
                ended[number] = _ended(folder, number, os.waitstatus_to_exitcode(status), seconds)
            elif seconds > LONGEST:
                os.kill(process, signal.SIGKILL)
        time.sleep(0.02)
    return [ended[number] for number in range(of)]


def vpt_in_processes(
    words: list[Any], folder: Path, of: int = 2, before: Callable[[int], None] = lambda number: None
) -> list[Ended]:
    """A command; before: what each process does first, for example spoil something."""

    def work(number: int) -> None:
        from vpt.cli import main

        sys.argv = ["vpt", *map(str, words)]
        before(number)
        main()

    return in_processes(work, folder, of)


def _fork(work: Callable[[int], Any], folder: Path, number: int, of: int, port: int) -> int:
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        for stream, descriptor in (("out", 1), ("err", 2)):
            os.dup2(os.open(folder / f"{number}.{stream}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), descriptor)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        _prepare(number, of, port)
        made = work(number)
        (folder / f"{number}.pickle").write_bytes(pickle.dumps(made))
        code = 0
    except SystemExit as left:
        code = int(left.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _prepare(number: int, of: int, port: int) -> None:
    os.environ.update(
        RANK=str(number),
        WORLD_SIZE=str(of),
        LOCAL_RANK=str(number),
        LOCAL_WORLD_SIZE=str(of),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        OMP_NUM_THREADS="1",
    )
    torch.set_num_threads(1)  # threads of the process that was forked are not there
    cv2.setNumThreads(0)


def _ended(folder: Path, number: int, code: int, seconds: float) -> Ended:
    made = folder / f"{number}.pickle"
    out, err = ((folder / f"{number}.{stream}").read_text() for stream in ("out", "err"))
    return Ended(code, out, err, pickle.loads(made.read_bytes()) if made.exists() else None, seconds)


def words(data: Path, out: Path, settings: dict[str, Any], *more: str) -> list[Any]:
    return ["train", data, "--out", out, *more, *(w for k, v in settings.items() for w in ("--set", f"{k}={v}"))]


def from_words(settings: dict[str, Any]) -> dict[str, Any]:
    from vpt.config import parse_override

    return dict(parse_override(f"{key}={value}") for key, value in settings.items())


def assert_alike(found: Path, expected: Path) -> None:
    """Artifacts and optimiser within `TOLERANCE`, the scores of every epoch, the same files."""
    from safetensors.torch import load_file

    for name in ("best.safetensors", "last.safetensors", "state/last.safetensors"):
        ours, theirs = load_file(found / name), load_file(expected / name)
        assert ours.keys() == theirs.keys()
        far = {k: float((ours[k].double() - theirs[k].double()).abs().max()) for k in ours if "random" not in k}
        assert max(far.values()) < TOLERANCE, (name, max(far, key=far.__getitem__))
    assert [row.keys() for row in rows(found)] == [row.keys() for row in rows(expected)]
    for ours, theirs in zip(rows(found), rows(expected), strict=True):
        assert [float(value) for value in ours.values()] == pytest.approx([float(v) for v in theirs.values()], abs=1e-5)
    assert files(found) == files(expected)


def files(run: Path) -> set[str]:
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    return {name for name in names if "tfevents" not in name}
