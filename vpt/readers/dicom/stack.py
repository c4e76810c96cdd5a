"""Slices to a volume: where each lies by its header, in which order, and what keeps them from being one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vpt.errors import VptError
from vpt.readers.dicom.files import Header
from vpt.readers.dicom.kinds import refuse_mosaic
from vpt.readers.grid import Grid, by

if TYPE_CHECKING:
    from pydicom import Dataset

TO_RAS = np.diag([-1.0, -1.0, 1.0])  # DICOM's world has left and back positive
ROUNDED = 1e-3  # of direction cosines, as headers round them
UNEVEN = 0.05  # of the distance between slices: what rounded positions may differ by
SCALE, SCALES = "PixelValueTransformationSequence", ("RescaleSlope", "RescaleIntercept")
DRIFT = 0.1  # pixels that a stack may lean and still be called straight


@dataclass(frozen=True, eq=False)
class Frame:
    """One slice as its header places it, in LPS mm.

    index: its number in a file of several, from 0; origin (3,): the centre of its first pixel; axes (3, 2): the
    directions in which columns and rows count up; pixel: mm between columns, and between rows; between, thick: mm,
    SpacingBetweenSlices and SliceThickness; slope, inter, unit: what make values of stored numbers, and in what (HU);
    segment: the one it shows in a binary segmentation. None where the file says nothing.
    """

    header: Header
    index: int
    shape: tuple[int, int]
    origin: np.ndarray
    axes: np.ndarray
    pixel: tuple[float, float]
    between: float | None
    thick: float | None
    slope: float | None
    inter: float | None
    unit: str
    segment: int | None = None

    @property
    def name(self) -> str:
        several = int(self.header.get("NumberOfFrames") or 1) > 1
        return f"{self.header.file.name} frame {self.index + 1}" if several else self.header.file.name

    @property
    def thickness(self) -> float | None:
        return self.between or self.thick

    @property
    def normal(self) -> np.ndarray:
        return np.cross(self.axes[:, 0], self.axes[:, 1])


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices in order, and the straight grid that they become.

    shifts (slices, 2): how many pixels each lies along columns and rows from where the grid expects it; None of a
    stack that is straight itself; lean: of one that is not, in degrees.
    """

    frames: tuple[Frame, ...]
    grid: Grid
    shifts: np.ndarray | None
    lean: float


def frames_of(header: Header) -> list[Frame]:
    """The slices in one file, by its own attributes or its functional groups; VptError for one without a place."""
    per_frame = header.data.get("PerFrameFunctionalGroupsSequence")
    if not per_frame:
        count = int(header.get("NumberOfFrames") or 1)
        if count > 1:
            raise VptError(
                f"{header.file}: {count} frames without places (no functional groups); export it as an enhanced "
                "multi-frame object or as a series"
            )
        refuse_mosaic(header)
        return [_frame(header, 0, [header.data], [header.data])]
    shared = header.data.get("SharedFunctionalGroupsSequence") or []
    if (count := int(header.get("NumberOfFrames") or 1)) != len(per_frame):
        raise VptError(
            f"{header.file}: {count} frames, but places of {len(per_frame)} (its functional groups), so which lies "
            "where is not known; copy or export it again"
        )
    each = [[group, *shared] for group in per_frame]
    # Secondary capture has slope and intercept beside its groups (DICOM PS3.3 C.8.6.3), others here and there: as ITK.
    scaled = any(_value(groups, SCALE, keyword) is not None for groups in each for keyword in SCALES)
    return [_frame(header, k, groups, groups if scaled else [header.data]) for k, groups in enumerate(each)]


