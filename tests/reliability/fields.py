"""Mutants of binary files field by field: what a writer of a strange file would write, with checksums that are right.

`mutants.py` damages bytes; here headers, chunks, records and attributes are well formed, and say odd things.
"""

from __future__ import annotations

import gzip
import io
import random
import struct
import zipfile
import zlib
from typing import Any

import numpy as np

WORDS = (0, 1, 2, 3, 7, 8, 16, 24, 255, 256, 0x7FFF, 0x8000, 0xFFFF)
LONGS = (*WORDS, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
REALS = (0.0, -0.0, -1.0, 1e-45, 1e-30, 1e-3, 0.5, 1.0, 1e3, 1e30, 3.4e38, float("inf"), float("-inf"), float("nan"))

# --- NIfTI ------------------------------------------------------------------------------------------------------------

FIELDS_1 = (  # offset, format, of the header of 348 bytes
    *((40 + 2 * k, "h") for k in range(8)),
    *((offset, "f") for offset in (56, 60, 64, 108, 112, 116, 124, 128, 132, 136)),
    *((offset, "h") for offset in (68, 70, 72, 74, 120, 252, 254)),
    *((76 + 4 * k, "f") for k in range(8)),
    *((256 + 4 * k, "f") for k in range(18)),
    (0, "i"), (32, "i"), (39, "B"), (122, "B"), (123, "B"), (348, "B"), (349, "B"),
)  # fmt: skip
FIELDS_2 = (  # of 540 bytes
    *((16 + 8 * k, "q") for k in range(8)),
    *((104 + 8 * k, "d") for k in range(8)),
    *((offset, "h") for offset in (12, 14)),
    *((offset, "d") for offset in (80, 88, 96, 176, 184, 192, 200)),
    *((offset, "q") for offset in (168, 224, 232)),
    *((offset, "i") for offset in (344, 348, 496, 500, 504)),
    *((352 + 8 * k, "d") for k in range(18)),
    (0, "i"), (524, "B"), (540, "B"),
)  # fmt: skip
DATATYPES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 255, 256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2304, 9999)
BITS = {2: 8, 4: 16, 8: 32, 16: 32, 32: 64, 64: 64, 128: 24, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64}


def nifti_fields(content: bytes, rng: random.Random) -> bytes:
    """One to three fields of the header; or another type with its right number of bits, extensions, dimensions of 1."""
    out = bytearray(content)
    second = out[:4] == struct.pack("<i", 540)
    act = rng.randrange(8)
    if act == 0:
        kind = rng.choice(DATATYPES)
        struct.pack_into("<hh", out, 12 if second else 70, kind, BITS.get(kind, 8))
    elif act == 1:
        shape = rng.choice(
            ((4, 9, 8, 5, 1), (5, 9, 8, 5, 1, 1), (2, 9, 40), (4, 3, 3, 5, 8), (1, 360), (7, 9, 8, 5, 1, 1, 1, 1))
        )
        struct.pack_into("<" + ("q" if second else "h") * len(shape), out, 16 if second else 40, *shape)
    elif act == 2 and not second:
        out = out[:348] + _extensions(rng) + out[352:]
        if rng.randrange(2):
            struct.pack_into("<f", out, 108, float(len(out) - (len(content) - 352)))
    elif act == 3:
        out[:348] = _swapped(out[:348])
    elif act == 4:
        place = 4 if second else 344
        out[place : place + 4] = rng.choice((b"n+1\0", b"ni1\0", b"n+2\0", b"ni2\0", b"\0\0\0\0", b"n+3\0", b"N+1\0"))
    else:
        for _ in range(rng.randint(1, 3)):
            offset, kind = rng.choice(FIELDS_2 if second else FIELDS_1)
            struct.pack_into("<" + kind, out, offset, _fitting(kind, rng))
    return bytes(out)


def _extensions(rng: random.Random) -> bytes:
    sizes = rng.choice(((16,), (0,), (-16,), (8,), (17,), (2**31 - 1,), (32, 0), (16,) * 50, (1_000_000,)))
    made = b"".join(
        struct.pack("<ii", size, rng.choice((0, 4, 6, 44, -1))) + bytes(max(0, min(size, 64) - 8)) for size in sizes
    )
    return b"\x01\0\0\0" + made


def _swapped(header: bytes) -> bytes:
    """All of it in the other order of bytes, as if each field had two."""
    return b"".join(header[k : k + 2][::-1] for k in range(0, len(header), 2))


