"""The SLURM scripts of docs/scale.md as they stand there, under a real SLURM of two machines (`cluster.py`).

    python tests/reliability/slurm.py [--only NAME ...] [--steps NUMBER]

For root, where Debian's `slurm-wlm` and `munge` are installed. A training that is requeued, preempted, told to stop,
or whose time is over goes on by itself and ends with the run of a training that was left alone; so does one on both
machines; an array of which a task is requeued makes the masks and the record of one process. Faults are printed, exit
code 1.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from cluster import Cluster, cluster, missing
from hosts import can_begin, report_trials, trial_parser
from kills import differing_masks, differing_runs
from together import SETTINGS, assert_alike, words

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
LONGEST = 600.0  # seconds for a job with all its starts
STEPS = 150  # of each epoch
LONG = 1000  # epochs: more than anybody waits for
LIMIT = 5  # minutes, of which SLURM warns after three; a start that takes longer would be requeued for ever
ONE, TWO, ARRAY = "--ntasks=1", "--nodes=2", "--array"  # what tells the scripts of the page apart


def script(holding: str, places: dict[str, Path]) -> str:
    """The page's script that holds this, with these folders in the place of its own."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    found = next(block for block in blocks if holding in block and "#SBATCH" in block)
    for place, path in places.items():
        assert place in found, place
        found = found.replace(place, str(path))
    return found


@dataclass(frozen=True)
class Trials:
    """folder: for runs; whole: the run of one process that was left alone."""

    cluster: Cluster
    folder: Path
    data: Path
    whole: Path
    steps: int

    def train(self, name: str, holding: str, *options: str, epochs: int = 2) -> tuple[str, Path]:
        """Submit the page's script for a training -> its job and its run."""
        run = self.folder / f"{name}-{'two' if holding == TWO else 'one'}"
        more = [word for key, value in settings(self.steps, epochs).items() for word in ("--set", f"{key}={value}")]
        text = script(holding, {"/data/liver": self.data, "/work/runs/liver": run})
        return self.cluster.submit(text.replace("--resume", f"--resume {' '.join(more)}"), *options), run

    def steps_in(self, run: Path, starts: int = 1) -> None:
        """Until the state was saved after a step, in the start of this number."""
        state, log = run / "state" / "last.safetensors", run / "train.log"
        before = state.stat().st_mtime_ns if starts > 1 else 0

        def held() -> bool:
            if not log.exists() or len(re.findall(r"(started|resumed) /", log.read_text())) < starts:
                return False
            return (
                state.exists()
                and (run / "state" / "previous.safetensors").exists()
                and state.stat().st_mtime_ns > before
            )

        self.cluster.until(held, LONGEST, f"no step in {run}")

    def went_on(self, job: str, run: Path, restarts: int) -> Iterator[str]:
        """The job ended well after so many starts more, with the run that was left alone."""
        (facts,) = self.cluster.ended(job, LONGEST)
        said = self.cluster.output(job)
        if facts["JobState"] != "COMPLETED" or int(facts["Restarts"]) != restarts:
            yield f"{facts['JobState']}, {facts['ExitCode']}, {facts['Restarts']} restarts\n{said}"
            return
        print(f"    {facts['Restarts']} restarts, {said.count('resumed /')} of them from a state")
        if "Traceback" in said:
            yield said
        if "NumNodes=2" in self.cluster.tell("scontrol", "show", "job", job):
            try:
                assert_alike(run, self.whole)
            except (AssertionError, OSError) as error:
                yield f"{run.name}: {error!r}"
        else:
            yield from differing_runs(run, self.whole)


def requeued(trials: Trials, holding: str, options: Sequence[str]) -> Iterator[str]:
    """By who runs the cluster: `scontrol requeue`, in the middle of a training."""
    job, run = trials.train("requeued", holding, *options)
    trials.steps_in(run)
    trials.cluster.tell("scontrol", "requeue", job)
    yield from trials.went_on(job, run, 1)


