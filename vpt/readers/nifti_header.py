"""Headers of NIfTI files: opened, doubted, their units converted; and what of them is refused."""

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
from vpt.readers.content import other_content
from vpt.readers.doubts import converted, odd_spacing, shear
from vpt.readers.grid import Grid, by
from vpt.readers.volumes import placed

DAMAGED = (OSError, EOFError, ValueError, OverflowError, zlib.error)
FARTHEST = 2**26  # bytes before the voxels
HEAD = 2**16  # packed bytes, in which the header is
SINGLE, SINGLE_2 = b"n+1\0", b"n+2\0"  # NIfTI-1 and 2 in one file: the voxels follow the header
UNREADABLE = np.full((4, 4), np.nan)
IN_MM = {1: ("metres", 1000.0), 3: ("microns", 1e-3)}  # xyzt_units; 0 is unknown and counts as mm, as 2 is
STEPS = {8: "s", 16: "ms", 24: "microseconds", 32: "Hz", 40: "ppm", 48: "rad/s"}  # xyzt_units of a fourth axis
TIME_SERIES = 2001
SAME_SIZE = 0.01  # of a voxel: what rounding leaves
NO_SCAN = {  # intent codes -> what the voxels then are
    **dict.fromkeys(range(2, 25), "a statistical map"),
    1001: "an estimate",
    1002: "a label map",
    1003: "a label map",
    1004: "matrices",
    1005: "symmetric matrices",
    1006: "displacements",
    1007: "vectors",
    1008: "a set of points",
    1009: "triangles",
    1010: "quaternions",
    **dict.fromkeys(range(2006, 2019), "a field of deformations or coefficients"),
}


_OURS: ContextVar[bool] = ContextVar("a header that is opened here", default=False)


def opened(path: Path) -> Any:
    """The nibabel image of a NIfTI file, header read and voxels not."""
    import nibabel

    if not path.is_file():
        raise VptError(f"{path}: {'a folder' if path.is_dir() else 'no such file'}, expected a .nii or .nii.gz file")
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        raise VptError(f"{path}: not a supported ending, {SUPPORTED}; convert it")
    image = loaded(path)
    if not isinstance(image, nibabel.Nifti1Image):
        raise VptError(f"{path}: a {type(image).__name__}, expected a NIfTI; convert it")
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
    if not _field(image, "sform_code"):
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


def _raw_header(image: Any, path: Path) -> Any:
    """The header as the file has it: nibabel takes scales out of its own, and mends sizes in silence."""
    from nibabel.openers import ImageOpener

    file = image.file_map.get("header")
    with ImageOpener(str(file.filename if file and file.filename else path)) as stream:
        return type(image.header).from_fileobj(stream, check=False)


def _check_voxel_size(image: Any, path: Path) -> None:
    """Refuse a size of 0 in the file itself: nibabel's own header has it silently mended to 1 mm."""
    sizes = _raw_header(image, path)["pixdim"][1 : 1 + min(image.ndim, 3)]
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
    scale = np.diag([factor, factor, factor, 1.0])
    return placed(image.shape, scale @ np.asarray(image.affine, np.float64), name)


def space_unit(image: Any) -> int:
    """The code of `xyzt_units` for distances; 0 where the format has none."""
    return int(_field(image, "xyzt_units")) & 0b111


def _field(image: Any, name: str) -> Any:
    header = image.header
    return header[name] if hasattr(header, "keys") and name in header else 0  # Analyze and MGH have fewer


def require_channels(image: Any, name: str) -> None:
    """Refuse a fourth axis that is time by the header: its steps are no channels."""
    if steps := _steps(image):
        raise VptError(
            f"{name}: 4-D with {image.shape[3]} volumes in {steps} by its header, so a series and no channels; give "
            "one volume or their mean, or, if they are channels, take the unit of time (xyzt_units) off the header"
        )


def _steps(image: Any) -> str:
    """What makes a series of the fourth axis, in words; "" where nothing does, as a step of 0 or 1, which is unset."""
    if not _has_channels(image):
        return ""
    unit, step = _time_unit(image), float(_field(image, "pixdim")[4]) if _field(image, "xyzt_units") else 0.0
    if unit and step not in (0.0, 1.0):
        return f"steps of {step:.4g} {unit}"
    return "the intent `time series`" if int(_field(image, "intent_code")) == TIME_SERIES else ""


def _has_channels(image: Any) -> bool:
    return bool(image.ndim == 4 and image.shape[3] > 1)


def _time_unit(image: Any) -> str:
    return STEPS.get(int(_field(image, "xyzt_units")) & 0b111000, "")


# --- doubts -----------------------------------------------------------------------------------------------------------


