"""Files from the network, whole and verified or not at all: from an address, or from the hub of timm's models."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, getproxies, proxy_bypass, url2pathname, urlopen

import timm
import torch
from filelock import FileLock
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import get_session

from vpt.errors import VptError
from vpt.progress import Tick, bar, silent

SCHEMES = ("http", "https", "file")
PAUSES = (1.0, 3.0, 9.0)  # seconds before the second, third and fourth attempt
TIMEOUT, FIRST_TIMEOUT = 30.0, 8.0  # seconds without a byte; and until a server has answered at all
PATIENCE = 4.0  # seconds that the hub has to answer at all
CHUNK = 1 << 20  # bytes
OFFLINE = "VPT_OFFLINE"  # of the environment: set to anything but 0, nothing is asked of any other machine
ELSEWHERE = "without a network fetch it on another machine (`vpt fetch`) and copy the file here (`--weights FILE`)"


@dataclass(frozen=True)
class Source:
    """A file on the network; `size` in bytes."""

    url: str
    md5: str
    size: int | None

    @property
    def filename(self) -> str:
        return _filename(self.url)


@dataclass(frozen=True)
class _Hash:
    """What a file must hash to; without a digest it may be anything."""

    kind: str  # MD5 or SHA-256
    digest: str | None

    def wrong(self, path: Path) -> str | None:
        """What is found instead; None where it is right, or nothing is known."""
        if self.digest is None:
            return None
        with open(path, "rb") as file:
            name = self.kind.replace("-", "").lower()
            found = hashlib.file_digest(file, lambda: hashlib.new(name, usedforsecurity=False)).hexdigest()
        return None if found == self.digest else f"{self.kind} {found}, expected {self.digest}"


def download(
    url: str, target: Path, *, md5: str | None = None, sha256: str | None = None, progress: Tick = silent
) -> Path:
    """Fetch a file; `target` is there whole and verified afterwards, or not at all. Progress counts megabytes.

    What an interrupted download left in `TARGET.part` is continued where a hash can tell whether the whole is right;
    after a broken connection also where the server says that it is still the same file. A target that is there already
    is verified and kept.

    Raises:
        VptError: an address that cannot be had, no space, a wrong hash.
    """
    if urlsplit(url).scheme not in SCHEMES:
        raise VptError(f"{url}: no address to fetch from; expected one that begins with http://, https:// or file://")
    target, known = Path(target), _Hash("SHA-256", sha256) if sha256 else _Hash("MD5", md5)
    part = target.with_name(f"{target.name}.part")
    try:
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            with _alone(part):
                if not target.exists():  # another process may just have fetched it
                    _fill(part, url, known, progress)
                    os.replace(part, target)
                    return target
        if wrong := known.wrong(target):
            raise VptError(f"{target}: has {wrong} of {url}; move it away, then fetch again")
    except OSError as error:
        raise VptError(
            f"{target}: cannot be written ({error.strerror or error}); free space or choose another folder"
        ) from error
    return target


def offline() -> bool:
    return os.environ.get(OFFLINE, "0") not in ("", "0")


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    """One process at a time writes `part`; the others wait."""
    lock = Path(f"{part}.lock")
    try:
        with FileLock(lock):
            yield
    finally:
        lock.unlink(missing_ok=True)


def _fill(part: Path, url: str, known: _Hash, progress: Tick) -> None:
    """The whole file in `part`, on disk and verified."""
    if known.digest is None:
        part.unlink(missing_ok=True)
    _persist(url, _Part(part, known.digest is not None), progress)
    with open(part, "rb") as file:
        os.fsync(file.fileno())
    if wrong := known.wrong(part):
        part.unlink()
        raise VptError(f"{url}: what came has {wrong}; it is deleted, try again, or with another network")


@dataclass
class _Part:
    """What there is of a file; version: what the server calls this one, "" where it does not tell it from others."""

    path: Path
    known: bool  # a hash tells whether the whole is right
    version: str = ""

    @property
    def have(self) -> int:
        """Bytes to which others can be added."""
        return self.path.stat().st_size if self.path.exists() and (self.known or self.version) else 0


def _version(headers: Any) -> str:
    """By the RFC of ranges (9110, 13.1.5) what tells versions of a file apart to the byte."""
    tag = headers.get("ETag", "")
    return headers.get("Last-Modified", "") if not tag or tag.startswith("W/") else tag


def _persist(url: str, part: _Part, progress: Tick) -> None:
    """Receive until the file is whole, again after a broken connection; of a server that never answered only once."""
    if not url.startswith("file:"):
        if offline():
            raise VptError(f"{url}: is not fetched, since {OFFLINE} is set; unset it, or {ELSEWHERE}")
        _require_host(url)
    answered = False
    for pause in (None,) if url.startswith("file:") else (*PAUSES, None):
        try:
            _receive(url, part, progress, TIMEOUT if answered else FIRST_TIMEOUT)
            return
        except HTTPError as error:
            answered = True
            again = error.code >= 500 or error.code in (408, 416, 429)
            reason = f"{error.code} {error.reason}"
            if error.code == 416:  # nothing lies behind the end of `part`: it is whole, or of another file
                if error.headers.get("Content-Range") == f"bytes */{part.have}":
                    return
                part.path.unlink(missing_ok=True)
        except (URLError, HTTPException, ConnectionError, TimeoutError) as error:
            answered = answered or not isinstance(error, URLError)  # which `urlopen` raises where no connection comes
            again, reason = answered, str(getattr(error, "reason", error)) or type(error).__name__
        if pause is None or not again:
            raise VptError(f"{url}: cannot be fetched ({reason}); check the address, or try again later; {ELSEWHERE}")
        time.sleep(pause)


def _require_host(url: str) -> None:
    """Raise VptError unless the name of who is asked, a proxy's where there is one, is found within seconds.

    A network without a server for names keeps who asks waiting, beyond any limit of the connection's own.
    """
    asked = urlsplit(url)
    host = asked.hostname or ""
    proxy = None if proxy_bypass(host) else getproxies().get(asked.scheme)
    host = (urlsplit(proxy).hostname if proxy else None) or host
    found: list[bool] = []

    def ask() -> None:
        with suppress(OSError):  # said by who connects
            socket.getaddrinfo(host, None)
        found.append(True)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE)
    if not found:
        raise VptError(
            f"{url}: cannot be fetched (no one tells the address of {host}); check the network, or try again later; "
            f"{ELSEWHERE}"
        )


def _receive(url: str, part: _Part, progress: Tick, timeout: float) -> None:
    """Append to `part` what it lacks; a server that knows no ranges, or has another file now, sends all of it."""
    have = part.have
    wanted = {"Range": f"bytes={have}-"} | ({"If-Range": part.version} if part.version else {}) if have else {}
    with urlopen(Request(url, headers={"User-Agent": "vpt"} | wanted), timeout=timeout) as response:
        version = _version(response.headers)
        if response.status != 206:
            have, part.version = 0, version
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.path.unlink()
            raise ConnectionError("the server sent another part of the file than it was asked for")
        elif part.version and version not in ("", part.version):
            part.path.unlink()
            raise ConnectionError("the server has another file there now")
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else 0
        folder = part.path.parent
        if total - have > (free := shutil.disk_usage(folder).free):
            raise VptError(
                f"{folder}: {total - have >> 20} MB are needed for {part.path.stem}, {free >> 20} MB are free; free "
                "space or choose another folder"
            )
        with open(part.path, "ab" if have else "wb") as file:
            for chunk in _chunks(response):
                file.write(chunk)
                have += len(chunk)
                progress(have >> 20, max(total, have) >> 20, "MB")
    if have < total:
        raise ConnectionError(f"the connection ended after {have} of {total} bytes")


def _chunks(response: IO[bytes]) -> Iterator[bytes]:
    """The bytes that come; whatever the network raises is a ConnectionError, so that it is not taken for the disk's."""
    try:
        while chunk := response.read(CHUNK):
            yield chunk
    except OSError as error:
        raise ConnectionError(str(error) or "the connection broke") from error


