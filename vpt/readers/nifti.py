"""NIfTI files, and nibabel images in memory: read with nibabel, masks written with the scan's own header.

The affine is nibabel's (sform, else qform), because masks are written with it. MONAI's `LoadImage` is not used: where
pixdim disagrees with the sform it silently replaces the affine, and a mask would come back shifted.
A 2-D NIfTI (X, Y) counts as a volume of one slice (X, Y, 1); a last axis of length 1 in a 4-D one is dropped.
"""

from __future__ import annotations

import zlib
from functools import cached_property
from math import isfinite, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vpt.errors import VptError
from vpt.readers.base import SUPPORTED, Reader, Source, no_scan
from vpt.readers.grid import Grid, by, some
from vpt.readers.inflate import inflate
from vpt.readers.labels import LabelMap
from vpt.readers.voxels import Channel, Voxels, distinct

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

ROUNDING = 1e-3  # a label this near to a whole number is one
SHEAR = np.sin(np.radians(0.01))  # what ITK still takes as straight
TEXTS = ("descrip", "db_name", "aux_file", "intent_name")  # may name the patient
UNREADABLE = np.full((4, 4), np.nan)
DAMAGED = (OSError, EOFError, ValueError, zlib.error)


class NiftiReader(Reader):
    """One file or nibabel image (4-D, channels last, if there are several), or a file for every channel.

    The header of the first is kept once it is read, so that a mask can be made when the file is gone.
    """

    kind = "volumes"
    unit = "mm"
    endings = (".nii.gz", ".nii")
    mask_endings = (".nii.gz", ".nii")

    @classmethod
    def claims(cls, sources: tuple[Source, ...]) -> bool:
        if all(isinstance(source, Path) for source in sources):
            return cls.claims_name(sources[0])
        return len(sources) == 1 and hasattr(sources[0], "dataobj") and hasattr(sources[0], "affine")

    @classmethod
    def name_of(cls, source: Source) -> str:
        return str(source) if isinstance(source, Path) else str(source.get_filename() or "the image given")

    @cached_property
    def _first(self) -> Any:
        return _opened(self.sources[0])

    def grid(self) -> Grid:
        return header_grid(self._first, self.name)

    def label_grid(self) -> Grid:
        grid = self.grid()
        _require_3d(self._first.shape, self.name)
        return grid

    def voxels(self, channels: int) -> Voxels:
        if len(self.sources) == 1 and not isinstance(self.sources[0], Path) and not hasattr(self._first, "get_sform"):
            raise no_scan(self.sources[0])
        if len(self.sources) not in (1, channels):
            found = f"{len(self.sources)} channel files, expected {channels}"
            raise VptError(f"{self.name}: {found}; give one file per channel")
        first, found_channels = self.grid(), []
        for k, source in enumerate(self.sources):
            name = self.name if k == 0 else self.name_of(source)
            stored, grid = _read(self._first if k == 0 else _opened(source), source, name)
            found_channels += _channels(stored, name, channels if len(self.sources) == 1 else 1)
            if not grid.matches(first):
                raise VptError(
                    f"{name}: not on the grid of {self.name}: {grid.difference(first)}; "
                    "resample the channels of a case onto one grid"
                )
        return Voxels(tuple(found_channels), first, self.name)

    def labels(self) -> LabelMap:
        """The ids are whole numbers, up to the rounding that a scale factor in the header leaves."""
        read, grid = _read(self._first, self.sources[0], self.name)
        array = read.scaled()
        _require_3d(array.shape, self.name)
        ids = _ids(array, self.name)
        return LabelMap(array if array.dtype.kind in "iu" else np.rint(array).astype(np.int64), ids, grid, self.name)

    def count_channels(self, exact: bool = True) -> int:
        shape = self._first.shape
        return int(shape[3]) if len(shape) == 4 else len(self.sources)

    def is_deep(self) -> bool:
        return bool(self._first.get_data_dtype().itemsize > 1)

    def doubts(self) -> list[str]:
        image, grid = self._first, self.grid()
        found = []
        sform, qform = image.get_sform(coded=True)[0], _qform(image)
        if unreadable := qform is UNREADABLE:
            found.append("its qform is unreadable (its quaternion is no rotation), the sform is used; write it again")
            qform = None
        if sform is None and qform is None and not unreadable:
            guess = f"neither sform nor qform, so its orientation is a guess ({grid.axcodes})"
            found.append(f"{guess}; save it with an affine")
        apart = 0.0 if sform is None or qform is None else grid.apart(Grid(grid.shape, qform))
        if apart > min(grid.spacing) / 10:
            used = "the sform is used, other programs may use the qform"
            found.append(f"sform and qform are {apart:.3g} mm apart; {used}")
        axes = grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0)
        if (lean := float(np.abs(axes.T @ axes - np.eye(3)).max())) > SHEAR:
            degrees = np.degrees(np.arcsin(min(lean, 1.0)))
            sheared = f"sheared by {degrees:{'.1f' if degrees >= 1 else '.2g'}} degrees"
            found.append(f"{sheared}, which ITK-based programs refuse; resample it to straight axes")
        return found

    def mask(self, labels: np.ndarray) -> Nifti1Image:
        """Labels under the scan's own header: affine, both transforms and their codes, units; no text of it is kept.

        A qform that cannot be read is replaced by the affine that is used, so that other programs read the same place.
        """
        scan = self._first
        header = scan.header.copy()
        for text in TEXTS:
            if text in header:
                header[text] = b""
        header["intent_code"] = 0
        header.extensions = type(header.extensions)()
        if _qform(scan) is UNREADABLE:
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

    return Nifti1Image(array, affine)


