"""Volumes: read a case with nibabel, hand it on as `Voxels` or as MONAI's `MetaTensor`, bring masks back.

The affine is nibabel's (sform, else qform), because masks are written with it. MONAI's `LoadImage` is not used: where
pixdim disagrees with the sform it silently replaces the affine, and a mask would come back shifted.
A 2-D NIfTI (X, Y) counts as a volume of one slice (X, Y, 1); a last axis of length 1 in a 4-D one is dropped.
An image file is such a volume as well: X are its columns, Y its rows, and a pixel stands for 1 mm (`picture_grid`).
The `read_...` functions need neither torch nor MONAI, so that `vpt check` and `vpt evaluate` start at once.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from math import isfinite, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vpt.data.cases import SUPPORTED, Case, is_image, is_nifti
from vpt.data.grid import Grid, by, header_grid, picture_grid, some
from vpt.data.images import as_picture, picture_size, read_mask, read_picture
from vpt.data.inflate import inflate
from vpt.data.voxels import Channel, Voxels, distinct
from vpt.errors import VptError

if TYPE_CHECKING:
    from monai.data import MetaTensor
    from nibabel.nifti1 import Nifti1Image

ROUNDING = 1e-3  # a label this near to a whole number is one
DAMAGED = (OSError, EOFError, ValueError, zlib.error)


def grid_of(scan: str | Path | Nifti1Image | MetaTensor | Voxels | np.ndarray) -> Grid:
    """The grid of a file or NIfTI image, of which only the header is read, or of a volume (C, X, Y, Z) in memory."""
    if isinstance(scan, Voxels):
        return scan.grid
    if isinstance(scan, np.ndarray):
        return picture_grid(*scan.shape[:2])
    if not isinstance(scan, str | Path) and hasattr(scan, "meta"):
        x, y, z = scan.shape[-3:]
        return Grid((x, y, z), np.asarray(scan.affine, dtype=np.float64))
    if isinstance(scan, str | Path) and is_image(Path(scan)):
        return picture_grid(*picture_size(Path(scan)))
    return header_grid(*_open(scan))


def is_picture(scan: Any) -> bool:
    """Whether a scan is an image: a file by its name, or pixels in an array."""
    return isinstance(scan, np.ndarray) or (isinstance(scan, str | Path) and is_image(Path(scan)))


# --- reading ----------------------------------------------------------------------------------------------------------


def load_image(scan: Case | str | Path | Nifti1Image | np.ndarray | Sequence[str | Path], channels: int) -> MetaTensor:
    """A case's channels as float32 (C, X, Y, Z) on the scan's own grid; `meta` has the affine and a file's name.

    Raises VptError for files that are missing, damaged, neither NIfTI nor images, not finite, of another shape or
    channel count, or on different grids.
    """
    voxels = read_voxels(scan, channels)
    return _volume(voxels.values(), voxels.grid, voxels.name)


def load_label(path: str | Path | None, like: MetaTensor | Voxels, labels: Collection[int]) -> MetaTensor:
    """Label ids (1, X, Y, Z), uint8, int16 or int32 as the largest of `labels` needs, on the grid of the image `like`.

    Raises VptError for what `load_image` refuses, another grid, ids that are not in `labels`, values between ids, and
    for None, the label of a case that has none.
    """
    image = like.name if isinstance(like, Voxels) else str(like.meta.get("filename_or_obj", "the image"))
    if path is None:
        raise VptError(f"{image}: no label belongs to it; add one, or leave the case out")
    return _volume(*read_label(Path(path), labels, grid_of(like), image), str(path))


def _volume(array: np.ndarray, grid: Grid, name: str) -> MetaTensor:
    import torch
    from monai.data import MetaTensor

    return MetaTensor(torch.from_numpy(array), affine=torch.from_numpy(grid.affine), meta={"filename_or_obj": name})


def read_image(scans: Sequence[Path | Nifti1Image | np.ndarray], channels: int) -> tuple[np.ndarray, Grid]:
    """`load_image` without torch: float32 (C, X, Y, Z) and its grid."""
    voxels = _voxels(scans, channels)
    return voxels.values(), voxels.grid


def read_voxels(scan: Case | str | Path | Nifti1Image | np.ndarray | Sequence[str | Path], channels: int) -> Voxels:
    """`load_image` without torch and without a pass over the numbers, but for those that may not be finite."""
    return _voxels(_sources(scan), channels)


def as_voxels(volume: MetaTensor | Voxels) -> Voxels:
    """A volume (C, X, Y, Z) in memory as voxels that share it."""
    if isinstance(volume, Voxels):
        return volume
    name = str(volume.meta.get("filename_or_obj", "the image"))
    return Voxels(tuple(Channel(channel) for channel in np.asarray(volume)), grid_of(volume), name)


def _voxels(scans: Sequence[Path | Nifti1Image | np.ndarray], channels: int) -> Voxels:
    name = _name(scans[0])
    if is_picture(scans[0]) and len(scans) == 1:
        picture, grid = _read_picture(scans[0], channels)
        return Voxels(tuple(Channel(channel) for channel in picture), grid, name)
    if len(scans) not in (1, channels):
        raise VptError(f"{name}: {len(scans)} channel files, expected {channels}; give one file per channel")
    first, found = grid_of(scans[0]), []
    for scan in scans:
        stored, grid = _read(scan)
        found += _channels(stored, _name(scan), channels if len(scans) == 1 else 1)
        if not grid.matches(first):
            raise VptError(
                f"{_name(scan)}: not on the grid of {name}: {grid.difference(first)}; "
                "resample the channels of a case onto one grid"
            )
    return Voxels(tuple(found), first, name)


def _read_picture(scan: Any, channels: int) -> tuple[np.ndarray, Grid]:
    """An image file or array as float32 (C, columns, rows, 1); grey is repeated where colour is expected."""
    picture = as_picture(scan, _name(scan)) if isinstance(scan, np.ndarray) else read_picture(scan)
    if len(picture) > channels:
        raise VptError(
            f"{_name(scan)}: a colour image, expected grey; convert it to grey, "
            "or train on images of which at least one has colour"
        )
    volume = np.ascontiguousarray(picture.transpose(0, 2, 1)[..., None], np.float32)
    return np.repeat(volume, channels // len(volume), axis=0), picture_grid(*picture.shape[1:])


def read_label(path: Path, labels: Collection[int], grid: Grid | None, image: str) -> tuple[np.ndarray, Grid]:
    """`load_label` without torch; `image` is the name of the file that `grid` (None: not compared) belongs to."""
    array, ids, own = _read_map(path, str(path))
    if grid is not None and is_image(path) and own.shape != grid.shape:
        raise VptError(
            f"{path}: {_pixels(own)} pixels, but {image} has {_pixels(grid)} (columns x rows); "
            "export the mask at the image's own size, or resize it with nearest neighbour"
        )
    if grid is not None and not own.matches(grid):
        raise VptError(
            f"{path}: not on the grid of {image}: {own.difference(grid)}; export the mask on the scan's own grid, "
            "or resample it with nearest neighbour"
        )
    if unknown := [id for id in ids if id not in labels]:
        raise VptError(
            f"{path}: label {some(unknown)} not in {some(sorted(labels))}; "
            "add it to `labels` in dataset.json, or correct the mask"
        )
    largest = max(labels)
    dtype = np.uint8 if largest < 2**8 else np.int16 if largest < 2**15 else np.int32
    return array[None].astype(dtype), own


def read_ids(scan: Path | Nifti1Image, name: str = "") -> tuple[np.ndarray, tuple[int, ...]]:
    """A label map of ids that are not known before: integers (X, Y, Z), and the ids that occur in it, sorted.

    name: what to call an image that has no file. Raises VptError for what `read_label` refuses, but for grid and
    unknown ids.
    """
    array, ids, _ = _read_map(scan, name or _name(scan))
    return array, ids


def label_grid(scan: Path | Nifti1Image, name: str = "") -> Grid:
    """The grid of a label map, of which only the header is read; raises VptError when it is 4-D."""
    if is_picture(scan):
        return grid_of(scan)
    image, found = _open(scan)
    grid = header_grid(image, name or found)
    _require_3d(image.shape, name or found)
    return grid


def _read_map(scan: Path | Nifti1Image, name: str) -> tuple[np.ndarray, tuple[int, ...], Grid]:
    """Integers (X, Y, Z), the ids that occur, and the grid."""
    if isinstance(scan, Path) and is_image(scan):
        mask = read_mask(scan)
        return mask.T[..., None], tuple(np.unique(mask).tolist()), picture_grid(*mask.shape)
    read, grid = _read(scan, name)
    array = read.scaled()
    _require_3d(array.shape, name)
    ids = _ids(array, name)
    return array if array.dtype.kind in "iu" else np.rint(array).astype(np.int64), ids, grid


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


def _sources(
    scan: Case | str | Path | Nifti1Image | np.ndarray | Sequence[str | Path],
) -> list[Path | Nifti1Image | np.ndarray]:
    if isinstance(scan, Case):
        return list(scan.images)
    if isinstance(scan, str | Path):
        return [Path(scan)]
    if isinstance(scan, Sequence) and scan and all(isinstance(item, str | Path) for item in scan):
        return [Path(item) for item in scan]
    if isinstance(scan, np.ndarray) or (not isinstance(scan, Sequence) and hasattr(scan, "get_sform")):
        return [scan]
    raise VptError(
        f"a {type(scan).__name__} is no scan; give a path, a list of channel files, a nibabel NIfTI image or an array"
    )


def _name(scan: str | Path | Nifti1Image | np.ndarray) -> str:
    if isinstance(scan, np.ndarray):
        return "the array given"
    return str(scan) if isinstance(scan, str | Path) else str(scan.get_filename() or "the image given")


def _pixels(grid: Grid) -> str:
    return by(grid.shape[:2])


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


def _read(scan: Path | Nifti1Image | np.ndarray, name: str = "") -> tuple[Channel, Grid]:
    """Voxels (X, Y, Z) or (X, Y, Z, C) as they are stored, with their scale, and the grid."""
    image, found = _open(scan)
    name = name or found
    grid = header_grid(image, name)
    if image.get_data_dtype().fields or np.issubdtype(image.get_data_dtype(), np.complexfloating):
        raise VptError(f"{name}: colour or complex voxels, expected plain numbers; save one number per voxel")
    try:
        read = _stored(image, Path(found) if image is not scan and found.lower().endswith(".gz") else None)
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


def _open(scan: str | Path | Nifti1Image | np.ndarray) -> tuple[Any, str]:
    """The nibabel image of a NIfTI file, header read and voxels not, and the name to call it by."""
    import nibabel

    if not isinstance(scan, str | Path):
        return scan, _name(scan)
    path = Path(scan)
    if not path.is_file():
        raise VptError(f"{path}: {'a folder' if path.is_dir() else 'no such file'}, expected a .nii or .nii.gz file")
    if not is_nifti(path):
        raise VptError(f"{path}: not a supported ending, {SUPPORTED}; convert it")
    if path.stat().st_size == 0:
        raise VptError(f"{path}: an empty file, expected a NIfTI; copy or export it again")
    try:
        image = nibabel.load(path)
    except (nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError, *DAMAGED) as error:
        raise VptError(
            f"{path}: not a NIfTI file, or cut off in its header ({error}); convert or export it again"
        ) from error
    if not isinstance(image, nibabel.Nifti1Image):
        raise VptError(f"{path}: a {type(image).__name__}, expected a NIfTI; convert it")
    if not image.header["sform_code"]:
        _check_voxel_size(image, path)
    return image, str(path)


def _check_voxel_size(image: Nifti1Image, path: Path) -> None:
    """Refuse a size of 0 in the file itself: nibabel's own header has it silently mended to 1 mm."""
    from nibabel.openers import ImageOpener

    with ImageOpener(str(path)) as stream:
        raw = type(image.header).from_fileobj(stream, check=False)
    sizes = raw["pixdim"][1 : 1 + min(image.ndim, 3)]
    if not (np.isfinite(sizes) & (sizes != 0)).all():
        raise VptError(f"{path}: voxel size {by(sizes.tolist())} mm in its header; write the true size into pixdim")


