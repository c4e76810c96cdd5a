"""A run's folder: how far the run in it came, and who is at work in it."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from vpt.engine.checkpoint import has_state
from vpt.errors import VptError
from vpt.files import NO_TEXT, PART, clear_parts, is_running, is_text, read_json, spelled, write_json

STATE = Path("state") / "last.safetensors"
RUNNING = Path("state") / "running.json"  # there from the first write of a run to its end
LOCK = Path("state") / ".lock"
DESCRIBED = ("config.yaml", "plan.json", "splits.json", "environment.json")
EARLIER = "earlier.safetensors"  # a copy of the artifact beside whose tasks the run's own stands
BEFORE_TRAINING = {*DESCRIBED, EARLIER, "train.log", "cache", "state", "tensorboard"}
WORKERS_END = 15.0  # seconds: workers of a killed process notice it every five

Standing = Literal["new", "begun", "stopped", "done"]
"""Of a run: not there; nothing trained yet; with a state, and not at its end; at its end, or stopped by version 0.3."""


def standing_of(run: Path) -> Standing:
    """How far the run in a folder came.

    Raises:
        VptError: a file in its place; a folder that holds anything else.
    """
    if run.is_file():
        raise VptError(f"{run}: a file, expected a folder for the run; choose another --out")
    if has_state(run / STATE):
        return "stopped" if (run / RUNNING).is_file() else "done"
    if not run.is_dir() or not _holds_files(run):
        return "new"
    names = {item.name for item in run.iterdir() if not PART.match(item.name)}
    begun = (run / RUNNING).is_file() or all((run / name).is_file() for name in DESCRIBED[:2])
    if begun and names <= BEFORE_TRAINING:
        return "begun"
    raise VptError(f"{run}: the folder is not empty; choose another --out")


@contextmanager
def at_work(run: Path, standing: Standing) -> Iterator[None]:
    """Nobody else trains in the folder meanwhile, nor has since it was found to stand as it does.

    It is made where it is not there, and what was made is gone again after a failure that leaves nothing in it. What
    killed writers left in it is cleared. After an interruption it stays, to go on from.

    Raises:
        VptError: another training is at work in it; it cannot be made or written.
    """
    fresh = _made(run)
    with _locked(run):
        if standing_of(run) != standing or not (run / LOCK).is_file():
            raise VptError(f"{run}: another training has just been at work in it; look at it, and start again")
        stays = same_folder(run)
        try:
            for folder, _, _ in os.walk(run):
                clear_parts(Path(folder), own=True)
            write_json(run / RUNNING, {"process": os.getpid(), "host": platform.node(), "since": _now()})
            yield
            if stays():
                (run / RUNNING).unlink(missing_ok=True)
        except Exception:
            if stays() and not _holds_files(run):
                _remove_empty(run, fresh)
            raise


def same_folder(run: Path) -> Callable[[], bool]:
    """A question, to be asked as often as one likes, whether the folder is still the one that it is now.

    Who renames the folder of a training that goes on, and puts another run there, must not lose the other by it.
    """
    number = run.stat().st_ino

    def stays() -> bool:
        try:
            return run.stat().st_ino == number or _owner(run).get("process") == os.getpid()
        except OSError:
            return False

    return stays


def require_same(run: Path, stays: bool) -> None:
    """Raises VptError where it does not."""
    if not stays:
        raise VptError(
            f"{run}: another folder was put in the place of the run's, so the training ends; nothing in it was touched"
        )


def remove_begun(run: Path) -> None:
    """Undo what was written before training; nothing else."""
    for name in BEFORE_TRAINING:
        item = run / name
        shutil.rmtree(item, ignore_errors=True) if item.is_dir() else item.unlink(missing_ok=True)


def _holds_files(run: Path) -> bool:
    """Whether anything lies in it, but for what this module writes."""
    ours = {LOCK.name, RUNNING.name}
    return any(not PART.match(name) and name not in ours for _, _, names in os.walk(run) for name in names)


def _made(run: Path) -> list[Path]:
    """Make the folder and its `state/`; those that are new, innermost first."""
    if not is_text(run):
        raise VptError(f"{spelled(run)}: {NO_TEXT}; choose another --out")
    missing = [folder for folder in (run / "state", run, *run.parents) if not folder.exists()]
    try:
        (run / "state").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _remove_empty(run, missing)
        raise VptError(f"{run}: the run's folder cannot be made ({error.strerror}); choose another --out") from error
    return missing


def _remove_empty(run: Path, fresh: Sequence[Path]) -> None:
    for name in (RUNNING, LOCK):
        with suppress(OSError):
            (run / name).unlink()
    for folder in fresh:
        with suppress(OSError):  # another run may have come to lie beside this one
            folder.rmdir()


@contextmanager
def _locked(run: Path) -> Iterator[None]:
    lock = FileLock(run / LOCK)
    try:
        _acquire(lock, run)
    except OSError as error:
        raise VptError(f"{run}: cannot be written ({error.strerror}); choose another --out") from error
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, run: Path) -> None:
    owner = _owner(run)
    killed = owner.get("host") == platform.node() and not is_running(int(owner.get("process", 0)))
    try:
        lock.acquire(timeout=WORKERS_END if killed else 0)
    except Timeout:
        owner = _owner(run) or owner
        who = f"process {owner['process']} on {owner['host']}, since {owner['since']}" if owner else "just started"
        raise VptError(
            f"{run}: another training is at work in it ({who}); wait for its end, or choose another --out"
        ) from None


def _owner(run: Path) -> dict[str, Any]:
    """Who trains in the folder, or did when it was killed; nothing where the file that says so is damaged."""
    with suppress(VptError):
        found = read_json(run / RUNNING)
        if isinstance(found, dict) and found.keys() >= {"host", "since"}:
            process = found.get("process")
            if type(process) is int and 0 < process < 2**31:
                return found
    return {}


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")
