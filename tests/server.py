"""A server on this machine for the tests of downloads, which behaves, or not."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server(ThreadingHTTPServer):
    """One file at every path. `ranges`: honours Range; `cuts`: where the next answers break off, in bytes from the
    file's start; `stalls`: whether they then stay silent; `errors`: what the next answers say instead; `claims`: the
    size that they announce; `tag`: "ETag" or "Last-Modified", by which it tells versions of the file apart; `asks`:
    whether it heeds If-Range; `later`: what the file holds after the next answer."""

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.ranges = True
        self.cuts: list[int] = []
        self.stalls = False
        self.claims: int | None = None
        self.tag: str | None = "ETag"
        self.asks = True
        self.later: bytes | None = None
        self.over = threading.Event()
        self.errors: list[int] = []
        self.asked: list[str | None] = []  # the Range of every request
        self.paths: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/models/sam.pth"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        server.paths.append(self.path)
        content, version = server.content, f'"{hashlib.md5(server.content).hexdigest()}"'
        server.content, server.later = server.later or content, None
        if server.asks and self.headers.get("If-Range", version) != version:
            wanted = None
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and server.ranges else 0
        size = len(content)
        if server.errors:
            self.send_error(server.errors.pop(0))
        elif start and start >= size:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.end_headers()
        else:
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(server.claims or size - start))
            if server.tag:
                self.send_header(server.tag, version)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            self.end_headers()
            cut = server.cuts.pop(0) if server.cuts else None
            self.wfile.write(content[start:cut])
            if cut and server.stalls:
                server.over.wait(10)

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def serving(content: bytes) -> Iterator[Server]:
    with Server(content) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.over.set()
        server.shutdown()
