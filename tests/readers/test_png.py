"""What a PNG of 16 bits says of its white."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vpt.readers import reader_of


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def written(path: Path, pixels: np.ndarray, *chunks: bytes) -> Path:
    """A PNG with these chunks behind its first, as cameras and scanners write them."""
    Image.fromarray(pixels).save(path)
    content = path.read_bytes()
    path.write_bytes(content[:33] + b"".join(chunks) + content[33:])
    return path


DEEP = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100
SBIT, GAMMA = chunk(b"sBIT", b"\x0c"), chunk(b"gAMA", struct.pack(">I", 45455))


@pytest.mark.parametrize(
    ("pixels", "chunks", "white"),
    [
        (DEEP, (SBIT,), 65535),
        (DEEP, (GAMMA, SBIT), 65535),
        (DEEP, (), None),
        (DEEP, (GAMMA,), None),
        ((DEEP // 256).astype(np.uint8), (SBIT,), None),
    ],
)
def test_significant_bits_state_the_white(tmp_path: Path, pixels: np.ndarray, chunks: tuple, white: float) -> None:
    path = written(tmp_path / "a.png", pixels, *chunks)

    assert reader_of(path).white() == white
    assert np.array_equal(reader_of(path).voxels(1).values()[0, ..., 0].T, pixels)


def test_other_formats_and_arrays_state_none(tmp_path: Path) -> None:
    Image.fromarray(DEEP).save(tmp_path / "a.tif")

    assert reader_of(tmp_path / "a.tif").white() is None
    assert reader_of(DEEP).white() is None
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00")
    assert reader_of(tmp_path / "cut.png").white() is None


@pytest.mark.parametrize("where", ["before the pixels", "behind them"])
def test_a_turn_is_found_wherever_it_is_written(tmp_path, where):
    exif = Image.Exif()
    exif[0x0112] = 6
    mark = chunk(b"eXIf", exif.tobytes()[6:])
    path = written(tmp_path / "a.png", DEEP, *[mark] * (where == "before the pixels"))
    if where == "behind them":
        content = path.read_bytes()
        path.write_bytes(content[:-12] + mark + content[-12:])
    plain = written(tmp_path / "b.png", DEEP)

    assert (reader_of(path).orientation(), reader_of(path).grid().shape) == (6, (20, 30, 1))
    assert (reader_of(plain).orientation(), reader_of(plain).grid().shape) == (1, (30, 20, 1))
