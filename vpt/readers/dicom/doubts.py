"""What was decided to make a volume of a series, and what its headers let doubt."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from vpt.files import folders_below, is_hidden, may_enter
from vpt.readers.base import Source
from vpt.readers.dicom import files
from vpt.readers.dicom.files import series_of
from vpt.readers.dicom.kinds import not_as_taken
from vpt.readers.dicom.pixels import INVERTED, is_inverted, is_packed_with_losses
from vpt.readers.dicom.stack import UNEVEN, Frame, Stack
from vpt.readers.doubts import odd_spacing
from vpt.words import counted, listed

SAME = {"PatientID": "patients", "StudyInstanceUID": "studies", "FrameOfReferenceUID": "frames of reference"}
MISSING = range(2, 5)  # times the distance that is said
HOUNSFIELD = {"", "HU", "US", "HU_MOD"}  # US: unspecified, as many scanners write it


def alone(source: Source, stack: Stack) -> list[str]:
    """That a slice, or a folder of slices, is likely a part of what lies beside it."""
    if isinstance(source, Path) and source.is_dir():
        return _continued(source, stack)
    if not isinstance(source, Path) or len(stack.frames) > 1:
        return []
    folder = source.parent
    beside = sum(files.is_dicom(each) for each in folder.iterdir() if not is_hidden(each)) - 1
    if beside < 1:
        return []
    text = f"a single slice, and {counted(beside, 'more DICOM file')} {'lies' if beside == 1 else 'lie'} beside it"
    return [f"{text}; for the whole series give the folder, {folder}"]


def decisions(stack: Stack) -> list[str]:
    """What was done to the slices of a series before they became a volume, and what is lost already."""
    first = stack.frames[0].header
    found = []
    found += [*_of_several(stack), *odd_spacing(stack.grid), *_wide(stack), *_units(stack), *not_as_taken(first)]
    if stack.shifts is not None:
        found.append(f"the gantry was tilted by {stack.lean:.3g} degrees: resampled to straight axes, {stack.grid}")
    if is_inverted(first):
        found.append("the least number means white (MONOCHROME1): inverted")
    elif first.get("PhotometricInterpretation") == INVERTED:
        found.append("the least number is shown white (MONOCHROME1), but its values have units: not inverted")
    if is_packed_with_losses(first):
        found.append("its pixels were compressed with losses")
    return found


def _of_several(stack: Stack) -> list[str]:
    """Slices whose headers say that they are not of one scan; the patient is not named."""
    headers = list(dict.fromkeys(frame.header for frame in stack.frames))
    found = []
    for keyword, what in SAME.items():
        values = {str(value) for header in headers if (value := header.get(keyword)) is not None}
        if len(values) > 1:
            text = (
                f"its slices are of {len(values)} {what} by their headers; are they one scan's? Export the series again"
            )
            found.append(text)
    return found


def _wide(stack: Stack) -> list[str]:
    """Slices that lie two to four times as far apart as their headers say, as where every second one is missing."""
    said, step = stack.frames[0].between, stack.grid.spacing[2]
    if len(stack.frames) < 2 or not said:
        return []
    times = step / said
    if round(times) not in MISSING or abs(times - round(times)) > UNEVEN:
        return []
    return [
        f"its slices lie {step:.4g} mm apart and its header says {said:.4g} (SpacingBetweenSlices); are "
        "slices missing? Copy the series again"
    ]


def _continued(folder: Path, stack: Stack) -> list[str]:
    """Of the folders before and after it, by name, those that hold slices of the same series."""
    uid = stack.frames[0].header.get("SeriesInstanceUID")
    beside = sorted(each for each in folder.parent.iterdir() if each.is_dir() and not is_hidden(each))
    if not uid or folder not in beside:
        return []
    at = beside.index(folder)
    more = [each.name for each in (*beside[max(0, at - 1) : at], *beside[at + 1 : at + 2]) if series_of(each) == uid]
    if not more:
        return []
    return [
        f"slices of the same series lie in {listed(more)} beside it, so this is a part of a scan; put them into one "
        "folder"
    ]


def below(folder: Path) -> list[str]:
    """That a folder, of which only the files at the top are read, holds others with DICOM files, at any depth."""
    within = (each for each in folders_below(folder) if may_enter(each))
    found = [each for each in within if any(map(files.is_dicom, each.iterdir()))]
    if not found:
        return []
    shown = listed((each.relative_to(folder).as_posix() for each in found), 3)
    return [
        f"{counted(len(found), 'folder')} below it {'holds' if len(found) == 1 else 'hold'} DICOM files of their own "
        f"({shown}); is this the series that is meant? Give a folder of one series"
    ]


def _units(stack: Stack) -> list[str]:
    """CT whose numbers are not made to HU in one way, or are something else by their header."""
    first = stack.frames[0].header
    if first.get("Modality") != "CT":
        return []
    found = []
    if units := sorted({frame.unit for frame in stack.frames} - HOUNSFIELD):
        found.append(
            f"a CT whose values are in {listed(units)} by its header (RescaleType), not in HU; is it the right series?"
        )
    found += _padded(stack.frames[0])
    ways = Counter((frame.slope, frame.inter) for frame in stack.frames if frame.inter is not None)
    if len({inter for _, inter in ways}) > 1:
        said = listed((f"{inter:g} in {counted(many, 'slice')}" for (_, inter), many in ways.items()), 3)
        found.append(f"its RescaleIntercept differs between slices ({said}), which no CT does; export the series again")
    if any(slope is not None and slope < 0 for slope, _ in ways):
        found.append("its RescaleSlope is below 0, so that what is dense is low; is that so? Export the series again")
    return found


def _padded(frame: Frame) -> list[str]:
    """CT whose padding, a number below 0, is read as one of the highest."""
    number, signed = frame.header.get("PixelPaddingValue"), bool(frame.header.get("PixelRepresentation"))
    if not isinstance(number, int) or signed or number < 2**15 or number >= 2**16:
        return []
    value = number * (1.0 if frame.slope is None else frame.slope) + (frame.inter or 0.0)
    return [
        f"its padding (PixelPaddingValue {number}) counts as {value:g} HU, as if it were {number - 2**16} that is read "
        "without its sign; if pixels have it, export the series again"
    ]
