"""vpt's own folders with one damaged file in them, given to the command that reads them again.

    python tests/reliability/folders.py --number 300 [--seed N] [--kind NAME ...]

A training that was broken off and goes on, a run that is evaluated, a record that a batch goes on from, a comparison
and a sequence of tasks: of each a file is damaged (`mutants.py`), emptied, removed, or a folder or a link in a circle
put in its place. Faults are a traceback, an exit code of no meaning, over 60 s, and a training that ends well with
other weights than one that was left alone, without a word. Faults are printed, exit code 1.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from kills import SETTINGS, STORING, differing_masks, differing_runs, import_all, require, run
from mutants import mutant

LONGEST = 60.0  # seconds
SHORT = [*("--epochs", "1", "--device", "cpu"), "--set", "train.max_steps=2", "--set", "plan.image_size=32"]
GENERATED = {".png", ".html", ".md", ".txt", ".log", ".lock"}  # nothing of vpt reads them


@dataclass(frozen=True)
class Kind:
    """made: the folder that is copied and damaged; command: with the copy in the place of `{}`."""

    name: str
    made: Path
    command: list[str]
    differs: Callable[[Path], Iterator[str]] = lambda folder: iter(())
    spared: str = ""  # ending of files that are left whole


@dataclass(frozen=True)
class Tried:
    """outcome: `well`, `refused`, or a fault."""

    file: str
    outcome: str
    said: str


def damaged(file: Path, seed: int) -> str:
    """In place -> what was done to it."""
    act = random.Random(seed).randrange(10)
    content = b"" if act == 0 else mutant(file, seed)[0]
    file.unlink()
    if act == 1:
        return "removed"
    if act == 2:
        file.mkdir()
        return "a folder"
    if act == 3:
        file.symlink_to(file.name)
        return "a link to itself"
    file.write_bytes(content)
    return "empty" if act == 0 else "damaged"


def tried(kind: Kind, folder: Path, seed: int) -> Tried:
    """One file of a copy is damaged; what the command makes of it."""
    copy, log = folder / f"copy-{kind.name}", folder / "log"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(kind.made, copy, symlinks=True)
    found = (path for path in sorted(copy.rglob("*")) if path.is_file() and path.stat().st_size)
    spared = GENERATED | {kind.spared}
    file = random.Random(seed).choice([path for path in found if path.suffix not in spared])
    name = f"{file.relative_to(copy)} ({damaged(file, seed)})"
    started = time.monotonic()
    code = run([word.format(copy) for word in kind.command], log)
    took, said = time.monotonic() - started, log.read_text(errors="replace")
    if "Traceback" in said:
        return Tried(name, "traceback", said)
    if code not in (0, 1, 2):
        return Tried(name, f"exit code {code}", said)
    if took > LONGEST:
        return Tried(name, f"{took:.0f} s", said)
    if code == 0 and (other := list(kind.differs(copy))):
        return Tried(name, "another result", "\n".join([*other, said]))
    return Tried(name, "refused" if code else "well", said)


# --- the folders ------------------------------------------------------------------------------------------------------


def kinds_in(folder: Path) -> list[Kind]:
    from vpt.data.synthetic import make_dataset

    data, log = make_dataset(folder / "blobs", cases=6), folder / "log"

    def vpt(words: Sequence[object]) -> None:
        require(run([str(word) for word in words], log) == 0, log.read_text() if log.exists() else "")

    whole, broken, record, masks = (folder / name for name in ("whole", "broken", "record", "masks"))
    train = [*SETTINGS, *STORING]
    vpt(["train", data, "--out", whole, *train])
    _break_off(data, broken, train, log)
    scans = ["predict", "-i", data / "imagesTr", "-m", whole, "--device", "cpu"]
    vpt([*scans, "-o", masks])
    shutil.copytree(masks, record)
    compared, tasks = folder / "compared", folder / "tasks"
    comparison = ["compare", data, "--methods", "deep,mask", "--seeds", "1", *SHORT]
    vpt([*comparison, "--out", compared])
    sequence = [
        "continual",
        _pictures(folder / "pictures"),
        "--methods",
        "ncm,coda",
        "--seeds",
        "1",
        "--tasks",
        "2",
        *SHORT,
    ]
    vpt([*sequence, "--out", tasks])
    return [
        Kind("going on", broken, ["train", "--resume", "--out", "{}"], lambda made: _weights_differ(made, whole)),
        Kind("evaluated", whole, ["evaluate", "{}", "--device", "cpu", "--out", str(folder / "evaluation")]),
        Kind("info", whole, ["info", "{}"]),
        Kind("a record", record, [*map(str, scans), "-o", "{}", "--continue"], lambda made: _masks(made, masks), ".gz"),
        Kind("a comparison", compared, [*map(str, comparison), "--out", "{}"]),
        Kind("tasks", tasks, [*map(str, sequence), "--out", "{}"]),
    ]


def _pictures(folder: Path) -> Path:
    """Four classes of eight small pictures each, with fixed sides."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in "abcd":
        for number in range(8):
            pixels = rng.integers(0, 60, (32, 32), np.uint8) + 60 * "abcd".index(name)
            side = "train" if number < 5 else "val" if number < 6 else "test"
            (folder / side / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / side / name / f"{name}{number}.png")
    return folder


def _break_off(data: Path, out: Path, train: Sequence[str], log: Path) -> None:
    """SIGKILL in the second epoch."""

    def until_there(child: int) -> None:
        rows = out / "metrics.csv"
        end = time.monotonic() + 200
        while time.monotonic() < end:
            if rows.exists() and len(rows.read_text().splitlines()) > 1:
                os.kill(child, signal.SIGKILL)
                return
            time.sleep(0.005)

    parent = os.getpid()
    watcher = os.fork()
    if watcher == 0:  # the command is this process's next child
        while not (children := _children(parent) - {os.getpid()}):
            time.sleep(0.01)
        until_there(children.pop())
        os._exit(0)
    code = run(["train", str(data), "--out", str(out), *train], log)
    os.waitpid(watcher, 0)
    require(code == -signal.SIGKILL, f"the training was not broken off: {code}\n{log.read_text()}")


def _children(process: int) -> set[int]:
    return {int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()}


def _weights_differ(made: Path, whole: Path) -> Iterator[str]:
    return (each for each in differing_runs(made, whole) if "safetensors" in each)


def _masks(made: Path, masks: Path) -> Iterator[str]:
    return differing_masks(made, masks)


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--number", type=int, default=300, help="damaged folders, in turn of every kind")
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--kind", action="append", default=[], help="of folders; all of them by default")
    given = asked.parse_args()
    import_all()
    counts: Counter[tuple[str, str]] = Counter()
    faults = 0
    with tempfile.TemporaryDirectory() as name:
        kinds = [kind for kind in kinds_in(Path(name)) if not given.kind or kind.name in given.kind]
        for seed in range(given.seed, given.seed + given.number):
            kind = kinds[seed % len(kinds)]
            one = tried(kind, Path(name), seed)
            counts[kind.name, one.outcome] += 1
            if one.outcome not in ("well", "refused"):
                faults += 1
                print(f"seed {seed}, {kind.name}, {one.file}: {one.outcome}\n{one.said}", flush=True)
    for (kind_name, outcome), number in sorted(counts.items()):
        print(f"{number:4d} {kind_name}: {outcome}")
    print(f"{given.number} damaged folders, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
