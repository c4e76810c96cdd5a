"""The formats of files, and which one a name belongs to."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from vpt.readers.base import Kind, Reader
from vpt.readers.dicom.radiograph import RadiographReader
from vpt.readers.dicom.reader import DicomReader
from vpt.readers.metaimage import MetaImageReader
from vpt.readers.nifti import NiftiReader
from vpt.readers.npz import NpzReader
from vpt.readers.nrrd import NrrdReader
from vpt.readers.pair import PairReader
from vpt.readers.picture import PictureReader

FORMATS: tuple[type[Reader], ...] = (
    NiftiReader,
    PairReader,
    NrrdReader,
    MetaImageReader,
    NpzReader,
    PictureReader,
    RadiographReader,
    DicomReader,
)


def format_of(path: Path) -> type[Reader] | None:
    """The format whose scans are called so, by the name alone; None where there is none."""
    return next((reader for reader in FORMATS if reader.claims_name(path)), None)


@cache
def endings(kind: Kind | None = None) -> tuple[str, ...]:
    """The endings of files of all formats, or of those of one kind."""
    return tuple(ending for reader in FORMATS if kind in (None, reader.kind) for ending in reader.endings)
