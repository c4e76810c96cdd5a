"""Damage and malice: from the bytes of a real file to a mutant of them, the same for the same seed."""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

Mutator = Callable[[bytes, random.Random], bytes]

ODD_VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 7, 2**31, 2**63, 2**70, -(2**40), 0.5, 1e308, -1e308, float("nan"), float("inf"),
    "", "x", "0", "-1", "1e999", "x" * 3000, "../../x", "/etc/passwd", "\x00", "é\u202e", "http://127.0.0.1:9/x",
    "\\\\h\\x", [], {}, [1], [[]], {"a": 1}, [None], ["c0"] * 3, {"0": 0}, "nan", "~x/y", "auto", "all", "[", "{",
    [[[[[[[[1]]]]]]]], "\ud800", 256, 65536,
)  # fmt: skip
ODD_YAML = (
    "!!python/object/apply:os.system [ls]", "2001-99-99", "!!int x", "!!binary ü", "&a [*a]", "1:99:99", ".nan",
    "{a: 1, a: 2}", "{1: 2}", "{[1]: 2}", "!!set {a}", "? x", "!!bool x", "!!float ''", "*a", "- -", "%",
)  # fmt: skip
KEYS = (
    "optim.lr", "train.epochs", "data.labels", "backbone.options", "plan.window", "prompts", "head", "x.y", "", "a",
    "data.path", "optim", "seed", "prompts.method.x", "train.epochs.x", "data.labels.x", "backbone", "tuning",
)  # fmt: skip
INTEGERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 30000, 2**20)
FLOATS = (0.0, -1.0, float("nan"), float("inf"), 1e38, -1e38, 1e-38, 5e7)


def flipped(content: bytes, rng: random.Random) -> bytes:
    """Up to 8 bits."""
    out = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        if out:
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def scribbled(content: bytes, rng: random.Random) -> bytes:
    """Up to 200 random bytes somewhere."""
    size = rng.randint(1, 200)
    start = rng.randrange(len(content) + 1)
    return content[:start] + rng.randbytes(size) + content[start + size :]


