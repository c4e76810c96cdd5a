"""Mutants of texts, artifacts and DICOM by their form: other encodings and spellings, tensors, elements, syntaxes.

The values of `mutants.py` are odd; here they are written oddly, and what surrounds them is another.
"""

from __future__ import annotations

import io
import json
import random
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fields import FIELDS
from mutants import ODD_VALUES, any_bytes, changed, places

ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "utf-7", "cp500")
CYRILLIC = dict(zip("aceopx", "\u0430\u0441\u0435\u043e\u0440\u0445", strict=True))  # look alike
NUMBERS = (
    b"1e400",
    b"-0",
    b"0x10",
    b"1_000",
    b"0o7",
    b"010",
    b".5",
    b"5.",
    b"1E+2",
    b"NaN",
    b"-Infinity",
    b"1" * 400,
    b"1.0",
    b"1e0",
    b"true",
)


def any_text(content: bytes, rng: random.Random) -> bytes:
    """Another encoding, line ends, marks, characters that look alike, or numbers written otherwise."""
    act = rng.randrange(9)
    text = content.decode()
    if act == 0:
        return text.encode(rng.choice(ENCODINGS))
    if act == 1:
        return re.sub(
            rb"\n", rng.choice((b"\r\n", b"\r", b"\n\n", b"\xe2\x80\xa8", b"\x85", b"\n\t", b"\n \n")), content
        )
    if act == 2:
        k = rng.randrange(len(content) + 1)
        odd = rng.choice(
            (
                b"\0",
                b"\xff",
                b"\xc3",
                b"\xed\xa0\x80",
                b"\xef\xbb\xbf",
                b"\t",
                b"\x1b[31m",
                "\u202e".encode(),
                b"\x0c",
                b"\xa0",
            )
        )
        return content[:k] + odd + content[k:]
    if act in (3, 4):
        found = list(re.finditer(rb"(?<![\w.\"])\d+(\.\d+)?(?![\w.\"])", content))
        if found:
            one = rng.choice(found)
            return content[: one.start()] + rng.choice(NUMBERS) + content[one.end() :]
    if act == 5:
        letters = [k for k, letter in enumerate(text) if letter in "aceopx"]
        if letters:
            k = rng.choice(letters)
            return (text[:k] + CYRILLIC[text[k]] + text[k + 1 :]).encode()
    if act == 6:
        return content * rng.choice((2, 300))
    if act == 7:
        return rng.choice(
            (
                b"",
                b" ",
                b"\n",
                b"\0" * 100,
                b"null",
                b"[]",
                b"{}",
                b"---\n",
                b"...\n",
                b"%YAML 9.9\n---\n" + content,
                b"\x1f\x8b\x08\0",
            )
        )
    return content.replace(b'"', b"'") if rng.randrange(2) else content.replace(b":", b" :")


def json_form(content: bytes, rng: random.Random) -> bytes:
    act = rng.randrange(5)
    if act == 0:  # a key twice, somewhere
        keys = list(re.finditer(rb'"[^"]*"\s*:', content))
        if keys:
            one = rng.choice(keys)
            return (
                content[: one.start()]
                + one.group()
                + rng.choice((b" 1, ", b" null, ", b' "x", ', b" {}, "))
                + content[one.start() :]
            )
    if act == 1:
        value = json.loads(content)
        for _ in range(8):
            if places(value) != [()]:
                value = changed(value, rng)
        return json.dumps(value).encode()
    if act == 2:
        return content.replace(b"}", b",}", 1) if rng.randrange(2) else b"// odd\n" + content
    if act == 3:
        return json.dumps({f"k{k}": k for k in range(200_000)}).encode()
    return any_text(content, rng)