def _frame(header: Header, index: int, groups: Sequence[Dataset], scaling: Sequence[Dataset]) -> Frame:
    """scaling: what holds slope, intercept and unit."""
    place = _value(groups, "PlanePositionSequence", "ImagePositionPatient")
    turn = _value(groups, "PlaneOrientationSequence", "ImageOrientationPatient")
    pixel = _value(groups, "PixelMeasuresSequence", "PixelSpacing")
    for keyword, value, length in (
        ("ImagePositionPatient", place, 3),
        ("ImageOrientationPatient", turn, 6),
        ("PixelSpacing", pixel, 2),
    ):
        if value is None or len(value) != length:
            raise VptError(f"{header.file}: no {keyword}, so it has no place in space; export the original series")
    for keyword, value, least in (("ImagePositionPatient", place, -np.inf), ("PixelSpacing", pixel, 0.0)):
        if not all(np.isfinite(float(part)) and float(part) > least for part in value):
            raise VptError(
                f"{header.file}: its {keyword} is {by([float(part) for part in value])}, which is none; export the "
                "original series"
            )
    between, thick = (
        _value(groups, "PixelMeasuresSequence", keyword) for keyword in ("SpacingBetweenSlices", "SliceThickness")
    )
    slope, inter, unit = (_value(scaling, SCALE, keyword) for keyword in (*SCALES, "RescaleType"))
    for keyword, value, other in zip(SCALES, (slope, inter), (inter, slope), strict=True):
        if value is None and other is not None and header.get(keyword) is not None:
            raise VptError(
                f"{header.file}: its {keyword} is beside its functional groups, which have the other of slope and "
                "intercept, expected both in one place, so its values are not known; export the original series"
            )
    times = 1.0 if slope is None else float(slope)
    if not (np.isfinite(times) and times and np.isfinite(float(inter or 0))):
        raise VptError(
            f"{header.file}: its RescaleSlope is 0, or it or the intercept is no number, so its values are not known; "
            "export the original series"
        )
    segment = _value(groups, "SegmentIdentificationSequence", "ReferencedSegmentNumber")
    down, across = (float(size) for size in pixel)
    return Frame(
        header,
        index,
        (int(header.get("Rows") or 0), int(header.get("Columns") or 0)),
        np.array([float(part) for part in place]),
        _axes([float(part) for part in turn], header),
        (across, down),
        None if between is None else abs(float(between)),
        None if thick is None else abs(float(thick)),
        None if slope is None else float(slope),
        None if inter is None else float(inter),
        str(unit or "").strip().upper(),
        None if segment is None else int(segment),
    )


def _value(groups: Sequence[Dataset], sequence: str, keyword: str) -> Any:
    """An attribute of the file itself, or of the functional group that holds it."""
    for group in groups:
        for item in (group, *(group.get(sequence) or [])):
            if (value := item.get(keyword)) not in (None, ""):
                return value
    return None


def _axes(cosines: Sequence[float], header: Header) -> np.ndarray:
    axes = np.array(cosines).reshape(2, 3).T
    lengths = np.linalg.norm(axes, axis=0)
    if not np.isfinite(axes).all() or (abs(lengths - 1) > ROUNDED).any() or abs(axes[:, 0] @ axes[:, 1]) > ROUNDED:
        raise VptError(
            f"{header.file}: its ImageOrientationPatient is no pair of perpendicular directions; export it again"
        )
    row = axes[:, 0] / lengths[0]
    column = axes[:, 1] - row * (axes[:, 1] @ row)
    return np.stack([row, column / np.linalg.norm(column)], axis=1)


def stack_of(frames: Sequence[Frame], name: str) -> Stack:
    """Frames in any order -> the volume that they are.

    Raises VptError for slices of several sizes or directions, missing, doubled, shifted and unevenly spaced ones, by
    name.
    """
    first = frames[0]
    for frame in frames:
        _require_alike(frame, first, name)
    normal = first.normal
    ordered = sorted(frames, key=lambda frame: float(frame.origin @ normal))
    depths = np.array([frame.origin @ normal for frame in ordered])
    step = _step(ordered, depths, name)
    places = np.array([frame.origin for frame in ordered]) @ first.axes / first.pixel  # in pixels, along X and Y
    lean = _lean(places, name, ordered)
    drift = np.abs(lean).max() * (len(ordered) - 1)
    straight = drift <= DRIFT
    low = places[0] if straight else np.floor(places.min(0) - places[0] + 1e-6) + places[0]
    more = [0, 0] if straight else np.ceil(places.max(0) - low - 1e-6).astype(int)
    origin = first.axes @ (low * first.pixel) + normal * depths[0]
    affine = np.eye(4)
    affine[:3] = TO_RAS @ np.column_stack([first.axes * first.pixel, normal * step, origin])
    rows, columns = first.shape
    shape = (columns + int(more[0]), rows + int(more[1]), len(ordered))
    degrees = float(np.degrees(np.arctan2(np.linalg.norm(lean * first.pixel), step)))
    grid = Grid(shape, affine, str(first.header.get("FrameOfReferenceUID") or ""))
    return Stack(tuple(ordered), grid, None if straight else places - low, 0.0 if straight else degrees)


