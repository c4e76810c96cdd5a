"""safetensors files that say what they hold: the same content gives the same bytes, and what was changed is found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vpt.errors import VptError
from vpt.files import atomic, left_in_place

if TYPE_CHECKING:
    from torch import Tensor

CHECKSUM = "sha256"  # in the metadata: of all the rest
LONGEST_HEADER = 32 << 20  # bytes
NO_MEMORY = ("allocate memory", "out of memory")  # in words of torch, and of the system
KINDS = {  # of torch -> of safetensors
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """A safetensors file that carries its checksum; the same tensors and metadata give the same bytes.

    The library's own writer puts the metadata in another order each time.
    """
    said = {**metadata, CHECKSUM: checksum(tensors, metadata)}
    header: dict[str, Any] = {"__metadata__": dict(sorted(said.items()))}
    places, end = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name)), 0  # widest first: all are aligned
    for name in places:
        tensor, start = tensors[name], end
        end += tensor.nbytes
        kind = KINDS[kind_of(tensor)]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic(path) as part, open(part, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in places:
            file.write(_bytes_of(tensors[name]))


def kind_of(tensor: Tensor) -> str:
    """In words of torch."""
    return str(tensor.dtype).removeprefix("torch.")


def read_tensors(
    path: str | Path, otherwise: str, explain: Callable[[dict[str, str]], object] | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file, by their checksum what was written, where the file carries one.

    otherwise: what else to do, the end of every refusal, for example "copy it again from where it was trained";
    explain: called with metadata of content that is not what was written, and raises where it knows better why.

    Raises:
        VptError: no safetensors file, or a damaged one.
    """
    from safetensors import SafetensorError, safe_open

    try:
        _require_plausible_header(Path(path))
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (MemoryError, SafetensorError, OSError, ValueError, RuntimeError) as error:
        if isinstance(error, MemoryError) or any(said in str(error) for said in NO_MEMORY):
            raise VptError(
                f"{path}: too little memory for its tensors; close other programs, or use a larger machine"
            ) from error
        if instead := left_in_place(path):
            raise VptError(f"{path}: {instead}") from error
        raise VptError(f"{path}: not a readable safetensors file ({error}); {otherwise}") from error
    expected = metadata.pop(CHECKSUM, None)
    if expected is not None and (found := checksum(tensors, metadata)) != expected:
        if explain is not None:
            explain(metadata)
        raise VptError(
            f"{path}: damaged: its content has the SHA-256 {found[:16]}..., but {expected[:16]}... was saved; "
            f"{otherwise}"
        )
    return tensors, metadata


def checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 over the metadata, and over name, shape, dtype and bytes of every tensor, both sorted by name."""
    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    digest_tensors(digest, tensors)
    return digest.hexdigest()


def digest_tensors(digest: hashlib._Hash, tensors: Mapping[str, Tensor]) -> None:
    """Add name, shape, dtype and bytes of every tensor, sorted by name."""
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(_bytes_of(tensor))


def _bytes_of(tensor: Tensor) -> memoryview:
    import torch

    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def _require_plausible_header(path: Path) -> None:
    """A header longer than its file, or than any of ours, is refused before it is read."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > min(LONGEST_HEADER, path.stat().st_size - 8):
        raise ValueError(f"a header of {length} bytes in a file of {path.stat().st_size}")