def _fitting(kind: str, rng: random.Random) -> Any:
    if kind in "fd":
        return rng.choice(REALS)
    bits = 8 * struct.calcsize(kind)
    value = rng.choice(LONGS) & (2**bits - 1)
    return value - 2**bits if kind in "hiq" and value >= 2 ** (bits - 1) else value


def gzip_members(content: bytes, rng: random.Random) -> tuple[bytes, bool]:
    """The same voxels, otherwise packed: fields of gzip's header, several members, wrong lengths and checksums."""
    plain = gzip.decompress(content)
    act = rng.randrange(10)
    if act < 5:
        return gzip.compress(nifti_fields(plain, rng), 1), False
    packed = gzip.compress(plain, 1)
    if act == 5:  # flags of optional fields, that may not be there
        return packed[:3] + bytes([rng.randrange(256)]) + packed[4:], False
    if act == 6:
        half = rng.randrange(len(plain))
        return gzip.compress(plain[:half]) + gzip.compress(b"") * rng.choice((1, 1000)) + gzip.compress(
            plain[half:]
        ), False
    if act == 7:
        return gzip.compress(packed), False
    if act == 8:
        return packed[:-8] + rng.randbytes(4) + packed[-4:], True
    return packed[:-4] + struct.pack("<I", rng.choice(LONGS)), True


# --- NPZ --------------------------------------------------------------------------------------------------------------

DTYPES = (
    "|u1",
    "<u2",
    ">u2",
    "<i8",
    "<u8",
    "<f2",
    "<f4",
    ">f8",
    "<f8",
    "|b1",
    "|O",
    "<M8[s]",
    "<U3",
    "|V4",
    "|S2",
    "<c8",
    "<c16",
)
ARRAYS: tuple[Any, ...] = (
    np.array(1.0), np.zeros(0), np.zeros((0, 9, 8)), np.zeros((4, 0, 8), np.uint8), np.zeros((1, 1, 1)),
    np.array("text"),
    np.full((4, 9, 8), np.nan), np.full((4, 9, 8), np.inf), np.full((4, 9, 8), 2**63, np.uint64),
    np.ones((4, 9, 8), bool),
    np.zeros((4, 9, 8, 3), np.uint8), np.zeros((4, 9, 8, 1, 1), np.uint8), np.zeros((4, 9, 7), np.uint8),
    np.full((4, 9, 8), -1, np.int64), np.full((4, 9, 8), 0.5), np.array([0.0, 1, 1]), np.array([-1.0, 1, 1]),
    np.array([1.0, 1]),
    np.array([np.nan, 1, 1]), np.array([1e300, 1, 1]), np.array([[1.0, 1, 2]]), np.array(["a", "b", "c"]),
    np.ones((4, 9, 8), complex),
    np.arange(288, dtype=np.uint16).reshape(4, 9, 8), np.zeros((4, 9, 8), "S3"), np.zeros((4, 9, 8), "M8[s]"),
    np.zeros((4, 9, 8), "f2"),
    np.zeros((4, 9, 8), [("a", "u1"), ("b", "f4")]), np.array([1e-300, 1, 1]), np.array([1, 1, 2]),
    np.full((4, 9, 8), 1e38, np.float32),
)  # fmt: skip
SHAPES = (
    "(4, 9, 8)", "(-1, 9, 8)", "(4, 9, 8.0)", "(True, 9, 32)", "()", "(0,)", "(4, (9, 8))", "(2**62, 4)",
    "(4611686018427387904, 4)", "[4, 9, 8]", "(4, 9, 8, )", "'x'", "(1,)*9**9",
)  # fmt: skip


def npz_arrays(content: bytes, rng: random.Random) -> bytes:
    """Other arrays in the place of one, other headers of arrays, other names and packings; all checksums right."""
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        files = {name: packed.read(name) for name in packed.namelist()}
    chosen = rng.choice(sorted(files))
    act = rng.randrange(7)
    method = zipfile.ZIP_DEFLATED
    if act < 3:
        files[chosen] = _npy(rng.choice(ARRAYS))
    elif act == 3:
        files[chosen] = _npy_with(files[chosen], rng)
    elif act == 4:
        name = rng.choice(
            ("../x.npy", "/x.npy", "imgs", "imgs.npy/", "x" * 300 + ".npy", "ü.npy", "gts.npy.npy", ".npy")
        )
        files[name] = files[chosen] if rng.randrange(2) else files.pop(chosen)
    elif act == 5:
        method = rng.choice((zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_STORED))
    else:
        del files[chosen]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as into:
        for name, inner in files.items():
            into.writestr(name, inner)
        if rng.randrange(8) == 0:
            into.comment = b"x" * 65_000
    whole = out.getvalue()
    return _zip_fields(whole, rng) if rng.randrange(4) == 0 else whole


