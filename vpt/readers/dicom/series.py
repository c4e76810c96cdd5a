"""Which series lie in a folder, and which of them is the scan."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vpt.errors import VptError
from vpt.readers.dicom.files import Header
from vpt.readers.dicom.kinds import is_localizer
from vpt.words import counted, listed

LARGEST = "largest"
TURNED = 0.01  # of direction cosines, from which on slices have another direction
ODD = "of which lie in another direction, or say none:"
FRAMES = "frames without places"
SPLIT = re.compile(r"[\s^=,_]+")  # between the parts of a patient's name


@dataclass(frozen=True)
class ChosenSeries:
    """A folder or zip of several series, and which is meant: its number, its description, or `largest`."""

    path: Path
    series: str

    @property
    def name(self) -> str:
        return self.path.name

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, eq=False)
class Series:
    """Files of one series; kind: "volume", or what it is instead, in words."""

    headers: tuple[Header, ...]
    kind: str

    @property
    def uid(self) -> str:
        return str(self.headers[0].get("SeriesInstanceUID") or "")

    @property
    def number(self) -> str:
        return str(self.headers[0].get("SeriesNumber") or "")

    @property
    def description(self) -> str:
        """The description as it is written, but for what names the patient."""
        header = self.headers[0]
        text = " ".join(str(header.get("SeriesDescription") or "").split())
        said = f"{header.get('PatientName') or ''} {header.get('PatientID') or ''}"
        for part in sorted(SPLIT.split(said), key=len, reverse=True):
            if len(part) > 2:
                text = re.sub(re.escape(part), "***", text, flags=re.IGNORECASE)
        return text

    @property
    def slices(self) -> int:
        return sum(int(header.get("NumberOfFrames") or 1) for header in self.headers)

    @property
    def voxels(self) -> int:
        first = self.headers[0]
        return self.slices * int(first.get("Rows") or 0) * int(first.get("Columns") or 0)

    def __str__(self) -> str:
        """ "2 'CT thorax' (CT, 120 slices)"."""
        modality = self.headers[0].get("Modality") or "no modality"
        slices = counted(self.slices, "slice")
        what = slices if self.kind == "volume" else f"{self.kind}, {slices}" if self.voxels else self.kind
        return f"{self.number or 'without number'} {self.description!r} ({modality}, {what})"


def group_series(headers: Sequence[Header]) -> list[Series]:
    """The series of some files, by their numbers; localizer images among the slices of one are one of their own."""
    groups: dict[tuple[str, str, bool], list[Header]] = {}
    for header in headers:
        one = str(header.get("SeriesInstanceUID")), str(header.get("Modality")), is_localizer(header)
        groups.setdefault(one, []).append(header)
    found = [Series(tuple(group), _kind(group)) for group in groups.values()]
    return sorted(found, key=lambda each: (each.number.zfill(9), each.uid))


def _kind(group: Sequence[Header]) -> str:
    first = group[0]
    if first.get("Modality") == "SEG":
        return "a segmentation"
    if first.get("Rows") is None:
        return "no image"
    if is_localizer(first):
        return "localizer"
    if any(int(header.get("NumberOfFrames") or 1) > 1 and not _has_planes(header) for header in group):
        return FRAMES
    if all(header.get("ImagePositionPatient") is None and not _has_planes(header) for header in group):
        return "no place in space"
    turns = _turns(group)
    if len(turns) == 1:
        return "volume"
    most = max(turns, key=len)
    if 2 * len(most) <= len(group):
        return f"slices in {len(turns)} directions"
    odd = [header.file.name for header in group if not any(header is each for each in most)]
    return f"slices {ODD} {listed(odd, 3)}"


def _turns(group: Sequence[Header]) -> list[list[Header]]:
    """Slices by their direction, which headers round."""
    found: list[tuple[np.ndarray, list[Header]]] = []
    for header in group:
        turn = np.array([float(part) for part in header.get("ImageOrientationPatient") or ()])
        alike = (each for first, each in found if len(first) == len(turn) and (np.abs(first - turn) <= TURNED).all())
        if (known := next(alike, None)) is not None:
            known.append(header)
        else:
            found.append((turn, [header]))
    return [each for _, each in found]


def _has_planes(header: Header) -> bool:
    groups = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
    return any(item.get("PlanePositionSequence") for key in groups for item in header.data.get(key) or [])


def choose_series(found: Sequence[Series], wanted: str | None, name: str) -> Series:
    """The one volume, or the one that is wanted; several, and none, are refused with the list."""
    volumes = [series for series in found if series.kind == "volume"]
    if wanted is not None:
        return _wanted(found, volumes, wanted, name)
    if len(volumes) > 1:
        raise VptError(
            f"{name}: {len(volumes)} series, expected one: {_list(found)}; choose one with --series NUMBER, "
            "--series DESCRIPTION or --series largest"
        )
    if not volumes:
        mends = {ODD: "take these out, or ", FRAMES: "export the frames as pictures if it is a film, or "}
        mend = next((mend for what, mend in mends.items() if any(what in each.kind for each in found)), "")
        raise VptError(
            f"{name}: no series of slices in it, only {_list(found)}; {mend}give the folder of the scan itself"
        )
    return volumes[0]


def _wanted(found: Sequence[Series], volumes: Sequence[Series], wanted: str, name: str) -> Series:
    if wanted.casefold() == LARGEST and volumes:
        return max(volumes, key=lambda series: series.voxels)
    asked = wanted.strip().casefold()
    fitting = [series for series in found if asked in (series.number, series.description.casefold(), series.uid)]
    fitting = fitting or [series for series in found if asked in series.description.casefold()]
    slices = [series for series in fitting if series.kind == "volume"] or fitting
    if len(slices) == 1 and slices[0].kind == "volume":
        return slices[0]
    what = f"{len(slices)} series fit" if slices else "no series fits"
    what = f"the series is no volume ({slices[0].kind}) that fits" if len(slices) == 1 else what
    raise VptError(f"{name}: {what} --series {wanted}; there are {_list(found)}; give the number of one, or `largest`")


def left_out(found: Sequence[Series], taken: Series, others: int) -> list[str]:
    """What of a folder is not read, as sentences; others: files that are no DICOM."""
    rest = [series for series in found if series is not taken]
    sentences = []
    if rest:
        sentences.append(f"series {taken} is read, not {_list(rest)}")
    if others:
        sentences.append(f"{counted(others, 'file')} beside the series that {'is' if others == 1 else 'are'} no DICOM")
    return sentences


def _list(series: Sequence[Series]) -> str:
    return listed([str(each) for each in series], 12)