# --- headers ----------------------------------------------------------------------------------------------------------


def _opened(source: Path | Nifti1Image) -> Any:
    """The nibabel image of a NIfTI file, header read and voxels not; what is in memory as it is."""
    import nibabel

    if not isinstance(source, Path):
        return source
    path = source
    if not path.is_file():
        raise VptError(f"{path}: {'a folder' if path.is_dir() else 'no such file'}, expected a .nii or .nii.gz file")
    if not NiftiReader.claims_name(path):
        raise VptError(f"{path}: not a supported ending, {SUPPORTED}; convert it")
    if path.stat().st_size == 0:
        raise VptError(f"{path}: an empty file, expected a NIfTI; copy or export it again")
    try:
        image = nibabel.load(path)
    except ValueError as error:
        if "w2 should be" in str(error):
            raise VptError(
                f"{path}: its qform is unreadable (its quaternion is no rotation: {error}) and there is no sform to "
                "use instead; write the affine into the sform, with a code of 1 or more"
            ) from error
        raise VptError(
            f"{path}: not a NIfTI file, or cut off in its header ({error}); convert or export it again"
        ) from error
    except (nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError, *DAMAGED) as error:
        raise VptError(
            f"{path}: not a NIfTI file, or cut off in its header ({error}); convert or export it again"
        ) from error
    if not isinstance(image, nibabel.Nifti1Image):
        raise VptError(f"{path}: a {type(image).__name__}, expected a NIfTI; convert it")
    if not image.header["sform_code"]:
        _check_voxel_size(image, path)
    return image


def _check_voxel_size(image: Nifti1Image, path: Path) -> None:
    """Refuse a size of 0 in the file itself: nibabel's own header has it silently mended to 1 mm."""
    from nibabel.openers import ImageOpener

    with ImageOpener(str(path)) as stream:
        raw = type(image.header).from_fileobj(stream, check=False)
    sizes = raw["pixdim"][1 : 1 + min(image.ndim, 3)]
    if not (np.isfinite(sizes) & (sizes != 0)).all():
        raise VptError(f"{path}: voxel size {by(sizes.tolist())} mm in its header; write the true size into pixdim")


def _qform(image: Any) -> Any:
    """The qform (4, 4), None where its code is 0, `UNREADABLE` where its quaternion is no rotation."""
    try:
        qform = image.get_qform(coded=True)[0]
    except ValueError:
        return UNREADABLE
    return qform if qform is None or np.isfinite(qform).all() else UNREADABLE


