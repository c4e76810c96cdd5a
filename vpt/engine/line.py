"""A line between the first of several processes and each other: who leaves says why, and who is lost is noticed.

Beside the collectives, which say nothing of why they fail, and on GPUs may never fail. A process that is killed loses
its sockets at once, whatever it was at.
"""

from __future__ import annotations

import json
import os
import secrets
import selectors
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal

from vpt.engine.processes import HERE, Place
from vpt.engine.signals import Interrupted
from vpt.errors import SaidElsewhere, VptError

CONNECT = 300.0  # seconds for all to come
SOON = 5.0  # seconds for a word about what broke a collective
FORCED = 8.0  # seconds after which a process that cannot go on is ended, wherever it hangs
SAVING = 8  # times as long after a signal
KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}  # a machine without power is noticed in 25 s


@dataclass(frozen=True)
class Leaving:
    """Why process `number` leaves: `done`; after a `signal`; because something `failed`, `text`; or it is `lost`."""

    number: int
    why: Literal["done", "interrupted", "failed", "lost"]
    signal: int = 0
    text: str = ""

    @property
    def code(self) -> int:
        return 128 + self.signal if self.why == "interrupted" else 1

    def sentence(self, of: int) -> str:
        who = f"process {self.number} of {of}, counted from 0,"
        if self.why == "failed":
            return f"{who} failed: {self.text}"
        return (
            f"{who} is gone: killed, or its machine is; the training ends, its last state is whole, and the same "
            "command goes on from it"
        )


class Line:
    """peers: a socket to each other process that this one has one to, by number; heard: told of who leaves early."""

    def __init__(self, place: Place, peers: dict[int, socket.socket], heard: Callable[[Leaving], None]):
        self.place = place
        self.left: Leaving | None = None  # the first that left before the end
        self.waiting = False  # in a collective, where no signal is heeded
        self._peers, self._heard = peers, heard
        self._gone: set[int] = set()  # those that have said that they leave
        self._came, self._first_left, self._closed = threading.Event(), threading.Event(), False
        _close_in_children(self)
        threading.Thread(target=self._listen, name="vpt-line", daemon=True).start()

    def error(self, otherwise: Exception) -> BaseException:
        """Why a collective failed, once it is known; `otherwise` where nobody says so."""
        self._came.wait(SOON)
        if self.left is None:
            return VptError(f"the connection to the other processes is broken ({str(otherwise).splitlines()[0]})")
        if self.left.why == "interrupted":
            return Interrupted(self.left.signal)
        sentence = self.left.sentence(self.place.of)
        return VptError(sentence) if self._speaks(self.left) else SaidElsewhere(sentence)

    def leave(self, leaving: Leaving) -> bool:
        """Say why, and close; whether the first process is sure to say what failed.

        After a signal the first one is the first to go: it saves the state, and srun and torchrun end all others once
        one has left, by a second signal.
        """
        self._tell(leaving)
        if leaving.why == "interrupted" and self.place.number > 0:
            self._first_left.wait(SAVING * FORCED)
        said = leaving.why == "failed" and self.place.number > 0 and self._came.wait(FORCED)
        said = said and self.left is not None and not self._speaks(self.left)
        self._closed = True
        for peer in self._peers.values():
            with suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
            peer.close()
        return bool(said)

    def own_address(self) -> str:
        """This machine's IPv4 address that another one has reached it at; "" where all are on one machine."""
        found = (peer.getsockname()[0].removeprefix("::ffff:") for peer in self._peers.values())
        return next((address for address in found if "." in address and not is_local(address)), "")

    # --- in a thread --------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        with selectors.DefaultSelector() as ready:
            for number, peer in self._peers.items():
                ready.register(peer, selectors.EVENT_READ, _Words(number, peer))
            while ready.get_map() and not self._closed:
                for key, _ in ready.select(timeout=1):
                    words: _Words = key.data
                    for leaving in words.read():
                        self._hear(leaving)
                    if words.ended:
                        ready.unregister(key.fileobj)
                        if words.number == 0:
                            self._first_left.set()
                        if words.number not in self._gone and not self._closed:
                            self._hear(Leaving(words.number, "lost"))

    def _hear(self, leaving: Leaving) -> None:
        self._gone.add(leaving.number)
        if leaving.number == 0:
            self._first_left.set()
        if leaving.why != "done" and self.left is None:
            self.left = leaving
            self._tell(leaving)
            self._heard(leaving)
            self._came.set()
            self._force(leaving)

    def _tell(self, leaving: Leaving) -> None:
        for peer in self._peers.values():
            with suppress(OSError):
                peer.sendall(json.dumps(asdict(leaving)).encode() + b"\n")

    def _force(self, leaving: Leaving, times: int = 1) -> None:
        """End this process some time later, unless it has left by then.

        After a signal it has `SAVING` times as long unless it hangs in a collective: it may be saving what is to be
        saved.
        """

        def end() -> None:
            if self._closed:
                return
            if leaving.why == "interrupted" and not self.waiting and times < SAVING:
                self._force(leaving, times + 1)
                return
            if leaving.why != "interrupted" and self._speaks(leaving):
                print(f"error: {leaving.sentence(self.place.of)}", file=sys.stderr, flush=True)
            os._exit(leaving.code)

        timer = threading.Timer(FORCED, end)
        timer.daemon = True
        timer.start()

    def _speaks(self, leaving: Leaving) -> bool:
        """The first process says what became of any; where it is lost itself, the next one does."""
        return self.place.number == (1 if leaving.number == 0 and leaving.why == "lost" else 0)


