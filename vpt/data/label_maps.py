"""A case's label map, checked against its image and the labels of the data set."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from vpt.errors import VptError
from vpt.readers import Grid, LabelMap, reader_of
from vpt.readers.grid import by, some


def read_label(path: str | Path | None, labels: Collection[int], grid: Grid | None, image: str) -> LabelMap:
    """Label ids (X, Y, Z), uint8, int16 or int32 as the largest of `labels` needs, on the grid of their image.

    grid, image: where the image lies (None: not compared), and its name. Raises VptError for what a reader refuses,
    another grid, ids that are not in `labels`, values between ids, and for None, the label of a case that has none.
    """
    if path is None:
        raise VptError(f"{image}: no label belongs to it; add one, or leave the case out")
    reader = reader_of(path)
    found = reader.labels()
    if grid is not None and reader.unit == "px" and found.grid.shape != grid.shape:
        raise VptError(
            f"{path}: {_pixels(found.grid)} pixels, but {image} has {_pixels(grid)} (columns x rows); "
            "export the mask at the image's own size, or resize it with nearest neighbour"
        )
    if grid is not None and not found.grid.matches(grid):
        raise VptError(
            f"{path}: not on the grid of {image}: {found.grid.difference(grid)}; export the mask on the scan's own "
            "grid, or resample it with nearest neighbour"
        )
    if unknown := [id for id in found.ids if id not in labels]:
        raise VptError(
            f"{path}: label {some(unknown)} not in {some(sorted(labels))}; "
            "add it to `labels` in dataset.json, or correct the mask"
        )
    largest = max(labels)
    dtype = np.uint8 if largest < 2**8 else np.int16 if largest < 2**15 else np.int32
    return replace(found, array=found.array.astype(dtype))


def _pixels(grid: Grid) -> str:
    return by(grid.shape[:2])
