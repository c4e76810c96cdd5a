"""What every format's reader is: a scan that can be asked where it lies, what it holds, and for a mask like itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import numpy as np

from vpt.errors import VptError
from vpt.readers.grid import Grid
from vpt.readers.labels import LabelMap
from vpt.readers.segments import Form, Naming
from vpt.readers.voxels import Voxels
from vpt.words import with_article

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image
    from pydicom import Dataset

    from vpt.readers.dicom.series import ChosenSeries

InMemory: TypeAlias = Any
"""A SimpleITK or Pillow image, a MONAI MetaTensor: of libraries that need not be there."""
Kind = Literal["volumes", "images"]
"""Volumes have millimetres; an image is a volume of one slice, whose unit is the pixel."""
Unit = Literal["mm", "px"]
Source: TypeAlias = Any
"""A path (of a file, or of a folder that is one scan), or a scan in memory, whose type its reader knows."""
Scan: TypeAlias = "str | Path | ChosenSeries | Nifti1Image | np.ndarray | InMemory | Sequence[Any]"
"""What users give as one scan; several of them are its channels."""
Mask: TypeAlias = "Nifti1Image | np.ndarray | Dataset"
"""A mask in memory, as the reader of its scan makes it."""

SUPPORTED = (
    "supported are .nii, .nii.gz, .nrrd, .nhdr, .mha, .mhd, .hdr with .img, .npz (MedSAM), "
    "DICOM (a folder or .zip of a series, .dcm), and images: .png, .jpg, .bmp, .tif, .gif, .webp, "
    ".pgm, .ppm, .pbm, .pnm, .jp2, .j2k, .tga"
)


class Reader(ABC):
    """A scan of one format, made of one source or of several (a file for every channel); nothing is read before asked.

    A format is a subclass in a file of its own, listed in `vpt.readers.READERS`. All that others may know of a format
    is said here, so that nobody asks which one it is. What cannot be read is a VptError with the file's name.
    """

    kind: ClassVar[Kind]
    unit: ClassVar[Unit]
    """Of distances between its voxels."""
    endings: ClassVar[tuple[str, ...]] = ()
    """Of its files' names, a longer one before those that it ends with; none where a scan is no file."""
    mask_endings: ClassVar[tuple[str, ...]]
    """A mask can be written as these; the first is the usual one."""
    numbered: ClassVar[bool] = True
    """Whether files called CASE_0000, CASE_0001, ... may be the channels of one scan."""

    def __init__(self, sources: tuple[Source, ...], name: str = ""):
        """name: what to call it in messages, by default its file's name."""
        self.sources = sources
        self.name = name or self.name_of(sources[0])

    @classmethod
    @abstractmethod
    def claims(cls, sources: tuple[Source, ...]) -> bool:
        """Whether these are one scan of this format, by their names and types alone."""

    @classmethod
    def claims_name(cls, path: Path) -> bool:
        """By its ending; what starts with a dot (macOS leaves `._case.nii.gz`) does not count."""
        return bool(cls.endings) and path.name.lower().endswith(cls.endings) and not path.name.startswith(".")

    @classmethod
    def name_of(cls, source: Source) -> str:
        """What to call one of the sources."""
        return str(source)

    @abstractmethod
    def grid(self) -> Grid:
        """Where its voxels lie, by the header alone."""

    def label_grid(self) -> Grid:
        """`grid` of a label map; what can be none by its header is refused."""
        return self.grid()

    @abstractmethod
    def voxels(self, channels: int) -> Voxels:
        """Its channels (C, X, Y, Z), which have to be so many, on its own grid, as stored, checked to be finite."""

    @abstractmethod
    def labels(self) -> LabelMap:
        """The scan as a map of label ids, whichever it holds."""

    def labels_on(self, grid: Grid) -> LabelMap:
        """The same for a scan on that grid: put there, where it has the same voxels in whichever order."""
        return self.labels().laid_as(grid)

    @property
    def leaves_slices_out(self) -> bool:
        """Whether slices without labels may not be stored, so that a scan's grid says more than its own."""
        return False

    def label_grid_beside(self, other: Grid) -> Grid:
        """`label_grid`; or the grid of what it is compared with, where its voxels can be put there."""
        mine = self.label_grid()
        return mine if mine.turn_to(other) is None else other

    @abstractmethod
    def count_channels(self, exact: bool = True) -> int:
        """How many channels it holds; not `exact`: by the header alone, so that what is grey may count as colour."""

    @abstractmethod
    def is_deep(self) -> bool:
        """Whether its values have more than 8 bits, by the header alone."""

    @classmethod
    def is_part(cls, path: Path) -> bool:
        """Whether a file of such a name is only the other half of a scan that lies beside it."""
        return False

    def files(self) -> tuple[Path, ...]:
        """All files that the scan is read from, those beside its own included; some may not be there."""
        return tuple(source for source in self.sources if isinstance(source, Path))

    def orientation(self) -> int:
        """How its file asks to be turned before it is seen (EXIF: 1, not at all, to 8); `grid` is as it is seen."""
        return 1

    @property
    def is_lossy(self) -> bool:
        """Whether values come back other than they were saved, so that label ids are not exact."""
        return False

    def white(self) -> float | None:
        """The value of white in a picture of more than 8 bits, if its file states it."""
        return None

    def doubts(self) -> list[str]:
        """What other programs may see differently in a usable header, as sentences without the file's name."""
        return []

    def alone(self) -> list[str]:
        """That a scan given by itself is likely a part of what lies beside it, as sentences without its name."""
        return []

    def below(self) -> list[str]:
        """That a folder that is one scan holds others deeper, as sentences without its name."""
        return []

    def of_patient(self) -> str:
        """A mark of whose scan it is by its header, alike for one patient and telling no more; "" for none."""
        return ""

    def label_doubts(self) -> list[str]:
        """What was decided to read it as label ids, as sentences without the file's name."""
        return []

    @abstractmethod
    def mask(self, labels: np.ndarray) -> Mask:
        """Label ids (X, Y, Z) on its grid -> a mask in memory like this scan."""

    def mask_as(self, form: Form, labels: np.ndarray, naming: Naming) -> Mask:
        """`mask` in another form; only DICOM has others."""
        self.endings_as(form)
        return self.mask(labels)

    def endings_as(self, form: Form) -> tuple[str, ...]:
        """`mask_endings` of that form; raises VptError where the scan has none such."""
        if form != "own":
            raise VptError(f"{self.name}: no DICOM series, of which a DICOM SEG could be made; leave out --as {form}")
        return self.mask_endings

    @staticmethod
    @abstractmethod
    def write_mask(path: Path, mask: Any) -> None:
        """Write what `mask` gave."""


def no_scan(source: Source) -> VptError:
    if isinstance(source, list | tuple):
        kinds = ", ".join(dict.fromkeys(type(each).__name__ for each in source)) or "nothing in it"
        return VptError(
            f"{with_article(type(source).__name__)} ({kinds}) is no scan; of several, give the channels of one scan: "
            "files, or volumes of one library (nibabel, SimpleITK, MONAI), and images one by one"
        )
    return VptError(
        f"{with_article(type(source).__name__)} is no scan; give a path, a list of channel files, an array, or an "
        "image of nibabel (NIfTI), SimpleITK, Pillow or MONAI"
    )
