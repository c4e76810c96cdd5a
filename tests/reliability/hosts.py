"""Two machines on one: network namespaces with a cable between them, each with its name, address and `/etc/hosts`.

They share disks, users and processors, and reach each other by the cable only. For root, with `ip` and `unshare`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vpt.words import counted

NAMES = ("vpt-one", "vpt-two")
NETWORK = "10.171.0"  # reached from inside the namespaces only
HOSTS = Path("/run/vpt-hosts")  # a file for each machine, that stands in the place of /etc/hosts there


@dataclass(frozen=True)
class Host:
    """A machine by its name, which is that of its namespace too."""

    name: str
    address: str

    @property
    def cable(self) -> str:
        """Its end of it."""
        return self.name

    def command(self, *words: str | Path) -> list[str]:
        """The words as they are to be started from outside, to run on this machine."""
        own = f'hostname {self.name} && mount --bind "$0" /etc/hosts && exec "$@"'
        inside = ["nsenter", f"--net=/run/netns/{self.name}", "unshare", "--uts", "--mount", "sh", "-c", own]
        return [*inside, str(HOSTS / self.name), *map(str, words)]

    def processes(self) -> list[int]:
        found = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=True)
        return [int(word) for word in found.stdout.split()]

    def kill(self) -> None:
        """SIGKILL to all that runs on it."""
        for process in self.processes():
            os.kill(process, signal.SIGKILL)

    def cut(self, cut: bool = True) -> None:
        """Pull the cable, or plug it in again."""
        _ip("-n", self.name, "link", "set", self.cable, "down" if cut else "up")


def missing() -> str | None:
    """Why there can be no such machines here."""
    if os.geteuid() != 0:
        return "network namespaces are for root"
    for program in ("ip", "unshare", "nsenter"):
        if shutil.which(program) is None:
            return f"{program} is not on this machine (Debian: iproute2, util-linux)"
    if (made := _ip("netns", "add", NAMES[0], check=False)).returncode != 0:
        return f"no network namespace can be made ({made.stderr.strip()})"
    _ip("netns", "delete", NAMES[0])
    return None


@contextmanager
def two_hosts(own_name: str = "") -> Iterator[tuple[Host, Host]]:
    """Both, until the block is left, with all that runs on them.

    own_name: the address that each finds its own name by, where that is not the one of its cable: Debian writes
    127.0.1.1 into `/etc/hosts`.
    """
    hosts = (Host(NAMES[0], f"{NETWORK}.1"), Host(NAMES[1], f"{NETWORK}.2"))
    try:
        for host in hosts:
            _ip("netns", "add", host.name)
            _write_hosts(host, hosts, own_name)
        ends = [("name", host.cable, "netns", host.name) for host in hosts]
        _ip("link", "add", *ends[0], "type", "veth", "peer", *ends[1])
        for host in hosts:
            _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", host.cable)
            _ip("-n", host.name, "link", "set", "lo", "up")
            host.cut(False)
        yield hosts
    finally:
        for host in hosts:
            if (Path("/run/netns") / host.name).exists():
                host.kill()
                _ip("netns", "delete", host.name, check=False)
        shutil.rmtree(HOSTS, ignore_errors=True)


def _write_hosts(host: Host, hosts: Sequence[Host], own_name: str) -> None:
    HOSTS.mkdir(exist_ok=True)
    known = [(own_name if own_name and each == host else each.address, each.name) for each in hosts]
    lines = [f"{address} {name}\n" for address, name in [("127.0.0.1", "localhost"), *known]]
    (HOSTS / host.name).write_text("".join(lines))


def _ip(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if check and done.returncode != 0:
        raise SystemExit(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done


def trial_parser(description: str | None) -> argparse.ArgumentParser:
    """What all scripts of trials are asked with: `--only`, parts of the names of those that shall run."""
    asked = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--only", action="append", default=[], help="trials whose name holds this, or one of these")
    return asked


def can_begin(reason: str | None) -> bool:
    """Whether nothing is missing for the trials, which is said; SIGTERM ends them with nothing left running."""
    if reason:
        print(f"skipped: {reason}")
        return False
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    return True


def _faults_of(trial: Callable[[], Iterable[str]]) -> list[str]:
    """One that cannot go on has a fault, and the trials after it take place."""
    found: list[str] = []
    try:
        found.extend(trial())
    except SystemExit as left:
        found.append(f"ended before its time: {left}")
    return found


def report_trials(trials: Mapping[str, Callable[[], Iterable[str]]], parts: Sequence[str]) -> int:
    """Run the trials whose name holds one of `parts` (all without any), print their faults, and give the exit code."""
    tried = faults = 0
    for name, trial in trials.items():
        if parts and not any(part in name for part in parts):
            continue
        print(f"{name}:", flush=True)
        started, found = time.monotonic(), _faults_of(trial)
        tried, faults = tried + 1, faults + len(found)
        print(f"    {len(found)} faults, {time.monotonic() - started:.0f} s", *found, sep="\n    ", flush=True)
        print(f"{counted(tried, 'trial')} so far, {faults} faults", flush=True)
    print(f"{counted(tried, 'trial')}, {faults} faults")
    return 1 if faults else 0
