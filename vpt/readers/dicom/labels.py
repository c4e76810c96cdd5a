"""DICOM SEG as label maps: segment numbers are label ids, and every frame is put where its position says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vpt.errors import VptError
from vpt.readers.dicom.files import Header
from vpt.readers.dicom.pixels import decoded
from vpt.readers.dicom.stack import DRIFT, TO_RAS, Frame, frames_of
from vpt.readers.grid import Grid
from vpt.readers.labels import LabelMap
from vpt.words import listed

FRACTIONAL = "FRACTIONAL"
HALF = 0.5  # of the largest value that a probability is stored as
APART = 0.1  # voxels that a frame may lie beside a slice of the scan
MOST_OVERLAP = 10  # slices at one place; frames that are closer are one slice's, whose places differ by rounding


def own_grid(header: Header) -> Grid:
    """The smallest grid of even slices that holds all frames of a segmentation.

    Raises VptError where nobody knows how far apart its slices lie, or frames do not lie on such slices.
    """
    frames = frames_of(header)
    first = frames[0]
    depths = np.array(sorted({round(float(frame.origin @ first.normal), 4) for frame in frames}))
    fitting = [grid for step in _steps(depths, first) if (grid := _slices_of(depths, step))]
    if not fitting:
        raise VptError(f"{header.file}: {_no_slices(depths, first)}")
    step, slices = fitting[0]
    origin = first.origin + first.normal * (depths[0] - first.origin @ first.normal)
    affine = np.eye(4)
    affine[:3] = TO_RAS @ np.column_stack([first.axes * first.pixel, first.normal * step, origin])
    rows, columns = first.shape
    return Grid((columns, rows, slices), affine, _world(header))


def _steps(depths: np.ndarray, frame: Frame) -> list[float]:
    """How far apart slices may lie, in mm, the likelier first: as SpacingBetweenSlices has it, else as the closest
    frames do, if that is not further than a slice is thick. If it is, slices with gaps between them look as those of
    which empty ones were left out.
    """
    thick = frame.thick or 0.0
    closest = _closest(depths) or thick
    is_next = 0 < thick / MOST_OVERLAP <= closest <= thick * (1 + APART)
    return [*([frame.between] if frame.between else []), *([closest] if is_next else [])]


def _closest(depths: np.ndarray) -> float:
    """The smallest distance between frames, 0 of a single one."""
    return float(np.diff(depths).min()) if len(depths) > 1 else 0.0


def _slices_of(depths: np.ndarray, step: float) -> tuple[float, int] | None:
    """The distance between slices and their number, where the frames lie on slices of about that distance."""
    if not np.isfinite(step) or step <= 0:
        return None
    if len(depths) == 1:
        return step, 1
    counts = np.rint(np.diff(depths) / step)
    if (counts < 1).any() or (np.abs(np.diff(depths) / step - counts) > APART * np.sqrt(counts)).any():
        return None
    step = float((depths[-1] - depths[0]) / counts.sum())
    places = np.concatenate([[0], counts.cumsum()])
    even = np.abs((depths - depths[0]) / step - places).max() <= APART
    return (step, int(counts.sum()) + 1) if even else None


def _no_slices(depths: np.ndarray, frame: Frame) -> str:
    """Why frames make no grid of their own, and what to do."""
    closest, mend = _closest(depths), "add SpacingBetweenSlices to its header, or give it as NIfTI"
    if not frame.between and not frame.thick:
        return f"does not say how far apart its slices lie, and empty ones may be left out; {mend}"
    if not frame.between and closest > (frame.thick or 0.0) * (1 + APART):
        return (
            f"its frames lie {closest:.4g} mm apart or more and its slices are {frame.thick:.4g} mm thick, so empty "
            f"slices may be left out between them, or there are none; {mend}"
        )
    gaps = listed((f"{gap:.4g}" for gap in sorted({round(float(gap), 3) for gap in np.diff(depths)})), 3)
    told = " that its header says (SpacingBetweenSlices)" if frame.between else ""
    return (
        f"its frames do not lie evenly: {gaps} mm apart, which are no multiples of the {frame.between or closest:.4g} "
        f"mm{told}; export the segmentation of the whole series"
    )


def joined(own: Grid, other: Grid) -> Grid:
    """The grid that holds both, where the slices of one go on as those of the other; else the other."""
    if not own.frame or own.frame != other.frame or own.shape[:2] != other.shape[:2]:
        return other
    inverse = np.linalg.inv(other.affine)
    turn, shift = (inverse @ own.affine)[:3, :3], inverse[:3] @ own.affine[:, 3]
    size = max(*own.shape, *other.shape)
    low = round(float(shift[2]))
    if np.abs(turn - np.eye(3)).max() * size > APART or np.abs(shift - (0, 0, low)).max() > APART:
        return other
    box = (slice(0, own.shape[0]), slice(0, own.shape[1]), slice(min(0, low), max(other.shape[2], low + own.shape[2])))
    return other.cropped(box)


def labels_on(header: Header, grid: Grid, name: str) -> LabelMap:
    """The segments on a scan's grid, background where no frame lies.

    Raises VptError for another frame of reference, frames between the scan's pixels or slices, voxels outside of it,
    and segments that share voxels. Of probabilities (FRACTIONAL) what is half or more is the segment's.
    """
    if grid.frame and _world(header) and grid.frame != _world(header):
        raise VptError(
            f"{name}: a segmentation in another frame of reference than the scan, so its places mean nothing there; "
            "give the one that was drawn on this series"
        )
    kind = header.get("SegmentationType")
    if kind not in ("BINARY", "LABELMAP", FRACTIONAL):
        raise VptError(
            f"{name}: a segmentation of type {kind or 'unknown'}, expected BINARY, FRACTIONAL or LABELMAP; export it "
            "again"
        )
    frames, pixels = frames_of(header), decoded(header.file, name)
    pixels = pixels.reshape(-1, *pixels.shape[-2:])
    if kind == FRACTIONAL:
        pixels = pixels >= HALF * int(header.get("MaximumFractionalValue") or 255)
    if len(pixels) != len(frames):
        raise VptError(f"{name}: {len(pixels)} frames, but its header places {len(frames)}; copy or export it again")
    highest = max([*_numbers(header), *(frame.segment or 0 for frame in frames), int(pixels.max(initial=0))])
    out = np.zeros(grid.shape, np.uint8 if highest < 2**8 else np.uint16)
    leaning = _lean(frames)
    for frame, part in zip(frames, pixels, strict=True):
        if kind != "LABELMAP" and frame.segment is None:
            raise VptError(f"{name}: {frame.name} names no segment; export it again")
        _put(out, grid, frame, part * out.dtype.type(1 if kind == "LABELMAP" else frame.segment), name, leaning)
    return LabelMap(out, tuple(np.unique(out).tolist()), grid, name, names=_names(header))


def _world(header: Header) -> str:
    return str(header.get("FrameOfReferenceUID") or "")


def _names(header: Header) -> tuple[tuple[int, str], ...]:
    """What the file calls its segments, by their numbers."""
    items = header.data.get("SegmentSequence") or []
    return tuple((int(item.SegmentNumber), str(item.get("SegmentLabel") or "").strip()) for item in items)


def _numbers(header: Header) -> list[int]:
    return [int(item.SegmentNumber) for item in header.data.get("SegmentSequence") or []]


def _lean(frames: Sequence[Frame]) -> bool:
    """Whether frames are shifted against each other, as those of a tilted gantry: they are put to the nearest pixel."""
    places = np.array([frame.origin for frame in frames]) @ frames[0].axes / frames[0].pixel
    return bool(np.abs(places - places[0]).max() > DRIFT)


def _put(out: np.ndarray, grid: Grid, frame: Frame, ids: np.ndarray, name: str, leaning: bool) -> None:
    """Write the ids (rows, columns) of a frame into `out` (X, Y, Z)."""
    rows, columns = np.nonzero(ids)
    if not len(rows):
        return
    inverse = np.linalg.inv(grid.affine)
    steps = inverse[:3, :3] @ TO_RAS @ (frame.axes * frame.pixel)  # voxels per column, and per row
    origin = inverse[:3, :3] @ (TO_RAS @ frame.origin) + inverse[:3, 3]
    whole, start = np.rint(steps), np.rint(origin)
    turned = np.abs(steps - whole) * (frame.shape[1], frame.shape[0])
    beside = np.abs(origin - start)
    if leaning:
        beside[np.abs(whole).sum(axis=1) > 0] = 0
    if turned.max() > APART or beside.max() > APART or (np.abs(whole).sum(axis=0) != 1).any():
        raise VptError(
            f"{name}: {frame.name} does not lie on a slice of the scan, or on its pixels; give the segmentation "
            "that was drawn on this series, or resample it with nearest neighbour"
        )
    places = (start[:, None] + whole[:, :1] * columns + whole[:, 1:] * rows).astype(int)
    if (places < 0).any() or (places >= np.array(grid.shape)[:, None]).any():
        raise VptError(
            f"{name}: {frame.name} has labels outside of the scan; give the whole series, or cut the segmentation"
        )
    x, y, z = places
    values = ids[rows, columns]
    if shared := int(((out[x, y, z] != 0) & (out[x, y, z] != values)).sum()):
        raise VptError(
            f"{name}: segments share voxels ({shared} of {frame.name} and another), and a label map holds one id each; "
            "export segments that do not overlap"
        )
    out[x, y, z] = values
