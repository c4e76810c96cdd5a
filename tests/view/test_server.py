"""The viewer's server shows the cases it was given to whoever has its address, and nothing else to anyone."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from vpt.errors import VptError
from vpt.view.scenes import ViewedCase
from vpt.view.server import Server, Viewer

NIIVUE = "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import nibabel as nib

    path = tmp_path_factory.mktemp("scans") / "a.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4)), path)
    return path


@pytest.fixture(scope="module")
def server(scan: Path) -> Iterator[Server]:
    broken = scan.with_name("broken.nii.gz")
    broken.write_bytes(b"no scan")
    cases = [ViewedCase("a", (scan,), (scan,)), ViewedCase("broken", (broken,), ())]
    with Server(Viewer(cases, None)) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


def ask(server: Server, path: str, method: str = "GET", host: str | None = None) -> tuple[int, bytes, dict[str, str]]:
    """path: below the token, unless it starts with a slash; as it is, without the client's own tidying."""
    whole = path if path.startswith("/") else f"/{server.viewer.token}/{path}"
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.putrequest(method, whole, skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, answer.read(), dict(answer.getheaders())
    connection.close()
    return found


def test_page_viewer_and_layers_are_there(server: Server, scan: Path) -> None:
    status, page, headers = ask(server, "")
    assert status == 200
    assert b"<canvas" in page
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    status, packed, headers = ask(server, "niivue.js")
    assert (status, headers["Content-Encoding"]) == (200, "gzip")
    assert sha256(gzip.decompress(packed)).hexdigest() == NIIVUE  # as NOTICE says
    status, scene, _ = ask(server, "0/scene.json")
    assert (status, json.loads(scene)["name"]) == (200, "a")
    assert [ask(server, path)[0] for path in ("0/scan.nii", "0/0.nii")] == [200, 200]
    assert str(scan.parent).encode() not in page + scene  # nor where it lies


def test_a_scan_that_cannot_be_read_is_said_and_the_others_are_shown(server: Server) -> None:
    status, answer, _ = ask(server, "1/scene.json")
    assert status == 422
    assert "broken.nii.gz" in json.loads(answer)["error"]
    assert ask(server, "0/scene.json")[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/wrong/",
        "/wrong/0/scan.nii",
        "../../etc/passwd",
        "0/../../../etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "0/..%5cscan.nii",
        "//etc/passwd",
        "/etc/passwd",
        "0",
        "0/",
        "0/1.nii",
        "0/-1.nii",
        "2/scan.nii",
        "999999999999/scan.nii",
        "0/scan.nii?x=../../a",
        "0/scan.nii/..",
        "a.nii.gz",
        "niivue.js/../x",
        "assets/",
    ],
)
def test_nothing_else_is_found(server: Server, path: str) -> None:
    status, body, _ = ask(server, path)
    assert (status, body) == (404, b"not found\n")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "[::1]:{port}", ""]
)
def test_another_host_is_refused_even_with_the_token(server: Server, host: str) -> None:
    status, body, _ = ask(server, "", host=host.format(port=server.server_port) or " ")
    assert (status, body) == (403, b"not this host\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_sent(server: Server, method: str) -> None:
    assert ask(server, "", method)[0] == 501


def test_head_has_no_body(server: Server) -> None:
    status, body, headers = ask(server, "0/scan.nii", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 348


def test_it_listens_on_this_machine_alone_under_a_name_of_its_own(server: Server, scan: Path) -> None:
    assert server.server_address[0] == "127.0.0.1"
    other = Viewer([ViewedCase("a", (scan,), ())], None)
    assert len(other.token) >= 32
    assert other.token != server.viewer.token


def test_a_port_that_is_taken_is_said(server: Server, scan: Path) -> None:
    with pytest.raises(VptError, match=f"port {server.server_port} cannot be taken"):
        Server(Viewer([ViewedCase("a", (scan,), ())], None), server.server_port)


def test_a_browser_that_goes_in_the_midst_of_an_answer_prints_no_traceback(
    server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    said = f"GET /{server.viewer.token}/niivue.js HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n\r\n"
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.server_port)) as gone:
            gone.sendall(said.encode())
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset, not closed
    time.sleep(0.5)
    assert ask(server, "")[0] == 200
    assert capfd.readouterr().err == ""