def header_grid(image: Any, name: str) -> Grid:
    """The grid of a nibabel image, refused if voxels have no place in space."""
    shape = image.shape
    if not 2 <= len(shape) <= 4 or 0 in shape:
        raise VptError(f"{name}: shape {shape}, expected a volume (X, Y, Z) or (X, Y, Z, channels); save it as such")
    affine = np.asarray(image.affine, dtype=np.float64)
    axes = affine[:3, :3]
    # A determinant relative to the axes' lengths: 1 when perpendicular, 0 when they do not span the space.
    span = 0.0
    if np.isfinite(affine).all():
        span = abs(np.linalg.det(axes)) / max(float(np.prod(np.linalg.norm(axes, axis=0))), 1e-300)
    if span < 1e-3:
        rows = "; ".join(" ".join(f"{value:.4g}" for value in row) for row in affine[:3])
        raise VptError(
            f"{name}: its affine [{rows}] is singular, so voxels have no place in space; write a valid sform or qform"
        )
    x, y, z = (*shape[:3], 1)[:3]
    return Grid((int(x), int(y), int(z)), affine)


# --- voxels -----------------------------------------------------------------------------------------------------------


def _read(image: Any, source: Path | Nifti1Image, name: str) -> tuple[Channel, Grid]:
    """Voxels (X, Y, Z) or (X, Y, Z, C) of the opened `source` as they are stored, with their scale, and the grid."""
    grid = header_grid(image, name)
    if image.get_data_dtype().fields or np.issubdtype(image.get_data_dtype(), np.complexfloating):
        raise VptError(f"{name}: colour or complex voxels, expected plain numbers; save one number per voxel")
    try:
        read = _stored(image, source if isinstance(source, Path) and source.name.lower().endswith(".gz") else None)
    except DAMAGED as error:
        reason = " ".join(str(error).split())
        raise VptError(f"{name}: truncated or damaged ({reason}); copy or download the file again") from error
    array = read.stored
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    return Channel(array.reshape(grid.shape + array.shape[3:], order="A"), read.slope, read.inter), grid


def _stored(image: Any, packed: Path | None) -> Channel:
    """The numbers of a nibabel image; those of the gzip file `packed` are inflated here, which nibabel does slowly."""
    proxy = image.dataobj
    if not hasattr(proxy, "get_unscaled"):  # made in memory
        return Channel(np.asanyarray(proxy))
    if packed is None:
        return Channel(np.asanyarray(proxy.get_unscaled()), float(proxy.slope), float(proxy.inter))
    size = proxy.dtype.itemsize * prod(proxy.shape)
    content = inflate(packed, proxy.offset + size)
    array = np.ndarray(proxy.shape, proxy.dtype, content, proxy.offset, order="F")
    return Channel(array, float(proxy.slope), float(proxy.inter))


def _channels(read: Channel, name: str, channels: int) -> list[Channel]:
    """(X, Y, Z) or (X, Y, Z, C) -> its channels (X, Y, Z), with the count and the values checked."""
    array = read.stored
    if array.ndim == 4 and array.shape[-1] != channels:
        raise VptError(
            f"{name}: shape {array.shape} is 4-D with {array.shape[-1]} channels, expected {channels} channel(s) "
            f"{'and so a 3-D volume ' if channels == 1 else ''}as dataset.json lists; "
            "split it into 3-D files, or list its channels under `channel_names` (MSD: `modality`)"
        )
    if array.ndim == 3 and channels > 1:
        raise VptError(
            f"{name}: one 3-D volume, expected {channels} channels as dataset.json lists; "
            "add CASE_0000, CASE_0001, ... or give a 4-D file with the channels last"
        )
    nan, infinite = read.not_finite()
    if bad := nan + infinite:
        raise VptError(
            f"{name}: {bad} of {array.size} voxels are not finite ({nan} NaN, {infinite} infinite); "
            "replace them, for instance by the background's value, and save the scan again"
        )
    parts = [array] if array.ndim == 3 else list(np.moveaxis(array, -1, 0))
    return [Channel(part, read.slope, read.inter) for part in parts]


def _require_3d(shape: tuple[int, ...], name: str) -> None:
    if len(shape) == 4 and shape[-1] > 1:
        raise VptError(f"{name}: shape {shape} is 4-D, expected a 3-D label map; merge its channels into ids")


def _ids(array: np.ndarray, name: str) -> tuple[int, ...]:
    """The whole numbers in an array, sorted, up to the rounding that a scale factor in the header leaves."""
    values = distinct(array)
    if between := [
        value for value in values.tolist() if not (isfinite(value) and abs(value - round(value)) <= ROUNDING)
    ]:
        raise VptError(
            f"{name}: label values {some(between)} are not whole numbers; label maps hold ids, "
            "resample with nearest neighbour and save as integers"
        )
    return tuple(sorted({round(value) for value in values.tolist()}))
