"""What Pillow leaves out of a PNG: chunks of a length, a name (4 bytes each), a content and a checksum."""

from __future__ import annotations

from pathlib import Path

SIGNATURE = b"\x89PNG\r\n\x1a\n"
AHEAD = (b"IHDR", b"cHRM", b"gAMA", b"iCCP", b"sRGB", b"cICP", b"mDCV", b"cLLI")  # may lie before sBIT
SIXTEEN = 16  # bits, the byte 8 of IHDR


def states_white(path: Path) -> bool:
    """Whether a PNG of 16 bits says how many bits mean something (`sBIT`), and so that 65535 is its white."""
    with open(path, "rb") as file:
        if file.read(len(SIGNATURE)) != SIGNATURE:
            return False
        deep = False
        while len(head := file.read(8)) == 8:
            length, name = int.from_bytes(head[:4], "big"), head[4:]
            if name == b"sBIT":
                return deep
            if name not in AHEAD:
                return False
            content = file.read(length)
            deep = deep or (name == b"IHDR" and content[8:9] == bytes([SIXTEEN]))
            file.seek(4, 1)
    return False