def cached(url: str, source: Source | None = None) -> Path:
    """The file of an address, downloaded once to where `torch.hub` keeps its own; `source`: what is known of it.

    Files of unknown addresses lie in a folder of their address each, because many are called `model.safetensors`. One
    that is there is known by its size, to spare hashing gigabytes at every start.

    Raises:
        VptError: no network, no space, or a file that is not what it should be.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if source is None:
        folder = folder / hashlib.sha256(url.encode()).hexdigest()[:16]
    target = folder / _filename(url)
    if not target.exists():
        with bar(f"fetching {target.name}") as tick:
            return download(url, target, md5=source.md5 if source else None, progress=tick)
    if source and source.size is not None and (found := target.stat().st_size) != source.size:
        raise VptError(f"{target}: has {found} bytes, expected {source.size} of {url}; delete it, it is fetched again")
    return target


# --- the hub of timm's models -----------------------------------------------------------------------------------------


def hub_file(name: str) -> Path:
    """The file of a timm model in the cache of the Hugging Face hub, downloaded once."""
    try:
        config: Any = timm.get_pretrained_cfg(name)
    except RuntimeError:  # no such tag
        config = None
    if config is None or not config.hf_hub_id:
        raise VptError(f"{name}: no address is known for its weights; give the file (`--weights FILE`)")
    try:
        with hub_or_its_cache():
            return Path(hf_hub_download(config.hf_hub_id, "model.safetensors"))
    except Exception as error:  # the hub's client raises a dozen kinds for one meaning
        raise VptError(f"{name}: its weights cannot be fetched ({why_not(error)}); {ELSEWHERE}") from error


def why_not(error: Exception) -> str:
    """Why the hub's client gave nothing, in a line."""
    if offline():
        return f"{OFFLINE} is set, and they are not in the hub's cache"
    return f"{type(error).__name__}: {str(error).strip()}".partition("\n")[0]


