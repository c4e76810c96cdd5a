"""What sort of image a header says that it is (ImageType, DICOM PS3.3 C.7.6.1.1.2), and which are no scan as taken."""

from __future__ import annotations

import re

from vpt.errors import VptError
from vpt.readers.dicom.files import Header
from vpt.words import listed

PROJECTED = re.compile(r"MAX_?IP|MIN_?IP|PROJECTION IMAGE|(?:.*[ _])?(?:MIP|MNIP)")
"""Of ImageType: "MIP" alone or behind what made it (Siemens' `CT_SOM5 MIP`), MNIP of Siemens' susceptibility maps."""
NO_UPTAKE = {
    "CNTS": "counts",
    "CPS": "counts a second",
    "PROPCNTS": "counts",
    "PROPCPS": "counts a second",
    "NONE": "of no unit",
    "1CM": "1/cm, a map of attenuation",
    "STDDEV": "standard deviations",
}
"""Units of PET (PS3.3 C.8.9.1.1.3) that measure no activity. Some scanners keep the factor to SUV in a private tag."""


def codes(header: Header, keyword: str) -> list[str]:
    """The codes that an attribute has, in capitals, as the standard writes them; [] where it is missing."""
    value = header.get(keyword)
    several = [] if value is None else [value] if isinstance(value, str) else value
    return [str(part).strip().upper() for part in several]


def is_localizer(header: Header) -> bool:
    return "LOCALIZER" in codes(header, "ImageType")


def refuse_mosaic(header: Header) -> None:
    """Siemens stores functional and diffusion MR with all slices of a volume side by side in one picture."""
    if "MOSAIC" in codes(header, "ImageType"):
        raise VptError(
            f"{header.file}: a mosaic, all slices of a volume side by side in one picture (ImageType), expected a file "
            "or a frame for each slice; convert the series to NIfTI, as dcm2niix does"
        )


def not_as_taken(header: Header) -> list[str]:
    """Of slices that are not a scan's own, or PET that does not measure what PET is read for."""
    found = []
    if said := [part for part in codes(header, "ImageType") if PROJECTED.fullmatch(part)]:
        found.append(
            f"its slices are projections through several by its header (ImageType {listed(said)}); is it the right "
            "series?"
        )
    return found + (_pet(header) if header.get("Modality") == "PT" else [])


def _pet(header: Header) -> list[str]:
    found = []
    if (corrected := codes(header, "CorrectedImage")) and "ATTN" not in corrected:
        found.append(
            "PET that was not corrected for attenuation by its header (CorrectedImage), so the same uptake is less the "
            "deeper it lies; is it the right series?"
        )
    found += [
        f"PET whose values are {NO_UPTAKE[unit]} by its header (Units {unit}), not Bq/ml or SUV, so they compare with "
        "no other scan's; convert the series to SUV"
        for unit in codes(header, "Units")
        if unit in NO_UPTAKE
    ]
    return found
