"""A server on 127.0.0.1 that shows given cases to whoever knows its address, and nothing else of this machine.

A request names a case and a layer by their numbers, never a file. Its address holds a random token, and the `Host` it
asks for must be this machine's own, so that no page of another site can ask through a name that it lets point here.
"""

from __future__ import annotations

import json
import re
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from threading import Lock
from typing import Any

from vpt.errors import VptError
from vpt.report.pages import render
from vpt.view.scenes import Scene, ViewedCase, make_scene

KEPT = 2  # cases in memory
POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval'; style-src 'unsafe-inline'; "
    "connect-src 'self' data: blob:; img-src 'self' data: blob:; worker-src blob:; form-action 'none'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Answer:
    """What a request gets: a status, a type, a body, and how the body is packed."""

    def __init__(self, body: bytes, kind: str, status: int = 200, encoding: str = ""):
        self.body, self.kind, self.status, self.encoding = body, kind, status, encoding

    @classmethod
    def of_json(cls, value: Any, status: int = 200) -> Answer:
        return cls(json.dumps(value).encode(), "application/json", status)


class Viewer:
    """The cases, and the answer to every path below the token."""

    def __init__(self, cases: Sequence[ViewedCase], names: Mapping[int, str] | None):
        """names: see `vpt.view.scenes.make_scene`."""
        self.cases = cases
        self.token = secrets.token_urlsafe(24)
        self.lock = Lock()
        self.scene: Callable[[int], Scene] = lru_cache(KEPT)(lambda number: make_scene(cases[number], names))

    def answer(self, path: str) -> Answer | None:
        """path: as it was asked for; None for what is not there."""
        inside = path.removeprefix(f"/{self.token}/")
        if inside == path:
            return None
        if inside == "":
            page = render("view.html", title=self.cases[0].name, cases=[case.name for case in self.cases])
            return Answer(page.encode(), "text/html; charset=utf-8")
        if inside == "niivue.js":
            packed = files("vpt").joinpath("assets/niivue/niivue.umd.js.gz").read_bytes()
            return Answer(packed, "text/javascript", encoding="gzip")
        asked = re.fullmatch(r"([0-9]{1,6})/(scene\.json|scan\.nii|([0-9]{1,3})\.nii)", inside)
        if asked is None or int(asked[1]) >= len(self.cases):
            return None
        try:
            with self.lock:  # one reads, the others wait for the same
                scene = self.scene(int(asked[1]))
        except VptError as error:
            return Answer.of_json({"error": str(error)}, 422)
        return _part(scene, asked[2], asked[3])


def _part(scene: Scene, name: str, layer: str | None) -> Answer | None:
    if name == "scene.json":
        return Answer.of_json(scene.to_dict())
    if name == "scan.nii":
        return Answer(scene.scan, "application/octet-stream")
    assert layer is not None
    return Answer(scene.layers[int(layer)].data, "application/octet-stream") if int(layer) < len(scene.layers) else None


class Server(ThreadingHTTPServer):
    """Serves a `Viewer` on 127.0.0.1; port 0 takes any that is free."""

    daemon_threads = True

    def __init__(self, viewer: Viewer, port: int = 0):
        self.viewer = viewer
        try:
            super().__init__(("127.0.0.1", port), Handler)
        except (OSError, OverflowError) as error:
            raise VptError(f"port {port} cannot be taken ({error}); leave --port out, or give another") from error

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes in the midst of an answer, as a closed tab does, is no fault."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{self.viewer.token}/"

    @property
    def hosts(self) -> frozenset[str]:
        """What `Host` may be."""
        return frozenset(f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost"))


class Handler(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = "vpt", ""

    def do_GET(self) -> None:
        self._send(with_body=True)

    def do_HEAD(self) -> None:
        self._send(with_body=False)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the token would stand in every line."""

    def _send(self, with_body: bool) -> None:
        if self.headers.get("Host") not in self.server.hosts:
            answer: Answer | None = Answer(b"not this host\n", "text/plain", 403)
        else:
            answer = self.server.viewer.answer(self.path)
        answer = answer or Answer(b"not found\n", "text/plain", 404)
        self.send_response(answer.status)
        headers = HEADERS | {"Content-Type": answer.kind, "Content-Length": str(len(answer.body))}
        for name, value in (headers | ({"Content-Encoding": answer.encoding} if answer.encoding else {})).items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(answer.body)