YAML_FORMS: tuple[tuple[str, str], ...] = (  # what is found, and what it becomes
    (r": (\d+)$", ": !!str \\1"), (r": (\d+)$", ": !!float \\1"), (r": (\d+)$", ": '\\1'"), (r": (\d+)$", ": \\1.0"),
    (r": (\d+)$", ": 0x\\1"), (r": (\d+)$", ": 1_\\1"), (r": (\d+)$", ": 1:\\1"),
    (r": (\d+)$", ": !!timestamp 2001-01-01"),
    (r": (\w+)$", ": |\n    \\1\n"), (r": (\w+)$", ": >-\n    \\1\n"), (r": (\w+)$", ": &a \\1\nodd: *a"),
    (r": (\w+)$", ": ~"),
    (r": (\w+)$", ": yes"), (r": (\w+)$", ": !!binary \\1"), (r": (\w+)$", ": !odd \\1"), (r": (\w+)$", ": [\\1]"),
    (r": (\w+)$", ": {\\1}"),
    (r"^(\w+):", "? \\1\n:"), (r"^(\w+):", "\\1: 1\n\\1:"), (r"^(\w+):", "!!str \\1:"), (r"^(\w+):", "'\\1':"),
    (r"^(\w+):", "\\1 : "),
    (r"^  (\w+):", "\t\\1:"), (r"^  (\w+):", "   \\1:"), (r"^  (\w+):", "  <<: {\\1: 1}\n  \\1:"),
    (r"^  (\w+):", "  \\1: &a\n  \\1:"),
    (r"\Z", "---\na: 1\n"), (r"\Z", "...\n"), (r"\Z", "? {a: 1}\n: 2\n"), (r"\Z", "? [a]\n: 2\n"),
    (r"\Z", "!!omap [a: 1]\n"), (r"\A", "%TAG ! tag:x,2000:\n---\n"),
    (r"\A", "!!python/name:os.system\n"), (r"\A", "--- !!map\n"), (r"\Z", "=: 1\n"), (r"\Z", "<<: 1\n"),
    (r"\Z", "<<: [1]\n"), (r"\Z", "'': 1\n"), (r"\Z", "null: 1\n"),
    (r"\Z", "1: 1\n"), (r"\Z", "true: 1\n"), (r"\Z", "2001-01-01: 1\n"), (r"\Z", "x: !!set {a, b}\n"),
    (r"\Z", "x: !!pairs [a: 1]\n"), (r"\Z", '"\\\\uD800": 1\n'), (r"\Z", "x: 2001-01-01T00:00:00+99:99\n"),
)  # fmt: skip


def yaml_form(content: bytes, rng: random.Random) -> bytes:
    if rng.randrange(3) == 0:
        return any_text(content, rng)
    text = content.decode()
    for _ in range(rng.randint(1, 2)):
        pattern, other = rng.choice(YAML_FORMS)
        found = list(re.finditer(pattern, text, re.M))
        if found:
            one = rng.choice(found)
            text = text[: one.start()] + one.expand(other) + text[one.end() :]
    return text.encode()


def table_form(content: bytes, rng: random.Random) -> bytes:
    lines = content.decode().split("\n")
    act = rng.randrange(7)
    if act == 0:
        return content.replace(b",", rng.choice((b";", b"\t", b"|", b" ", b", ")))
    if act == 1:
        lines[0] = rng.choice(
            (
                lines[0].upper(),
                lines[0] + ",",
                lines[0] + "," + lines[0],
                ",".join(reversed(lines[0].split(","))),
                '"' + lines[0],
            )
        )
    elif act == 2:
        lines.insert(
            rng.randrange(len(lines)), rng.choice((lines[0], "", ",,,", "#", '"a\nb",c', "sep=,", lines[-1] + ",extra"))
        )
    elif act == 3:
        lines = [",".join(f'"{cell}"' for cell in line.split(",")) for line in lines]
    elif act == 4:
        lines += lines[1:] * rng.choice((1, 2000))
    elif act == 5:
        del lines[rng.randrange(len(lines))]
    else:
        return any_text(content, rng)
    return "\n".join(lines).encode()


def lines_form(content: bytes, rng: random.Random) -> bytes:
    lines = content.split(b"\n")
    k = rng.randrange(len(lines))
    lines[k] = json_form(lines[k], rng)
    return rng.choice((b"\n", b"\n", b"\r\n", b"\n\n", b" ")).join(lines)


# --- artifacts --------------------------------------------------------------------------------------------------------


