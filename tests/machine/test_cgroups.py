"""Limits of containers, units and jobs: wherever they stand above the process, and files that were read give way."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from vpt.machine import available, cgroups

MIB = 1 << 20


class Machine:
    """/proc and the control groups of a process, as files."""

    def __init__(self, folder: Path):
        self.proc, self.groups = folder / "proc", folder / "cgroup"
        self.proc.mkdir()

    def place(self, path: str, root: str = "/", version: int = 2, controller: str = "memory") -> None:
        """The process is in the group `path`; `root` is the one that is mounted."""
        kind = "cgroup2 cgroup rw" if version == 2 else f"cgroup cgroup rw,{controller}"
        (self.proc / "mountinfo").write_text(f"31 24 0:27 {root} {self.groups} rw,nosuid shared:9 - {kind}\n")
        (self.proc / "cgroup").write_text(f"0::{path}\n" if version == 2 else f"4:{controller},x:{path}\n0::/\n")

    def write(self, group: str, **files: object) -> None:
        folder = self.groups / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name.replace("__", ".")).write_text(f"{content}\n")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    own = cgroups.groups
    monkeypatch.setattr(cgroups, "groups", lambda controller: own(controller, made.proc))
    return made


def test_the_nearest_limit_above_a_unit_counts(machine: Machine) -> None:
    machine.place("/system.slice/vpt.service")
    machine.write("", memory__stat="inactive_file 0")
    machine.write("system.slice", memory__max=900 * MIB, memory__current=850 * MIB)
    machine.write("system.slice/vpt.service", memory__max=300 * MIB, memory__current=100 * MIB)
    assert cgroups.memory_limit() == 300 * MIB
    assert cgroups.memory_left() == 50 * MIB


def test_what_was_read_from_files_gives_way(machine: Machine) -> None:
    machine.place("/")
    stat = f"anon {100 * MIB}\nactive_file {50 * MIB}\ninactive_file {140 * MIB}\nshmem 0"
    machine.write("", memory__max=300 * MIB, memory__current=299 * MIB, memory__stat=stat)
    assert cgroups.memory_left() == 191 * MIB


def test_version_1_with_the_groups_below(machine: Machine) -> None:
    machine.place("/slurm/job_7/step_0", version=1)
    machine.write("slurm", memory__limit_in_bytes=9223372036854771712, memory__usage_in_bytes=5)
    stat = f"inactive_file 0\ntotal_inactive_file {10 * MIB}\ntotal_active_file 0"
    job = {"memory__limit_in_bytes": 64 * MIB, "memory__usage_in_bytes": 60 * MIB, "memory__stat": stat}
    machine.write("slurm/job_7", **job)
    assert cgroups.memory_limit() == 64 * MIB
    assert cgroups.memory_left() == 14 * MIB


@pytest.mark.parametrize("path", ["/docker/abc", "/../../elsewhere"])
def test_a_container_is_told_a_path_that_it_does_not_see(machine: Machine, path: str) -> None:
    machine.place(path, root="/docker/abc" if path == "/docker/abc" else "/")
    machine.write("", memory__max=MIB, memory__current=0)
    assert cgroups.memory_limit() == MIB


def test_a_quota_bounds_the_cores(machine: Machine) -> None:
    machine.place("/unit")
    machine.write("unit", cpu__max="50000 100000")
    assert cgroups.processors() == 0.5
    assert available.cores() == 1
    machine.write("unit", cpu__max="max 100000")
    assert cgroups.processors() is None


def test_a_quota_of_version_1(machine: Machine) -> None:
    machine.place("/job", version=1, controller="cpu")
    machine.write("job", cpu__cfs_quota_us=250_000, cpu__cfs_period_us=100_000)
    assert math.isclose(cgroups.processors() or 0, 2.5)
    machine.write("job", cpu__cfs_quota_us=-1)
    assert cgroups.processors() is None


def test_no_groups_no_limit(machine: Machine) -> None:
    assert (cgroups.memory_limit(), cgroups.memory_left(), cgroups.processors()) == (None, None, None)


def test_cores_are_those_that_the_process_is_bound_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(available.os, "sched_getaffinity", lambda process: {3, 5, 7}, raising=False)
    monkeypatch.setattr(available.cgroups, "processors", lambda: None)
    assert available.cores() == 3
    assert available.cores(2) == 2
