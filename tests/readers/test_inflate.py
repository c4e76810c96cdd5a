"""Whatever the standard library reads or refuses, the fast inflation reads or refuses as well, but for what follows."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import pytest

from vpt.readers.inflate import AT_ONCE, inflate

CONTENT = np.random.default_rng(0).integers(0, 9, 3 * AT_ONCE + 17, np.uint8).tobytes()
MIDDLE = 2 * AT_ONCE + 5
PACKED = gzip.compress(CONTENT, mtime=0)
MEMBERS = gzip.compress(CONTENT[:MIDDLE], 1, mtime=0) + gzip.compress(b"") + gzip.compress(CONTENT[MIDDLE:], 9, mtime=0)


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


@pytest.mark.parametrize("packed", [PACKED, MEMBERS, MEMBERS + bytes(512)], ids=["one", "members", "padded"])
@pytest.mark.parametrize("size", [len(CONTENT), MIDDLE, 352, AT_ONCE, 0])
def test_what_the_standard_library_reads_is_read(tmp_path: Path, packed: bytes, size: int) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(packed)
    assert gzip.decompress(packed) == CONTENT
    assert inflate(path, size).tobytes() == CONTENT[:size]


@pytest.mark.parametrize(
    "packed",
    [
        PACKED[:-1],
        PACKED[:-8],
        PACKED[: len(PACKED) // 2],
        MEMBERS[:-3],
        flipped(PACKED, len(PACKED) // 2),
        flipped(PACKED, len(PACKED) - 6),  # of the checksum
        flipped(PACKED, len(PACKED) - 2),  # of the length
        flipped(MEMBERS, len(MEMBERS) - 6),
        PACKED + MEMBERS[:40],
        MEMBERS + PACKED[:1],
        flipped(PACKED, len(PACKED) - 6) + b"not zeros",
        b"not zeros" + PACKED,
        CONTENT,
        b"",
    ],
)
def test_what_the_standard_library_refuses_is_refused(tmp_path: Path, packed: bytes) -> None:
    """Also where what is damaged lies behind the bytes that are asked for."""
    path = tmp_path / "a.gz"
    path.write_bytes(packed)
    with pytest.raises((OSError, EOFError, zlib.error, AssertionError)), gzip.open(path) as stream:
        assert stream.read() == CONTENT  # nothing is read of an empty file
    for size in (352, len(CONTENT)):
        with pytest.raises((OSError, EOFError)):
            inflate(path, size)


@pytest.mark.parametrize("between", [b"", bytes(3), bytes(2 * AT_ONCE)], ids=len)
@pytest.mark.parametrize("rest", [b"n", b"not zeros", b"\x1f\x8c", b"x" * AT_ONCE], ids=len)
def test_what_follows_a_whole_file_is_ignored_as_other_programs_do(tmp_path: Path, between: bytes, rest: bytes) -> None:
    path = tmp_path / "a.gz"
    for packed in (PACKED, MEMBERS, PACKED[:-8] + PACKED[-8:] + bytes(9) + gzip.compress(b"", mtime=0)):
        path.write_bytes(packed + between + rest)
        for size in (352, len(CONTENT)):
            assert inflate(path, size).tobytes() == CONTENT[:size]
        with pytest.raises(OSError, match="got"):
            inflate(path, len(CONTENT) + 1)


def test_a_file_that_holds_less_than_is_asked_for_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(PACKED)
    with pytest.raises(OSError, match=f"expected {len(CONTENT) + 1} bytes, got {len(CONTENT)}"):
        inflate(path, len(CONTENT) + 1)
    with pytest.raises(OSError, match="packed bytes cannot hold"):  # and no memory is asked for
        inflate(path, 10**15)


@pytest.mark.slow
def test_the_densest_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(bytes(10**8), 9))
    assert not inflate(path, 10**8).any()