def artifact_tensors(content: bytes, rng: random.Random) -> bytes:
    """Tensors of another type, shape, name, number or order; the header written otherwise; with the right checksum."""
    import torch
    from safetensors.torch import load, save

    from vpt.tensor_files import CHECKSUM, checksum

    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    metadata, tensors = header["__metadata__"], load(content)
    name = rng.choice(sorted(tensors))
    one = tensors[name]
    act = rng.randrange(9)
    if act == 0:
        kinds = (
            torch.float16,
            torch.bfloat16,
            torch.float64,
            torch.int32,
            torch.int8,
            torch.bool,
            torch.uint8,
            torch.complex64,
            torch.float8_e4m3fn,
        )
        tensors[name] = one.to(rng.choice(kinds))
    elif act == 1:
        tensors[name] = rng.choice(
            (
                one.flatten(),
                one[None],
                one.transpose(0, -1).contiguous(),
                one.repeat(2, *[1] * (one.ndim - 1)),
                one.sum(),
            )
        )
    elif act == 2:
        tensors[rng.choice(("x", name + ".1", "", "../" + name, name.upper(), "backbone.weight", "é" * 300))] = (
            tensors.pop(name) if rng.randrange(2) else one
        )
    elif act == 3:
        other = rng.choice(sorted(tensors))
        tensors[name], tensors[other] = tensors[other], one
    elif act == 4:
        tensors = {} if rng.randrange(2) else {name: one}
    elif act == 5:
        metadata[rng.choice(("vpt", "format", "x"))] = rng.choice(("", "{}", "null", "[" * 500, "x" * 10**6, "\ud83d"))
    elif act == 6:
        value = json.loads(metadata["vpt"])
        for _ in range(rng.choice((2, 6, 20))):
            if places(value) != [()]:
                value = changed(value, rng)
        metadata["vpt"] = json.dumps(value)
    elif act == 7:
        metadata["vpt"] = json_form(metadata["vpt"].encode(), rng).decode("utf-8", "replace")
    else:
        return _header_form(content, rng)
    if rng.randrange(4):
        metadata.pop("sha256", None), metadata.pop(CHECKSUM, None)
        metadata[CHECKSUM] = checksum(tensors, metadata)
    return save(tensors, metadata)


def _header_form(content: bytes, rng: random.Random) -> bytes:
    """The header of safetensors: padded, ordered and spelled otherwise, tensors that share bytes or leave some out."""
    length = int.from_bytes(content[:8], "little")
    text, payload = content[8 : 8 + length], content[8 + length :]
    header = json.loads(text)
    names = [name for name in header if name != "__metadata__"]
    one = rng.choice(names)
    act = rng.randrange(7)
    if act == 0:
        text += b" " * rng.choice((1, 1000, 10**7))
    elif act == 1:
        text = json.dumps(dict(reversed(header.items())), indent=2).encode()
    elif act == 2:
        header[one]["data_offsets"] = header[rng.choice(names)]["data_offsets"]
        text = json.dumps(header).encode()
    elif act == 3:
        header[one][rng.choice(("dtype", "shape", "data_offsets", "x"))] = rng.choice(
            (*ODD_VALUES, "F4", "F32", [0, 0], [2**63, 0])
        )
        text = json.dumps(header).encode()
    elif act == 4:
        payload += rng.choice((b"\0", payload))
    elif act == 5:
        header["__metadata__"] = rng.choice((None, {}, [], "x", {"vpt": 1}, {"vpt": None}))
        text = json.dumps(header).encode()
    else:
        text = json_form(text, rng)
    return len(text).to_bytes(8, "little") + text + payload


# --- DICOM ------------------------------------------------------------------------------------------------------------

SYNTAXES = (
    "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.100",
    "1.2.840.10008.1.2.4.201", "1.2.3", "",
)  # fmt: skip
ATTRIBUTES: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("Rows", (0, 1, 7, 65535)), ("Columns", (0, 1, 65535)), ("NumberOfFrames", ("0", "-1", "2", "1000000", "")),
    ("BitsAllocated", (0, 1, 8, 12, 32, 64)),
    ("BitsStored", (0, 1, 17, 255)), ("HighBit", (0, 31, 255)), ("PixelRepresentation", (0, 1, 2)),
    ("SamplesPerPixel", (0, 2, 3, 4)),
    ("PhotometricInterpretation", ("RGB", "YBR_FULL", "PALETTE COLOR", "MONOCHROME1", "YBR_FULL_422", "X")),
    ("PlanarConfiguration", (0, 1, 2)),
    ("PixelSpacing", (["0", "0"], ["1"], ["-1", "1"], ["1e30", "1"], ["1e-30", "1"], [], ["1", "2", "3"])),
    ("ImageOrientationPatient", (["0"] * 6, [*"100100"], ["1"] * 6, [*"200020"], ["1", "0"], ["1e30", *"00010"])),
    ("ImagePositionPatient", (["0", "0", "0"], ["1e30", "0", "0"], ["0", "0"], [])),
    ("RescaleSlope", ("0", "-1", "1e300", "", "nan")),
    ("RescaleIntercept", ("1e300", "", "nan", "inf")), ("SliceThickness", ("0", "-1", "1e30", "")),
    ("SpacingBetweenSlices", ("0", "-1", "1e30")),
    ("SeriesInstanceUID", ("1.2.3", "", "x", "1" * 64)), ("SOPInstanceUID", ("1.2.3", "")),
    ("InstanceNumber", ("-1", "99999999", "")), ("Modality", ("CT", "PT", "SEG", "", "OT")),
    ("SpecificCharacterSet", ("ISO_IR 192", "ISO 2022 IR 87", "X", ["", "ISO 2022 IR 149"])),
    ("SOPClassUID", ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.1.3.10", "1.2.3")),
    ("GantryDetectorTilt", ("30", "nan")), ("PixelPaddingValue", (0, 65535)), ("LossyImageCompression", ("01",)),
    ("FrameOfReferenceUID", ("", "1.2")), ("AcquisitionNumber", ("1", "2")),
)  # fmt: skip