# --- geometry ---------------------------------------------------------------------------------------------------------


def doubts(path: Path) -> list[str]:
    """What other programs may see differently in a usable header, as sentences without the file's name."""
    image, name = _open(path)
    grid = header_grid(image, name)
    found = []
    sform, qform = image.get_sform(coded=True)[0], image.get_qform(coded=True)[0]
    if sform is None and qform is None:
        found.append(f"neither sform nor qform, so its orientation is a guess ({grid.axcodes}); save it with an affine")
    apart = 0.0 if sform is None or qform is None else grid.apart(Grid(grid.shape, qform))
    if apart > min(grid.spacing) / 10:
        found.append(f"sform and qform are {apart:.3g} mm apart; the sform is used, other programs may use the qform")
    axes = grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0)
    if (lean := float(np.abs(axes.T @ axes - np.eye(3)).max())) > 1e-2:
        degrees = np.degrees(np.arcsin(min(lean, 1.0)))
        found.append(f"sheared by {degrees:.1f} degrees, which ITK-based programs refuse; resample it to straight axes")
    return found


def orient(volume: MetaTensor, axcodes: str = "RAS") -> MetaTensor:
    """(C, X, Y, Z) -> (C, X', Y', Z') with axes nearest to `axcodes`: permuted and flipped, the affine with them."""
    from monai.data import MetaTensor
    from monai.transforms import Orientation

    oriented = Orientation(axcodes, labels=(("L", "R"), ("P", "A"), ("I", "S")))(volume)
    assert isinstance(oriented, MetaTensor)
    return oriented


def restore(volume: np.ndarray, axcodes: str, like: Grid | MetaTensor) -> np.ndarray:
    """(X', Y', Z') as `orient` laid it out -> (X, Y, Z) on the scan's own grid, exactly: the inverse of `orient`.

    Raises ValueError when the shapes do not fit, for instance because the volume is still resampled.
    """
    from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

    grid = like if isinstance(like, Grid) else grid_of(like)
    back = ornt_transform(axcodes2ornt(axcodes), io_orientation(grid.affine))
    restored = np.ascontiguousarray(apply_orientation(np.asarray(volume), back))
    if restored.shape != grid.shape:
        raise ValueError(f"a volume {volume.shape} in {axcodes} is {restored.shape} on a grid of {grid.shape}")
    return restored