def in_cache(repository: str) -> bool:
    """Whether the weights of a repository of the hub were downloaded before."""
    files = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(repository, file), str) for file in files)


def require_within_reach(known: Any) -> None:
    """Raise where the hub is not asked and the weights that timm's config names are not in its cache.

    timm would build the whole model first, which of the largest takes minutes and all of the memory.
    """
    repository = known.hf_hub_id if known else None
    if not (repository and constants.HF_HUB_OFFLINE) or "@" in repository or in_cache(repository):
        return
    file = known.hf_hub_filename
    if not (file and isinstance(try_to_load_from_cache(repository, file), str)):
        raise LocalEntryNotFoundError(f"the hub does not answer, and {repository} is not in its cache")


@contextmanager
def hub_or_its_cache() -> Iterator[None]:
    """Inside, the hub's client looks into its cache only, where the hub does not answer; else it tries for minutes."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or offline() or not _answers(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _answers(address: str) -> bool:
    """Whether an address gives any answer within seconds, asked as the hub's client asks (proxies, certificates).

    That a connection can be made says little: some proxies and firewalls accept, and then stay silent.
    """
    found: list[bool] = []

    def ask() -> None:
        with suppress(Exception):  # the client raises a dozen kinds for one meaning
            found.append(get_session().head(address, timeout=PATIENCE).status_code < 500)

    asking = threading.Thread(target=ask, daemon=True)  # a name that is not found may take longer than a connection
    asking.start()
    asking.join(PATIENCE + 1)
    return any(found)


def _filename(url: str) -> str:
    return unquote(urlsplit(url).path).rpartition("/")[2] or "weights"