SEQUENCE = struct.pack("<HH2sH", 0x0008, 0x1140, b"SQ", 0)  # ReferencedImageSequence, explicit, little-endian
SEQUENCE_BEGINS = SEQUENCE + b"\xff" * 4 + struct.pack("<HH", 0xFFFE, 0xE000) + b"\xff" * 4
SEQUENCE_ENDS = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)


def dicom_form(content: bytes, rng: random.Random) -> bytes:
    """Attributes by name, another transfer syntax (the data as they are), sequences in sequences, odd pixel data."""
    import pydicom
    from pydicom.sequence import Sequence
    from pydicom.uid import UID

    with pydicom.config.disable_value_validation():
        data = pydicom.dcmread(io.BytesIO(content))
        act, deep = rng.randrange(10), 0
        if act < 5:
            for name, values in rng.sample(ATTRIBUTES, rng.randint(1, 3)):
                setattr(data, name, rng.choice(values))
        elif act == 5:
            out = io.BytesIO()
            data.save_as(out)
            old = data.file_meta.TransferSyntaxUID.encode()
            return out.getvalue().replace(
                old + b"\0" * (len(old) % 2), _padded(rng.choice(SYNTAXES), len(old) + len(old) % 2), 1
            )
        elif act == 6:
            data.ReferencedImageSequence = Sequence()
            deep = rng.choice((3, 100, 300, 5000))
        elif act == 7:
            size = len(data.PixelData)
            data.PixelData = rng.choice(
                (b"", data.PixelData[: size // 2 // 2 * 2], data.PixelData * 2, data.PixelData + b"\0\0", bytes(2))
            )
        elif act == 8:
            data.file_meta.TransferSyntaxUID = UID(rng.choice(SYNTAXES[6:11]))
            data.PixelData = pydicom.encaps.encapsulate(
                [rng.randbytes(rng.choice((2, 40, 400))) for _ in range(rng.choice((1, 2)))]
            )
            data["PixelData"].is_undefined_length = True
        else:
            data.add_new((0x0009, 0x0010), "LO", "ODD")
            data.add_new(
                (0x0009, 0x1001), rng.choice(("UN", "OB", "DS")), rng.choice((b"", b"1\\2", rng.randbytes(2000)))
            )
        out = io.BytesIO()
        data.save_as(out)
    whole = out.getvalue()
    if deep:  # pydicom takes minutes and gigabytes to write 300
        whole = whole.replace(SEQUENCE + bytes(4), SEQUENCE_BEGINS * deep + SEQUENCE_ENDS * deep, 1)
    return whole[132:] if rng.randrange(12) == 0 else whole


def _padded(text: str, size: int) -> bytes:
    """As long as what it replaces, so that the lengths around it stay right."""
    return text.encode()[:size].ljust(size, b"\0")


FORMS: dict[str, Callable[[bytes, random.Random], Any]] = {
    **FIELDS,
    ".json": json_form,
    ".jsonl": lines_form,
    ".yaml": yaml_form,
    ".csv": table_form,
    ".txt": any_text,
    ".safetensors": artifact_tensors,
    ".dcm": dicom_form,
}


def formed(file: Path, seed: int) -> tuple[bytes, bool]:
    """As `mutants.mutant`: a file of an odd form, and whether a checksum inside is the old one of other content."""
    rng, content = random.Random(seed), file.read_bytes()
    make = FORMS.get(file.suffix)
    if make is None:
        return any_bytes(content, rng), True
    try:
        made = make(content, rng)
    except (ValueError, TypeError, AttributeError, OverflowError, KeyError, RuntimeError, struct.error, EOFError):
        return any_bytes(content, rng), True  # what cannot be written so, is damaged otherwise
    return made if isinstance(made, tuple) else (made, False)
