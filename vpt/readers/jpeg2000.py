"""What Pillow leaves out of a JPEG 2000 file: how many bits its channels have, and what their colours are.

A JP2 file is boxes of a length, a name (4 bytes each) and a content; `jp2c` is the codestream, which can be a file of
its own. Its first segment (SIZ) says the depth of every channel; `colr` in `jp2h` says what they are (ISO 15444-1,
annexes A.5.1 and I.5.3).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

STREAM = b"\xff\x4f\xff\x51"  # how a codestream begins
FILE = b"\0\0\0\x0cjP  \r\n\x87\n"
KNOWN = {1: (17,), 2: (17,), 3: (16, 18), 4: (12, 16)}  # channels -> enumerated colours: grey; sRGB, sYCC; CMYK
ICC = 2  # the way of `colr` that gives a profile of grey or of red, green, blue
BY_NUMBER = 1
MOST = 2**20  # bytes of a header


@dataclass(frozen=True)
class Jpeg2000:
    """bits: of every channel, below 0 where it is signed; colours: is it said what they are?"""

    bits: tuple[int, ...]
    colours: bool

    @classmethod
    def of(cls, path: Path) -> Self | None:
        """None of a file that is none, or is damaged in what is read here."""
        size = path.stat().st_size
        with open(path, "rb") as file:
            start = file.read(len(FILE))
            if start.startswith(STREAM):
                return cls._of_stream(file, 0, None)
            if start != FILE:
                return None
            colour = None
            for name, place, length in boxes(file, 0, size):
                if name == b"jp2h":
                    colour = _colour(file, place, place + min(length, MOST))
                elif name == b"jp2c":
                    return cls._of_stream(file, place, colour)
        return None

    @classmethod
    def _of_stream(cls, file: BinaryIO, place: int, colour: tuple[int, int] | None) -> Self | None:
        file.seek(place)
        head = file.read(42)
        if not head.startswith(STREAM) or len(head) < 42:
            return None
        channels = int.from_bytes(head[40:42], "big")
        sizes = file.read(3 * channels)[::3]
        if not 0 < len(sizes) == channels:
            return None
        bits = tuple(((size & 127) + 1) * (-1 if size & 128 else 1) for size in sizes)
        known = channels == 1 if colour is None else colour[0] == ICC or colour[1] in KNOWN.get(channels, ())
        return cls(bits, known)

    @property
    def white(self) -> int | None:
        """White in a grey picture of 9 to 15 bits, whose values Pillow shifts to 16; None where nothing says it."""
        deep = len(self.bits) == 1 and 8 < self.bits[0] < 16
        return (2 ** self.bits[0] - 1) << (16 - self.bits[0]) if deep else None

    def refusal(self, mode: str) -> str:
        """Why its pixels cannot be taken as Pillow gives them in `mode`; "" where they can."""
        least, most = min(self.bits), max(self.bits)
        if least < 0:
            return "JPEG 2000 of signed values, whose 0 has no one place; save it as PNG"
        if len({*self.bits}) > 1 or least < 8:
            return f"JPEG 2000 with channels of {', '.join(map(str, self.bits))} bits, expected 8 to 16; save it as PNG"
        if most > 8 and mode != "I;16":
            what = "several channels" if len(self.bits) > 1 else "a channel"
            return f"{what} of {most} bits (JPEG 2000), which cannot be read whole; save it as PNG"
        if most > 16:
            return f"JPEG 2000 of {most} bits, expected 8 to 16; save it as PNG with 16 bits"
        if not self.colours:
            return "JPEG 2000 that does not say which colours its channels are; save it as PNG"
        return ""


def _colour(file: BinaryIO, start: int, end: int) -> tuple[int, int] | None:
    """The way and the number of the first `colr`: the first counts."""
    for name, place, length in boxes(file, start, end):
        if name == b"colr" and length >= 3:
            file.seek(place)
            content = file.read(min(length, 7))
            return content[0], int.from_bytes(content[3:7], "big") if content[0] == BY_NUMBER else -1
    return None


def box_beyond(path: Path) -> bytes:
    """The name of a box of a JP2 file that claims more bytes than there are, which Pillow would ask memory for."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        if file.read(len(FILE)) != FILE:
            return b""
        return next((name for name, place, length in boxes(file, 0, size) if place + length > size), b"")


def boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, place and length of the content of each box, as it claims; a damaged one ends them."""
    place = start
    while place + 8 <= end:
        file.seek(place)
        head = file.read(16)
        length, name, ahead = int.from_bytes(head[:4], "big"), head[4:8], 8
        if length == 1:
            length, ahead = int.from_bytes(head[8:16], "big"), 16
        elif length == 0:
            length = end - place
        if length < ahead:
            return
        yield name, place + ahead, length - ahead
        place += length
