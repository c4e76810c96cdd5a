"""What Pillow leaves out of a PNG: chunks of a length, a name (4 bytes each), a content and a checksum."""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

SIGNATURE = b"\x89PNG\r\n\x1a\n"
AHEAD = (b"IHDR", b"cHRM", b"gAMA", b"iCCP", b"sRGB", b"cICP", b"mDCV", b"cLLI")  # may lie before sBIT
EXIF = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")  # may hold it, also behind the pixels
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


def may_hold_exif(path: Path) -> bool:
    """Whether a PNG has a part that EXIF is written into; to look into it, Pillow decodes all pixels."""
    with open(path, "rb") as file:
        file.seek(len(SIGNATURE))
        while len(head := file.read(8)) == 8:
            if head[4:] in EXIF:
                return True
            if head[4:] == b"IEND" or not head[4:].isalpha():  # zeros would be chunks without end
                return False
            file.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return False


def damaged_chunk(path: Path) -> str:
    """The name of the first chunk of a PNG that is not what its checksum says, or is cut off; "" where all are whole.

    Of those with pixels Pillow skips the checksums. What follows the last chunk is not looked at.
    """
    with open(path, "rb") as file:
        if file.read(len(SIGNATURE)) != SIGNATURE:
            return ""
        while len(head := file.read(8)) == 8:
            length, name = int.from_bytes(head[:4], "big"), head[4:]
            content = file.read(min(length, path.stat().st_size))
            if len(content) != length or file.read(4) != crc32(name + content).to_bytes(4, "big"):
                return name.decode("latin-1")
            if name == b"IEND":
                return ""
    return "IEND"
