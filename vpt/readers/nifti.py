"""NIfTI files, and nibabel images in memory: read with nibabel, masks written with the scan's own header.

The affine is nibabel's (sform, else qform), because masks are written with it. MONAI's `LoadImage` is not used: where
pixdim disagrees with the sform it silently replaces the affine, and a mask would come back shifted.
A 2-D NIfTI (X, Y) counts as a volume of one slice (X, Y, 1); a last axis of length 1 in a 4-D one is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vpt.errors import VptError
from vpt.files import atomic
from vpt.readers.base import Source, no_scan
from vpt.readers.damage import require_memory, require_there, spoiled
from vpt.readers.grid import Grid
from vpt.readers.inflate import DENSEST, inflate
from vpt.readers.nifti_doubts import doubts_of, refused_by_itk, transforms_in_doubt
from vpt.readers.nifti_header import (
    DAMAGED,
    UNREADABLE,
    header_grid,
    opened,
    qform_of,
    require_channels,
    usual_shape,
)
from vpt.readers.volumes import VolumeReader
from vpt.readers.voxels import Channel, Voxels

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

TEXTS = ("descrip", "db_name", "aux_file", "intent_name")  # may name the patient


class NiftiReader(VolumeReader):
    """One file or nibabel image (4-D, channels last, if there are several), or a file or image for every channel.

    The header of the first is kept once it is read, so that a mask can be made when the file is gone.
    """

    endings: ClassVar[tuple[str, ...]] = (".nii.gz", ".nii")
    mask_endings = (".nii.gz", ".nii")

    @classmethod
    def claims(cls, sources: tuple[Source, ...]) -> bool:
        if all(isinstance(source, Path) for source in sources):
            return cls.claims_name(sources[0])
        return all(hasattr(source, "dataobj") and hasattr(source, "affine") for source in sources)

    @classmethod
    def name_of(cls, source: Source) -> str:
        return str(source) if isinstance(source, Path) else str(source.get_filename() or "the image given")

    @cached_property
    def _first(self) -> Any:
        return self._open(self.sources[0])

    def grid(self) -> Grid:
        return header_grid(self._first, self.name)

    def shape(self) -> tuple[int, ...]:
        return usual_shape(self._first.shape)

    def voxels(self, channels: int) -> Voxels:
        for source in self.sources:
            if hasattr(source, "dataobj") and not hasattr(source, "get_sform"):
                raise no_scan(source)
        require_channels(self._first, self.name)
        return super().voxels(channels)

    def read(self, k: int) -> tuple[Channel, Grid]:
        source, name = self.sources[k], self.name if k == 0 else self.name_of(self.sources[k])
        return _read(self._first if k == 0 else self._open(source), name)

    def _open(self, source: Source) -> Any:
        return opened(source) if isinstance(source, Path) else source

    def is_deep(self) -> bool:
        return bool(self._first.get_data_dtype().itemsize > 1)

    def doubts(self) -> list[str]:
        return doubts_of(self._first, self.grid())

    def label_doubts(self) -> list[str]:
        return transforms_in_doubt(self._first, self.grid())

    def mask(self, labels: np.ndarray) -> Nifti1Image:
        """Labels under the scan's own header: affine, both transforms and their codes, units; no text of it is kept.

        A qform that cannot be read is replaced by the affine that is used, so that other programs read the same place.
        Of a sheared affine without a qform one of straight axes is added, since ITK opens the mask only then.
        """
        scan = self._first
        header = scan.header.copy()
        for text in TEXTS:
            if text in header:
                header[text] = b""
        header["intent_code"] = 0
        header.extensions = type(header.extensions)()
        if (qform := qform_of(scan)) is UNREADABLE or (qform is None and refused_by_itk(self.grid())):
            header.set_qform(scan.affine, int(header["sform_code"]))
        header.set_data_dtype(labels.dtype)
        header.set_slope_inter(1, 0)
        header["cal_min"], header["cal_max"] = 0, 0
        header.set_data_shape(labels.shape)
        made: Nifti1Image = type(scan)(
            labels, scan.affine, header
        )  # NIfTI-2 stays so: its header does not fit the other
        return made

    @staticmethod
    def write_mask(path: Path, mask: Nifti1Image) -> None:
        import nibabel

        nibabel.save(mask, path)


def volume_in_memory(array: np.ndarray, affine: np.ndarray) -> Nifti1Image:
    """Voxels (X, Y, Z) that have no file, as a scan."""
    from nibabel.nifti1 import Nifti1Image

    return Nifti1Image(array, affine, dtype=array.dtype)


def write_steps(path: Path, steps: np.ndarray, affine: np.ndarray, step: float) -> None:
    """Whole numbers (X, Y, Z, K), of which each stands for so many times `step`, by the slope in the header."""
    import nibabel
    from nibabel.nifti1 import Nifti1Image

    image = Nifti1Image(steps, affine)
    image.header.set_slope_inter(step, 0)
    image.header.set_xyzt_units("mm")
    with atomic(path) as part:
        nibabel.save(image, part)


# --- voxels -----------------------------------------------------------------------------------------------------------


def _read(image: Any, name: str) -> tuple[Channel, Grid]:
    """Voxels (X, Y, Z) or (X, Y, Z, C) of an opened image as they are stored, with their scale, and the grid."""
    grid = header_grid(image, name)
    if image.get_data_dtype().fields or np.issubdtype(image.get_data_dtype(), np.complexfloating):
        raise VptError(f"{name}: colour or complex voxels, expected plain numbers; save one number per voxel")
    try:
        read = _stored(image, name)
    except DAMAGED as error:
        raise spoiled(name, error) from error
    array = read.stored
    array = array.reshape(usual_shape(array.shape), order="A")
    return Channel(array.reshape(grid.shape + array.shape[3:], order="A"), read.slope, read.inter), grid


def _stored(image: Any, name: str) -> Channel:
    """The numbers of a nibabel image; those of a gzip file are inflated here, which nibabel does slowly.

    Raises VptError for more than the file can hold, MemoryError for more than fits.
    """
    proxy = image.dataobj
    if not hasattr(proxy, "get_unscaled"):  # made in memory
        if np.ma.is_masked(proxy):
            raise VptError(f"{name}: masked voxels, whose values are unknown; fill them: array.filled(0)")
        return Channel(np.asanyarray(proxy))
    if not (named := image.file_map["image"].filename):  # read from a stream
        return Channel(np.asanyarray(proxy.get_unscaled()), float(proxy.slope), float(proxy.inter))
    file = Path(named)
    packed = file.name.lower().endswith(".gz")
    there = file.stat().st_size * (DENSEST if packed else 1) - proxy.offset
    size = require_there(name, file, proxy.shape, proxy.dtype.itemsize, there)
    if not packed:  # mapped into memory; what it takes is a mask like it, at one byte a voxel
        require_memory(name, proxy.shape[:3], prod(map(int, proxy.shape[:3])))
        return Channel(np.asanyarray(proxy.get_unscaled()), float(proxy.slope), float(proxy.inter))
    require_memory(name, proxy.shape, size)
    content = inflate(file, proxy.offset + size)
    array = np.ndarray(proxy.shape, proxy.dtype, content, proxy.offset, order="F")
    return Channel(array, float(proxy.slope), float(proxy.inter))


def copy_channels(source: Path, target: Path, keep: Sequence[int]) -> None:
    """A copy of a 4-D scan with some of its channels (its last axis), whole or not at all."""
    import nibabel
    from nibabel.nifti1 import Nifti1Image

    target.parent.mkdir(parents=True, exist_ok=True)
    scan = Nifti1Image.from_filename(source)
    values = np.asanyarray(scan.dataobj)
    if values.ndim != 4:
        raise VptError(f"{source}: {values.ndim}-D, expected 4-D with the channels last; get the task again")
    header = scan.header.copy()
    header.set_data_dtype(values.dtype)
    with atomic(target) as part:
        nibabel.save(Nifti1Image(values[..., list(keep)], scan.affine, header), part)
