"""Which place a launcher gives a process, and who is alone."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vpt.engine.processes import is_first, place_of, refuse_settings_of_fabric
from vpt.engine.training import _fabric
from vpt.errors import VptError

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29500",
}
SRUN = {
    "SLURM_JOB_ID": "1234567",
    "SLURM_NTASKS": "5",
    "SLURM_STEP_NUM_TASKS": "5",
    "SLURM_PROCID": "4",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "2",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
    "SLURM_STEP_NODELIST": "gpu[07-09]",
}


def test_torchrun_says_the_place() -> None:
    place = place_of(environment=TORCHRUN)
    assert place is not None
    assert (place.number, place.of, place.local, place.locals, place.machines) == (3, 4, 1, 2, 2)
    assert (place.address, place.port) == ("node1", 29500)
    assert not is_first(TORCHRUN)


def test_srun_says_the_place() -> None:
    place = place_of(environment=SRUN)
    assert place is not None
    assert (place.number, place.of, place.local, place.locals) == (4, 5, 0, 1)
    assert (place.address, place.port) == ("gpu07", 15_000 + 4567)


def test_a_step_on_one_machine_needs_no_lists() -> None:
    place = place_of(environment={"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "1"})
    assert place is not None
    assert (place.number, place.local, place.locals, place.address) == (1, 1, 2, "127.0.0.1")


def test_each_task_of_srun_has_its_cores_and_others_share_those_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = place_of(environment=SRUN), place_of(environment=TORCHRUN)
    assert one is not None
    assert two is not None
    monkeypatch.setattr("vpt.engine.processes.cores", lambda: 8)
    assert one.cores({"SLURM_CPUS_PER_TASK": "6"}) == 6
    assert two.cores({"SLURM_CPUS_PER_TASK": "6"}) == 4
    monkeypatch.setattr("vpt.engine.processes.cores", lambda: 1)  # bound to one, whatever the job says
    assert one.cores({"SLURM_CPUS_PER_TASK": "6"}) == 1
    assert two.cores({}) == 1


def test_devices_without_a_launcher_are_on_this_machine() -> None:
    place = place_of(3, environment={})
    assert place is not None
    assert (place.number, place.of, place.locals, place.address) == (0, 3, 3, "127.0.0.1")
    assert is_first({})


def test_nodes_without_a_launcher_are_told_where_the_first_is() -> None:
    place = place_of(2, 2, {"MASTER_ADDR": "node1", "MASTER_PORT": "29500", "NODE_RANK": "1"})
    assert place is not None
    assert (place.number, place.of, place.local, place.locals) == (2, 4, 0, 2)


@pytest.mark.parametrize(
    ("environment", "devices", "nodes", "said"),
    [
        (TORCHRUN, 3, None, "--devices 3, but torchrun started 4 processes on 2 machines"),
        (TORCHRUN, 2, 1, "--devices 2 --nodes 1, but torchrun started 4 processes"),
        (TORCHRUN | {"RANK": "4"}, None, None, "this is process 4 of 4"),
        (TORCHRUN | {"RANK": "x"}, None, None, "RANK='x' in the environment, expected a number"),
        ({"WORLD_SIZE": "2"}, None, None, "RANK='' in the environment"),
        ({"SLURM_PROCID": "x"}, None, None, "SLURM_PROCID='x' in the environment, expected a number"),
        (TORCHRUN | {"MASTER_PORT": "99999"}, None, None, "MASTER_PORT=99999 in the environment, expected 1 to 65535"),
        ({}, None, 2, "--nodes 2 without a launcher: .*MASTER_ADDR"),
    ],
)
def test_what_cannot_be_is_refused(
    environment: dict[str, str], devices: int | None, nodes: int | None, said: str
) -> None:
    with pytest.raises(VptError, match=said):
        place_of(devices, nodes, environment)


@pytest.mark.parametrize(
    "environment",
    [{}, {"WORLD_SIZE": "1", "RANK": "0"}, {"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, {"WORLD_SIZE": "many"}],
)
def test_one_alone_has_no_place(environment: dict[str, str]) -> None:
    assert place_of(environment=environment) is None
    assert is_first(environment)


@pytest.mark.parametrize("by", ["0", "1"])  # fabric run, or variables that something else has left
def test_variables_of_fabric_overrule_nothing_of_a_training(monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    told = {"CLI_USED": by, "ACCELERATOR": "auto", "DEVICES": "2", "NUM_NODES": "2", "PRECISION": "64-true"}
    for name, value in told.items():
        monkeypatch.setenv(f"LT_{name}", value)
    job: Any = SimpleNamespace(setup=SimpleNamespace(device=torch.device("cpu")), precision="32-true")
    made = _fabric(job)
    assert made.world_size == 1
    assert made.strategy.precision.precision == "32-true"
    assert os.environ["LT_DEVICES"] == "2"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("LT_PRECISION", "16-mixed", r"fabric run --precision=16-mixed: .* leave it out, and give --set precision"),
        ("LT_STRATEGY", "fsdp", "fabric run --strategy=fsdp: .* leave it out"),
    ],
)
def test_what_fabric_run_asks_for_in_vain_is_refused(name: str, value: str, said: str) -> None:
    with pytest.raises(VptError, match=said):
        refuse_settings_of_fabric({"LT_CLI_USED": "1", "LT_DEVICES": "2", name: value})
    refuse_settings_of_fabric({name: value})
    refuse_settings_of_fabric({"LT_CLI_USED": "1", "LT_DEVICES": "2", "LT_ACCELERATOR": "cpu", "LT_NUM_NODES": "1"})
