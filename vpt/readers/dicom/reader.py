"""DICOM series, multi-frame files and segmentations as scans and labels.

A series becomes one volume: slices in the order of their positions, values by slope and intercept, axes from
DICOM's world (left, back) to that of affines here (right, front). Nothing that names the patient leaves the header,
but into a DICOM segmentation of the same patient.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vpt.errors import VptError
from vpt.readers.base import Reader, Source
from vpt.readers.dicom import files
from vpt.readers.dicom.doubts import alone, below, decisions
from vpt.readers.dicom.files import Header, guarded, headers_in, holds_dicom, is_marked, mark_of_patient
from vpt.readers.dicom.labels import FRACTIONAL, joined, labels_on, own_grid
from vpt.readers.dicom.pixels import channel_of
from vpt.readers.dicom.radiograph import is_radiograph
from vpt.readers.dicom.segmentation import segmentation
from vpt.readers.dicom.series import ChosenSeries, Series, choose_series, group_series, left_out
from vpt.readers.dicom.stack import Stack, frames_of, stack_of
from vpt.readers.grid import Grid
from vpt.readers.labels import LabelMap
from vpt.readers.segments import Form, Naming
from vpt.readers.voxels import Voxels
from vpt.words import counted

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image


class DicomReader(Reader):
    """A folder or zip that holds one series (or of which one is chosen), a multi-frame file, a slice; several are
    channels. Headers are read once and kept, so that a mask can be made when the files are gone.
    """

    kind = "volumes"
    unit = "mm"
    endings = (*files.ENDINGS, ".zip")
    mask_endings = (".nii.gz", ".nii")

    @classmethod
    def claims(cls, sources: tuple[Source, ...]) -> bool:
        if len(sources) == 1 and hasattr(sources[0], "SOPClassUID"):
            return True
        return all(
            isinstance(source, ChosenSeries)
            or (isinstance(source, Path) and (source.is_dir() or cls.claims_name(source)))
            for source in sources
        )

    @classmethod
    def claims_name(cls, path: Path) -> bool:
        """By its ending, or its mark where no other format is called so; or a folder with DICOM files in it."""
        if path.name.startswith("."):
            return False
        return holds_dicom(path, is_radiograph) if path.is_dir() else super().claims_name(path) or is_marked(path)

    @classmethod
    def name_of(cls, source: Source) -> str:
        return str(source) if isinstance(source, Path | ChosenSeries) else "the DICOM object given"

    # --- what lies there ---

    @cached_property
    def _series(self) -> list[tuple[Series, list[str]]]:
        """The series of every channel, and what was left out for it."""
        return [self._chosen(source) for source in self.sources]

    def _chosen(self, source: Source) -> tuple[Series, list[str]]:
        if not isinstance(source, Path | ChosenSeries):
            raise VptError(f"{self.name}: a data set in memory, expected a path; give the folder of the series")
        name = self.name_of(source)
        with guarded(name):
            found, others = headers_in(Path(source))
            series = group_series(found)
            taken = choose_series(series, source.series if isinstance(source, ChosenSeries) else None, name)
            return taken, left_out(series, taken, others)

    @cached_property
    def _stacks(self) -> list[Stack]:
        stacks = []
        for source, (series, _) in zip(self.sources, self._series, strict=True):
            name = self.name_of(source)
            with guarded(name, "its slices cannot be placed"):
                stacks.append(stack_of([frame for each in series.headers for frame in frames_of(each)], name))
        return stacks

    @cached_property
    def _segmentation(self) -> Header | None:
        """The header of a segmentation, None where the source is a scan."""
        source = self.sources[0]
        if not isinstance(source, Path):
            is_seg = hasattr(source, "SOPClassUID") and source.get("Modality") == "SEG"
            return Header(files.DicomFile(Path(self.name)), source) if is_seg else None
        if source.is_dir() or source.name.lower().endswith(".zip"):
            return None
        with guarded(self.name):
            header = headers_in(source)[0][0]
            return header if header.get("Modality") == "SEG" else None

    # --- a scan ---

    def grid(self) -> Grid:
        if self._segmentation is not None:
            return self.label_grid()
        return self._stacks[0].grid

    def voxels(self, channels: int) -> Voxels:
        if self._segmentation is not None:
            raise VptError(f"{self.name}: a DICOM SEG, expected a scan; give the series that it was drawn on")
        if len(self._stacks) != channels:
            found = "one series" if len(self._stacks) == 1 else f"{len(self._stacks)} series"
            raise VptError(
                f"{self.name}: {found}, expected {counted(channels, 'channel')}; give one series per channel"
            )
        first = self.grid()
        for source, stack in zip(self.sources, self._stacks, strict=True):
            if not stack.grid.matches(first):
                raise VptError(
                    f"{self.name_of(source)}: not on the grid of {self.name}: {stack.grid.difference(first)}; resample "
                    "the channels of a case onto one grid"
                )
        names = [self.name_of(source) for source in self.sources]
        with guarded(self.name, "its values cannot be read"):
            return Voxels(tuple(map(channel_of, self._stacks, names)), first, self.name)

    def count_channels(self, exact: bool = True) -> int:
        return len(self.sources)

    def is_deep(self) -> bool:
        with guarded(self.name):
            return any(int(header.get("BitsStored") or 16) > 8 for header in self._series[0][0].headers)

    def doubts(self) -> list[str]:
        """What was left out, turned or resampled while reading."""
        if self._segmentation is not None:
            return []
        with guarded(self.name):
            found = [text for _, texts in self._series for text in texts]
            return found + [text for stack in self._stacks for text in decisions(stack)]

    def alone(self) -> list[str]:
        """What is said of a slice that was given by itself, where others lie beside it."""
        if self._segmentation is not None:
            return []
        return [text for each in zip(self.sources, self._stacks, strict=True) for text in alone(*each)]

    def below(self) -> list[str]:
        folders = (source for source in self.sources if isinstance(source, Path) and source.is_dir())
        return [text for folder in folders for text in below(folder)]

    def of_patient(self) -> str:
        return "" if self._segmentation is not None else mark_of_patient(self._stacks[0].frames[0].header)

    def label_doubts(self) -> list[str]:
        header = self._segmentation
        if header is None or header.get("SegmentationType") != FRACTIONAL:
            return []
        return ["probabilities (a SEG of type FRACTIONAL): a voxel is a segment's where they are half or more"]

    # --- labels and masks ---

    def label_grid(self) -> Grid:
        header = self._labels_header()
        with guarded(self.name, "its frames cannot be placed"):
            return own_grid(header)

    def labels(self) -> LabelMap:
        return self.labels_on(self.label_grid())

    def labels_on(self, grid: Grid) -> LabelMap:
        header = self._labels_header()
        with guarded(self.name, "its frames cannot be read"):
            return labels_on(header, grid, self.name)

    @property
    def leaves_slices_out(self) -> bool:
        return self._segmentation is not None

    def label_grid_beside(self, other: Grid) -> Grid:
        """The other, since frames are put wherever they lie; of another segmentation with this one's slices as well."""
        self._labels_header()
        if other.frame:
            with suppress(VptError):  # without a grid of its own its frames may lie on the other's all the same
                return joined(self.label_grid(), other)
        return other

    def _labels_header(self) -> Header:
        if self._segmentation is None:
            found = "a folder" if Path(self.name).is_dir() else "no DICOM SEG"
            raise VptError(
                f"{self.name}: {found}, expected a label map; give a DICOM SEG, .nii.gz or another label file"
            )
        return self._segmentation

    def mask(self, labels: np.ndarray) -> Nifti1Image:
        """A NIfTI on the grid of the scan, in mm, with nothing of its header but the place."""
        from nibabel.nifti1 import Nifti1Image

        affine = self.grid().affine
        made = Nifti1Image(labels, affine, dtype=labels.dtype)
        made.set_sform(affine, 1)
        made.set_qform(affine, 1)
        made.header.set_xyzt_units("mm")
        return made

    def endings_as(self, form: Form) -> tuple[str, ...]:
        return self.mask_endings if form == "own" else (".dcm",)

    def mask_as(self, form: Form, labels: np.ndarray, naming: Naming) -> Any:
        if form == "own":
            return self.mask(labels)
        return segmentation(self._stacks[0], labels, naming, form, self.name)

    @staticmethod
    def write_mask(path: Path, mask: Any) -> None:
        """A segmentation that `mask_as` gave."""
        with guarded(path, "the DICOM SEG could not be written"):
            mask.save_as(path, enforce_file_format=True)
