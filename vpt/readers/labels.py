"""Label maps: an id for every voxel, and where the voxels lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vpt.readers.grid import Grid


@dataclass(frozen=True, eq=False)
class LabelMap:
    """Label ids (X, Y, Z), integers; the ids that occur, sorted; where they lie, and the name to call it by."""

    array: np.ndarray
    ids: tuple[int, ...]
    grid: Grid
    name: str

    def oriented(self, axcodes: str) -> LabelMap:
        """The same labels with axes nearest to `axcodes`, as a view: turned as `Voxels.oriented` turns the scan."""
        from nibabel.orientations import apply_orientation

        turn, grid = self.grid.turned(axcodes)
        return LabelMap(apply_orientation(self.array, turn), self.ids, grid, self.name)