def told(trials: Trials, holding: str, options: Sequence[str]) -> Iterator[str]:
    """`scancel --signal=TERM`: the steps are told, vpt leaves with 143, and the script requeues itself; twice."""
    job, run = trials.train("told", holding, *options)
    for start in (1, 2):
        trials.steps_in(run, start)
        trials.cluster.tell("scancel", "--signal=TERM", job)
    yield from trials.went_on(job, run, 2)
    said = trials.cluster.output(job)
    if said.count("interrupted") != 2:
        yield f"not told twice:\n{said}"


def preempted(trials: Trials, holding: str, options: Sequence[str]) -> Iterator[str]:
    """By a job of a partition that goes first, and takes both machines."""
    job, run = trials.train("preempted", holding, *options)
    trials.steps_in(run)
    urgent = trials.cluster.submit("#!/bin/sh\nsleep 5\n", "--partition=urgent", "--nodes=2", "--exclusive")
    (facts,) = trials.cluster.ended(urgent, LONGEST)
    if facts["JobState"] != "COMPLETED":
        yield f"the urgent job: {facts['JobState']}"
    yield from trials.went_on(job, run, 1)


def over(trials: Trials, holding: str, options: Sequence[str]) -> Iterator[str]:
    """The time is over: the signal of the script's `--signal`, two minutes before the limit; then it is given up."""
    job, run = trials.train("over", holding, f"--time={LIMIT}", *options, epochs=LONG)
    trials.steps_in(run)
    trials.steps_in(run, 2)
    (facts,) = trials.cluster.facts(job)
    trials.cluster.tell("scancel", job)
    said = trials.cluster.output(job)
    print(f"    {facts['Restarts']} restarts: {re.findall('interrupted[^;]*|resumed', said)}")
    told_and_requeued = "interrupted in epoch" in said and int(facts["Restarts"]) > 0
    if not told_and_requeued or "DUE TO TIME LIMIT" in said or "Traceback" in said:
        yield said


def lost(trials: Trials, holding: str, options: Sequence[str]) -> Iterator[str]:
    """The process on the second machine is killed: the other says so, and the job goes on, if need be submitted again.

    Where srun's SIGTERM meets the other before it has left, the code is 143 and the script requeues itself.
    """
    job, run = trials.train("lost", holding, *options)
    trials.steps_in(run)
    since = time.monotonic()
    for process in trials.cluster.machines[1].processes():
        if f"--out\0{run}\0" in (Path("/proc") / str(process) / "cmdline").read_text(errors="replace"):
            os.kill(process, signal.SIGKILL)
    trials.cluster.until(lambda: "is gone" in trials.cluster.output(job), LONGEST, "nobody says that it is gone")
    took = time.monotonic() - since
    (facts,) = trials.cluster.ended(job, LONGEST)
    sentences = [line for line in trials.cluster.output(job).splitlines() if "error: process" in line]
    print(f"    said after {took:.1f} s, {facts['JobState']} after {facts['Restarts']} restarts: {sentences}")
    if len(sentences) != 1:
        yield trials.cluster.output(job)
    if facts["JobState"] == "FAILED":
        job, _ = trials.train("lost", holding, *options)
        yield from trials.went_on(job, run, 0)
    else:
        yield from trials.went_on(job, run, 1)


