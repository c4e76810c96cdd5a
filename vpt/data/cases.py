"""Cases by their files' names: channels that belong together; what a data set is.

Only names are read here, never voxels (`vpt.readers` does that).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from vpt.data.label_values import LabelValues
from vpt.data.patients import Patients
from vpt.errors import VptError
from vpt.files import is_text
from vpt.readers import (
    ChosenSeries,
    Code,
    ColourMask,
    Kind,
    LabelFiles,
    Relabelled,
    endings,
    format_of,
    is_part,
)
from vpt.vocabulary import LARGEST_IN_PNG
from vpt.words import did_you_mean

LONGEST_NAME = 200  # bytes of a case's name, to which endings are added
UNSEEN = ("Cc", "Zl", "Zp")  # Unicode's categories of control characters and of what ends a line
TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")  # what makes text run the other way


@dataclass(frozen=True)
class Case:
    """One patient's scan: a path per channel (the folder of a DICOM series), or one path (4-D, channels last).

    series: which one is meant of several in a folder or zip, as `ChosenSeries` says it.
    label: None where there is none; a `ColourMask` where its data set's masks are read by their colours, `LabelFiles`
    where every label has a file of its own, and `Relabelled` where its values stand for other ids.
    annotated: the ids of the labels that somebody has looked for in it; None: all.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | ColourMask | LabelFiles | Relabelled | None
    series: str | None = None
    annotated: frozenset[int] | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All that it is read from."""
        if self.label is None:
            return self.images
        return self.images + ((self.label,) if isinstance(self.label, Path) else self.label.files)

    @property
    def scan(self) -> tuple[Path | ChosenSeries, ...]:
        """What `vpt.readers.reader_of` is given."""
        return self.images if self.series is None else tuple(ChosenSeries(path, self.series) for path in self.images)


class Named(Protocol):
    @property
    def name(self) -> str: ...


C = TypeVar("C", bound=Named)


class Cases(Generic[C]):
    """What every kind of data set has: cases by name, each of one patient."""

    root: Path
    cases: tuple[C, ...]
    patients: dict[str, str]
    columns: dict[str, dict[str, str]]
    check: str

    def patient(self, name: str) -> str:
        """Whose scan a case is, see `Patients`."""
        return self.whose.of(name)

    @cached_property
    def whose(self) -> Patients:
        return Patients((case.name for case in self.cases), self.patients, self._stems())

    def _stems(self) -> dict[str, str]:
        """The stems of names that hold more than a case's own name."""
        return {}

    def case(self, name: str) -> C:
        if name not in self._by_name:
            raise VptError(f"{self.root}: no case is called {name!r}{did_you_mean(name, self._by_name)}")
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, C]:
        return {case.name: case for case in self.cases}


@dataclass(frozen=True)
class SegmentationSet(Cases[Case]):
    """What dataset.json and the folders say.

    root: the folder that may hold split.json; labels: id -> name, sorted, 0 is the background; patients, sides: case ->
    patient, and train, val or test, where something says so; kind: what the cases' files are; source: the file that
    lists the cases, or the folder; guess: what was taken from the files' names alone, in words; codes: of labels by
    name, for DICOM segmentations; label_values: what the files' values stand for, None where each is a label's id;
    columns: of a list, column -> case -> what else it says; stems: case -> the folder of its patient, as guessed;
    check: the command that lists what is wrong with it.
    """

    root: Path
    name: str
    channels: tuple[str, ...]
    labels: dict[int, str]
    cases: tuple[Case, ...]
    patients: dict[str, str] = field(default_factory=dict)
    kind: Kind = "volumes"
    sides: dict[str, str] = field(default_factory=dict)
    source: Path = Path()
    guess: str = ""
    codes: dict[str, Code] = field(default_factory=dict)
    label_values: LabelValues | None = None
    columns: dict[str, dict[str, str]] = field(default_factory=dict)
    stems: dict[str, str] = field(default_factory=dict)
    check: str = field(default="", compare=False)

    def _stems(self) -> dict[str, str]:
        return self.stems

    @property
    def is_partly_annotated(self) -> bool:
        """Whether there are cases in which nobody has looked for some of the labels."""
        return any(case.annotated is not None for case in self.cases)

    @property
    def element(self) -> str:
        """What its masks are made of."""
        return "voxel" if self.kind == "volumes" else "pixel"

    @property
    def ignores(self) -> bool:
        """Whether some voxels count neither in the loss nor in scores."""
        return self.label_values is not None and self.label_values.ignored is not None


def require_plain_names(dataset: SegmentationSet) -> None:
    """Refuse a case whose name is no file's, since masks and pictures are called by it and must not leave their folder.

    Raises:
        VptError: an empty name, one that leads into another folder, one that is too long or cannot be seen.
    """
    for case in dataset.cases:
        name = case.name
        if name in ("", ".", ".."):
            what = "is no name of a file"
        elif "/" in name or "\\" in name:
            what = "leads into another folder"
        else:
            what = unfit_name(name)
        if what:
            raise VptError(
                f"{dataset.source if dataset.source.name else dataset.root}: the case {name[:80]!r} {what}; rename it"
            )


def unwritable(dataset: SegmentationSet) -> str:
    """What keeps masks from being written with the set's labels, as a sentence; "" where nothing does."""
    if dataset.kind != "images" or (largest := max(dataset.labels, default=0)) <= LARGEST_IN_PNG:
        return ""
    return (
        f"label {largest}, but masks of images are written as PNGs, which hold ids up to {LARGEST_IN_PNG}; give the "
        "labels smaller ids"
    )


