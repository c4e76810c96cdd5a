"""Ray: the cluster of RAY_ADDRESS, or one on this machine that nobody else can join."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vpt.errors import VptError

STORE = 80 * 2**20  # bytes that a cluster on this machine sets aside for objects; scans do not go through it
ANSWER = 10.0  # seconds that a cluster may take to answer
CORES = 4  # of a worker without a GPU


def require_ray() -> Any:
    """Ray. Its ports are open to the whole network, so a cluster of this process asks for a token that only it has.

    Raises:
        VptError: it is not installed.
    """
    if "RAY_ADDRESS" not in os.environ and "ray" not in sys.modules:  # read once, when Ray is imported
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray
    except ImportError as error:
        raise VptError("--engine ray: Ray is not installed; pip install 'vpt[ray]'") from error
    return ray


@contextmanager
def joined(ray: Any) -> Iterator[Any]:
    """Inside this process belongs to a cluster; one that it had joined before is left as it is.

    Raises:
        VptError: the cluster of RAY_ADDRESS does not answer.
    """
    if ray.is_initialized():
        yield ray
        return
    with _own_sigterm():
        _join(ray)
    try:
        yield ray
    finally:
        ray.shutdown()


def _join(ray: Any) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report to its makers
    quiet = {"log_to_driver": False, "logging_level": "error"}
    if not (address := os.environ.get("RAY_ADDRESS")):
        ray.init("local", include_dashboard=False, object_store_memory=STORE, **quiet)
        return
    try:
        _reach(address)
        ray.init(address, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        said = str(error).partition("\n")[0]
        raise VptError(f"RAY_ADDRESS={address}: no cluster answers ({said}); start one, or unset it") from error


def _reach(address: str) -> None:
    """Whether anyone listens there, which Ray asks for many minutes. `auto` is a cluster of this machine."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), ANSWER).close()


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Ray puts a handler of its own in the place of this process's; inside it may, and after that ours is back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def room_for(ray: Any, workers: int | None, gpu: bool) -> tuple[int, int]:
    """How many workers, and how many cores each takes: no more than the largest machine has."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    largest = max(int(node.get("CPU", 0)) for node in nodes)
    if workers is None:
        whole = sum(int(node.get("GPU", 0)) if gpu else int(node.get("CPU", 0)) // CORES for node in nodes)
        workers = max(1, whole)
    cores = sum(int(node.get("CPU", 0)) for node in nodes) // workers
    return workers, max(1, min(cores, largest))
