"""What a packed frame says of its own size: 400 bytes of JPEG 2000 can claim 40,000x40,000 pixels, which their decoder
takes memory for, whatever the DICOM header around them says.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np

from vpt.errors import VptError
from vpt.readers.jpeg2000 import FILE, STREAM, boxes

JPEG = b"\xff\xd8"  # start of image
JPEG2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")  # transfer syntaxes, without and with losses
BOXED = FILE[:8]  # a JPEG 2000 file, which some programs put into DICOM where its codestream belongs
FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # SOF of JPEG and JPEG-LS, without tables of the same row
BARE = {0x01, *range(0xD0, 0xD8)}  # markers without a content
SCAN, END = 0xDA, 0xD9
RUNS = 64  # where the first segment of RLE begins, behind the table of all
SIGN = 42  # place in a codestream of the bits of the first sample, of which the highest is 1 for numbers with a sign


class Size(NamedTuple):
    rows: int
    columns: int
    samples: int  # of a pixel


def require_frames(data: Any, frames: int, called: str) -> None:
    """Raises VptError where more frames are packed than the header says: decoders leave out what is behind."""
    from pydicom.encaps import generate_fragments, parse_basic_offsets

    packed = BytesIO(data.PixelData)
    parse_basic_offsets(packed)
    found = sum(map(_begins_frame, generate_fragments(packed)))
    if found > frames:
        raise VptError(
            f"{called}: {found} frames are packed in it, its header says {frames} (NumberOfFrames), so which are meant "
            "is not known; export the original series"
        )


def require_runs(data: Any, rows: int, columns: int, frames: int, called: str) -> None:
    """Raises VptError where a frame of RLE holds a row more than the header says, or more; less is padding."""
    for number, frame in enumerate(_frames(data, frames)):
        if (found := _length_of_runs(frame)) >= (rows + 1) * columns:
            raise VptError(
                f"{called}: frame {number} holds {found:,} pixels by itself, its header says {rows}x{columns} (rows x "
                "columns); copy or export it again"
            )


def require_sizes(data: Any, rows: int, columns: int, samples: int, frames: int, called: str) -> None:
    """Raises VptError where a frame of encapsulated JPEG, JPEG-LS or JPEG 2000 is not as large as the header says."""
    for number, frame in enumerate(_frames(data, frames)):
        found = size_of(frame)
        if found is None:
            raise VptError(f"{called}: frame {number} is packed, but holds no size; damaged: copy or export it again")
        if found != (rows, columns, samples):
            raise VptError(
                f"{called}: frame {number} is {found.rows}x{found.columns}x{found.samples} by itself (rows, columns, "
                f"samples), its header says {rows}x{columns}x{samples}; copy or export it again"
            )


def require_sign(data: Any, pixels: np.ndarray, frames: int, called: str) -> None:
    """Raises VptError for numbers below 0 in JPEG 2000 that the header calls unsigned: they are read as the highest."""
    if data.get("PixelRepresentation"):
        return
    signed = [bits for bits in map(_bits_with_sign, _frames(data, frames)) if bits]
    if signed and pixels.max(initial=0) >= 2 ** (min(signed) - 1):
        raise VptError(
            f"{called}: its packed numbers have a sign by themselves, its header says that they have none "
            "(PixelRepresentation), so those below 0 would be read as the highest; export the original series"
        )


def _bits_with_sign(frame: bytes) -> int:
    """How many bits, the sign among them, numbers have by the first sample of JPEG 2000 (T.800 A.5.1); 0: no sign."""
    stream = _unboxed(frame) if frame.startswith(BOXED) else frame
    if not stream.startswith(STREAM) or len(stream) <= SIGN or not stream[SIGN] & 0x80:
        return 0
    return (stream[SIGN] & 0x7F) + 1


def _frames(data: Any, frames: int) -> Iterator[bytes]:
    """As pydicom hands them to a decoder."""
    from pydicom.encaps import generate_frames

    offsets = data.get("ExtendedOffsetTable"), data.get("ExtendedOffsetTableLengths")
    return generate_frames(data.PixelData, number_of_frames=frames, extended_offsets=offsets if all(offsets) else None)


def _begins_frame(fragment: bytes) -> bool:
    return fragment.startswith((JPEG, STREAM, BOXED)) or _is_of_runs(fragment)


def _is_of_runs(frame: bytes) -> bool:
    return 1 <= int.from_bytes(frame[:4], "little") <= 15 and int.from_bytes(frame[4:8], "little") == RUNS


def _length_of_runs(frame: bytes) -> int:
    """How many bytes the first segment of RLE becomes, one for each pixel (DICOM PS3.5 G.3.2); 0 where it is none."""
    if not _is_of_runs(frame):
        return 0
    end = min(int.from_bytes(frame[8:12], "little") or len(frame), len(frame))
    at, length = RUNS, 0
    while at + 1 < end:
        code = frame[at]
        if code < 128:  # so many bytes as they are, and one
            length += code + 1
            at += code + 2
        elif code > 128:  # the next byte, repeated
            length += 257 - code
            at += 2
        else:
            at += 1
    return length


def size_of(frame: bytes) -> Size | None:
    """By the frame's own header (JPEG: ITU-T T.81 B.2.2; JPEG 2000: T.800 A.5.1); None where it has none."""
    if frame.startswith(BOXED):
        frame = _unboxed(frame)
    if frame.startswith(STREAM):
        right, bottom, left, top = (int.from_bytes(frame[k : k + 4], "big") for k in range(8, 24, 4))
        return Size(bottom - top, right - left, int.from_bytes(frame[40:42], "big")) if len(frame) > 42 else None
    return _of_jpeg(frame) if frame.startswith(JPEG) else None


def _unboxed(frame: bytes) -> bytes:
    """The codestream of a JPEG 2000 file; nothing where its boxes do not come to one."""
    walked = boxes(BytesIO(frame), 0, len(frame))
    return next((frame[place:] for name, place, _ in walked if name == b"jp2c"), b"")


def _of_jpeg(frame: bytes) -> Size | None:
    at = len(JPEG)
    while len(head := frame[at : at + 4]) == 4 and head[0] == 0xFF:
        marker = head[1]
        if marker == 0xFF or marker in BARE:
            at += 1 if marker == 0xFF else 2
        elif marker in FRAMES:
            rows, columns = (int.from_bytes(frame[at + k : at + k + 2], "big") for k in (5, 7))
            return Size(rows, columns, frame[at + 9]) if len(frame) > at + 9 else None
        elif marker in (SCAN, END) or (length := int.from_bytes(head[2:], "big")) < 2:
            return None
        else:
            at += 2 + length
    return None
