"""What comes beside a mask when it is asked for: probabilities of every label, a picture, how far to trust it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vpt.data.cases import case_name
from vpt.data.cropping import Part
from vpt.data.plan import scale
from vpt.errors import VptError
from vpt.files import make_folder
from vpt.machine.memory import in_gb, total_memory
from vpt.readers import Grid, LabelMap
from vpt.readers.grid import by, restore
from vpt.readers.nifti import write_steps
from vpt.report.cuts import LETTERS, NAMES, Letters
from vpt.scores.trust import Limits, Quality
from vpt.tasks.witness import Witness
from vpt.use.evaluation.paired_folders import PREVIEWS, PROBABILITIES
from vpt.use.inference import CPU
from vpt.use.prepared_scan import Keep, PreparedScan
from vpt.use.segmenter import Segmenter

STEPS = 255  # a probability is kept as a whole number of 255ths
SHARES = (0.25, 0.5, 0.75)  # of the labelled slices: those that a picture shows


@dataclass(frozen=True)
class Beside:
    """probabilities: `probabilities/NAME.nii.gz`; preview: `previews/NAME.png`, in the folder of the mask; quality: in
    the record of the folder, beside `limits` where there are some.
    """

    probabilities: bool = False
    preview: bool = False
    quality: bool = False
    limits: Limits | None = None

    def of(self, segmenter: Segmenter, scan: PreparedScan) -> Pending:
        answers = segmenter.answering(scan)
        kept = Probabilities.of(answers, scan) if self.probabilities else None
        return Pending(kept, self.preview, Witness(answers.labels) if self.quality else None)

    def holds(self, quality: Mapping[str, Any]) -> bool:
        """Whether a record has the quality that is asked for, by the same limits."""
        return not self.quality or (bool(quality) and quality.get("limits") == (self.limits and self.limits.mark))

    def files(self, mask: Path) -> list[Path]:
        """What lies beside a mask."""
        asked = ((self.probabilities, probabilities_file(mask)), (self.preview, preview_file(mask)))
        return [path for wanted, path in asked if wanted]


NOTHING = Beside()
EVERYTHING = Beside(probabilities=True, preview=True)


def probabilities_file(mask: Path) -> Path:
    return mask.parent / PROBABILITIES / f"{case_name(mask)}.nii.gz"


def preview_file(mask: Path) -> Path:
    return mask.parent / PREVIEWS / f"{case_name(mask)}.png"


@dataclass(eq=False)
class Probabilities:
    """Of every label, background first, in 255ths: (K, slices, rows, columns) of the part that a plan's crop leaves.

    Around it all is background. orientation: how the scan, whose own grid is `grid`, was turned before.
    """

    grid: Grid
    orientation: str
    part: Part
    found: np.ndarray

    @classmethod
    def of(cls, segmenter: Segmenter, scan: PreparedScan) -> Probabilities:
        """Raises VptError where they are more than the machine's memory."""
        count = len(segmenter.labels)
        if (need := count * prod(scan.grid.shape) * 2) > total_memory(CPU):
            raise VptError(
                f"{scan.reader.name}: probabilities of {count} labels on {by(scan.grid.shape)} voxels "
                f"take {in_gb(need)}, more than this machine has; leave --probabilities out for it"
            )
        found = np.zeros((count, *scan.oriented.shape), np.uint8)
        return cls(scan.grid, segmenter.plan.orientation, scan.part, found)

    def keep(self, place: int, probabilities: Tensor, members: Sequence[Tensor]) -> None:
        self.found[:, place] = (probabilities * STEPS).round().byte().cpu().numpy()

    def write(self, path: Path) -> None:
        absent = (STEPS - self.found[0], *self.found[1:])  # of the background, so that 0 is right around the part
        own = np.stack([restore(one, self.orientation, self.grid, self.part.box) for one in absent], axis=-1)
        own[..., 0] = STEPS - own[..., 0]
        write_steps(path, own, self.grid.affine, 1 / STEPS)


@dataclass(frozen=True, eq=False)
class Preview:
    """Three slices through what was found, or through the scan, on its own pixels.

    images, classes: (3, rows, columns); places: which slices of how many; names: of the classes; aspect: a pixel's
    height by its width; letters: where its sides lie in a patient; pixel_mm: its width, None of images.
    """

    images: np.ndarray
    classes: np.ndarray
    places: list[int]
    depth: int
    names: list[str]
    aspect: float
    letters: Letters | None
    pixel_mm: float | None

    @classmethod
    def of(cls, segmenter: Segmenter, scan: PreparedScan, labels: np.ndarray) -> Preview:
        """labels: ids (X, Y, Z) on the scan's own grid."""
        found = LabelMap(labels, tuple(segmenter.labels), scan.grid, scan.reader.name)
        turned = found.oriented(segmenter.plan.orientation).array
        filled = [k for k, one in enumerate(turned) if one.any()] or list(range(len(turned)))
        places = sorted({filled[round(share * (len(filled) - 1))] for share in SHARES})
        (low, high), native = scan.slices.limits[0], scan.whole.slices(0, places)
        images = np.stack([scale(image, low, high).copy() for image in native])
        classes = np.searchsorted(sorted(segmenter.labels), np.stack([turned[k] for k in places]))
        rows, columns = scan.oriented.spacing[1:]
        names = [name for _, name in sorted(segmenter.labels.items())]
        plan = segmenter.plan
        in_mm = plan.kind == "volumes"
        letters, pixel_mm = (LETTERS[NAMES.index(plan.plane)], columns) if in_mm else (None, None)
        return cls(images, classes, places, len(turned), names, rows / columns, letters, pixel_mm)

    def write(self, path: Path, title: str) -> None:
        from vpt.report.prediction import write_prediction

        of = (self.places, self.depth)
        shape = (self.aspect, self.letters, self.pixel_mm)
        write_prediction(path, self.images, self.classes, of, self.names, title, *shape)


@dataclass(eq=False)
class Pending:
    """What is gathered of one scan, to be written with its mask; nothing of the scan itself is held."""

    probabilities: Probabilities | None = None
    wants_preview: bool = False
    witness: Witness | None = None
    preview: Preview | None = None
    quality: Quality | None = None

    @property
    def keep(self) -> Keep | None:
        told: list[Keep] = [
            *([self.probabilities.keep] if self.probabilities else []),
            *([self.witness.see] if self.witness else []),
        ]

        def keep(place: int, probabilities: Tensor, members: Sequence[Tensor]) -> None:
            for each in told:
                each(place, probabilities, members)

        return keep if told else None

    def see(self, segmenter: Segmenter, scan: PreparedScan, labels: np.ndarray) -> None:
        if self.wants_preview:
            self.preview = Preview.of(segmenter, scan, labels)
        if self.witness:
            self.quality = self.witness.quality(segmenter.distance_of(scan))

    def write(self, mask: Path) -> None:
        if self.probabilities:
            self.probabilities.write(_made(probabilities_file(mask)))
        if self.preview:
            self.preview.write(_made(preview_file(mask)), case_name(mask))


def _made(path: Path) -> Path:
    make_folder(path.parent, "choose another output")
    return path
