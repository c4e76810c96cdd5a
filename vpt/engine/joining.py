"""How processes that train together find each other, and how they leave."""

from __future__ import annotations

import os
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from vpt.engine.interface import interface_to
from vpt.engine.line import CONNECT, Leaving, Line, connect, is_local
from vpt.engine.processes import Place, with_others
from vpt.engine.ranks import ALONE, Ranks
from vpt.engine.signals import Interrupted, Signals
from vpt.errors import SaidElsewhere, VptError, VptWarning
from vpt.progress import quiet

NAMING = 10.0  # seconds for a name to be known, which a machine's start may take
PATIENT = timedelta(days=7)  # of a collective: others may prepare data meanwhile; who is lost is noticed by the line


@contextmanager
def together(signals: Signals, place: Place | None, alone: bool = False) -> Iterator[Ranks]:
    """Inside this process trains with the others; or without them, where it is `alone` or has no place among any.

    Who leaves early takes the others along: after a signal all are interrupted, and what failed in one is said once.

    Raises:
        VptError: processes that do not come; one that failed or is lost.
    """
    if place is None or alone:
        _take_gpu(place)
        yield ALONE
        return
    with ExitStack() as stack:
        others = stack.enter_context(with_others(place))
        stack.enter_context(_prepared(place))
        store = _meet(place, others)
        line = connect(place, store, _follow(signals))
        try:
            _choose_interface(place, store, line)
            ranks = Ranks(place.number, place.of, place.locals, line, place.cores())
            _join(ranks, store)
            yield ranks
            ranks.wait()
        except BaseException as error:
            try:
                _leave(line, error)
            finally:
                _end_group(broken=True)
            raise
        else:
            line.leave(Leaving(place.number, "done"))
            _end_group()


def _leave(line: Line, error: BaseException) -> None:
    """Say why to the others; raises SaidElsewhere where the first process says it."""
    number = line.place.number
    if isinstance(error, Interrupted):
        line.leave(Leaving(number, "interrupted", signal=error.number))
        return
    text = str(error) if isinstance(error, VptError) else f"{type(error).__name__}: {error}"
    if line.leave(Leaving(number, "failed", text=text)) and isinstance(error, VptError):
        raise SaidElsewhere(text) from error


def _end_group(broken: bool = False) -> None:
    """A broken one of GPUs may wait for who is gone, so it is left to the end of the process."""
    if distributed.is_initialized() and not (broken and torch.cuda.is_available()):
        distributed.destroy_process_group()


def _follow(signals: Signals) -> Callable[[Leaving], None]:
    """A signal to one process is one to all."""

    def heard(leaving: Leaving) -> None:
        if leaving.why == "interrupted" and signals.number is None:
            os.kill(os.getpid(), leaving.signal)

    return heard


def _meet(place: Place, others: Sequence[Any]) -> distributed.Store:
    """Until all processes have come; what they find each other by.

    Raises:
        VptError: one that does not come; one of the `others` that has ended already.
    """
    store = _store(place)
    store.set(f"here{place.number}", "")
    for number in range(place.of):
        _await(store, f"here{number}", place, number, others)
    return store


def _choose_interface(place: Place, store: distributed.Store, line: Line) -> None:
    """The one by which the first process's machine is reached; a user's own GLOO_SOCKET_IFNAME is kept."""
    if place.number == 0:
        store.set("address", line.own_address())
    address = store.get("address").decode()
    if address and (name := interface_to(address)):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def _join(ranks: Ranks, store: distributed.Store) -> None:
    """Torch's process group, for tensors on a GPU as well where there is one."""
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and distributed.is_nccl_available() else "gloo"
    with ranks.company():
        distributed.init_process_group(backend, store=store, rank=ranks.number, world_size=ranks.of, timeout=PATIENT)
    ranks.wait()  # from here on nobody needs the store


def _store(place: Place) -> distributed.Store:
    """Where the processes find each other: torchrun's own, else the first process keeps it; new at every call."""
    _require_known(place.address)
    kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    limit = timedelta(seconds=CONNECT)
    try:
        store = distributed.TCPStore(
            place.address,
            place.port,
            is_master=place.number == 0 and not kept,
            timeout=limit,
            wait_for_workers=False,
        )
    except RuntimeError as error:
        raise VptError(
            f"process {place.number} of {place.of} finds no other at {place.address}:{place.port} "
            f"({str(error).splitlines()[0]}); all must reach the first one's machine by that name and port"
        ) from error
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    times = store.add(f"vpt{restarts}-{place.number}", 1)
    return distributed.PrefixStore(f"vpt{restarts}-{times}", store)


def _require_known(address: str) -> None:
    """Torch asks for a name that nobody knows until its time is up.

    Raises:
        VptError: a name that stays unknown for `NAMING` seconds.
    """
    until = time.monotonic() + NAMING
    while True:
        try:
            socket.getaddrinfo(address, None)
            return
        except (OSError, UnicodeError) as error:  # a name with an empty or too long part cannot be asked for
            if time.monotonic() > until:
                raise VptError(
                    f"MASTER_ADDR={address}: this machine knows no other of that name ({error}); give the name or "
                    "address by which the first process's machine is reached from here"
                ) from error
        time.sleep(0.5)


def _await(store: distributed.Store, key: str, place: Place, number: int, others: Sequence[Any]) -> None:
    until = time.monotonic() + CONNECT
    while time.monotonic() < until:
        if store.check([key]):
            return
        if (ended := next((other for other in others if other.poll() is not None), None)) is not None:
            raise VptError(f"a process that was started beside this one ended with exit code {ended.returncode}")
        time.sleep(0.1)
    raise VptError(
        f"process {number} of {place.of}, counted from 0, did not come within {CONNECT:.0f} s; start the command on "
        "every machine"
    )


def _take_gpu(place: Place | None) -> None:
    """`cuda` is then this process's own GPU."""
    if place is not None and place.local < torch.cuda.device_count():
        torch.cuda.set_device(place.local)


@contextmanager
def _prepared(place: Place) -> Iterator[None]:
    """This machine shared among its processes, and only the first one heard."""
    threads = torch.get_num_threads()
    if is_local(place.address) and any(name == "lo" for _, name in socket.if_nameindex()):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # else a name that this machine may not know of itself
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(place.cores())
    _take_gpu(place)
    try:
        if place.number == 0:
            yield
            return
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore", VptWarning)
            yield
    finally:
        torch.set_num_threads(threads)
