"""Scans, whatever they are stored as: `reader_of(source)` gives the reader that knows the format, and nobody else does.

Neither torch nor MONAI is needed here, so that `vpt check` and `vpt evaluate` start at once; only these files open
images (nibabel, Pillow, SimpleITK, pydicom).
"""

from __future__ import annotations

from pathlib import Path

from vpt.readers.array import ArrayReader
from vpt.readers.base import SUPPORTED, Kind, Mask, Reader, Scan, Source, Unit, no_scan
from vpt.readers.colours import ColourMask, ColourMaskReader
from vpt.readers.dicom.series import ChosenSeries
from vpt.readers.formats import FORMATS, endings, format_of
from vpt.readers.grid import Grid
from vpt.readers.in_memory import MetaTensorReader, PillowReader
from vpt.readers.itk import ItkReader
from vpt.readers.label_files import LabelFiles, LabelFilesReader
from vpt.readers.labels import LabelMap
from vpt.readers.nifti import NiftiReader
from vpt.readers.relabelled import Relabelled, RelabelledReader
from vpt.readers.segments import Code, Form, Naming
from vpt.readers.voxels import Voxels

__all__ = [
    "READERS",
    "SUPPORTED",
    "ChosenSeries",
    "Code",
    "ColourMask",
    "Form",
    "Grid",
    "Kind",
    "LabelFiles",
    "LabelMap",
    "Mask",
    "Naming",
    "Reader",
    "Relabelled",
    "Scan",
    "Source",
    "Unit",
    "Voxels",
    "endings",
    "format_of",
    "import_library",
    "is_part",
    "is_volume",
    "reader_of",
]

READERS: tuple[type[Reader], ...] = (
    *FORMATS,
    ItkReader,
    MetaTensorReader,
    ArrayReader,
    PillowReader,
    ColourMaskReader,
    LabelFilesReader,
)


def reader_of(source: Source, name: str = "") -> Reader:
    """The reader of a scan: a path, channel files in order, pixels in an array, or what another library holds.

    Nothing is opened yet: a path that no format claims is refused, as NIfTI, when it is read. name: what to call it,
    by default its file's name. Raises VptError for a type that is no scan.
    """
    sources = tuple(
        Path(item) if isinstance(item, str) else item
        for item in (source if isinstance(source, list | tuple) else [source])
    )
    if len(sources) == 1 and isinstance(sources[0], Relabelled):
        return RelabelledReader(sources[0], reader_of(sources[0].mask, name))
    claiming = next((reader for reader in READERS if sources and reader.claims(sources)), None)
    if claiming is None and not (sources and all(isinstance(item, Path) for item in sources)):
        raise no_scan(source)
    return (claiming or NiftiReader)(sources, name)


def import_library(kind: Kind) -> None:
    """What nearly all readers of that kind import when they first open a file."""
    if kind == "volumes":
        import nibabel  # noqa: F401


def is_part(path: Path) -> bool:
    """Whether a file is no scan by itself, but the other half of one that lies beside it (.img of a .hdr)."""
    return any(reader.is_part(path) for reader in READERS)


def is_volume(source: Source) -> bool:
    """Whether what is in memory is a volume, as one of the readers takes it."""
    volumes: list[type[Reader]] = [reader for reader in READERS if reader.kind == "volumes"]
    return any(reader.claims((source,)) for reader in volumes if reader is not LabelFilesReader)
