"""Volumes in two files: a header (.hdr) and its voxels (.img) beside it, as Analyze 7.5, SPM and NIfTI write them.

Analyze stores no orientation. Masks are single NIfTI files, which every program reads at the same place.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vpt.errors import VptError
from vpt.readers.base import Source
from vpt.readers.content import other_content
from vpt.readers.nifti import NiftiReader
from vpt.readers.nifti_header import loaded
from vpt.words import with_article

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

OTHER = {".hdr": ".img", ".img": ".hdr"}


class PairReader(NiftiReader):
    """The header's file stands for both; given by the file of its voxels, it is the same scan."""

    endings = (".hdr", ".img")

    @classmethod
    def claims(cls, sources: tuple[Source, ...]) -> bool:
        return all(isinstance(source, Path) for source in sources) and cls.claims_name(sources[0])

    @classmethod
    def is_part(cls, path: Path) -> bool:
        return path.suffix.lower() == ".img" and _other(path).is_file()

    def files(self) -> tuple[Path, ...]:
        return tuple(file for source in self.sources for file in (source, _other(source), source.with_suffix(".mat")))

    def _open(self, source: Source) -> Any:
        import nibabel

        for file, what in ((source, "scan"), (_other(source), f"other half of {source.name}")):
            if not file.is_file():
                raise other_content(source) or VptError(
                    f"{file}: no such file, expected the {what}; keep .hdr and .img of a scan together"
                )
        image = loaded(source)
        if not isinstance(image, nibabel.AnalyzeImage) or isinstance(image, nibabel.Nifti1Image):
            raise VptError(
                f"{source}: {with_article(type(image).__name__)}, expected Analyze or a NIfTI pair; convert it to "
                ".nii.gz"
            )
        return image

    def mask(self, labels: np.ndarray) -> Nifti1Image:
        """Labels as one NIfTI file at the scan's place; of the scan's header only its unit is kept."""
        from nibabel.nifti1 import Nifti1Image

        mask = Nifti1Image(labels, self._first.affine)
        if "xyzt_units" in self._first.header:
            mask.header["xyzt_units"] = self._first.header["xyzt_units"] & 0b111
        return mask


def _other(path: Path) -> Path:
    """The other file of the two, its ending written in the same case."""
    ending = OTHER[path.suffix.lower()]
    return path.with_suffix(ending.upper() if path.suffix.isupper() else ending)
