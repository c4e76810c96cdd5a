"""What a segmenter is given of a scan, and how it tells what it found on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from vpt.data.cropping import Part
from vpt.data.plan import Plan
from vpt.data.slices.prepared import PreparedSlices
from vpt.readers import Grid, Reader, Voxels
from vpt.use.inference import require_usual, warn_of_field

Keep = Callable[[int, Tensor, Sequence[Tensor]], None]
"""Told of each slice of the prepared part, by its number, the probabilities (K, rows, columns) on the scan's pixels,
and those of each model whose mean they are; all may be told again, from the first one on."""


@dataclass(frozen=True, eq=False)
class PreparedScan:
    """A scan whose slices are made when they are asked for.

    grid: the scan's own; whole: its voxels, turned as the plan orients them; part: what of these the plan's crop
    leaves, which the slices are of; oriented: where that lies; warned: what was said of its values, where they do not
    look like those of the training and were taken all the same; task: of a model of several, the one that it is for.
    """

    slices: PreparedSlices
    grid: Grid
    whole: Voxels
    part: Part
    oriented: Grid
    reader: Reader
    warned: tuple[str, ...] = ()
    task: str = ""

    def judged_by(self, plan: Plan, force: bool) -> tuple[str, ...]:
        """What is said of it for another model, whose plan would have prepared it alike -> the warnings.

        Raises VptError where the model is not for such scans, see `require_usual`.
        """
        usual = require_usual(plan, self.reader.name, self.whole, force)
        return (*usual, *warn_of_field(plan, self.reader.name, self.whole.grid, self.part))