def doubts_of(image: Any, grid: Grid) -> list[str]:
    """What other programs may see differently in a usable header."""
    unit = IN_MM.get(space_unit(image))
    return [
        *transforms_in_doubt(image, grid),
        *_sizes(image, grid),
        *([converted(*unit)] if unit else []),
        *odd_spacing(grid),
        *shear(grid),
        *_scale(image),
        *_meaning(image),
    ]


def transforms_in_doubt(image: Any, grid: Grid) -> list[str]:
    """A qform that cannot be read, none of both, or two that disagree."""
    if not hasattr(image, "get_sform"):
        return [f"the format stores no orientation, so it is a guess ({grid.axcodes}); save it as NIfTI with an affine"]
    sform, qform = image.get_sform(coded=True)[0], qform_of(image)
    found = []
    if unreadable := qform is UNREADABLE:
        found.append("its qform is unreadable (its quaternion is no rotation), the sform is used; write it again")
        qform = None
    if sform is None and qform is None and not unreadable:
        guess = f"neither sform nor qform, so its orientation is a guess ({grid.axcodes})"
        found.append(f"{guess}; save it with an affine")
    if sform is not None and qform is not None:
        shape, (_, factor) = grid.shape, IN_MM.get(space_unit(image), ("mm", 1.0))
        apart = Grid(shape, sform).apart(Grid(shape, qform)) * factor
        if apart > min(grid.spacing) / 10:
            used = "the sform is used, other programs may use the qform"
            found.append(f"sform and qform are {apart:.3g} mm apart; {used}")
    return found


def _sizes(image: Any, grid: Grid) -> list[str]:
    """Voxel sizes in `pixdim` that are none, or others than those of the sform, where that is used; an unknown unit."""
    unknown = space_unit(image)
    found = [f"its unit of distances is {unknown}, which is none, and counts as mm; correct xyzt_units"] * (unknown > 3)
    if not hasattr(image, "get_sform") or (raw := _raw(image)) is None:
        return found
    sizes = np.abs(raw["pixdim"][1 : 1 + min(image.ndim, 3)]).astype(float)
    if int(raw["sform_code"]) <= 0:
        if (raw["pixdim"][1 : 1 + len(sizes)] < 0).any():
            found.append(
                f"voxels of {by(raw['pixdim'][1 : 1 + len(sizes)].tolist())} mm, and no size is below 0, so the signs "
                "are left out; write the true sizes into pixdim"
            )
    elif qform_of(image) is None or qform_of(image) is UNREADABLE:
        own = np.linalg.norm(image.affine[:3, :3], axis=0)[: len(sizes)]
        if not np.allclose(sizes, own, rtol=SAME_SIZE):
            found.append(
                f"voxels of {by(sizes.tolist())} mm in pixdim and of {by(own.tolist())} mm in the sform, which is "
                "used; ITK-based programs use pixdim: write both alike"
            )
    return found


def _scale(image: Any) -> list[str]:
    """An intercept that counts for nothing, since by the standard a slope of 0 (or none) is no scaling at all."""
    slope, inter = (float(value) for value in raw_scale(image))
    if np.isfinite(slope) and slope != 0:
        return []
    if not np.isfinite(inter) or (inter == 0 and slope != 0):
        told = f"its slope is {slope:g} and its intercept {inter:g}, so values are taken as they are stored"
        return [f"{told}; write a slope of 1 and an intercept of 0 if it is meant so"]
    if inter == 0:
        return []
    return [
        f"its slope is {slope:g}, which is no scaling by the standard, so its intercept of {inter:g} is not added; "
        "other programs may add it: write a slope of 1 if it is meant"
    ]


def raw_scale(image: Any) -> tuple[float, float]:
    """Slope and intercept as the file has them; (1, 0) of an image in memory."""
    if (raw := _raw(image)) is None or "scl_slope" not in raw:
        return 1.0, 0.0
    return float(raw["scl_slope"]), float(raw["scl_inter"])


def _raw(image: Any) -> Any:
    """The header as its file has it; None of an image in memory, or of a format with other fields."""
    file = image.get_filename() if hasattr(image, "get_filename") else None
    if not file or not Path(file).is_file() or not hasattr(image.header, "keys"):
        return None
    return _raw_header(image, Path(file))


def _meaning(image: Any) -> list[str]:
    """An intent that is no scan's, and a fourth axis that may be time."""
    found = []
    if what := NO_SCAN.get(int(_field(image, "intent_code"))):
        code = int(_field(image, "intent_code"))
        found.append(f"{what} by its header (intent {code}), expected a scan; is it the right file?")
    if _has_channels(image) and (unit := _time_unit(image)) and not _steps(image):
        found.append(f"4-D with a unit of time ({unit}) in its header; its {image.shape[3]} volumes count as channels")
    return found