def truncated(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def lengthened(content: bytes, rng: random.Random) -> bytes:
    """Itself once more behind it, zeros, or noise."""
    return content + rng.choice((content, bytes(rng.randint(1, 500)), rng.randbytes(100)))


def spliced(content: bytes, rng: random.Random) -> bytes:
    """A piece of it put elsewhere, or taken out."""
    start, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    place = rng.randrange(len(content) + 1)
    piece = content[start : min(end, start + 300)]
    return rng.choice((content[:start] + content[start + len(piece) :], content[:place] + piece + content[place:]))


def with_odd_numbers(content: bytes, rng: random.Random) -> bytes:
    """An extreme number in the place of two, four or eight bytes, mostly near the start, where headers are."""
    out = bytearray(content)
    kind = rng.choice(("H", "I", "Q", "f", "d"))
    value = rng.choice(FLOATS if kind in "fd" else INTEGERS)
    packed = struct.pack(rng.choice("<>") + kind, min(value, 0xFFFF) if kind == "H" else value)
    place = rng.randrange(max(1, min(len(out), rng.choice((400, 4000, len(out) or 1)))))
    out[place : place + len(packed)] = packed
    return bytes(out)


BYTES: tuple[Mutator, ...] = (flipped, scribbled, truncated, lengthened, spliced, with_odd_numbers)


def any_bytes(content: bytes, rng: random.Random) -> bytes:
    return rng.choice(BYTES)(content, rng)


# --- values of JSON, YAML and tables ----------------------------------------------------------------------------------


def places(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to every value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [above, *(found for key, inner in items for found in places(inner, (*above, key)))]


def changed(value: Any, rng: random.Random) -> Any:
    """Another value somewhere, a key renamed, doubled or taken out."""
    path = rng.choice(places(value))
    if not path:
        return rng.choice(ODD_VALUES)
    at = value
    for key in path[:-1]:
        at = at[key]
    act = rng.randrange(4)
    if act == 0:
        del at[path[-1]]
    elif act == 1 and isinstance(at, dict):
        at[rng.choice(("x", "../x", "0", "", "labels", "train", "\u0000"))] = at.pop(path[-1])
    elif act == 2 and isinstance(at, list):
        at.append(at[path[-1]])
    else:
        at[path[-1]] = rng.choice(ODD_VALUES)
    return value


def json_values(content: bytes, rng: random.Random) -> bytes:
    value = json.loads(content)
    for _ in range(rng.randint(1, 2)):
        value = changed(value, rng)
    text = json.dumps(value)
    act = rng.randrange(12)
    if act == 0:
        text = "[" * rng.choice((50, 2000, 100_000)) + text
    elif act == 1:
        text = text.replace("1", "9" * 5000, 1)
    elif act == 2:
        text = text.replace("}", ', "labels": 1, "labels": 2}', 1)
    return text.encode()


def json_line(content: bytes, rng: random.Random) -> bytes:
    lines = content.split(b"\n")
    k = rng.randrange(len(lines))
    lines[k] = json_values(lines[k], rng)
    return b"\n".join(lines)


def yaml_values(content: bytes, rng: random.Random) -> bytes:
    text = yaml.safe_dump(changed(yaml.safe_load(content), rng))
    act = rng.randrange(14)
    if act == 0:
        levels = "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, rng.randint(2, 12)))
        text = f"a0: &a0 [x]\n{levels}{text}"
    elif act == 1:
        text += f"odd: {rng.choice(ODD_YAML)}\n"
    elif act == 2:
        text += f"deep: {'[' * 3000}\n"
    elif act == 3:
        text += f"? [1, 2]\n: 3\nnumber: {'9' * 6000}\n"
    elif act == 4:
        text += "train: &t {epochs: 1}\nx: {<<: [*t, *t], <<: *t}\n"
    return text.encode()


def table_cells(content: bytes, rng: random.Random) -> bytes:
    rows = [line.split(",") for line in content.decode().split("\n")]
    row = rng.choice(rows)
    k = rng.randrange(len(row))
    row[k] = rng.choice((*map(str, ODD_VALUES), '"', '""', ",", "\r", "a|b|c", "x" * 200_000, "c0"))
    return "\n".join(",".join(row) for row in rows).encode("utf-8", "surrogatepass")


def override_line(content: bytes, rng: random.Random) -> bytes:
    lines = content.decode().split("\n")
    odd = (*map(str, ODD_VALUES), *ODD_YAML, "[" * 2000, "9" * 6000)
    lines[rng.randrange(len(lines))] = f"{rng.choice(KEYS)}={rng.choice(odd)}"
    return "\n".join(lines).encode("utf-8", "surrogatepass")


# --- what is packed ---------------------------------------------------------------------------------------------------


def inside_gzip(content: bytes, rng: random.Random) -> bytes:
    """A mutant that was packed anew, so that its checksum is right."""
    return gzip.compress(any_bytes(gzip.decompress(content), rng), 1)


def inside_zip(content: bytes, rng: random.Random) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as packed, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as into:
        names = packed.namelist()
        chosen = rng.choice(names)
        for name in names:
            inner = packed.read(name)
            into.writestr(name, any_bytes(inner, rng) if name == chosen else inner)
    return out.getvalue()


def artifact_header(content: bytes, rng: random.Random) -> bytes:
    """A stranger's artifact: another header, or other numbers, with the right checksum or none."""
    import torch
    from safetensors.torch import load, save

    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    tensors = load(content)
    del metadata["sha256"]
    if rng.randrange(5):
        metadata["vpt"] = json.dumps(changed(json.loads(metadata["vpt"]), rng))
    elif rng.randrange(2):
        metadata["vpt"] = any_bytes(metadata["vpt"].encode(), rng).decode("utf-8", "replace")
    else:
        name = rng.choice(sorted(tensors))
        odd = (float("nan"), 1e30, 0.0)
        tensors[name] = rng.choice((tensors[name] * rng.choice(odd), tensors[name][:1].clone(), torch.zeros(3, 0)))
    from vpt.tensor_files import CHECKSUM, checksum

    if rng.randrange(2):
        metadata[CHECKSUM] = checksum(tensors, metadata)
    return save(tensors, metadata)


def dicom_element(content: bytes, rng: random.Random) -> bytes:
    """Another value in one of its attributes."""
    import pydicom

    with pydicom.config.disable_value_validation():
        data = pydicom.dcmread(io.BytesIO(content))
        group = rng.choice((data, *(item for key in data if key.VR == "SQ" for item in key.value)))
        element = rng.choice(list(group))
        if element.VR == "SQ" or not rng.randrange(4):
            del group[element.tag]
        else:
            element.value = rng.choice(_odd_for(element.VR))
        out = io.BytesIO()
        data.save_as(out)
    return out.getvalue()


def _odd_for(kind: str) -> tuple[Any, ...]:
    if kind in ("US", "SS"):
        return 0, 1, 7, 16, 30000
    if kind in ("DS", "IS"):
        return "", "0", "-1", "1e30", ["1", "2", "3"], "nan", "9" * 12
    if kind in ("OB", "OW"):
        return b"", bytes(3), bytes(1000)
    return "", "x", "1.2.3", "MONOCHROME1", "RGB", "1.2.840.10008.1.2.4.90"


OWN: dict[str, Mutator] = {
    ".json": json_values,
    ".jsonl": json_line,
    ".yaml": yaml_values,
    ".csv": table_cells,
    ".txt": override_line,
    ".gz": inside_gzip,
    ".npz": inside_zip,
    ".safetensors": artifact_header,
    ".dcm": dicom_element,
}


def mutant(file: Path, seed: int) -> tuple[bytes, bool]:
    """A mutant of a file's bytes, and whether they were only damaged, so that any checksum inside is the old one."""
    rng, content = random.Random(seed), file.read_bytes()
    own = OWN.get(file.suffix)
    if own is None or not rng.randrange(3):
        return any_bytes(content, rng), True
    try:
        return own(content, rng), False
    except (ValueError, TypeError, AttributeError, OverflowError, KeyError, struct.error, EOFError):
        return any_bytes(content, rng), True  # what cannot be written so, is damaged otherwise
