"""All trials of this folder one after the other, on one commit, and a table of what each of them came to.

    python tests/reliability/proof.py --out FOLDER [--only NAME ...]

FOLDER gets what each trial prints (`NAME.log`), its figures (`NAME.json`) and the table of all (`proof.md`). A trial
that has figures of this commit in FOLDER is not repeated, so that an interrupted proof goes on, and two calls with
different `--only` share the processors. Of a trial that is stopped the table has what it counted so far. SLURM,
machines, units and small disks are for root; what this machine lacks is in the table as not run, with the reason. Exit
code 1 where a trial found a fault or did not end.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
LONGEST = 3 * 3600.0  # seconds for a trial
TRIALS = {
    "kills": ["kills.py", "--number", "200", "--predictions", "50", "--seed", "17"],
    "mutants": ["fuzz.py", "--mutants", "10000", "--seed", "170000000", "--workers", "1"],
    "forms": ["fuzz.py", "--forms", "--mutants", "1500", "--seed", "200000000", "--workers", "1"],
    "folders": ["folders.py", "--number", "150", "--seed", "7000"],
    "scarce": ["scarce.py"],
    "surroundings": ["surroundings.py"],
    "machines": ["machines.py"],
    "slurm": ["slurm.py", "--steps", "60"],
    "units": ["units.py"],
    "hostile files": ["-m", "pytest", "-q", "test_bombs.py", "../test_artifact_doubts.py", "../test_sealed.py"],
    "no connections": ["-m", "pytest", "-q", "test_no_connections.py"],
    "recipes": ["-m", "pytest", "-q", "test_recipes.py"],
    "archives": ["-m", "pytest", "-q", "../use/archives", "../test_cli_archives.py"],
    "resuming": ["-m", "pytest", "-q", *(f"../engine/test_{name}.py" for name in ("run", "continuing", "checkpoint"))],
    "processes": ["-m", "pytest", "-q", *(f"../engine/test_{name}.py" for name in ("together", "ranks", "leaving"))],
}


@dataclass(frozen=True)
class Figures:
    """counted: what was tried, in the trial's own words; faults: None where it did not run, or did not end."""

    trial: str
    command: str
    commit: str
    started: str
    seconds: int
    load: tuple[float, float]  # of the last minute, before and after
    counted: str
    faults: int | None


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--out", type=Path, required=True, help="folder for logs, figures and the table")
    asked.add_argument("--only", nargs="+", action="extend", default=[], choices=TRIALS, help="trials, or else all")
    given = asked.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the trial that runs ends too
    commit, bad = commit_here(), False
    for name in given.only or TRIALS:
        try:
            figures = known(given.out, name, commit) or run(name, given.out, commit)
        finally:
            (given.out / "proof.md").write_text(table(given.out), encoding="utf-8")  # of all calls into this folder
        bad |= figures.faults != 0 and not figures.counted.startswith("skipped")
        print(row(figures), flush=True)
    return 1 if bad else 0


def commit_here() -> str:
    """Of the files that are run, with a word where they are not those of the commit."""
    said = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True)
    changed = subprocess.run(["git", "status", "--porcelain", "vpt", "tests"], cwd=REPOSITORY, capture_output=True)
    return (said.stdout.strip() or "no commit") + (" with changes" if changed.stdout else "")


def known(out: Path, name: str, commit: str) -> Figures | None:
    """Figures of an earlier call on the same commit, where the trial ended."""
    path = out / f"{name}.json"
    found = Figures(**json.loads(path.read_text())) if path.exists() else None
    ended = found and found.faults is not None and "so far" not in found.counted
    return found if ended and found.commit == commit else None


def run(name: str, out: Path, commit: str) -> Figures:
    """One trial, in a process group of its own that ends with it."""
    started, since, before, log = datetime.now(UTC), time.monotonic(), os.getloadavg()[0], out / f"{name}.log"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    with log.open("wb") as told:
        process = subprocess.Popen(
            [sys.executable, *TRIALS[name]],
            cwd=HERE,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=told,
            start_new_session=True,
        )
        stopped: BaseException | None = None
        try:
            process.wait(LONGEST)
        except BaseException as error:  # also Ctrl-C: nothing is left running, and what was counted so far is kept
            stopped = error
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
    counted, faults = outcome(log.read_text(errors="replace"), process.returncode)
    load = (round(before, 1), round(os.getloadavg()[0], 1))
    took = round(time.monotonic() - since)
    figures = Figures(name, " ".join(TRIALS[name]), commit, f"{started:%Y-%m-%d %H:%M}", took, load, counted, faults)
    (out / f"{name}.json").write_text(json.dumps(asdict(figures), indent=1), encoding="utf-8")
    if stopped and not isinstance(stopped, subprocess.TimeoutExpired):
        raise stopped
    return figures


def outcome(said: str, code: int) -> tuple[str, int | None]:
    """What was counted and the number of faults, from a script's or pytest's last words."""
    if skipped := re.search(r"^skipped: .*", said, re.M):
        return skipped[0], None
    if found := re.findall(r"^(\d+ .+), (\d+) faults\b", said, re.M):
        counted, faults = found[-1]
        return counted, int(faults)
    if found := re.findall(r"^(?:=+ )?((?:\d+ \w+(?:, )?)+) in [\d.]+s", said, re.M):
        bad = re.findall(r"(\d+) (?:failed|errors?)\b", found[-1])
        return found[-1], sum(map(int, bad))
    return f"did not end (exit code {code})", None


def row(figures: Figures) -> str:
    faults = "-" if figures.faults is None else str(figures.faults)
    load = " to ".join(f"{each:g}" for each in figures.load)
    cells = (figures.trial, figures.counted, faults, figures.started, f"{figures.seconds} s", load, figures.commit)
    return f"| {' | '.join(cells)} |"


def table(out: Path) -> str:
    found = [Figures(**json.loads(path.read_text())) for name in TRIALS if (path := out / f"{name}.json").exists()]
    columns = ("trial", "tried", "faults", "began (UTC)", "took", "load", "commit")
    lines = [f"{machine()}.", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *map(row, found)]
    return "\n".join([*lines, ""])


def machine() -> str:
    """In words, without a name."""
    info = Path("/proc/cpuinfo")
    models = re.findall(r"^model name\s*: (.*)$", info.read_text(), re.M) if info.exists() else []
    processor = models[0] if models else platform.machine()
    system = f"{platform.system()} {platform.release()}"
    return f"{os.cpu_count()} processors ({processor}), {system}, Python {platform.python_version()}"


if __name__ == "__main__":
    sys.exit(main())