def _npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def _npy_with(file: bytes, rng: random.Random) -> bytes:
    data = file[10 + int.from_bytes(file[8:10], "little") :]
    order = rng.choice(("False", "True", "1", "None"))
    header = f"{{'descr': {rng.choice(DTYPES)!r}, 'fortran_order': {order}, 'shape': {rng.choice(SHAPES)}}}"
    header = rng.choice(
        (header, header, header + " " * 60_000, header[:-1], "(" * 200, "{}", header.replace("shape", "form"))
    )
    version, size = rng.choice(((1, 2), (2, 4), (3, 4), (9, 2)))
    text = (header + "\n").encode()
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(size, "little") + text + data


def _zip_fields(whole: bytes, rng: random.Random) -> bytes:
    """A field of a local or a central header: flags (encrypted), method, sizes, offsets."""
    out = bytearray(whole)
    mark, offsets = rng.choice(
        (
            (b"PK\x03\x04", (6, 8, 18, 22, 26)),
            (b"PK\x01\x02", (8, 10, 20, 24, 28, 42)),
            (b"PK\x05\x06", (8, 10, 12, 16, 20)),
        )
    )
    places = [k for k in range(len(out) - 50) if out[k : k + 4] == mark]
    if places:
        struct.pack_into("<H", out, rng.choice(places) + rng.choice(offsets), rng.choice(WORDS))
    return bytes(out)


# --- PNG --------------------------------------------------------------------------------------------------------------


