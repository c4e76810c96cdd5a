"""What a NIfTI header leaves open, or other programs may see otherwise: in words, none of it refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vpt.readers.doubts import converted, odd_spacing, shear
from vpt.readers.grid import Grid, by
from vpt.readers.nifti_header import (
    IN_MM,
    UNREADABLE,
    field,
    has_channels,
    qform_of,
    raw_header,
    space_unit,
    steps_of,
    time_unit,
)

ITK = 1e-4  # the cosine (0.0057 degrees) up to which it takes a NIfTI's axes as straight
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


def refused_by_itk(grid: Grid) -> list[str]:
    """That its axes are not at right angles, as ITK takes them."""
    return shear(grid, ITK, ", which ITK-based programs refuse")


def doubts_of(image: Any, grid: Grid) -> list[str]:
    """What other programs may see differently in a usable header."""
    unit = IN_MM.get(space_unit(image))
    return [
        *transforms_in_doubt(image, grid),
        *_sizes(image, grid),
        *([converted(*unit)] if unit else []),
        *odd_spacing(grid),
        *refused_by_itk(grid),
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
    return raw_header(image, Path(file))


def _meaning(image: Any) -> list[str]:
    """An intent that is no scan's, and a fourth axis that may be time."""
    found = []
    if what := NO_SCAN.get(int(field(image, "intent_code"))):
        code = int(field(image, "intent_code"))
        found.append(f"{what} by its header (intent {code}), expected a scan; is it the right file?")
    if has_channels(image) and (unit := time_unit(image)) and not steps_of(image):
        found.append(f"4-D with a unit of time ({unit}) in its header; its {image.shape[3]} volumes count as channels")
    return found
