"""One training on two machines: equal to one process, and what ends it ends on both, with a sentence.

    python tests/reliability/machines.py [--only NAME]

The machines are network namespaces of this one (`hosts.py`), for root. Trials: the two ways of docs/scale.md to start
it, also where each machine finds its own name at 127.0.1.1, as on a Debian; all processes of either machine killed;
the cable cut, so that nobody is told; the same command again after each. Faults are printed, exit code 1.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from hosts import Host, can_begin, missing, report_trials, trial_parser, two_hosts
from together import SETTINGS, assert_alike, words

PORT = 29_500
LONGEST = 400.0  # seconds for a command
BOUND = 60.0  # seconds from what ends one machine to the end of vpt on the other
LONG = SETTINGS | {"train.epochs": 1, "train.max_steps": 300, "train.save_every": "20"}
LAUNCHERS = ("torchrun", "nodes")


@dataclass
class Started:
    """A command on a machine."""

    host: Host
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self, until: float) -> int | None:
        """Its exit code; None where it has not ended by then."""
        try:
            return self.process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            return None


@dataclass(frozen=True)
class Trials:
    """A place for runs, and the runs of one process that others are compared with."""

    folder: Path
    data: Path
    whole: Path  # by SETTINGS
    long: Path  # by LONG

    def start(self, hosts: Sequence[Host], launcher: str, out: Path, settings: dict[str, object]) -> list[Started]:
        """The same training on each machine."""
        train = words(self.data, out, settings)
        return [
            _start(host, self.folder / f"{out.name}-{number}.log", *_launched(launcher, number, hosts[0], train))
            for number, host in enumerate(hosts)
        ]


def equal(trials: Trials, launcher: str, own_name: str) -> Iterator[str]:
    """Both end, with the weights and files of one process; the first speaks."""
    out = trials.folder / f"equal-{launcher}-{own_name or 'plain'}"
    with two_hosts(own_name) as hosts:
        started = trials.start(hosts, launcher, out, SETTINGS)
        yield from _ended_well(started)
    yield from _differences(out, trials.whole)
    if "best artifact" not in started[0].said or "best artifact" in started[1].said:
        yield f"not the first process speaks, or not alone:\n{started[1].said}"
    if (out / "train.log").read_text().count("started") != 1 or len(list((out / "tensorboard").iterdir())) != 1:
        yield "not one process alone writes"


def ended(trials: Trials, launcher: str, what: str, number: int) -> Iterator[str]:
    """`killed`: all processes of machine `number`; `cut`: its cable. Then the same command goes on."""
    out = trials.folder / f"{what}-{number}-{launcher}"
    with two_hosts() as hosts:
        started = trials.start(hosts, launcher, out, LONG)
        yield from _wait_for_steps(out, started)
        since = time.monotonic()
        if what == "killed":
            hosts[number].kill()
            left = [started[1 - number]]
        else:
            hosts[number].cut()
            left = started
        for each in left:
            yield from _ended_in_words(each, since)
    with two_hosts() as hosts:
        yield from _ended_well(trials.start(hosts, launcher, out, LONG))
    yield from _differences(out, trials.long)


def _launched(launcher: str, number: int, first: Host, train: Sequence[object]) -> list[str]:
    vpt = ["-m", "vpt.cli", *map(str, train)]
    address = {"MASTER_ADDR": first.name, "MASTER_PORT": str(PORT), "NODE_RANK": str(number)}
    if launcher == "torchrun":
        where = ["--node-rank", str(number), "--master-addr", first.name, "--master-port", str(PORT)]
        return [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", *where, *vpt]
    return ["env", *(f"{k}={v}" for k, v in address.items()), sys.executable, *vpt, "--nodes", "2"]


def _start(host: Host, log: Path, *words: str) -> Started:
    with log.open("wb") as told:
        process = subprocess.Popen(host.command("env", "OMP_NUM_THREADS=1", *words), stdout=told, stderr=told)
    return Started(host, process, log)


def _ended_well(started: Sequence[Started]) -> Iterator[str]:
    until = time.monotonic() + LONGEST
    for each in started:
        if (code := each.wait(until)) != 0:
            yield f"{each.host.name}: exit code {code}\n{each.said}"


def _ended_in_words(each: Started, since: float) -> Iterator[str]:
    """Once what broke it is `since`."""
    name, code = each.host.name, None
    said = _seconds(lambda: "error: " in each.said, since)
    code = each.wait(since + 2 * LONGEST)
    took = time.monotonic() - since
    sentences = [line for line in each.said.splitlines() if line.startswith("error: ")]
    print(f"    {name}: {sentences}; said after {said and round(said, 1)} s, ended with {code} after {took:.1f} s")
    if not code or len(sentences) != 1 or said is None or said > BOUND:
        yield f"{name}: exit code {code}, {sentences}\n{each.said}"


def _seconds(held: Callable[[], bool], since: float) -> float | None:
    while time.monotonic() < since + LONGEST:
        if held():
            return time.monotonic() - since
        time.sleep(0.1)
    return None


def _wait_for_steps(out: Path, started: Sequence[Started]) -> Iterator[str]:
    """Until the state was saved after a step."""
    state, until = out / "state" / "previous.safetensors", time.monotonic() + LONGEST
    while not state.exists():
        if time.monotonic() > until or any(each.process.poll() is not None for each in started):
            yield f"no state: {[each.said for each in started]}"
            return
        time.sleep(0.1)


def _differences(out: Path, whole: Path) -> Iterator[str]:
    try:
        print(f"    weights of best.safetensors differ by {_farthest(out, whole):.1e} at the most")
        assert_alike(out, whole)
    except (AssertionError, OSError) as error:
        yield f"{out.name} is not {whole.name}: {error!r}"


def _farthest(out: Path, whole: Path) -> float:
    from safetensors.torch import load_file

    ours, theirs = (load_file(run / "best.safetensors") for run in (out, whole))
    return max(float((ours[name].double() - theirs[name].double()).abs().max()) for name in theirs)


def prepared(folder: Path) -> Trials:
    from vpt.data.synthetic import make_dataset

    trials = Trials(folder, make_dataset(folder / "blobs", cases=6), folder / "whole", folder / "long")
    for out, settings in ((trials.whole, SETTINGS), (trials.long, LONG)):
        command = [sys.executable, "-m", "vpt.cli", *map(str, words(trials.data, out, settings))]
        done = subprocess.run(["env", "OMP_NUM_THREADS=1", *command], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"vpt ended with {done.returncode}: {done.stdout}{done.stderr}")
    return trials


def all_trials(trials: Trials) -> dict[str, Callable[[], Iterator[str]]]:
    """By name."""
    found: dict[str, Callable[[], Iterator[str]]] = {}
    for launcher in LAUNCHERS:
        for own_name in ("", "127.0.1.1"):
            name = f"equal, {launcher}" + (f", own name at {own_name}" if own_name else "")
            found[name] = lambda by=launcher, own=own_name: equal(trials, by, own)
        for what in ("killed", "cut"):
            for number in (0, 1) if what == "killed" else (1,):
                name = f"{what} {number}, {launcher}"
                found[name] = lambda by=launcher, what=what, number=number: ended(trials, by, what, number)
    return found


def main() -> int:
    only = trial_parser(__doc__).parse_args().only
    if not can_begin(missing()):
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return report_trials(all_trials(prepared(Path(folder))), only)


if __name__ == "__main__":
    sys.exit(main())
