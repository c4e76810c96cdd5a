"""Label maps: an id for every voxel, and where the voxels lie."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vpt.readers.grid import Grid


@dataclass(frozen=True, eq=False)
class LabelMap:
    """Label ids (X, Y, Z), integers; the ids that occur, sorted; where they lie, and the name to call it by.

    ignored: the id of voxels that do not count; stored: the values that the file has, where ids stand for others;
    names: what the file itself calls an id, of those that it names.
    """

    array: np.ndarray
    ids: tuple[int, ...]
    grid: Grid
    name: str
    ignored: int | None = None
    stored: tuple[int, ...] | None = None
    names: tuple[tuple[int, str], ...] = ()

    def oriented(self, axcodes: str) -> LabelMap:
        """The same labels with axes nearest to `axcodes`, as a view: turned as `Voxels.oriented` turns the scan."""
        from nibabel.orientations import apply_orientation

        turn, grid = self.grid.turned(axcodes)
        return replace(self, array=apply_orientation(self.array, turn), grid=grid)

    def laid_as(self, grid: Grid) -> LabelMap:
        """The same labels with their axes in the order of that grid, where it has the same voxels; else as they are.

        Programs write a label map with other axes than its scan (RAS, LPS); its affine says which voxel is which.
        """
        from nibabel.orientations import apply_orientation

        if self.grid.matches(grid) or (turn := self.grid.turn_to(grid)) is None:
            return self
        return replace(self, array=np.ascontiguousarray(apply_orientation(self.array, turn)), grid=grid)

    def cropped(self, box: tuple[slice, slice, slice]) -> LabelMap:
        """The labels in a box, as a view; `ids` are still those of all."""
        return replace(self, array=self.array[box], grid=self.grid.cropped(box))

    @property
    def counted(self) -> np.ndarray:
        """The ids, in which what is ignored is background."""
        if self.ignored is None:
            return self.array
        return np.where(self.array == self.ignored, self.array.dtype.type(0), self.array)
