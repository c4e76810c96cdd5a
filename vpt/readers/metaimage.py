"""MetaImage: .mha, or a header .mhd with the file of its voxels beside it."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vpt.errors import VptError
from vpt.readers.content import other_content
from vpt.readers.grid import Grid
from vpt.readers.itk import ItkFileReader, header_of
from vpt.readers.text_header import (
    AT_END,
    Claim,
    fields_of,
    read_voxels,
    require_file,
    require_voxels,
    whole_number,
    whole_numbers,
)
from vpt.readers.voxels import Channel

TYPES = {  # without MET_LONG, which has 4 bytes or 8
    "met_char": "i1",
    "met_uchar": "u1",
    "met_short": "i2",
    "met_ushort": "u2",
    "met_int": "i4",
    "met_uint": "u4",
    "met_long_long": "i8",
    "met_ulong_long": "u8",
    "met_float": "f4",
    "met_double": "f8",
}
LAST = "elementdatafile"  # what follows are the voxels
TURNS = ("transformmatrix", "rotation", "orientation")


class MetaImageReader(ItkFileReader):
    endings = (".mha", ".mhd")
    mask_endings = (".mha", ".nrrd", ".nii.gz", ".nii")
    library = "MetaImageIO"

    @staticmethod
    def beside(header: Path) -> str:
        return _file(_fields(header))

    @cached_property
    def _fields(self) -> dict[str, str]:
        return _fields(self.sources[0])

    def _opened(self, source: Path) -> Any:
        require_file(source, "a MetaImage")
        require_voxels(source, claim_of(source))
        return header_of(source, self.library)

    def _channel(self, source: Path, name: str) -> Channel:
        """By the header's own function from what is stored to intensities, which ITK does not apply."""
        fields, array = _fields(source), read_voxels(source, claim_of(source))
        if array.ndim > len(fields["dimsize"].split()):
            array = np.moveaxis(array, 0, -1)
        return Channel(array, *_scale(source, fields))

    def length_unit(self) -> str:
        found = self._fields.get("distanceunits", "").lower()
        return "" if found in ("?", "unknown") else found

    def _orientation(self, grid: Grid) -> list[str]:
        found = []
        if not any(name in self._fields for name in TURNS):
            found.append(f"no TransformMatrix, so its orientation is a guess ({grid.axcodes}); save it with one")
        if "elementspacing" not in self._fields and "elementsize" not in self._fields:
            found.append("no ElementSpacing, so its voxels count as 1 mm; write their true size into the header")
        return found


def claim_of(path: Path) -> Claim:
    """What the header says of its voxels; refused where that cannot be told."""
    fields, length = fields_of(path, "=", LAST)
    kind = fields.get("elementtype", "").lower()
    if kind in ("met_long", "met_ulong"):
        raise VptError(f"{path}: of type {kind.upper()}, which has 4 bytes in some programs and 8 in others; save anew")
    if kind not in TYPES or LAST not in fields or "dimsize" not in fields:
        raise other_content(path) or VptError(
            f"{path}: not a MetaImage, or damaged in its header (type {kind[:60]!r}); export the scan again"
        )
    if _says(fields, "binarydata", "false"):
        raise VptError(f"{path}: voxels as text, expected binary; save it again")
    sizes, (channels, *_) = (
        whole_numbers(path, fields.get(name, "1")) for name in ("dimsize", "elementnumberofchannels")
    )
    big = _says(fields, "binarydatabyteordermsb", "true") or _says(fields, "elementbyteordermsb", "true")
    file = _file(fields) or None
    return Claim(
        (channels, *sizes) if channels > 1 else sizes,
        np.dtype(TYPES[kind]).newbyteorder(">" if big else "<"),
        "zlib" if _says(fields, "compresseddata", "true") else "raw",
        file,
        length if file is None else _header_size(path, fields),
    )


def _header_size(path: Path, fields: dict[str, str]) -> int:
    """Bytes before the voxels in a file of their own."""
    said = fields.get("headersize", "0")
    size = AT_END if said == str(AT_END) else whole_number(said)
    if size is None:
        raise VptError(f"{path}: HeaderSize {said[:60]!r}, expected a number of bytes or -1; save it as .mha")
    return size


def _scale(path: Path, fields: dict[str, str]) -> tuple[float, float]:
    """Slope and offset from what is stored to intensities."""
    try:
        slope, offset = (
            float(fields.get(f"elementtointensityfunction{what}", default))
            for what, default in (("slope", "1"), ("offset", "0"))
        )
    except ValueError as error:
        raise VptError(f"{path}: its scale is no number ({error}); correct ElementToIntensityFunction") from error
    return slope, offset


def _says(fields: dict[str, str], key: str, value: str) -> bool:
    return fields.get(key, "").lower() == value


def _fields(path: Path) -> dict[str, str]:
    return fields_of(path, "=", LAST)[0]


def _file(fields: dict[str, str]) -> str:
    found = fields.get(LAST, "")
    return "" if found.upper() == "LOCAL" else found
