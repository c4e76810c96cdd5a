"""NRRD and MetaImage: a header of text, and voxels behind it or in a file beside it, which no library is trusted with.

Nothing is allocated that the file cannot hold, only a file in the header's own folder is opened, and checksums count:
ITK gives voxels of a damaged file without a word.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np

from vpt.errors import VptError
from vpt.readers.content import in_place_of
from vpt.readers.damage import require_memory, require_there, spoiled
from vpt.readers.inflate import DENSEST, inflate

LONGEST = 2**20  # bytes of a header
AT_END = -1
MOST_DIGITS = 20


@dataclass(frozen=True)
class Claim:
    """What a header says of its voxels: sizes, the first varying fastest, their type, and how and where they lie.

    file: None where they follow the header; start: bytes before them in their file, `AT_END` where they are its end.
    """

    sizes: tuple[int, ...]
    dtype: np.dtype
    packing: Literal["raw", "gzip", "zlib"]
    file: str | None
    start: int

    @property
    def bytes(self) -> int:
        return prod(self.sizes) * self.dtype.itemsize


def fields_of(path: Path, separator: str, last: str) -> tuple[dict[str, str], int]:
    """The lines `key: value` of a header, keys in lower case, up to a blank line or to the key `last`; its length."""
    found: dict[str, str] = {}
    with open(path, "rb") as file:
        head = file.read(LONGEST)
    length = 0
    for line in head.split(b"\n"):
        length += len(line) + 1
        text = line.decode("latin-1").strip()
        if not text:
            break
        key, has_separator, value = text.partition(separator)
        if has_separator and not text.startswith("#"):
            found.setdefault(key.strip().lower(), value.strip().lstrip("="))
        if last and key.strip().lower() == last:
            break
    return found, length


def require_file(path: Path, what: str) -> None:
    if not path.is_file():
        raise VptError(f"{path}: {in_place_of(path)}, expected {what}")
    if path.stat().st_size == 0:
        raise VptError(f"{path}: an empty file, expected {what}; copy or export it again")


def whole_numbers(path: Path, text: str) -> tuple[int, ...]:
    """The sizes in a header, all from 1 on."""
    found = tuple(whole_number(part) or 0 for part in text.split())
    if not all(found) or not found:
        raise VptError(f"{path}: sizes {text[:60]!r} in its header, expected whole numbers from 1 on; export it again")
    return found


def whole_number(text: str) -> int | None:
    """None of what is none, or beyond any file; of thousands of digits Python makes no number."""
    return int(text) if text.isdecimal() and len(text) < MOST_DIGITS else None


def require_voxels(path: Path, claim: Claim) -> Path:
    """The file of the voxels; a header is refused that names another folder's, none, or one that cannot hold them."""
    file = path if claim.file is None else data_file(path, claim.file)
    there = (file.stat().st_size - max(claim.start, 0)) * (1 if claim.packing == "raw" else DENSEST)
    require_there(path, file, claim.sizes, claim.dtype.itemsize, there)
    return file


def read_voxels(path: Path, claim: Claim) -> np.ndarray:
    """The voxels in the order of `claim.sizes`. Raises VptError where the file is damaged or too short."""
    file = require_voxels(path, claim)
    require_memory(path, claim.sizes, claim.bytes)
    try:
        content = UNPACK[claim.packing](file, claim.start, claim.bytes)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise spoiled(path, error) from error
    return content.view(claim.dtype).reshape(claim.sizes, order="F")


def data_file(path: Path, named: str) -> Path:
    """The file of voxels that a header names, in the header's own folder; nothing else is opened."""
    mend = "keep both in one folder, or save the scan as one file"
    if Path(named).name != named or "\\" in named or "%" in named or named.upper().startswith("LIST"):
        raise VptError(f"{path}: its voxels are in {named!r}, expected one file beside the header; {mend}")
    file = path.parent / named
    if not file.is_file():
        raise VptError(f"{path}: its voxels are in {named}, which is not there; {mend}")
    if file.resolve().parent not in (path.resolve().parent, path.parent.resolve()):
        raise VptError(f"{path}: its voxels are in {named}, a link out of its folder; {mend}")
    return file


def _raw(file: Path, start: int, size: int) -> np.ndarray:
    offset = file.stat().st_size - size if start == AT_END else start
    return np.fromfile(file, np.uint8, size, offset=offset)


def _inflated(file: Path, start: int, size: int) -> np.ndarray:
    return inflate(file, size, start)


def _unpacked(file: Path, start: int, size: int) -> np.ndarray:
    """A zlib stream, whose checksum stands at its end."""
    with open(file, "rb") as stream:
        stream.seek(start)
        unpacking = zlib.decompressobj()
        content = unpacking.decompress(stream.read(), size + 1)
        content += unpacking.decompress(unpacking.unconsumed_tail, 1)
    if len(content) != size or not unpacking.eof:
        raise OSError(f"expected {size} bytes of voxels, got {len(content)}")
    return np.frombuffer(content, np.uint8)


UNPACK = {"raw": _raw, "gzip": _inflated, "zlib": _unpacked}
