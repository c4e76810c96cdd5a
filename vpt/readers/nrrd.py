"""NRRD: .nrrd, or a header .nhdr with the file of its voxels beside it."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vpt.errors import VptError
from vpt.readers.content import other_content
from vpt.readers.grid import Grid
from vpt.readers.itk import ItkFileReader, header_of
from vpt.readers.labels import LabelMap
from vpt.readers.text_header import (
    AT_END,
    LONGEST,
    Claim,
    fields_of,
    read_voxels,
    require_file,
    require_voxels,
    whole_number,
    whole_numbers,
)
from vpt.readers.voxels import Channel

TYPES = {  # all the names that a type may have -> NumPy's
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"),
    "float": "f4",
    "double": "f8",
}
PACKINGS: dict[str, Literal["raw", "gzip"]] = {"raw": "raw", "gzip": "gzip", "gz": "gzip"}
LONGEST_FIELD = 500  # bytes; where ITK finds fault with one beyond 1,000, it overruns a buffer and ends the process
FREE_TEXT = b"content:"
UNNAMED = re.compile(r"segment[_ ]?\d*", re.IGNORECASE)
ANATOMICAL = {
    *("right-anterior-superior", "left-anterior-superior", "left-posterior-superior"),
    *("ras", "las", "lps", "rast", "last", "lpst"),
}
IN_SPACE = {"domain", "space", "time"}  # kinds of axes that are not a voxel's own numbers


class NrrdReader(ItkFileReader):
    endings = (".nrrd", ".nhdr")
    mask_endings = (".nrrd", ".mha", ".nii.gz", ".nii")
    library = "NrrdImageIO"

    @staticmethod
    def beside(header: Path) -> str:
        return _file(fields_of(header, ":", "")[0])

    @cached_property
    def _fields(self) -> dict[str, str]:
        return fields_of(self.sources[0], ":", "")[0]

    def _opened(self, source: Path) -> Any:
        require_file(source, "a NRRD")
        require_voxels(source, claim_of(source))
        return header_of(source, self.library)

    def _channel(self, source: Path, name: str) -> Channel:
        array, own = read_voxels(source, claim_of(source)), own_axis(fields_of(source, ":", "")[0])
        return Channel(array if own is None else np.moveaxis(array, own, -1))

    def labels(self) -> LabelMap:
        return replace(super().labels(), names=segment_names(self._fields))

    def length_unit(self) -> str:
        """The unit of the axes in space, if all have the same."""
        found = self._fields.get("space units") or self._fields.get("units") or ""
        units = {unit.strip() for unit in found.split('"') if unit.strip()} - {"???"}
        return units.pop() if len(units) == 1 else ", ".join(sorted(units))

    def _orientation(self, grid: Grid) -> list[str]:
        if "space directions" not in self._fields:
            guess = f"no `space directions`, so its orientation is a guess ({grid.axcodes}); save it with them"
            return [guess, *self._unsized()]
        if "space" not in self._fields:
            return [f"no `space`, so what its directions mean is a guess ({grid.axcodes}); write it into the header"]
        if (space := self._fields["space"]).strip().lower().removesuffix("-time") not in ANATOMICAL:
            return [
                f"its `space` is {space.strip()}, which names no directions of a patient, so that they are a guess "
                f"({grid.axcodes}); write left-posterior-superior or another of these into the header"
            ]
        return []

    def _unsized(self) -> list[str]:
        """That the size of voxels is not known, which ITK takes for 1; NRRD writes NaN for an axis without one."""
        given, own = self._fields.get("spacings", "").split(), own_axis(self._fields)
        lacks = "no `spacings`" if not given else f"`spacings` {' '.join(given)}"
        known = given and not any(text.lower() == "nan" for axis, text in enumerate(given) if axis != own)
        return [] if known else [f"{lacks}, so its voxels count as 1 mm; write their true size into the header"]


def segment_names(fields: dict[str, str]) -> tuple[tuple[int, str], ...]:
    """What 3D Slicer's .seg.nrrd calls its labels: of `Segment3_Name` and `Segment3_LabelValue` the value and name.

    `Segment_2` is what Slicer calls the second one that was drawn, whatever it is, and no name.
    """
    found = []
    for key, text in fields.items():
        segment, _, what = key.partition("_")
        if segment.startswith("segment") and what == "labelvalue" and (value := whole_number(text)):
            name = fields.get(f"{segment}_name", "").encode("latin-1").decode(errors="replace")
            found.append((value, name))
    return tuple((value, name) for value, name in found if name and not UNNAMED.fullmatch(name))


def claim_of(path: Path) -> Claim:
    """What the header says of its voxels; refused where that cannot be told."""
    _require_short(path)
    fields, length = fields_of(path, ":", "")
    kind, encoding = fields.get("type", "").lower(), fields.get("encoding", "").lower()
    if kind not in TYPES or "sizes" not in fields:
        raise other_content(path) or VptError(
            f"{path}: not a NRRD, or damaged in its header (type {kind!r}); export the scan again"
        )
    if encoding not in PACKINGS:
        raise VptError(f"{path}: encoding {encoding!r}, expected raw or gzip; save it as one of them")
    dtype = np.dtype(TYPES[kind]).newbyteorder(">" if fields.get("endian", "").lower() == "big" else "<")
    file = _file(fields) or None
    start = _skipped(path, fields) or (0 if file else length)
    return Claim(whole_numbers(path, fields["sizes"]), dtype, PACKINGS[encoding], file, start)


def _require_short(path: Path) -> None:
    """Refuse fields that are longer than any has to be; comments, keys with values (`:=`) and free text may be."""
    with open(path, "rb") as file:
        head = file.read(LONGEST)
    for line in head.split(b"\n"):
        if not line.strip():
            return
        field, has_value, _ = line.partition(b": ")
        free = line.startswith((b"#", FREE_TEXT)) or b":=" in (field if has_value else line)
        if len(line) > LONGEST_FIELD and not free:
            raise other_content(path) or VptError(
                f"{path}: a line of {len(line):,} bytes in its header ({field[:20].decode('latin-1')!r}...), expected "
                f"{LONGEST_FIELD} at most; damaged, or no NRRD: export the scan again"
            )
    if len(head) == LONGEST:
        raise VptError(f"{path}: a header of over {LONGEST >> 20} MiB, or none that ends; export the scan again")


def own_axis(fields: dict[str, str]) -> int | None:
    """Which axis, if any, runs over a voxel's own numbers and not through space."""
    directions = re.findall(r"none|\([^)]*\)", fields.get("space directions", ""))
    if directions:
        return directions.index("none") if "none" in directions else None
    return next((k for k, kind in enumerate(fields.get("kinds", "").lower().split()) if kind not in IN_SPACE), None)


def _skipped(path: Path, fields: dict[str, str]) -> int:
    """Bytes before the voxels in a file of their own; 0 where the header skips nothing."""
    lines, count = (fields.get(f"{what} skip") or fields.get(f"{what}skip") or "0" for what in ("line", "byte"))
    file, raw = _file(fields), fields.get("encoding", "").lower() == "raw"
    known = count == "0" or (raw and (count == str(AT_END) or (whole_number(count) is not None and file)))
    if lines != "0" or not known:
        raise VptError(f"{path}: skips {lines} lines and {count} bytes of {file or 'itself'}; save it as .nrrd")
    return int(count)


def _file(fields: dict[str, str]) -> str:
    return fields.get("data file") or fields.get("datafile") or ""
