"""Radiographs, ultrasound images and photographs in DICOM: pictures without a place in space, one in a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vpt.errors import VptError
from vpt.readers.array import ArrayReader, as_picture
from vpt.readers.base import Source
from vpt.readers.dicom.files import DicomFile, Header, guarded, is_dicom, mark_of_patient
from vpt.readers.dicom.pixels import COLOURS, coloured, decoded, tabled, upright
from vpt.readers.grid import Grid, picture_grid
from vpt.words import listed

PICTURES = frozenset(("CR", "DX", "MG", "IO", "PX", "RG", "RF", "XA", "US", "XC", "ES", "OP", "GM", "DMS", "DG"))
"""Modalities whose images are seen as they are; a CT or MR without a place is an incomplete export."""
READ = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}  # pydicom makes red, green and blue of them
RAW = "FOR PROCESSING"
ASKED = [
    "SOPClassUID",
    "Modality",
    "Rows",
    "NumberOfFrames",
    "ImagePositionPatient",
    "PerFrameFunctionalGroupsSequence",
]


def is_radiograph(path: Path) -> bool:
    """Whether a DICOM file holds one picture, by its header."""
    if path.name.startswith(".") or not is_dicom(path):
        return False
    try:
        from pydicom import dcmread

        with guarded(path):
            found = dcmread(path, stop_before_pixels=True, specific_tags=ASKED)
    except Exception:  # no DICOM, or none that is known: the reader of series says why
        return False
    placed = "ImagePositionPatient" in found or "PerFrameFunctionalGroupsSequence" in found
    return found.get("Modality") in PICTURES and not placed and int(found.get("NumberOfFrames") or 1) == 1


class RadiographReader(ArrayReader):
    """A DICOM file that is a picture, as people see it: MONOCHROME1 inverted, colours as red, green and blue."""

    @classmethod
    def claims(cls, sources: tuple[Source, ...]) -> bool:
        return len(sources) == 1 and isinstance(sources[0], Path) and cls.claims_name(sources[0])

    @classmethod
    def claims_name(cls, path: Path) -> bool:
        """By its ending and its header: a slice of a series is called alike."""
        return is_radiograph(path)

    @classmethod
    def name_of(cls, source: Source) -> str:
        return str(source)

    def picture(self) -> np.ndarray:
        header = self._header()
        stored = decoded(header.file, self.name)
        with guarded(self.name, "its values cannot be read"):
            if header.get("PhotometricInterpretation") == COLOURS:
                return as_picture(coloured(stored, header), self.name)
            if stored.ndim == 3:
                _require_colours(header, self.name)
                return as_picture(stored, self.name)
            return as_picture(_as_shown(stored, header), self.name)

    def ids(self) -> np.ndarray:
        return decoded(self._header().file, self.name)

    def grid(self) -> Grid:
        header = self._header()
        return picture_grid(int(header.get("Rows")), int(header.get("Columns")))

    def count_channels(self, exact: bool = True) -> int:
        header = self._header()
        colours = int(header.get("SamplesPerPixel") or 1) > 1 or header.get("PhotometricInterpretation") == COLOURS
        return len(self.picture()) if exact and colours else 3 if colours else 1

    def doubts(self) -> list[str]:
        if self._header().get("PresentationIntentType") != RAW:
            return []
        return [
            "the detector's own values, not yet made to be looked at, by its header (PresentationIntentType FOR "
            "PROCESSING); most studies hold the same image FOR PRESENTATION as well; is it the right one?"
        ]

    def of_patient(self) -> str:
        return mark_of_patient(self._header())

    def is_deep(self) -> bool:
        header = self._header()
        return int(header.get("BitsStored") or 16) > 8 and header.get("PhotometricInterpretation") != COLOURS

    def _header(self) -> Header:
        file = DicomFile(self.sources[0])
        with guarded(self.name):
            return Header(file, file.read(pixels=False))


def _as_shown(stored: np.ndarray, header: Header) -> np.ndarray:
    """Grey values, in whole numbers where they are stored so: uint8, uint16 or float32."""
    said = [header.get(key) for key in ("RescaleSlope", "RescaleIntercept")]
    pixels = upright(tabled(stored, header, *said), header)
    slope, inter = (plain if value is None else float(value) for value, plain in zip(said, (1.0, 0.0), strict=True))
    if (slope, inter) != (1, 0):
        pixels = pixels * slope + inter if slope > 0 else pixels * 1.0
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize <= 2:
        return pixels.astype(np.uint8 if int(header.get("BitsStored") or 16) <= 8 else np.uint16)
    return pixels.astype(np.float32)


def _require_colours(header: Header, name: str) -> None:
    """Three numbers of a pixel may be something else than colours that are known."""
    said = str(header.get("PhotometricInterpretation") or "nothing")
    if said not in READ:
        raise VptError(
            f"{name}: its colours are {said} (PhotometricInterpretation), expected {listed(sorted(READ))}; export it "
            "as RGB"
        )