def unfit_name(name: str) -> str:
    """What keeps answers, records and pages from being called by a scan's name or path; "" where nothing does."""
    if not is_text(name):
        return "is not UTF-8"
    if any(unicodedata.category(letter) in UNSEEN for letter in name):
        return "holds characters that control a terminal or end a line"
    if any(unicodedata.bidirectional(letter) in TURNING for letter in name):
        return "holds characters that turn its letters round, so that it reads as another"
    size = max(len(part.encode()) for part in name.split("/"))
    return f"is of {size} bytes, expected {LONGEST_NAME} at most" if size > LONGEST_NAME else ""


def case_name(path: str | Path | ColourMask | LabelFiles | Relabelled) -> str:
    """The file's name without the ending of a scan (.nii.gz, .png, ...)."""
    name = unicodedata.normalize("NFC", Path(path).name)  # macOS writes an umlaut as two characters
    return next((name[: -len(ending)] for ending in endings() if name.lower().endswith(ending)), name)


def without_ending(path: str | Path) -> str:
    """A relative path as a name: `Faces/image_0025.jpg` -> `Faces/image_0025`."""
    return (Path(path).parent / case_name(path)).as_posix()


def as_case(name: str, known: Collection[str]) -> str:
    """A case's name, also where the file's ending is written behind it (`benign_003.png`, `Faces/image_0025.jpg`)."""
    return next((each for each in (name, without_ending(name), case_name(name)) if each in known), name)


def kind_of(path: Path) -> Kind | None:
    """What a scan is by its file's name; None for what is no scan, and for hidden files."""
    found = format_of(path)
    return found.kind if found else None


# --- channels and files -----------------------------------------------------------------------------------------------


def group_channels(files: Iterable[Path], channels: int) -> tuple[dict[str, tuple[Path, ...]], list[VptError]]:
    """Case name -> its channel files in order, and what is wrong: a channel missing or left over, a name used twice."""
    numbered: dict[str, dict[int, Path]] = {}
    found: list[tuple[str, tuple[Path, ...]]] = []
    problems: list[VptError] = []
    twice = "{}: the second scan called {}; keep one of the two or rename it"
    for path in files:
        suffix = channel_suffix(path)
        group = numbered.setdefault(without_suffix(path), {}) if suffix else {}
        if not suffix:
            found.append((case_name(path), (path,)))
        elif int(suffix) in group:
            problems.append(VptError(twice.format(path, case_name(path))))
        else:
            group[int(suffix)] = path
    for stem, group in numbered.items():
        paths = tuple(group[number] for number in sorted(group))
        if sorted(group) == list(range(channels)):
            found.append((stem, paths))
        elif channels == 1 or (len(group) == 1 and min(group) >= channels):
            found += [(case_name(path), (path,)) for path in paths]
        else:
            have, want = (" ".join(f"{number:04d}" for number in numbers) for numbers in (group, range(channels)))
            problems.append(
                VptError(f"{paths[0]}: {stem} has the channel files {have}, expected {want}; complete or rename them")
            )
    cases: dict[str, tuple[Path, ...]] = {}
    for name, paths in found:
        if name in cases:
            problems.append(VptError(twice.format(paths[0], name)))
        cases.setdefault(name, paths)
    return cases, problems


def channel_suffix(path: Path) -> str:
    """The four digits of CASE_0001.nii.gz, or an empty string."""
    if (of := format_of(path)) and not of.numbered:
        return ""
    match = re.search(r"_(\d{4})$", case_name(path))
    return match.group(1) if match else ""


def without_suffix(path: Path) -> str:
    return case_name(path).removesuffix(f"_{suffix}" if (suffix := channel_suffix(path)) else "")


def scan_files(folder: Path, kind: Kind | None = None) -> list[Path]:
    """The scans in a folder, or those of one kind, sorted by name; [] when there is no such folder."""
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if _is_scan(path, kind))
    return sorted(found, key=lambda path: path.name)


def holds_scan(folder: Path, kind: Kind | None = None) -> bool:
    """Whether `scan_files` finds any."""
    return folder.is_dir() and any(_is_scan(path, kind) for path in folder.iterdir())


def _is_scan(path: Path, kind: Kind | None) -> bool:
    found = kind_of(path)
    return found is not None and kind in (None, found) and not is_part(path)


def channel_files(image: Path, channels: int) -> tuple[Path, ...]:
    """The files behind a listed image: itself, or (nnU-Net's way) CASE_0000, CASE_0001, ...; () when there are none."""
    if channel_suffix(image) not in ("", "0000"):
        return (image,) if image.exists() else ()
    stem, ending = without_suffix(image), image.name[len(case_name(image)) :]
    numbered = tuple(image.with_name(f"{stem}_{channel:04d}{ending}") for channel in range(channels))
    if (channels > 1 or not image.exists()) and all(path.exists() for path in numbered):
        return numbered
    return (image,) if image.exists() else ()


# --- helpers ----------------------------------------------------------------------------------------------------------


def raise_first(problems: list[VptError], rest: str) -> None:
    """Raise the first of the problems, if any, with their number; `rest` says where to see the others."""
    if problems:
        more = f" ({len(problems) - 1} more of this kind; {rest})" if len(problems) > 1 else ""
        raise VptError(f"{problems[0]}{more}")