def array(trials: Trials) -> Iterator[str]:
    """Four tasks, of which the last is requeued while it works."""
    out = trials.folder / "results"
    places = {"/archive": trials.data / "imagesTr", "/results": out, "runs/liver": trials.whole}
    job = trials.cluster.submit(script(ARRAY, places).replace("vpt predict", "vpt predict --device cpu"), "--array=0-3")
    trials.cluster.until(lambda: "RUNNING" in trials.cluster.state(f"{job}_3"), LONGEST, "task 3 does not begin")
    time.sleep(3)
    trials.cluster.tell("scontrol", "requeue", f"{job}_3")
    facts = trials.cluster.ended(job, LONGEST)
    said = "\n".join(trials.cluster.output(f"{job}_{task}") for task in range(4))
    if {each["JobState"] for each in facts} != {"COMPLETED"} or "Traceback" in said:
        yield f"{[each['JobState'] for each in facts]}\n{said}"
        return
    print("   ", *re.findall(r"part . of 4.*", said), sep="\n    ")
    masks = masks_of_one(trials)
    yield from differing_masks(out, masks)
    counts, scans = json.loads((out / "predictions.json").read_text())["counts"], len(list(masks.glob("*.nii.gz")))
    if counts != {"done": scans}:
        yield f"the record has {counts}, of {scans} scans"


def steps_of_two(trials: Trials) -> Iterator[str]:
    """`srun` with two tasks of `vpt predict`, and a batch script that asked for two and starts one without srun."""
    for name, start, said in (
        ("shared", "srun vpt", "part 1 of 2 (SLURM (SLURM_PROCID))"),
        ("alone", "vpt", "scans segmented"),
    ):
        out = trials.folder / name
        given = f"-i {trials.data / 'imagesTr'} -o {out} -m {trials.whole} --device cpu"
        job = trials.cluster.submit(f"#!/bin/bash\n{start} predict {given}\n", "--nodes=2", "--ntasks=2")
        (facts,) = trials.cluster.ended(job, LONGEST)
        if facts["JobState"] != "COMPLETED" or said not in trials.cluster.output(job):
            yield f"{name}: {facts['JobState']}\n{trials.cluster.output(job)}"
        yield from differing_masks(out, masks_of_one(trials))


def settings(steps: int, epochs: int = 2) -> dict[str, object]:
    every = str(max(1, steps // 8))
    return SETTINGS | {"train.epochs": epochs, "train.max_steps": steps, "train.save_every": every, "train.workers": 1}


def masks_of_one(trials: Trials) -> Path:
    """Of all scans, by one process."""
    masks = trials.folder / "masks"
    if not masks.exists():
        given = ["-i", trials.data / "imagesTr", "-o", masks, "-m", trials.whole, "--device", "cpu"]
        _vpt(["predict", *given])
    return masks


def prepared(made: Cluster, folder: Path, steps: int) -> Trials:
    from vpt.data.synthetic import make_dataset

    trials = Trials(made, folder, make_dataset(folder / "blobs", cases=6), folder / "whole", steps)
    _vpt(words(trials.data, trials.whole, settings(steps)))
    return trials


def _vpt(given: Sequence[object]) -> None:
    done = subprocess.run(["vpt", *map(str, given)], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"vpt ended with {done.returncode}: {done.stdout}{done.stderr}")


def all_trials(trials: Trials) -> dict[str, Callable[[], Iterator[str]]]:
    """By name."""
    one: tuple[str, list[str]] = (ONE, [])
    two: tuple[str, list[str]] = (TWO, ["--ntasks-per-node=1", "--gpus-per-node=1"])
    found: dict[str, Callable[[], Iterator[str]]] = {
        f"{trial.__name__}, {where}": lambda trial=trial, way=way: trial(trials, *way)
        for where, way in (("one task", one), ("two machines", two))
        for trial in (requeued, told, preempted, over, lost)
        if trial is not lost or way is two
    }
    return found | {"array": lambda: array(trials), "two tasks that predict": lambda: steps_of_two(trials)}


def main() -> int:
    asked = trial_parser(__doc__)
    asked.add_argument("--steps", type=int, default=STEPS, help="of an epoch; fewer where the machine is slow")
    given = asked.parse_args()
    if not can_begin(missing()):
        return 0
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as name, cluster(Path(name) / "slurm") as made:
        Path(name).chmod(0o755)
        print(made.tell("sbatch", "--version"))
        return report_trials(all_trials(prepared(made, Path(name), given.steps)), given.only)


if __name__ == "__main__":
    sys.exit(main())