def connect(place: Place, store: Any, heard: Callable[[Leaving], None]) -> Line:
    """The lines of all processes; store: torch's, by which they find each other.

    Raises:
        VptError: a process that does not come within `CONNECT` seconds.
    """
    try:
        peers = _accept(place, store) if place.number == 0 else {0: _call(place, store)}
    except (OSError, RuntimeError) as error:
        raise VptError(
            f"process {place.number} of {place.of} cannot reach the others at {place.address} ({error}); all must "
            "reach the first one's machine by that name, on any port"
        ) from error
    for peer in peers.values():
        _keep_alive(peer)
    return Line(place, peers, heard)


def _accept(place: Place, store: Any) -> dict[int, socket.socket]:
    token = secrets.token_hex(16)
    peers: dict[int, socket.socket] = {}
    with _server(place) as server:
        store.set("line", f"{server.getsockname()[1]} {token}")
        until = time.monotonic() + CONNECT
        while len(peers) < place.of - 1:
            server.settimeout(max(0.1, until - time.monotonic()))
            peer, _ = server.accept()
            peer.settimeout(SOON)
            said = peer.recv(64).decode(errors="replace").split()
            peer.settimeout(None)
            if len(said) == 2 and secrets.compare_digest(said[0], token):
                peers[int(said[1])] = peer
    return peers


def _call(place: Place, store: Any) -> socket.socket:
    port, token = store.get("line").decode().split()
    address = HERE if is_local(place.address) else place.address
    peer = socket.create_connection((address, int(port)), timeout=CONNECT)
    peer.settimeout(None)
    peer.sendall(f"{token} {place.number}".encode())
    return peer


def _server(place: Place) -> socket.socket:
    """For this machine alone where all processes are on it."""
    if is_local(place.address):
        return socket.create_server((HERE, 0), backlog=place.of)
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    return socket.create_server(("", 0), family=family, backlog=place.of, dualstack_ipv6=both)


def is_local(address: str) -> bool:
    """Whether it is this machine's loopback, of IPv4."""
    return address == "localhost" or address.startswith("127.")


@dataclass
class _Words:
    """What process `number` says, a line of JSON each, until it has `ended`."""

    number: int
    peer: socket.socket
    read_so_far: bytes = b""
    ended: bool = False

    def read(self) -> list[Leaving]:
        try:
            new = self.peer.recv(1 << 16)
        except OSError:
            new = b""
        self.ended = not new
        *whole, self.read_so_far = (self.read_so_far + new).split(b"\n")
        return [Leaving(**json.loads(line)) for line in whole]


def _keep_alive(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _close_in_children(line: Line) -> None:
    """Workers that make samples outlive a killed process by seconds, and must not keep its line open meanwhile."""
    own = weakref.ref(line)

    def close() -> None:
        if (known := own()) is not None:
            for peer in known._peers.values():
                peer.close()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=close)