def _require_alike(frame: Frame, first: Frame, name: str) -> None:
    for what, mine, theirs, most in (
        ("rows x columns", frame.shape, first.shape, 0.0),
        ("pixels in mm", frame.pixel, first.pixel, ROUNDED * min(first.pixel)),
    ):
        if np.abs(np.subtract(mine, theirs)).max() > most:
            raise VptError(
                f"{name}: {frame.name} has {what} {by(mine)}, {first.name} {by(theirs)}; a volume has slices of one "
                "size, so take the others out, or give one series"
            )
    if np.abs(frame.axes - first.axes).max() > 10 * ROUNDED:
        raise VptError(
            f"{name}: {frame.name} lies in another direction than {first.name}; a volume has parallel slices, so take "
            "the others out (a localizer?)"
        )


def _step(frames: Sequence[Frame], depths: np.ndarray, name: str) -> float:
    """The distance between neighbours in mm, of slices that lie evenly."""
    if len(frames) == 1:
        if not frames[0].thickness:
            raise VptError(f"{name}: one slice that does not say how thick it is; add SliceThickness to its header")
        return frames[0].thickness
    gaps = np.diff(depths)
    usual = float(np.median(gaps[gaps > 1e-4])) if (gaps > 1e-4).any() else 0.0
    doubled = np.flatnonzero(gaps <= max(1e-4, UNEVEN * usual))
    if len(doubled):
        k = int(doubled[0])
        raise VptError(
            f"{name}: {frames[k].name} and {frames[k + 1].name} lie at the same place ({_many(len(doubled))}); a "
            "volume has one slice at each, so take copies out, and give one time, echo or phase"
        )
    wide = np.flatnonzero(gaps > (1 + UNEVEN) * usual + 1e-3)
    if len(wide):
        k = int(wide[0])
        missing = gaps[k] / usual - 1
        between = f"between {frames[k].name} and {frames[k + 1].name}"
        found = f"{gaps[k]:.4g} mm apart, the others {usual:.4g} mm"
        if abs(missing - round(missing)) <= UNEVEN * max(1, missing):
            raise VptError(
                f"{name}: {_slices(round(missing))} missing {between} ({found}; {_many(len(wide))}); "
                "copy the series again"
            )
        raise VptError(
            f"{name}: slices lie unevenly, {between} {found} ({_many(len(wide))}); give a series with even slices, "
            "or resample it"
        )
    step = float(depths[-1] - depths[0]) / (len(depths) - 1)
    off = np.abs(depths - depths[0] - step * np.arange(len(depths)))
    if (gaps < (1 - UNEVEN) * usual - 1e-3).any() or off.max() > 2 * UNEVEN * step + 1e-3:
        k = int(np.argmin(gaps))
        raise VptError(
            f"{name}: slices lie unevenly, {frames[k].name} and {frames[k + 1].name} {gaps[k]:.4g} mm apart, the "
            f"others {usual:.4g} mm; give a series with even slices, or resample it"
        )
    return step


def _slices(count: int) -> str:
    return "1 slice is" if count == 1 else f"{count} slices are"


def _many(places: int) -> str:
    return "1 place" if places == 1 else f"{places} places"


def _lean(places: np.ndarray, name: str, frames: Sequence[Frame]) -> np.ndarray:
    """(slices, 2) in pixels -> how many pixels each slice lies beside the one before, along X and Y."""
    count = len(places)
    lean = (places[-1] - places[0]) / max(count - 1, 1)
    off = np.abs(places - places[0] - np.arange(count)[:, None] * lean).max(axis=1)
    if off.max() > 2 * DRIFT:
        raise VptError(
            f"{name}: {frames[int(off.argmax())].name} is shifted by {off.max():.3g} pixels against its neighbours; "
            "give a series whose slices lie on one line"
        )
    return np.asarray(lean)
