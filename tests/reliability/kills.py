"""Kill a training, and a prediction, at random moments; then look whether every file is whole, and go on.

    python tests/reliability/kills.py --number 200

Every trial starts `vpt train` (or `vpt predict`) in a process group of its own, sends it SIGKILL, or SIGTERM to the
group, at a moment drawn evenly over the time that the whole command takes, reads every file that is left, and starts
the same command, or `--resume`, until it ends. What it leaves then must equal, tensor by tensor, what a command that
was never interrupted leaves. Processes are forked from this one, which has imported all that is slow to import.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import nibabel as nib
import numpy as np
import yaml
from PIL import Image
from safetensors.torch import load_file

from vpt.words import counted

SETTINGS = [
    *("--epochs", "2", "--prompts", "deep:2", "--device", "cpu"),
    *("--set", "train.max_steps=4", "--set", "train.batch_size=4", "--set", "train.workers=1"),
    *("--set", "plan.image_size=32", "--set", "train.save_every=1"),
]
STORING = ["--set", "train.views=1"]  # of every other trial: what the frozen blocks make is stored first
LONGEST = 300.0  # seconds that a command may take
TRIES = 5  # commands until one ends
LIMIT = 20  # faults, after which no more are looked for


@dataclass
class Found:
    """What the trials came to."""

    kills: Counter[str] = field(default_factory=Counter)  # by signal and phase, of commands that had not ended
    faults: list[str] = field(default_factory=list)


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--number", type=int, default=200, help="kills of a training")
    asked.add_argument("--predictions", type=int, default=50, help="kills of a prediction")
    asked.add_argument("--seed", type=int, default=0)
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = try_all(Path(folder), given.number, given.predictions, given.seed)
    for what, number in sorted(found.kills.items()):
        print(f"{number:4d} {what}")
    print(f"{sum(found.kills.values())} kills, {len(found.faults)} faults")
    print(*found.faults, sep="\n")
    return 1 if found.faults else 0


def try_all(folder: Path, number: int, predictions: int, seed: int) -> Found:
    """So many kills of trainings, and of predictions."""
    from vpt.data.synthetic import make_dataset

    import_all()
    rng, found = random.Random(seed), Found()
    data = make_dataset(folder / "blobs", cases=6)
    expected = {}
    for name, more in (("plain", []), ("storing", STORING)):
        started = time.monotonic()
        train = ["train", str(data), "--out", str(folder / name), *SETTINGS, *more]
        require(run(train, folder / "log") == 0, (folder / "log").read_text())
        expected[name] = (folder / name, time.monotonic() - started, more)
    for trial in count():
        if sum(found.kills.values()) >= number or found.faults[LIMIT:]:
            break
        name = "storing" if trial % 2 else "plain"
        whole, seconds, more = expected[name]
        took = _try_training(folder / f"run-{trial}", data, more, whole, seconds, rng, found)
        expected[name] = (whole, min(seconds, took), more)
        print(dict(found.kills), *found.faults[-1:], file=sys.stderr, flush=True)
        print_so_far(found)
    masks, seconds = _predict(folder, data, folder / "plain")
    for trial in count():
        if sum(found.kills.values()) >= number + predictions or found.faults[LIMIT:]:
            break
        _try_prediction(folder / f"masks-{trial}", data, folder / "plain", masks, seconds, rng, found)
        print_so_far(found)
    return found


def print_so_far(found: Found) -> None:
    """What `proof.py` has of a trial that is stopped."""
    print(f"{sum(found.kills.values())} kills so far, {len(found.faults)} faults", flush=True)


# --- trials -----------------------------------------------------------------------------------------------------------


def _try_training(
    out: Path, data: Path, more: list[str], whole: Path, seconds: float, rng: random.Random, found: Found
) -> float:
    """A kill and what follows; how long the command took, where it ended before the kill."""
    again = ["train", str(data), "--out", str(out), *SETTINGS, *more]
    resume = ["train", "--resume", "--out", str(out)]
    log, number = out.with_suffix(".log"), rng.choice([signal.SIGKILL, signal.SIGTERM])
    moment, started = rng.uniform(0, seconds), time.monotonic()
    code = run(again, log, kill=(moment, number))
    took = time.monotonic() - started if code == 0 else seconds
    what = f"{signal.Signals(number).name} {moment:.2f} s into a training"
    if code != 0:
        found.kills[f"{signal.Signals(number).name}, a training: {phase(out)}"] += 1
    found.faults += [f"{what}: {fault}" for fault in damaged(out)]
    if number == signal.SIGTERM and code not in (0, 143, -signal.SIGTERM):
        found.faults.append(f"{what}: exit code {code}\n{log.read_text()}")
    for _ in range(TRIES):
        if code == 0 or is_done(out):
            code = 0
            break
        go_on = rng.choice([again, resume]) if (out / "config.yaml").exists() else again
        kill = (rng.uniform(0, seconds), signal.SIGKILL) if rng.random() < 0.3 else None
        code = run(go_on, log, kill=kill)
        found.kills["SIGKILL, a training that goes on"] += code == -signal.SIGKILL
        found.faults += [f"{what}, and going on: {fault}" for fault in damaged(out)]
        if code == 1 or (code != 0 and kill is None):
            found.faults.append(f"{what}: {' '.join(go_on[:2])} ended with {code}\n{log.read_text()}")
            return took
    if code != 0 and (code := run(again, log)) != 0:
        found.faults.append(f"{what}: in the end {code}\n{log.read_text()}")
        return took
    found.faults += [f"{what}: {fault}" for fault in differing_runs(out, whole)]
    return took


def _try_prediction(
    out: Path, data: Path, model: Path, masks: Path, seconds: float, rng: random.Random, found: Found
) -> None:
    number, moment, log = rng.choice([signal.SIGKILL, signal.SIGTERM]), rng.uniform(0, seconds), out.with_suffix(".log")
    command = _prediction(data, out, model)
    code = run(command, log, kill=(moment, number))
    what = f"{signal.Signals(number).name} {moment:.2f} s into a prediction"
    written = len(list(out.glob("*.nii.gz"))) if out.exists() else 0
    if code != 0:
        found.kills[f"{signal.Signals(number).name}, a prediction, after {counted(written, 'mask')}"] += 1
    found.faults += [f"{what}: {fault}" for fault in damaged(out)]
    if (code := run(command, log)) != 0:
        found.faults.append(f"{what}: the same command ended with {code}\n{log.read_text()}")
    found.faults += [f"{what}: {fault}" for fault in differing_masks(out, masks)]


def _prediction(data: Path, out: Path, model: Path) -> list[str]:
    scans, given = str(data / "imagesTr"), ["-o", str(out), "-m", str(model)]
    return ["predict", "-i", scans, *given, "--device", "cpu", "--skip-existing"]


def _predict(folder: Path, data: Path, model: Path) -> tuple[Path, float]:
    """The masks that are expected, and how long they took."""
    started, out = time.monotonic(), folder / "masks"
    command = _prediction(data, out, model)
    require(run(command, folder / "log") == 0, (folder / "log").read_text())
    return out, time.monotonic() - started


# --- commands ---------------------------------------------------------------------------------------------------------


def import_all() -> None:
    """What a training and a prediction import, so that the processes that are forked from this one need not."""
    import cv2
    import torch.utils.tensorboard  # noqa: F401

    import vpt.cli.predict
    import vpt.engine.run
    import vpt.report.pictures
    import vpt.use.load  # noqa: F401

    cv2.setNumThreads(0)


def run(
    words: Sequence[str], log: Path, kill: tuple[float, int] | None = None, begin: Callable[[], None] = lambda: None
) -> int:
    """`vpt` with these words in a process of its own; its exit code, or minus the signal that ended it.

    kill: after so many seconds it is sent this signal, SIGTERM to its whole group; begin: called first in that process.
    """
    child = os.fork()
    if child == 0:
        begin()
        _as_command(words, log)
    moment, number = kill or (LONGEST, signal.SIGKILL)
    code = _wait(child, moment)
    if code is None:
        os.killpg(child, number) if number == signal.SIGTERM else os.kill(child, number)
        code = _wait(child, LONGEST)
    if code is None:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise SystemExit(f"{' '.join(words)}: hangs after {signal.Signals(number).name}\n{log.read_text()}")
    return code


def _as_command(words: Sequence[str], log: Path) -> None:
    """In the forked process: become the command."""
    from vpt.cli import main as command

    os.setsid()
    told = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(told, stream)
    code = 1
    try:
        sys.argv = ["vpt", *words]
        command()
    except SystemExit as left:
        code = int(left.code or 0)
    except KeyboardInterrupt:
        code = 130
    except BaseException as error:
        import traceback

        traceback.print_exception(error)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(child: int, seconds: float) -> int | None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return None


def is_done(run: Path) -> bool:
    """Killed after its last write."""
    return (run / "state" / "last.safetensors").exists() and not (run / "state" / "running.json").exists()


# --- what is left -----------------------------------------------------------------------------------------------------


def phase(run: Path) -> str:
    """How far the command had come."""
    if not (run / "config.yaml").exists():
        return "1 set-up"
    if not (run / "state" / "last.safetensors").exists():
        stored = any((run / "cache").glob("*.npy*")) if (run / "cache").exists() else False
        return "2 preparing or storing" if stored else "1 set-up"
    if not (run / "last.safetensors").exists():
        return "3 first epoch"
    if len(rows(run)) < 2:
        return "4 validation or second epoch"
    return "5 finishing"


def _npy(path: Path) -> object:
    return np.load(path)


def _picture(path: Path) -> object:
    with Image.open(path) as image:
        return image.load()


READERS: dict[str, Callable[[Path], object]] = {
    ".safetensors": load_file,
    ".npy": _npy,
    ".json": lambda path: json.loads(path.read_text()),
    ".yaml": lambda path: yaml.safe_load(path.read_text()),
    ".png": _picture,
    ".gz": lambda path: np.asarray(nib.load(path).dataobj),
    ".csv": lambda path: list(csv.DictReader(path.read_text().splitlines())),
}


def damaged(folder: Path) -> Iterator[str]:
    """Files that are there and not whole; what is being written has a name of its own (`.part-...`)."""
    for path in sorted(folder.rglob("*")) if folder.exists() else []:
        if path.name.startswith(".") or path.suffix not in READERS:
            continue
        try:
            READERS[path.suffix](path)
        except Exception as error:
            yield f"{path.relative_to(folder)} is damaged: {error}"


def rows(run: Path) -> list[dict[str, str]]:
    if not (run / "metrics.csv").exists():
        return []
    found = csv.DictReader((run / "metrics.csv").read_text().splitlines())
    return [{key: value for key, value in row.items() if key != "seconds"} for row in found]


def differing_runs(run: Path, whole: Path) -> Iterator[str]:
    """What is not as in the run that was never interrupted."""
    for name in ("best.safetensors", "last.safetensors", "state/last.safetensors"):
        ours, theirs = load_file(run / name), load_file(whole / name)
        bad = [key for key in {**ours, **theirs} if not equal(ours, theirs, key)]
        if bad:
            yield f"{name} differs in {bad[:3]}"
    if rows(run) != rows(whole):
        yield "metrics.csv differs"
    names = {path.name for path in run.iterdir()} ^ {path.name for path in whole.iterdir()}
    if names:
        yield f"{sorted(names)} in one of the folders only"
    yield from left_over(run)
    yield from differing_masks(run / "validation", whole / "validation")


def equal(ours: dict, theirs: dict, key: str) -> bool:
    if key not in ours or key not in theirs:
        return False
    return ours[key].dtype == theirs[key].dtype and ours[key].numpy().tobytes() == theirs[key].numpy().tobytes()


def differing_masks(folder: Path, whole: Path) -> Iterator[str]:
    for path in sorted(whole.glob("*.nii.gz")):
        if not (folder / path.name).exists():
            yield f"{path.name} is missing"
        elif not np.array_equal(np.asarray(nib.load(folder / path.name).dataobj), np.asarray(nib.load(path).dataobj)):
            yield f"{path.name} differs"
    yield from left_over(folder)


def left_over(folder: Path) -> Iterator[str]:
    parts = [str(path.relative_to(folder)) for path in folder.rglob(".part-*")]
    if parts:
        yield f"{parts} are left over"


def require(held: bool, otherwise: str) -> None:
    if not held:
        raise SystemExit(otherwise)


if __name__ == "__main__":
    sys.exit(main())
