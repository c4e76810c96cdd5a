"""DICOM objects that lie beside scans in an archive and are none: reports, contours, plans, segmentations."""

from __future__ import annotations

from pathlib import Path

from vpt.files import is_hidden, may_enter
from vpt.readers.dicom.files import guarded, is_dicom

ASKED = ["SOPClassUID", "Modality", "Rows"]
SEGMENTATION = "SEG"


def scanless(path: Path) -> str:
    """Of a DICOM file, or a folder with such in it, of which none is a scan: their modality ("SR"); else "".

    A folder of slices costs the header of its first file; what cannot be read is left to the reader of series.
    """
    inside = sorted(path.iterdir()) if path.is_dir() and may_enter(path) else [path]
    found = ""
    for file in inside:
        if is_hidden(file) or not is_dicom(file):
            continue
        found = _modality(file)
        if not found:
            return ""
    return found


def _modality(file: Path) -> str:
    """The modality of a file that is no scan; "" of one that is, or that cannot be read."""
    try:
        from pydicom import dcmread

        with guarded(file):
            header = dcmread(file, stop_before_pixels=True, specific_tags=ASKED)
    except Exception:  # no DICOM, or damaged: the reader of series says which
        return ""
    modality = str(header.get("Modality") or "")
    is_none = "SOPClassUID" in header and ("Rows" not in header or modality == SEGMENTATION)
    return (modality or "no modality") if is_none else ""
