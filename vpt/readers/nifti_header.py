"""Headers of NIfTI files: opened, their units converted; and what of them is refused. Doubts: `nifti_doubts`."""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np

from vpt.errors import VptError
from vpt.readers.base import SUPPORTED
from vpt.readers.content import in_place_of, other_content
from vpt.readers.grid import Grid, by
from vpt.readers.volumes import placed
from vpt.words import with_article

DAMAGED = (OSError, EOFError, ValueError, OverflowError, zlib.error)
FARTHEST = 2**26  # bytes before the voxels
HEAD = 2**16  # packed bytes, in which the header is
SINGLE, SINGLE_2 = b"n+1\0", b"n+2\0"  # NIfTI-1 and 2 in one file: the voxels follow the header
UNREADABLE = np.full((4, 4), np.nan)
IN_MM = {1: ("metres", 1000.0), 3: ("microns", 1e-3)}  # xyzt_units; 0 is unknown and counts as mm, as 2 is
STEPS = {8: "s", 16: "ms", 24: "microseconds", 32: "Hz", 40: "ppm", 48: "rad/s"}  # xyzt_units of a fourth axis
TIME_SERIES = 2001


_OURS: ContextVar[bool] = ContextVar("a header that is opened here", default=False)


def opened(path: Path) -> Any:
    """The nibabel image of a NIfTI file, header read and voxels not."""
    import nibabel

    if not path.is_file():
        raise VptError(f"{path}: {in_place_of(path)}, expected a .nii or .nii.gz file")
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        raise other_content(path) or VptError(f"{path}: not a supported ending, {SUPPORTED}; convert it")
    image = loaded(path)
    if not isinstance(image, nibabel.Nifti1Image):
        raise VptError(f"{path}: {with_article(type(image).__name__)}, expected a NIfTI; convert it")
    return image


def loaded(path: Path) -> Any:
    """What nibabel makes of a file that is there; refused where its header is damaged or leaves sizes open."""
    import nibabel

    if path.stat().st_size == 0:
        raise VptError(f"{path}: an empty file, expected a NIfTI; copy or export it again")
    head = _require_usable(path)
    try:
        known = head[344:348] == SINGLE and path.name.lower().endswith((".nii", ".nii.gz"))
        with nibabel_quiet():
            image: Any = nibabel.Nifti1Image.from_filename(path) if known else nibabel.load(path)  # tries all formats
    except (nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError, *DAMAGED) as error:
        raise other_content(path) or VptError(f"{path}: {_refused(error)}") from error
    if not field(image, "sform_code"):
        _check_voxel_size(image, path)
    return image


@contextmanager
def nibabel_quiet() -> Iterator[None]:
    """What nibabel prints of odd headers is not printed, `doubts_of` says what counts; elsewhere it prints as ever."""
    logger = logging.getLogger("nibabel.global")
    logger.addFilter(_is_not_ours)  # once: it is not added again
    token = _OURS.set(True)
    try:
        yield
    finally:
        _OURS.reset(token)


def _is_not_ours(record: logging.LogRecord) -> bool:
    return not _OURS.get()


def _require_usable(path: Path) -> bytes:
    """A header's bytes; refused is what nibabel takes in its own way: a place or a slope that is none."""
    head = b""
    with suppress(*DAMAGED), path.open("rb") as file:  # opening it says what is wrong
        head = file.read(HEAD)
        if path.name.lower().endswith(".gz"):
            head = zlib.decompressobj(wbits=31).decompress(head, 540)
    for order in "<>":
        for size, place, kind, scale in ((348, 108, "f", "112f"), (540, 168, "q", "176d")):  # NIfTI-1, Analyze; NIfTI-2
            if len(head) >= size and struct.unpack_from(f"{order}i", head)[0] == size:
                start = struct.unpack_from(f"{order}{kind}", head, place)[0]
                _require_near_voxels(path, start, size + 4 if _is_single(head, size) else 0)
                _require_finite_slope(path, struct.unpack_from(f"{order}{scale[3:]}", head, int(scale[:3]))[0])
    return head


def _is_single(head: bytes, size: int) -> bool:
    """Whether the voxels follow in the same file, of which the header has so many bytes."""
    return head[344:348] == SINGLE if size == 348 else head[4:8] == SINGLE_2


