"""The unit of docs/scale.md, and a training as a service, under a running systemd.

    python tests/reliability/units.py [--only NAME ...]

For root, with Debian's `systemd-container`. systemd boots as the first process of a container whose disk is this
machine's with a layer of memory above it, so that nothing here is changed. `vpt watch` answers, is stopped, is killed
and comes again, and is there after the machine was shut down; a training that is killed or stopped goes on to the files
of one that was left alone. Faults are printed, exit code 1.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from hosts import can_begin, report_trials, trial_parser
from kills import differing_masks, differing_runs
from together import SETTINGS, words

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "scale.md"
LONGEST = 400.0  # seconds for whatever is waited for
UNIT = "vpt-watch.service"
TRAINING = SETTINGS | {"train.max_steps": 60, "train.save_every": "5", "train.workers": 1}
PROGRAM = """#!/bin/sh
export PYTHONPATH={repository} OMP_NUM_THREADS=1
exec {python} -m vpt.cli "$@"
"""
NIGHT = """[Service]
ExecStart=/opt/vpt/bin/vpt {words}
Restart=on-failure
RestartSec=1
SuccessExitStatus=143
"""


def missing() -> str | None:
    """Why no systemd can be booted here."""
    if os.geteuid() != 0:
        return "a container of systemd is for root"
    if shutil.which("systemd-nspawn") is None or not Path("/lib/systemd/systemd").exists():
        return "systemd-nspawn or systemd is not on this machine (Debian: systemd-container)"
    return None


@dataclass
class Machine:
    """disk: its `/`, as seen from here."""

    disk: Path
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None)
    inside: list[str] = field(default_factory=list)  # how a command is started in it

    def boot(self) -> None:
        seen = [f"--bind-ro={folder}" for folder in (REPOSITORY, Path(sys.prefix), Path(sys.base_prefix))]
        options = ["--quiet", "--private-network", "--register=no", "--keep-unit", "--console=read-only", *seen]
        with self.log.open("ab") as told:
            command = ["systemd-nspawn", f"--directory={self.disk}", *options, "--boot"]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=told, stderr=told)
        until(self._is_up, "systemd does not come", self.log)

    def _is_up(self) -> bool:
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for child in children:
            self.inside = ["nsenter", f"--target={child}", "--mount", "--uts", "--ipc", "--net", "--pid", "--root"]
            said = subprocess.run([*self.inside, "systemctl", "is-system-running"], capture_output=True, text=True)
            if said.stdout.strip() in ("running", "degraded"):
                return True
        return False

    def tell(self, *told: str) -> str:
        done = subprocess.run([*self.inside, *told], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(told)}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def shut_down(self) -> None:
        """As a machine is, with SIGTERM to its services."""
        if self.process is not None:
            subprocess.run([*self.inside, "systemctl", "poweroff"], capture_output=True)
            try:
                self.process.wait(LONGEST)
            finally:
                self.process.kill()
                self.process = None

    def facts(self, unit: str) -> dict[str, str]:
        """Those that are set anew where systemd forgets a unit that has ended are not asked for."""
        asked = "ActiveState,Result,MainPID,NRestarts"
        return dict(line.split("=", 1) for line in self.tell("systemctl", "show", unit, f"--property={asked}").split())

    def said(self, unit: str) -> str:
        return self.tell("journalctl", "--no-pager", "--output=cat", f"--unit={unit}")


def until(held: Callable[[], bool], otherwise: str, log: Path | None = None) -> float:
    """Seconds that it took."""
    started = time.monotonic()
    while not held():
        if time.monotonic() > started + LONGEST:
            raise SystemExit(f"{otherwise} in {LONGEST:.0f} s\n{log.read_text(errors='replace') if log else ''}")
        time.sleep(0.2)
    return time.monotonic() - started


@contextmanager
def machine(folder: Path) -> Iterator[Machine]:
    """Not booted yet; shut down where the block is left."""
    layer, disk = folder / "layer", folder / "disk"
    for each in (layer, disk):
        each.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(layer)], check=True)
    try:
        for name in ("above", "work"):
            (layer / name).mkdir()
        options = f"lowerdir=/,upperdir={layer / 'above'},workdir={layer / 'work'}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(disk)], check=True)
        try:
            yield _furnished(Machine(disk, folder / "boot.log"))
        finally:
            subprocess.run(["umount", "--lazy", str(disk)], check=False)
    finally:
        subprocess.run(["umount", "--lazy", str(layer)], check=False)


def _furnished(made: Machine) -> Machine:
    """With nothing of this machine's own services, and a `vpt` where the unit looks for it."""
    units = made.disk / "etc" / "systemd" / "system"
    for wants in units.glob("*.wants"):
        shutil.rmtree(wants)
    (made.disk / "etc" / "fstab").write_text("")
    program = made.disk / "opt" / "vpt" / "bin" / "vpt"
    program.parent.mkdir(parents=True)
    program.write_text(PROGRAM.format(repository=REPOSITORY, python=sys.executable))
    program.chmod(0o755)
    blocks = re.findall(r"^```ini\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    (units / UNIT).write_text(next(block for block in blocks if "vpt watch" in block))
    return made


@dataclass(frozen=True)
class Trials:
    """data: a data set; whole: a run that was left alone; masks: of its scans, by one `vpt predict`."""

    made: Machine
    data: Path
    whole: Path
    masks: Path

    @property
    def results(self) -> Path:
        return self.made.disk / "results"

    def put(self, numbers: range) -> None:
        """Scans into the drop folder."""
        for path in sorted((self.data / "imagesTr").glob("*.nii.gz"))[numbers.start : numbers.stop]:
            shutil.copy(path, self.made.disk / "incoming")

    def answered(self, number: int) -> float:
        """Seconds until so many scans are in the record."""
        return until(lambda: len(self.records()) >= number, f"no record of {number} scans", self.made.log)

    def records(self) -> dict[str, str]:
        """When each scan was answered."""
        path = self.results / "predictions.json"
        return {name: each["when"] for name, each in _cases(path).items()} if path.exists() else {}


def _cases(path: Path) -> dict[str, dict[str, str]]:
    return {each["case"]: each for each in json.loads(path.read_text())["cases"]}


def watched(trials: Trials) -> Iterator[str]:
    """The unit of the page, from `systemctl enable --now` over kill and stop to the next boot."""
    made = trials.made
    for name in ("incoming", "results"):
        (made.disk / name).mkdir()
    shutil.copytree(trials.whole, made.disk / "models" / "liver")
    made.boot()
    made.tell("systemctl", "enable", "--now", UNIT)
    trials.put(range(2))
    print(f"    two scans answered after {trials.answered(2):.0f} s")
    first = trials.records()

    os.kill(_process_here(made, UNIT), signal.SIGKILL)
    until(lambda: made.facts(UNIT)["NRestarts"] == "1", "no restart after a kill")
    trials.put(range(2, 4))
    print(f"    killed, started again by systemd; two more answered after {trials.answered(4):.0f} s")
    yield from _left_alone(first, trials.records())

    trials.put(range(4, 5))
    time.sleep(5)
    before, since = trials.records(), time.monotonic()
    made.tell("systemctl", "stop", UNIT)
    facts = made.facts(UNIT)
    print(f"    stopped in {time.monotonic() - since:.1f} s: {facts['Result']}")
    if (facts["ActiveState"], facts["Result"]) != ("inactive", "success"):
        yield f"stopped: {facts}\n{made.said(UNIT)}"
    yield from _left_alone(before, trials.records())

    made.tell("systemctl", "start", UNIT)
    trials.answered(5)
    made.shut_down()
    trials.put(range(5, 6))
    before = trials.records()
    made.boot()
    print(f"    shut down and booted: the sixth answered after {trials.answered(6):.0f} s")
    yield from _left_alone(before, trials.records())
    yield from differing_masks(trials.results, trials.masks)
    if "Traceback" in (said := made.said(UNIT)):
        yield said
    made.tell("systemctl", "disable", "--now", UNIT)
    made.shut_down()


def _left_alone(before: dict[str, str], after: dict[str, str]) -> Iterator[str]:
    again = [name for name, when in before.items() if after.get(name) != when]
    if again:
        yield f"answered again: {again}"


def _process_here(made: Machine, unit: str) -> int:
    """The number that the unit's first process has outside of the container."""
    inner = made.facts(unit)["MainPID"]
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            words = next(line for line in status.read_text().splitlines() if line.startswith("NSpid")).split()
        except (OSError, StopIteration):
            continue
        if len(words) > 2 and words[-1] == inner and b"vpt.cli" in (status.parent / "cmdline").read_bytes():
            return int(words[1])
    raise SystemExit(f"{unit}: no process {inner}")


def trained(trials: Trials) -> Iterator[str]:
    """`Restart=on-failure` and `vpt train --resume`: killed, then stopped, then the machine shut down."""
    made, run = trials.made, trials.made.disk / "night"
    shutil.copytree(trials.data, made.disk / "liver")
    given = [*map(str, words(Path("/liver"), Path("/night"), TRAINING)), "--resume"]
    unit = made.disk / "etc" / "systemd" / "system" / "night.service"
    unit.write_text(NIGHT.format(words=" ".join(given)))
    made.boot()
    made.tell("systemctl", "start", "night")
    _steps_in(run, 1)
    os.kill(_process_here(made, "night"), signal.SIGKILL)
    _steps_in(run, 2)
    if (restarts := made.facts("night")["NRestarts"]) != "1":
        yield f"{restarts} restarts after one kill"
    made.tell("systemctl", "stop", "night")
    facts = made.facts("night")
    (told,) = re.findall(r"interrupted in epoch \d+, step \d+", made.said("night")) or ["not told"]
    print(f"    killed and gone on; stopped: {facts['Result']}, {told}")
    if (facts["ActiveState"], facts["Result"]) != ("inactive", "success") or told == "not told":
        yield f"stopped: {facts}\n{made.said('night')}"
    made.tell("systemctl", "start", "night")
    _steps_in(run, 3)
    made.shut_down()
    made.boot()
    made.tell("systemctl", "start", "night")
    until(lambda: made.facts("night")["ActiveState"] in ("inactive", "failed"), "the training does not end", made.log)
    facts, said = made.facts("night"), made.said("night")
    if facts["Result"] != "success" or "Traceback" in said:
        yield f"ended: {facts}\n{said}"
    print(f"    shut down and booted; {(run / 'train.log').read_text().count('resumed /')} times resumed")
    yield from differing_runs(run, trials.whole)
    made.shut_down()


def _steps_in(run: Path, start: int) -> None:
    """Until the state was saved after a step, in the start of this number."""
    state, log = run / "state" / "last.safetensors", run / "train.log"
    before = state.stat().st_mtime_ns if state.exists() else 0

    def held() -> bool:
        starts = len(re.findall(r"(started|resumed) /", log.read_text())) if log.exists() else 0
        return starts >= start and state.exists() and state.stat().st_mtime_ns > before

    until(held, f"no step in start {start}")
    before = state.stat().st_mtime_ns
    until(held, f"no second step in start {start}")


def prepared(folder: Path, made: Machine) -> Trials:
    from vpt.data.synthetic import make_dataset

    trials = Trials(made, make_dataset(folder / "blobs", cases=6), folder / "whole", folder / "masks")
    _vpt(words(trials.data, trials.whole, TRAINING))
    _vpt(["predict", "-i", trials.data / "imagesTr", "-o", trials.masks, "-m", trials.whole])
    return trials


def _vpt(given: list[object]) -> None:
    command = [sys.executable, "-m", "vpt.cli", *map(str, given)]
    done = subprocess.run(["env", "OMP_NUM_THREADS=1", *command], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"vpt ended with {done.returncode}: {done.stdout}{done.stderr}")


def main() -> int:
    only = trial_parser(__doc__).parse_args().only
    if not can_begin(missing()):
        return 0
    with tempfile.TemporaryDirectory() as name, machine(Path(name)) as made:
        print(subprocess.run(["systemctl", "--version"], capture_output=True, text=True).stdout.partition("\n")[0])
        try:
            trials = prepared(Path(name), made)
            return report_trials(
                {"a drop folder": lambda: watched(trials), "a training": lambda: trained(trials)}, only
            )
        finally:
            made.shut_down()


if __name__ == "__main__":
    sys.exit(main())
