"""A real SLURM of two machines on one: controller and daemons of Debian's `slurm-wlm` in the namespaces of `hosts.py`.

The machines claim 16 processors and 4 GPUs each, so that scripts are taken as they stand; nothing binds tasks to them.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import hosts
from hosts import Host, two_hosts

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel")
DONE = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE"}
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random")  # that stand for GPUs; no test computes on one
BEGIN = 60.0  # seconds for the daemons
CONFIG = """
ClusterName=vpt
SlurmctldHost={first.name}({first.address})
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
ReturnToService=2
SchedulerParameters=sched_interval=5,bf_interval=5
SlurmdTimeout=30
GresTypes=gpu
NodeName={first.name} NodeAddr={first.address} CPUs=16 Gres=gpu:4
NodeName={second.name} NodeAddr={second.address} CPUs=16 Gres=gpu:4
PartitionName=usual Nodes=ALL Default=YES PriorityTier=1
PartitionName=urgent Nodes=ALL PriorityTier=2
"""


def missing() -> str | None:
    """Why there can be no such cluster here."""
    for program in PROGRAMS:
        if shutil.which(program, path=_path()) is None:
            return f"{program} is not on this machine (Debian: slurm-wlm, munge)"
    return hosts.missing()


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


@dataclass(frozen=True)
class Cluster:
    """folder: of its configuration and logs; `first` has the controller."""

    folder: Path
    machines: tuple[Host, Host]

    def tell(self, *words: str) -> str:
        """What a client's command prints."""
        command = self.machines[0].command(*words)
        done = subprocess.run(command, capture_output=True, text=True, env=self._environment())
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def submit(self, script: str, *options: str, environment: Mapping[str, str] | None = None) -> str:
        """A batch script -> the job's number; its output is in NUMBER.out, a task's of an array in NUMBER_TASK.out."""
        path = self.folder / f"{secrets.token_hex(4)}.sh"
        path.write_text(script)
        out = f"--output={self.folder}/%{'A_%a' if '--array' in script else 'j'}.out"
        command = self.machines[0].command("sbatch", "--parsable", out, f"--chdir={self.folder}", *options, str(path))
        given = self._environment() | dict(environment or {})
        done = subprocess.run(command, capture_output=True, text=True, env=given)
        if done.returncode != 0:
            raise SystemExit(f"sbatch: {done.stderr}")
        return done.stdout.strip()

    def facts(self, job: str) -> list[dict[str, str]]:
        """Of a job, or of each task of an array: what `scontrol show job` says."""
        lines = self.tell("scontrol", "--oneliner", "show", "job", job).splitlines()
        return [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines if line]

    def state(self, job: str) -> str:
        return self.facts(job)[0]["JobState"]

    def output(self, name: str) -> str:
        path = self.folder / f"{name}.out"
        return path.read_text(errors="replace") if path.exists() else ""

    def ended(self, job: str, seconds: float) -> list[dict[str, str]]:
        """The facts once all of it has ended; SystemExit where it does not."""
        self.until(
            lambda: all(each["JobState"] in DONE for each in self.facts(job)), seconds, f"job {job} does not end"
        )
        return self.facts(job)

    def until(self, held: Callable[[], bool], seconds: float, otherwise: str) -> None:
        end = time.monotonic() + seconds
        while not held():
            if time.monotonic() > end:
                logs = "".join(path.read_text(errors="replace")[-2000:] for path in self.folder.glob("*.log"))
                raise SystemExit(f"{otherwise} in {seconds:.0f} s\n{self.tell('scontrol', 'show', 'job')}\n{logs}")
            time.sleep(0.5)

    def _environment(self) -> dict[str, str]:
        return os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _path()}


@contextmanager
def cluster(folder: Path, more: str = "") -> Iterator[Cluster]:
    """It runs until the block is left, with all its jobs; more: lines of slurm.conf, the last of which count."""
    folder.mkdir()
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    folder.chmod(0o755)
    with two_hosts() as machines:
        made = Cluster(folder, machines)
        text = CONFIG.format(first=machines[0], second=machines[1], folder=folder)
        kept = [line for line in text.splitlines() if line.partition("=")[0] not in _keys(more)]
        (folder / "slurm.conf").write_text("\n".join([*kept, *more.splitlines(), ""]))
        (folder / "gres.conf").write_text("".join(f"Name=gpu File={device}\n" for device in DEVICES))
        (folder / "cgroup.conf").write_text("")
        running = [_daemon(made, machines[0], *_munge(folder))]
        try:
            made.until((folder / "munge.socket").exists, BEGIN, "munged does not start")
            running.append(_daemon(made, machines[0], "slurmctld", "-D"))
            running += [_daemon(made, machine, "slurmd", "-D", "-N", machine.name) for machine in machines]
            made.until(lambda: _idle(made), BEGIN, "the machines do not come")
            yield made
        finally:
            for each in reversed(running):
                each.terminate()
            for each in running:
                with suppress(subprocess.TimeoutExpired):
                    each.wait(10)


def _keys(lines: str) -> set[str]:
    return {line.partition("=")[0] for line in lines.splitlines() if line.partition("=")[0] not in ("NodeName", "")}


def _munge(folder: Path) -> list[str]:
    places = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munge.pid"}
    places |= {"log-file": "munge.log", "seed-file": "munge.seed"}
    return ["munged", "--foreground", "--force", *(f"--{what}={folder / name}" for what, name in places.items())]


def _daemon(made: Cluster, host: Host, *words: str) -> subprocess.Popen[bytes]:
    with (made.folder / f"{words[0]}-{host.name}.told").open("wb") as told:
        command = host.command(*words)
        return subprocess.Popen(command, stdout=told, stderr=told, env=made._environment(), start_new_session=True)


def _idle(made: Cluster) -> bool:
    command = made.machines[0].command("sinfo", "--noheader", "--format=%T")
    done = subprocess.run(command, capture_output=True, text=True, env=made._environment())
    return done.returncode == 0 and set(done.stdout.split()) == {"idle"}