def _require_near_voxels(path: Path, start: float, least: int) -> None:
    """Refuse voxels that begin nowhere, inside of the header, or far behind it.

    nibabel would take the header's own bytes for voxels, and all others for their neighbours; or read, or inflate, all
    up to there.
    """
    if not least <= start <= FARTHEST:
        raise VptError(
            f"{path}: its voxels begin at byte {start:g} by its header (vox_offset), expected {least} to "
            f"{FARTHEST}; copy or export it again"
        )


def _require_finite_slope(path: Path, slope: float) -> None:
    """NaN stands for no scale in files of some programs, and is told as a doubt; infinite is no scale of any."""
    if np.isinf(slope):
        raise VptError(f"{path}: its scale is unusable (slope {slope:g}); write numbers into scl_slope and scl_inter")


def _refused(error: Exception) -> str:
    if "w2 should be" in str(error):
        return (
            f"its qform is unreadable (its quaternion is no rotation: {error}) and there is no sform to "
            "use instead; write the affine into the sform, with a code of 1 or more"
        )
    if "invalid intercept" in str(error):
        return f"its scale is unusable ({error}); write numbers into scl_slope and scl_inter"
    return f"not a NIfTI file, or cut off in its header ({error}); convert or export it again"


def raw_header(image: Any, path: Path) -> Any:
    """The header as the file has it: nibabel takes scales out of its own, and mends sizes in silence."""
    from nibabel.openers import ImageOpener

    file = image.file_map.get("header")
    with ImageOpener(str(file.filename if file and file.filename else path)) as stream:
        return type(image.header).from_fileobj(stream, check=False)


def _check_voxel_size(image: Any, path: Path) -> None:
    """Refuse a size of 0 in the file itself: nibabel's own header has it silently mended to 1 mm."""
    sizes = raw_header(image, path)["pixdim"][1 : 1 + min(image.ndim, 3)]
    if not (np.isfinite(sizes) & (sizes != 0)).all():
        raise VptError(f"{path}: voxel size {by(sizes.tolist())} mm in its header; write the true size into pixdim")


def qform_of(image: Any) -> Any:
    """The qform (4, 4), None where its code is 0, `UNREADABLE` where its quaternion is no rotation."""
    try:
        qform = image.get_qform(coded=True)[0]
    except ValueError:
        return UNREADABLE
    return qform if qform is None or np.isfinite(qform).all() else UNREADABLE


def header_grid(image: Any, name: str) -> Grid:
    """The grid of a nibabel image in mm, whatever its unit; refused if voxels have no place in space."""
    if image.affine is None:  # made in memory
        raise VptError(f"{name}: no affine, so voxels have no place in space; give the scan's own")
    _, factor = IN_MM.get(space_unit(image), ("mm", 1.0))
    scale = np.array([[factor], [factor], [factor], [1.0]])  # of each row: an infinite number stays where it is
    return placed(usual_shape(image.shape), scale * np.asarray(image.affine, np.float64), name)


def usual_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(X, Y, Z) or (X, Y, Z, C), of what has axes of length 1 behind these, or its vectors on NIfTI's fifth axis."""
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return (*shape[:3], shape[4]) if len(shape) == 5 and shape[3] == 1 else shape


def space_unit(image: Any) -> int:
    """The code of `xyzt_units` for distances; 0 where the format has none."""
    return int(field(image, "xyzt_units")) & 0b111


def field(image: Any, name: str) -> Any:
    header = image.header
    return header[name] if hasattr(header, "keys") and name in header else 0  # Analyze and MGH have fewer


def require_channels(image: Any, name: str) -> None:
    """Refuse a fourth axis that is time by the header: its steps are no channels."""
    if unit := steps_of(image):
        raise VptError(
            f"{name}: 4-D with {image.shape[3]} volumes in {unit} by its header, so a series and no channels; give "
            "one volume or their mean, or, if they are channels, take the unit of time (xyzt_units) off the header"
        )


def steps_of(image: Any) -> str:
    """What makes a series of the fourth axis, in words; "" where nothing does, as a step of 0 or 1, which is unset."""
    if not has_channels(image):
        return ""
    unit, step = time_unit(image), float(field(image, "pixdim")[4]) if field(image, "xyzt_units") else 0.0
    if unit and step not in (0.0, 1.0):
        return f"steps of {step:.4g} {unit}"
    return "the intent `time series`" if int(field(image, "intent_code")) == TIME_SERIES else ""


def has_channels(image: Any) -> bool:
    return bool(image.ndim == 4 and image.shape[3] > 1)


def time_unit(image: Any) -> str:
    return STEPS.get(int(field(image, "xyzt_units")) & 0b111000, "")