def png_chunks(content: bytes, rng: random.Random) -> bytes:
    """Chunks changed, added, doubled, moved; their checksums are right."""
    chunks, at = [], 8
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += 12 + size
    act = rng.randrange(9)
    k = rng.randrange(len(chunks))
    if act == 0:
        header = bytearray(chunks[0][1])
        place, value = rng.choice([(0, "I"), (4, "I"), *[(p, "B") for p in (8, 9, 10, 11, 12)] * 2])
        struct.pack_into(
            ">" + value, header, place, rng.choice(LONGS if value == "I" else (0, 1, 2, 3, 4, 6, 8, 16, 32, 255))
        )
        chunks[0] = (b"IHDR", bytes(header))
    elif act == 1:
        raw = bytearray(zlib.decompress(b"".join(data for name, data in chunks if name == b"IDAT")))
        raw[rng.randrange(len(raw))] = rng.choice((5, 255, 4, 3))
        raw = rng.choice((raw, raw[: len(raw) // 2], raw + raw, raw + bytes(1000)))
        chunks = [c for c in chunks if c[0] not in (b"IDAT", b"IEND")] + [(b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    elif act == 2:
        chunks.insert(k, rng.choice(_ADDED)(rng))
    elif act == 3:
        chunks.insert(rng.randrange(len(chunks)), chunks[k])
    elif act == 4:
        rng.shuffle(chunks)
    elif act == 5:
        del chunks[k]
    elif act == 6:
        _, data = chunks[k]
        chunks[k] = (
            rng.choice((b"PLTE", b"IDAT", b"tRNS", b"IHDR", b"IEND", b"abcd", b"ABCD")),
            data[: rng.randrange(len(data) + 1)],
        )
    elif act == 7:
        chunks[1:1] = [(b"IDAT", b"")] * rng.choice((1, 1000, 20_000))
    else:
        chunks[1:1] = [made(rng) for made in rng.sample(_ADDED, 2)]
    return content[:8] + b"".join(
        struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks
    )


_ADDED = (
    lambda rng: (b"PLTE", rng.randbytes(rng.choice((0, 1, 3, 12, 768, 771)))),
    lambda rng: (b"tRNS", rng.randbytes(rng.choice((0, 1, 2, 6, 256, 300)))),
    lambda rng: (b"iCCP", b"x\0\0" + zlib.compress(bytes(rng.choice((10, 10**6, 60 * 10**6))))),
    lambda rng: (b"zTXt", b"x\0\0" + zlib.compress(bytes(rng.choice((10, 10**6, 60 * 10**6))))),
    lambda rng: (b"iTXt", b"x\0\1\0\0\0" + zlib.compress(bytes(rng.choice((10, 60 * 10**6))))),
    lambda rng: (b"gAMA", struct.pack(">I", rng.choice(LONGS))),
    lambda rng: (b"pHYs", struct.pack(">IIB", rng.choice(LONGS), rng.choice(LONGS), rng.choice((0, 1, 9)))),
    lambda rng: (b"acTL", struct.pack(">II", rng.choice(LONGS), rng.choice(LONGS))),
    lambda rng: (
        b"fcTL",
        struct.pack(">IIIIIHHBB", 0, *[rng.choice(LONGS) for _ in range(4)], 1, 0, rng.randrange(4), rng.randrange(3)),
    ),
    lambda rng: (
        b"eXIf",
        rng.choice(
            (b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\x08", rng.randbytes(30))
        ),
    ),
    lambda rng: (b"sBIT", rng.randbytes(rng.randrange(6))),
    lambda rng: (b"cHRM", rng.randbytes(32)),
    lambda rng: (b"CgBI", rng.randbytes(4)),
)


# --- TIFF -------------------------------------------------------------------------------------------------------------


def tiff_tags(content: bytes, rng: random.Random) -> bytes:
    """An entry of the first directory, or where the next one is."""
    order = "<" if content[:2] == b"II" else ">"
    start = struct.unpack_from(order + "I", content, 4)[0]
    (count,) = struct.unpack_from(order + "H", content, start)
    out = bytearray(content)
    act = rng.randrange(6)
    if act == 0:
        struct.pack_into(
            order + "I", out, start + 2 + 12 * count, rng.choice((start, 4, len(out), 0xFFFFFFFF, start + 2))
        )
    elif act == 1:
        struct.pack_into(order + "H", out, start, rng.choice((0, 1, count - 1, count + 1, 0xFFFF)))
    else:
        for _ in range(rng.randint(1, 2)):
            entry = start + 2 + 12 * rng.randrange(count)
            what = rng.randrange(5)
            if what == 0:
                struct.pack_into(order + "H", out, entry + 2, rng.choice((0, 1, 2, 3, 4, 5, 7, 11, 12, 13, 16, 255)))
            elif what == 1:
                struct.pack_into(order + "I", out, entry + 4, rng.choice(LONGS))
            elif what == 2:
                struct.pack_into(
                    order + "H",
                    out,
                    entry,
                    rng.choice((254, 258, 259, 262, 274, 277, 284, 317, 320, 322, 323, 324, 338, 339, 34665, 330)),
                )
            else:
                struct.pack_into(order + "I", out, entry + 8, rng.choice(LONGS))
    return bytes(out)


# --- JPEG -------------------------------------------------------------------------------------------------------------


def jpeg_segments(content: bytes, rng: random.Random) -> bytes:
    """A segment changed, doubled, moved, added; EXIF that turns, or points to itself."""
    parts, at = [], 2
    while content[at] == 0xFF and content[at + 1] != 0xDA:
        size = int.from_bytes(content[at + 2 : at + 4], "big")
        parts.append(content[at : at + 2 + size])
        at += 2 + size
    rest, k, act = content[at:], rng.randrange(len(parts)), rng.randrange(6)
    if act == 0:
        frame = next(n for n, part in enumerate(parts) if part[1] in (0xC0, 0xC1, 0xC2))
        changed = bytearray(parts[frame])
        place, kind = rng.choice(((4, "B"), (5, "H"), (7, "H"), (9, "B"), (10, "B"), (11, "B"), (12, "B"), (1, "B")))
        value = (
            rng.choice(WORDS) if kind == "H" else rng.choice((0, 1, 2, 3, 4, 8, 12, 0x11, 0x44, 0xC2, 0xC3, 0xC9, 255))
        )
        struct.pack_into(">" + kind, changed, place, value)
        parts[frame] = bytes(changed)
    elif act == 1:
        parts.insert(rng.randrange(len(parts)), parts[k])
    elif act == 2:
        rng.shuffle(parts)
    elif act == 3:
        del parts[k]
    elif act == 4:
        tag = struct.pack(
            "<HHII",
            rng.choice((0x112, 0x8769, 0x8825, 0x10F)),
            rng.choice((2, 3, 4, 7)),
            rng.choice(LONGS),
            rng.choice(LONGS),
        )
        exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + tag + struct.pack("<I", rng.choice((0, 8, 0xFFFFFFFF)))
        parts.insert(0, b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif)
    else:
        head = 12 if len(rest) > 40 else 2
        rest = rest[:head] + rest[head:] * rng.choice((2, 50)) if rng.randrange(2) else rest[: rng.randrange(len(rest))]
    return content[:2] + b"".join(parts) + rest


FIELDS: dict[str, Any] = {
    ".nii": nifti_fields,
    ".gz": gzip_members,
    ".npz": npz_arrays,
    ".png": png_chunks,
    ".tiff": tiff_tags,
    ".tif": tiff_tags,
    ".jpg": jpeg_segments,
}
