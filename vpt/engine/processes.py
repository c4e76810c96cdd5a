"""Which of several processes this one is: of a launcher (torchrun, srun), or of those that we start ourselves."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from vpt.errors import VptError
from vpt.machine.available import cores

HERE = "127.0.0.1"
SLURM_PORTS = range(15_000, 25_000)  # of which a job takes one by its number
READ_BY_LIGHTNING = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")  # when it is imported, by `int`
OF_FABRIC = "LT_"  # what the variables begin with by which `fabric run` overrules every `Fabric`
LEAVING = 60.0  # seconds for the processes that we started to follow the first one


@dataclass(frozen=True)
class Place:
    """One of `of` processes that train together, by number from 0.

    local: its number on its own machine, on which there are `locals` of them; address, port: where the first one is to
    be reached; by: what started them.
    """

    number: int
    of: int
    local: int
    locals: int
    address: str
    port: int
    by: str

    @property
    def machines(self) -> int:
        return -(-self.of // self.locals)

    def cores(self, environment: Mapping[str, str] = os.environ) -> int:
        """This process's share of the cores: what `srun` gave each of its tasks, else as many as any other here."""
        bound = cores()
        given = environment.get("SLURM_CPUS_PER_TASK", "") if self.by == "srun" else ""
        return max(1, min(bound, int(given)) if given.isdecimal() else bound // self.locals)


def place_of(
    devices: int | None = None, nodes: int | None = None, environment: Mapping[str, str] = os.environ
) -> Place | None:
    """The place that a launcher gave this process, or the first one of `devices` x `nodes`; None where it is alone.

    A SLURM job that was given several tasks (`SLURM_NTASKS`), but starts this command once, is one process.

    Raises:
        VptError: an environment that leaves it open; `devices` or `nodes` other than what the launcher started.
    """
    for name in READ_BY_LIGHTNING:
        if not re.fullmatch(r"-?\d+", environment.get(name, "0")):
            raise _no_number(environment, name)
    if _says_several(environment, "WORLD_SIZE"):
        place = _by_torchrun(environment)
    elif _says_several(environment, "SLURM_STEP_NUM_TASKS"):
        place = _by_srun(environment)
    elif (devices or 1) * (nodes or 1) > 1:
        return _by_ourselves(devices or 1, nodes or 1, environment)
    else:
        return None
    if devices not in (None, place.locals) or nodes not in (None, place.machines):
        wanted = " ".join(f"--{name} {given}" for name, given in (("devices", devices), ("nodes", nodes)) if given)
        raise VptError(
            f"{wanted}, but {place.by} started {place.of} processes on {place.machines} machines; leave it out, the "
            "launcher decides"
        )
    return place


def is_first(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is alone, or the one of several that speaks."""
    place = place_of(environment=environment)
    return place is None or place.number == 0


def refuse_settings_of_fabric(environment: Mapping[str, str] = os.environ) -> None:
    """Raises VptError where `fabric run` was given what a run takes from its config; of processes it is a torchrun."""
    if environment.get(f"{OF_FABRIC}CLI_USED", "0") == "0":
        return
    for name, instead in (("precision", ", and give --set precision=..."), ("strategy", "")):
        if wanted := environment.get(f"{OF_FABRIC}{name.upper()}"):
            raise VptError(f"fabric run --{name}={wanted}: a training does not heed it; leave it out{instead}")


@contextmanager
def without_fabric(environment: MutableMapping[str, str] = os.environ) -> Iterator[None]:
    """Inside no variable overrules what a `Fabric` is given, as those of `fabric run` do, or any of that name."""
    hidden = {name: environment.pop(name) for name in list(environment) if name.startswith(OF_FABRIC)}
    try:
        yield
    finally:
        environment.update(hidden)


@contextmanager
def with_others(place: Place, environment: MutableMapping[str, str] = os.environ) -> Iterator[list[subprocess.Popen]]:
    """Start the other processes of this machine where no launcher did, with the command of this one.

    They are gone when the block is left: they leave by themselves soon after the first one, or are ended.
    """
    if place.by != "--devices":
        yield []
        return
    environment.update(_variables(place, place.local))
    command = [sys.executable, *sys.orig_argv[1:]]
    others = [
        subprocess.Popen(command, env={**environment, **_variables(place, local)})
        for local in range(place.locals)
        if local != place.local
    ]
    try:
        yield others
    except BaseException:
        for other in others:
            other.terminate()
        raise
    finally:
        for other in others:
            with suppress(subprocess.TimeoutExpired):
                other.wait(LEAVING)
            other.kill()


# --- who says so ------------------------------------------------------------------------------------------------------


def _by_torchrun(environment: Mapping[str, str]) -> Place:
    number, of = _number(environment, "RANK"), _number(environment, "WORLD_SIZE")
    return _checked(
        Place(
            number=number,
            of=of,
            local=_number(environment, "LOCAL_RANK", number),
            locals=_number(environment, "LOCAL_WORLD_SIZE", of),
            address=environment.get("MASTER_ADDR", HERE),
            port=_number(environment, "MASTER_PORT"),
            by="torchrun",
        )
    )


def _by_srun(environment: Mapping[str, str]) -> Place:
    from lightning.fabric.plugins.environments import SLURMEnvironment

    of = _number(environment, "SLURM_STEP_NUM_TASKS")
    names = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_NODELIST") or HERE
    job = _number(environment, "SLURM_JOB_ID", 0)
    return _checked(
        Place(
            number=_number(environment, "SLURM_PROCID"),
            of=of,
            local=_number(environment, "SLURM_LOCALID", 0),
            locals=_here(environment, of),
            address=environment.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(names),
            port=_number(environment, "MASTER_PORT", SLURM_PORTS[job % len(SLURM_PORTS)]),
            by="srun",
        )
    )


def _here(environment: Mapping[str, str], of: int) -> int:
    """How many tasks of a step run on this machine, by SLURM's lists of the kind `4(x2),3`."""
    text = environment.get("SLURM_STEP_TASKS_PER_NODE") or environment.get("SLURM_TASKS_PER_NODE") or str(of)
    counts: list[int] = []
    for count, _, times in re.findall(r"(\d+)(\(x(\d+)\))?", text):
        counts += [int(count)] * int(times or 1)
    node = _number(environment, "SLURM_NODEID", 0)
    return counts[node] if node < len(counts) else of


def _by_ourselves(devices: int, nodes: int, environment: Mapping[str, str]) -> Place:
    if nodes > 1 and not {"MASTER_ADDR", "MASTER_PORT", "NODE_RANK"} <= environment.keys():
        raise VptError(
            f"--nodes {nodes} without a launcher: start the same command on each machine with MASTER_ADDR (the first "
            "machine's name), MASTER_PORT (a free port of it) and NODE_RANK (0 to "
            f"{nodes - 1}), or use torchrun or srun"
        )
    node = _number(environment, "NODE_RANK", 0) if nodes > 1 else 0
    return _checked(
        Place(
            number=node * devices,
            of=devices * nodes,
            local=0,
            locals=devices,
            address=environment["MASTER_ADDR"] if nodes > 1 else HERE,
            port=_number(environment, "MASTER_PORT") if nodes > 1 else _free_port(),
            by="--devices",
        )
    )


def _variables(place: Place, local: int) -> dict[str, str]:
    """What torchrun would have set for a process of this machine."""
    return {
        "RANK": str(place.number - place.local + local),
        "WORLD_SIZE": str(place.of),
        "LOCAL_RANK": str(local),
        "LOCAL_WORLD_SIZE": str(place.locals),
        "MASTER_ADDR": place.address,
        "MASTER_PORT": str(place.port),
    }


def _free_port() -> int:
    with socket.create_server((HERE, 0)) as server:
        return int(server.getsockname()[1])


def _checked(place: Place) -> Place:
    if place.number >= place.of or place.local >= place.locals or place.locals > place.of:
        raise VptError(
            f"{place.by}: this is process {place.number} of {place.of}, {place.local} of {place.locals} on its "
            "machine, which cannot be; start the command by one launcher, and set none of its variables by hand"
        )
    if not 0 < place.port < 2**16:
        raise VptError(f"MASTER_PORT={place.port} in the environment, expected 1 to 65535; give a free port")
    return place


def _says_several(environment: Mapping[str, str], name: str) -> bool:
    text = environment.get(name, "1")
    return text.isdecimal() and int(text) > 1


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, "" if default is None else str(default))
    if not text.isdecimal():
        raise _no_number(environment, name)
    return int(text)


def _no_number(environment: Mapping[str, str], name: str) -> VptError:
    text = environment.get(name, "")
    return VptError(f"{name}={text!r} in the environment, expected a number; start the command by one launcher")
