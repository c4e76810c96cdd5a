"""What Pillow leaves out of a PBM, PGM or PPM: its white, several images in a file, and 16-bit colours.

Netpbm's formats: a magic number, columns, rows and, but for PBM, the value of white (`maxval`), then the pixels, as
text or as bytes. Pillow scales the values so that this white is 255 or 65535.
https://netpbm.sourceforge.net/doc/pgm.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

HEAD = 65536  # bytes, of which comments may take most
TOKEN = re.compile(rb"(?:#[^\r\n]*[\r\n]|\s)*([^\s#]+)")
BITS, GREY, COLOURS = (b"P1", b"P4"), (b"P2", b"P5"), (b"P3", b"P6")
PLAIN = (b"P1", b"P2", b"P3")


@dataclass(frozen=True)
class Pnm:
    """What a file's header says: magic number, columns, rows, the value of white, and where the pixels begin."""

    magic: bytes
    columns: int
    rows: int
    white: int
    start: int

    @classmethod
    def of(cls, path: Path) -> Self | None:
        """None of a file that is none of these."""
        with open(path, "rb") as file:
            head = file.read(HEAD)
        if head[:2] not in (*BITS, *GREY, *COLOURS):
            return None
        numbers, place = [], 2
        for _ in range(2 if head[:2] in BITS else 3):
            found = TOKEN.match(head, place)
            if not found or not found[1].isdigit() or len(found[1]) > 9:
                return None
            numbers.append(int(found[1]))
            place = found.end()
        columns, rows, white = (*numbers, 1)[:3]
        return cls(head[:2], columns, rows, white, place + 1)

    @property
    def scaled_to(self) -> int:
        """Pillow's white."""
        return 255 if self.white < 256 else 65535

    @property
    def is_scaled(self) -> bool:
        return self.magic not in BITS and self.white != self.scaled_to

    @property
    def _length(self) -> int:
        """Bytes of the pixels, where they are no text."""
        if self.magic in BITS:
            return -(-self.columns // 8) * self.rows
        return self.columns * self.rows * (3 if self.magic in COLOURS else 1) * (2 if self.white > 255 else 1)

    def refusal(self, path: Path) -> str:
        """Why its pixels cannot be taken as Pillow gives them; "" where they can."""
        if self.magic in COLOURS and self.white > 255:
            return (
                "several channels of more than 8 bits (PPM), which cannot be read whole; save it as 8-bit colour, or "
                "as 16-bit grey with one channel"
            )
        if self.magic in PLAIN:
            return ""
        with open(path, "rb") as file:
            file.seek(self.start)
            content = file.read(self._length) if self.is_scaled else b""
            file.seek(self.start + self._length)
            more = file.read(2)
        if more in (*BITS, *GREY, *COLOURS):
            return "holds several images, expected one; save each as a file of its own"
        whole = content[: len(content) // 2 * 2] if self.white > 255 else content
        if (most := np.frombuffer(whole, ">u2" if self.white > 255 else "u1").max(initial=0)) > self.white:
            return f"holds {most}, above the {self.white} that its header says is white; correct the header"
        return ""
