"""Commands with too little memory and too small disks; what they say, what they leave, and whether they go on.

    python tests/reliability/scarce.py

Memory is a bound on the address space, from next to nothing above what a process starts with; disks are `tmpfs` of a
few megabytes, for which one has to be root. A fault is a traceback, an exit code but 0 and 1, "truncated or damaged" of
files that are whole, a file that is not, or a command that does not go on once there is room. Counted apart are
commands that a library, or Python, ended by a signal or a word of its own where it found no memory, which nobody can
catch; what those leave has to be whole as well.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from kills import SETTINGS, damaged, import_all, left_over, require, run

from vpt.words import counted

MEGABYTES = (8, 64, 128, 192, 288, 320, 384, 512, 768)
BY_LIBRARIES = (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, 127)  # 127 is the C library's own
DISKS = (0.02, 1, 2, 4)
LARGE = ("--set", "plan.image_size=256", "--set", "train.batch_size=16", "--set", "train.workers=0")


def main() -> int:
    faults: list[str] = []
    ended: list[str] = []
    tried = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        commands = prepared(folder)
        for megabytes in MEGABYTES:
            for what, words in commands.items():
                faults += with_memory(folder, what, words, megabytes, ended)
                tried += 1
        if os.geteuid() == 0:
            for megabytes in DISKS:
                for what in ("train", "predict"):
                    faults += on_disk(folder, what, commands[what], megabytes)
                    tried += 1
        else:
            print("disks: not tried, for only root can mount them")
    said = f"{counted(tried, 'command')} with too little, {len(ended)} of them ended by a library, {len(faults)} faults"
    print(*ended, said, *faults, sep="\n")
    return 1 if faults else 0


def prepared(folder: Path) -> dict[str, list[str]]:
    """Commands by what they are, with OUT in the place of their output."""
    import nibabel as nib
    import numpy as np

    from vpt.data.synthetic import make_dataset

    import_all()
    data = make_dataset(folder / "blobs", cases=6)
    model = folder / "model"
    require(
        run(["train", str(data), "--out", str(model), *SETTINGS], folder / "log") == 0, (folder / "log").read_text()
    )
    large = folder / "large"
    large.mkdir()
    voxels = np.random.default_rng(0).normal(100, 20, (256, 256, 160)).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 1.0, 2.0, 1.0])), large / "large.nii.gz")
    with_model = ["-o", "OUT", "-m", str(model), "--device", "cpu"]
    return {
        "train": ["train", str(data), "--out", "OUT", *SETTINGS],
        "train on large batches": ["train", str(data), "--out", "OUT", *SETTINGS, *LARGE],
        "predict": ["predict", "-i", str(data / "imagesTr"), *with_model, "--preview", "--probabilities", "--continue"],
        "predict a large scan": ["predict", "-i", str(large), *with_model, "--continue", "--force"],
        "check": ["check", str(data)],
    }


def with_memory(folder: Path, what: str, words: Sequence[str], megabytes: int, ended: list[str]) -> Iterator[str]:
    """Faults; `ended` is added to where a library ended the command."""
    out, log = folder / f"{what}-{megabytes}", folder / "log"
    code = run(_into(words, out), log, begin=partial(_bound, megabytes))
    if code in BY_LIBRARIES:
        last = log.read_text(errors="replace").strip().splitlines()[-1:] or [""]
        ended.append(f"{what} with {megabytes} MB: ended by a library ({code}): {last[0][:160]}")
        yield from (f"{what} with {megabytes} MB: {fault}" for fault in damaged(out))
        return
    yield from _faults(f"{what} with {megabytes} MB", code, log, out)


def on_disk(folder: Path, what: str, words: Sequence[str], megabytes: float) -> Iterator[str]:
    log = folder / "log"
    with disk(folder / f"disk-{what}-{megabytes}", megabytes) as (place, enlarge):
        out, name = place / "out", f"{what} on {megabytes} MB"
        code = run(_into(words, out), log)
        yield from _faults(name, code, log, out)
        enlarge()
        again = run(_into(words, out), log)
        yield from _faults(f"{name}, then with room", again, log, out)
        if again != 0:
            yield f"{name}: does not go on\n{log.read_text()}"
        yield from (f"{name}: {fault}" for fault in left_over(out))


def _into(words: Sequence[str], out: Path) -> list[str]:
    return [str(out) if word == "OUT" else word for word in words]


def _bound(megabytes: int) -> None:
    """So much more address space than this process has."""
    lines = Path("/proc/self/status").read_text().splitlines()
    used = int(next(line for line in lines if line.startswith("VmSize")).split()[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (used + (megabytes << 20),) * 2)


@contextmanager
def disk(place: Path, megabytes: float) -> Iterator[tuple[Path, partial[object]]]:
    place.mkdir()
    mount = partial(subprocess.run, check=True)
    mount(["mount", "-t", "tmpfs", "-o", f"size={int(1024 * megabytes)}k", "vpt", str(place)])
    try:
        yield place, partial(mount, ["mount", "-o", "remount,size=400m", str(place)])
    finally:
        mount(["umount", str(place)])


def _faults(what: str, code: int, log: Path, out: Path) -> Iterator[str]:
    said = log.read_text()
    last = said.strip().splitlines()[-1:] or [""]
    print(f"{what}: {code}: {last[0][:160]}", flush=True)
    if code not in (0, 1) or "Traceback" in said or "truncated or damaged" in said:
        yield f"{what}: exit code {code}\n{said}"
    failures = out / "failures.json"
    for case, failure in (json.loads(failures.read_text()) if failures.exists() else {}).items():
        if "damaged" in failure["reason"] or failure["error"]:
            yield f"{what}: {case} {failure}"
    yield from (f"{what}: {fault}" for fault in damaged(out))


if __name__ == "__main__":
    sys.exit(main())
